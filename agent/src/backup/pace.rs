//! How fast bytes leave: no faster than the volume's bandwidth, and not at all while the run is paused.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::control::Control;

/// What leaves at once.
const PIECE_BYTES: usize = 64 * 1024;
/// A collector that takes nothing for so long is gone.
const STALL: Duration = Duration::from_secs(30);

/// For all connections of a run together.
#[derive(Clone, Debug)]
pub struct Pace {
    control: Arc<Control>,
    rate: Option<NonZeroU64>,
    /// When the next byte may leave.
    next: Arc<Mutex<Instant>>,
}

impl Pace {
    /// `rate` is in bytes a second.
    pub(super) fn new(control: Arc<Control>, rate: Option<u64>) -> Self {
        Self {
            control,
            rate: rate.and_then(NonZeroU64::new),
            next: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// What a pack should have: one that would take minutes is made smaller.
    pub(super) fn pack_bytes(&self, target: usize) -> usize {
        let Some(rate) = self.rate else {
            return target;
        };
        let minute = rate.get().saturating_mul(60);
        usize::try_from(minute)
            .unwrap_or(target)
            .clamp((1024 * 1024).min(target), target)
    }

    /// Gives the pieces of a body. Ends early where nobody takes them.
    pub(super) async fn feed(&self, bytes: Bytes, pieces: mpsc::Sender<Bytes>) {
        // Ten a second at least, so that the rate is even and a pause is at once.
        let tenth = self.rate.map_or(u64::MAX, |rate| rate.get() / 10);
        let length = usize::try_from(tenth)
            .unwrap_or(PIECE_BYTES)
            .clamp(1, PIECE_BYTES);
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = rest.split_to(length.min(rest.len()));
            self.control.unpaused().await;
            self.turn(piece.len()).await;
            // A pause since then is no reason to wait for the next turn.
            self.control.unpaused().await;
            match timeout(STALL, pieces.send(piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    async fn turn(&self, bytes: usize) {
        let Some(rate) = self.rate else {
            return;
        };
        let cost = Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            *next = at + cost;
            at
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::Bounds;
    use super::*;

    fn control() -> Arc<Control> {
        let bounds = Bounds { bytes: 1, packs: 1 };
        Arc::new(Control::new(bounds, Duration::from_secs(1)))
    }

    #[tokio::test(start_paused = true)]
    async fn two_connections_share_the_rate_within_a_twentieth_over_ten_seconds() {
        const RATE: u64 = 1_000_000;
        let pace = Pace::new(control(), Some(RATE));
        let (sender, mut pieces) = mpsc::channel(1);
        for _ in 0..2 {
            let (pace, sender) = (pace.clone(), sender.clone());
            let body = Bytes::from(vec![0; 20_000_000]);
            tokio::spawn(async move { pace.feed(body, sender).await });
        }
        let until = Instant::now() + Duration::from_secs(10);
        let mut taken = 0;
        while let Ok(Some(piece)) = tokio::time::timeout_at(until, pieces.recv()).await {
            taken += piece.len() as u64;
        }
        assert!(taken.abs_diff(10 * RATE) <= RATE / 2, "{taken}");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_leaves_while_the_run_is_paused() {
        let control = control();
        let pace = Pace::new(Arc::clone(&control), None);
        let (sender, mut pieces) = mpsc::channel(1);
        control.pause(true);
        tokio::spawn(async move { pace.feed(Bytes::from_static(b"abc"), sender).await });
        let waited = timeout(Duration::from_secs(60), pieces.recv()).await;
        assert!(waited.is_err());
        control.pause(false);
        assert_eq!(pieces.recv().await.unwrap(), "abc");
    }
}
