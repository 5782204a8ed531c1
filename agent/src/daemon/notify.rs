//! What systemd is told: ready, alive, stopping, and a line for `systemctl status`.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// Nothing is told where no systemd listens.
pub(super) struct Notify {
    watchdog: Option<Duration>,
    next: Instant,
    status: String,
}

impl Notify {
    pub(super) fn new() -> Self {
        let watchdog = sd_notify::watchdog_enabled();
        Self {
            watchdog,
            next: Instant::now(),
            status: String::new(),
        }
    }

    pub(super) fn ready() {
        tell(&[NotifyState::Ready]);
    }

    pub(super) fn stopping() {
        tell(&[NotifyState::Stopping]);
    }

    pub(super) fn status(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            tell(&[NotifyState::Status(status)]);
        }
    }

    /// When the watchdog is next to be told.
    pub(super) fn next(&self) -> Instant {
        match self.watchdog {
            Some(_) => self.next,
            None => Instant::now() + Duration::from_secs(3600),
        }
    }

    /// Tells the watchdog, twice in its time.
    pub(super) fn tick(&mut self) {
        if let Some(watchdog) = self.watchdog
            && Instant::now() >= self.next
        {
            tell(&[NotifyState::Watchdog]);
            self.next = Instant::now() + watchdog / 2;
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
