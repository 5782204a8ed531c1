//! Reading a request's body: at most so long, at least so fast.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};

/// Of a body that is too long, this much is still read, for so long.
const DISCARD_BYTES: usize = 1024 * 1024;
const DISCARD: Duration = Duration::from_secs(2);

/// A body that comes more slowly than this is given up.
#[derive(Clone, Copy, Debug)]
pub struct MinRate {
    pub bytes_per_s: u64,
    /// From when on it counts.
    pub after: Duration,
}

impl Default for MinRate {
    fn default() -> Self {
        Self {
            bytes_per_s: 1024,
            after: Duration::from_secs(10),
        }
    }
}

/// Why a body was not read to its end.
#[derive(Debug, Error)]
pub enum BodyError {
    #[error("the body is over the limit of {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body came more slowly than {} bytes/s", rate.bytes_per_s)]
    TooSlow { rate: MinRate },
    #[error("the body ended early")]
    Gone(#[source] hyper::Error),
}

/// A body that fails where it comes too slowly.
pub struct Paced<B> {
    body: B,
    rate: MinRate,
    started: Instant,
    bytes: u64,
    /// There once something had to be waited for.
    deadline: Option<Pin<Box<Sleep>>>,
    too_slow: Option<Arc<AtomicBool>>,
}

impl<B> Paced<B> {
    pub fn new(body: B, rate: MinRate) -> Self {
        Self {
            body,
            rate,
            started: Instant::now(),
            bytes: 0,
            deadline: None,
            too_slow: None,
        }
    }

    /// Whether it was too slow, for who answers and does not read it.
    pub fn too_slow(&mut self) -> Arc<AtomicBool> {
        Arc::clone(self.too_slow.get_or_insert_default())
    }

    /// The instant by which the next byte must be here for the average to hold.
    fn deadline(&self) -> Instant {
        let earned = Duration::from_secs(self.bytes / self.rate.bytes_per_s.max(1));
        self.started + self.rate.after.max(earned + Duration::from_secs(1))
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Gone)));
        }
        let until = self.deadline();
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if deadline.deadline() != until {
            deadline.as_mut().reset(until);
        }
        ready!(deadline.as_mut().poll(context));
        if let Some(too_slow) = &self.too_slow {
            too_slow.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Err(BodyError::TooSlow { rate: self.rate })))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads a body of at most `limit` bytes.
pub async fn read<B>(body: B, limit: usize, rate: MinRate) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let mut body = Paced::new(body, rate);
    if body.size_hint().lower() > limit as u64 {
        // Boxed: a future is as large as its largest part, and this one is rare.
        Box::pin(discard(body)).await;
        return Err(BodyError::TooLarge { limit });
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if read.len() + data.len() > limit {
            Box::pin(discard(body)).await;
            return Err(BodyError::TooLarge { limit });
        }
        if read.is_empty() && body.is_end_stream() {
            // The usual one is here at once: it stays where it was read to.
            return Ok(data);
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

/// Reads on for a moment: a sender that is cut off while it writes never reads why.
pub async fn discard<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
{
    let read = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    tokio::time::timeout(DISCARD, read).await.ok();
}
