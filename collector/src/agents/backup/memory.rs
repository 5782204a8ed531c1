//! The memory that packs and snapshots may take while they arrive: all of what one needs is had before a byte of it is read.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::agents::problem::Refusal;
use crate::agents::service::unread;
use crate::http::body::{self, BodyError, MinRate, Paced};

/// Who waits for longer is told to come again.
const WAIT: Duration = Duration::from_secs(5);
/// Memory is held while a body comes: one that is slower is given up.
const RATE: MinRate = MinRate {
    bytes_per_s: 64 * 1024,
    after: Duration::from_secs(10),
};
/// What is counted.
const UNIT: usize = 1024;

/// So many bytes for all together.
#[derive(Clone, Debug)]
pub struct Memory {
    units: Arc<Semaphore>,
    all: u32,
}

impl Memory {
    /// Of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let all = u32::try_from(bytes / UNIT as u64).unwrap_or(u32::MAX);
        Self {
            units: Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(usize::MAX))),
            all,
        }
    }

    /// How much nobody has.
    pub fn free_bytes(&self) -> usize {
        self.units.available_permits() * UNIT
    }

    /// Room for a body, and so many times as much to work with it, until the answer is dropped. Without it, `body` is
    /// passed over.
    pub async fn room(
        &self,
        size: usize,
        times: usize,
        body: Incoming,
    ) -> Result<(OwnedSemaphorePermit, Incoming), Refusal> {
        let units = size.saturating_mul(times).div_ceil(UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX).min(self.all);
        let turn = Arc::clone(&self.units).acquire_many_owned(units);
        if let Ok(Ok(permit)) = tokio::time::timeout(WAIT, turn).await {
            return Ok((permit, body));
        }
        body::discard(body).await;
        let detail = "as much as may be is arriving already (backups.pack_memory_bytes)";
        Err(Refusal::unavailable(detail, rand::random_range(2..=15)))
    }
}

/// Reads a body of exactly `size` bytes, and its BLAKE3 while it comes.
pub(super) async fn receive(body: Incoming, size: usize) -> Result<(Bytes, blake3::Hash), Refusal> {
    let mut body = Paced::new(body, RATE);
    let mut bytes = BytesMut::with_capacity(size);
    let mut hasher = blake3::Hasher::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(unread)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > size {
            return Err(unread(BodyError::TooLarge { limit: size }));
        }
        hasher.update(&data);
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.freeze(), hasher.finalize()))
}
