//! The body of an answer: frames that are ready, then commands as they come up, then the end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::agents::commands::Held;

/// Either all of it at once, or held open for what comes up.
#[derive(Debug)]
pub enum AnswerBody {
    /// Everything there is; hyper sends it with a Content-Length.
    Whole(Option<Bytes>),
    /// The first frames, then those from `held` until `end` or until `held` closes.
    Held {
        first: Option<Bytes>,
        held: Held,
        end: Pin<Box<Sleep>>,
    },
}

impl AnswerBody {
    /// A body of known length.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }

    /// A body that is held for `wait`.
    pub fn held(first: Bytes, held: Held, wait: Duration) -> Self {
        Self::Held {
            first: Some(first),
            held,
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
            Self::Held { first, held, end } => {
                if let Some(first) = first.take() {
                    return Poll::Ready(Some(Ok(Frame::data(first))));
                }
                let frames: &mut mpsc::Receiver<Bytes> = held.frames();
                if let Poll::Ready(next) = frames.poll_recv(context) {
                    return Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))));
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
            Self::Held { .. } => SizeHint::default(),
        }
    }
}
