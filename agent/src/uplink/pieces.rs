//! A request's body that comes in pieces from somewhere else, as fast as that gives them. Its length is known before, so that a
//! body that was given up is never taken for a whole one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// The body.
#[derive(Debug)]
pub struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Pieces {
    /// One piece waits while another is sent.
    pub(super) fn new(length: u64) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = mpsc::channel(1);
        let left = length;
        (sender, Self { pieces, left })
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| {
            let left = piece
                .as_ref()
                .and_then(|piece| self.left.checked_sub(piece.len() as u64));
            let (Some(piece), Some(left)) = (piece, left) else {
                return Some(Err(io::Error::other("what was to be sent was given up")));
            };
            self.left = left;
            Some(Ok(Frame::data(piece)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
