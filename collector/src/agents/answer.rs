//! The body of an answer: frames that are ready, then commands and what is stored late as they come up, then the end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use infratrack_shared::wire::answer::{self, Ack};
use infratrack_shared::wire::frame;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::agents::commands::Held;

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
}

impl AnswerBody {
    /// A body of known length.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
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
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
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
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Open { .. } => SizeHint::default(),
        }
    }
}

fn encoded(ack: Ack) -> Option<Bytes> {
    frame::encode(&answer::Frame::from(ack))
        .ok()
        .map(Bytes::from)
}
