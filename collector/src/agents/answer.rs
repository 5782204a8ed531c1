//! The body of an answer: frames that are ready, then commands and what is stored late as they come up, then the end. Or
//! an object as it is read from its store.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use infratrack_shared::wire::answer::{self, Ack};
use infratrack_shared::wire::frame;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::agents::commands::Held;
use crate::blob::{self, Blob};

/// An object is read by its host within this, and what its size takes.
const READ: Duration = Duration::from_secs(60);
/// At least so fast, in bytes a second.
const READ_RATE: u64 = 64 * 1024;

/// Either all of it at once, or held open for what comes up.
#[derive(Debug)]
pub enum AnswerBody {
    /// Everything there is; hyper sends it with a Content-Length.
    Whole(Option<Bytes>),
    /// The first frames, then those that come, until `end` or until none can come.
    Open {
        first: Option<Bytes>,
        /// Commands.
        held: Option<Held>,
        /// The Ack of what takes longer to store.
        late: Option<oneshot::Receiver<Ack>>,
        end: Pin<Box<Sleep>>,
    },
    /// What is in an object. Where it breaks off, the connection ends.
    Object(Box<Object>),
}

/// An object on its way out.
pub struct Object {
    body: blob::Body,
    left: u64,
    /// Nobody reads for ever.
    end: Pin<Box<Sleep>>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} bytes left)", self.left)
    }
}

impl AnswerBody {
    /// A body of known length.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }

    /// What is read of an object.
    pub fn object(blob: Blob) -> Self {
        let time = READ + Duration::from_secs(blob.size_bytes / READ_RATE);
        Self::Object(Box::new(Object {
            body: blob.body,
            left: blob.size_bytes,
            end: Box::pin(tokio::time::sleep(time)),
        }))
    }

    /// A body that stays open for `wait`, or until neither can send any more.
    pub fn open(
        first: Bytes,
        held: Option<Held>,
        late: Option<oneshot::Receiver<Ack>>,
        wait: Duration,
    ) -> Self {
        Self::Open {
            first: Some(first),
            held,
            late,
            end: Box::pin(tokio::time::sleep(wait)),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Object(object) => object.poll(context),
            Self::Open {
                first,
                held,
                late,
                end,
            } => {
                if let Some(first) = first.take() {
                    return Poll::Ready(Some(Ok(Frame::data(first))));
                }
                if let Some(Poll::Ready(ack)) =
                    late.as_mut().map(|late| Pin::new(late).poll(context))
                {
                    *late = None;
                    if let Some(bytes) = ack.ok().and_then(encoded) {
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                }
                match (held, &late) {
                    (Some(held), _) => {
                        if let Poll::Ready(next) = held.frames().poll_recv(context) {
                            return Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))));
                        }
                    }
                    (None, None) => return Poll::Ready(None),
                    (None, Some(_)) => {}
                }
                end.as_mut().poll(context).map(|()| None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Object(object) => object.left == 0,
            Self::Open { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Object(object) => SizeHint::with_exact(object.left),
            Self::Open { .. } => SizeHint::default(),
        }
    }
}

impl Object {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let chunk = ready!(self.body.as_mut().poll_next(context));
        let chunk = chunk.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
        Poll::Ready(Some(chunk.and_then(|chunk| {
            let left = self.left.checked_sub(chunk.len() as u64);
            self.left = left.ok_or(io::ErrorKind::InvalidData)?;
            Ok(Frame::data(chunk))
        })))
    }
}

fn encoded(ack: Ack) -> Option<Bytes> {
    frame::encode(&answer::Frame::from(ack))
        .ok()
        .map(Bytes::from)
}
