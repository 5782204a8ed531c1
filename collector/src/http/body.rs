//! Reading a request's body: at most so long, at least so fast.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::time::Instant;

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

/// Reads a body of at most `limit` bytes.
pub async fn read<B>(mut body: B, limit: usize, rate: MinRate) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    if body.size_hint().lower() > limit as u64 {
        discard(body).await;
        return Err(BodyError::TooLarge { limit });
    }
    let started = Instant::now();
    let mut read = BytesMut::new();
    loop {
        // The instant by which the next byte must be here for the average to hold.
        let earned = Duration::from_secs(read.len() as u64 / rate.bytes_per_s.max(1));
        let deadline = started + rate.after.max(earned + Duration::from_secs(1));
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(Some(frame)) => frame.map_err(BodyError::Gone)?,
            Ok(None) => return Ok(read.freeze()),
            Err(_) => return Err(BodyError::TooSlow { rate }),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if read.len() + data.len() > limit {
            discard(body).await;
            return Err(BodyError::TooLarge { limit });
        }
        if read.is_empty() && body.is_end_stream() {
            // The usual one is here at once: it stays where it was read to.
            return Ok(data);
        }
        read.extend_from_slice(&data);
    }
}

/// Reads on for a moment: a sender that is cut off while it writes never reads why.
async fn discard<B>(mut body: B)
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
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
