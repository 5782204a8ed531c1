//! Whether a run goes on, waits or ends, and what its threads may hold: asked by threads and by tasks alike. The first cause of an
//! end is what is told.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infratrack_shared::wire::backup::reason;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use super::chunks::Stopped;

/// Why a run is not `ok`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}: {detail}")]
pub struct Failure {
    /// One of [`reason`].
    pub reason: &'static str,
    pub detail: String,
}

impl Failure {
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { reason, detail }
    }

    /// With all the causes of an error.
    pub fn of(reason: &'static str, error: impl Into<anyhow::Error>) -> Self {
        Self::new(reason, format!("{:#}", error.into()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    GoOn,
    Wait,
    End,
}

/// What a run's threads may hold together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of chunks that are not in a pack yet.
    pub(super) bytes: usize,
    /// Packs that are not stored yet.
    pub(super) packs: usize,
}

#[derive(Debug)]
struct State {
    cause: Option<Failure>,
    is_paused: bool,
    bytes: usize,
    packs: usize,
    progress_at: Instant,
}

/// One run's.
#[derive(Debug)]
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
    signal: watch::Sender<Signal>,
    bounds: Bounds,
    patience: Duration,
}

impl Control {
    /// A run gives up when for so long nothing got through to the collector.
    pub(super) fn new(bounds: Bounds, patience: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                cause: None,
                is_paused: false,
                bytes: 0,
                packs: 0,
                progress_at: Instant::now(),
            }),
            changed: Condvar::new(),
            signal: watch::Sender::new(Signal::GoOn),
            bounds,
            patience,
        }
    }

    /// Ends the run. The first who says so is who is believed.
    pub fn stop(&self, failure: Failure) {
        self.state().cause.get_or_insert(failure);
        self.signal.send_replace(Signal::End);
        self.changed.notify_all();
    }

    /// What ended it.
    pub fn cause(&self) -> Option<Failure> {
        self.state().cause.clone()
    }

    /// Makes it wait, or go on.
    pub(super) fn pause(&self, is_paused: bool) {
        let mut state = self.state();
        if state.is_paused == is_paused || state.cause.is_some() {
            return;
        }
        state.is_paused = is_paused;
        // Who was made to wait has not failed meanwhile.
        state.progress_at = Instant::now();
        drop(state);
        let signal = if is_paused {
            Signal::Wait
        } else {
            Signal::GoOn
        };
        self.signal.send_if_modified(|is| {
            let is_other = *is != Signal::End && *is != signal;
            if is_other {
                *is = signal;
            }
            is_other
        });
        self.changed.notify_all();
    }

    /// Something got through.
    pub(super) fn progress(&self) {
        self.state().progress_at = Instant::now();
    }

    /// Whether nothing got through for longer than the run may wait.
    pub(super) fn is_hopeless(&self) -> bool {
        let state = self.state();
        !state.is_paused && state.progress_at.elapsed() > self.patience
    }

    /// Waits while the run is paused.
    pub(super) fn go_on(&self) -> Result<(), Stopped> {
        self.wait(|_| true).map(drop)
    }

    /// Waits until there is room for a chunk of so many bytes.
    pub(super) fn take_bytes(&self, bytes: usize) -> Result<(), Stopped> {
        let mut state = self.wait(|state| state.bytes + bytes <= self.bounds.bytes)?;
        state.bytes += bytes;
        Ok(())
    }

    pub(super) fn give_bytes(&self, bytes: usize) {
        self.state().bytes -= bytes;
        self.changed.notify_all();
    }

    /// Waits until one more pack may be on its way.
    pub(super) fn take_pack(&self) -> Result<(), Stopped> {
        let mut state = self.wait(|state| state.packs < self.bounds.packs)?;
        state.packs += 1;
        Ok(())
    }

    pub(super) fn give_pack(&self) {
        self.state().packs -= 1;
        self.changed.notify_all();
    }

    fn wait(&self, may: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>, Stopped> {
        let has_to_wait =
            |state: &mut State| state.cause.is_none() && (state.is_paused || !may(state));
        let state = self.changed.wait_while(self.state(), has_to_wait);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        if state.cause.is_some() {
            Err(Stopped)
        } else {
            Ok(state)
        }
    }

    /// Ends when the run does.
    pub(super) async fn stopped(&self) {
        let mut signal = self.signal.subscribe();
        // The sender is ours, so there is one.
        signal.wait_for(|signal| *signal == Signal::End).await.ok();
    }

    /// Ends when the run is not paused.
    pub(super) async fn unpaused(&self) {
        let mut signal = self.signal.subscribe();
        signal.wait_for(|signal| *signal != Signal::Wait).await.ok();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the run where its thread panics: nobody waits for who is gone.
pub(super) struct Guard<'a>(pub(super) &'a Control);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let failure = Failure::new(reason::INTERNAL, "a thread of the run panicked");
            self.0.stop(failure);
        }
    }
}
