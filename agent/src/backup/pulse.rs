//! The pulse of a run: every second it says how far the run is and hears what is wanted of it, in a thread of its own with a connection
//! of its own. In a window that is closed the run waits.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::backup::{Order, Progress, reason};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use super::chunks::Meter;
use super::control::{Control, Failure};
use super::pipeline::progress_of;
use super::remote::{Beats, Verdict};
use crate::clock::Clock;

const BEAT: Duration = Duration::from_secs(1);
const DAY_MINUTES: i64 = 24 * 60;

/// What it needs to know.
#[derive(Clone, Debug)]
pub(super) struct Beating {
    pub(super) control: Arc<Control>,
    pub(super) meter: Arc<Meter>,
    pub(super) clock: Clock,
    pub(super) closed_windows: Vec<(u16, u16)>,
    /// With what is expected.
    pub(super) expected: Progress,
}

/// The thread; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Pulse {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    pub(super) fn start(
        beating: Beating,
        lane: impl Beats,
        show: impl Fn(Progress) + Send + 'static,
    ) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::of(reason::INTERNAL, error))?;
        let (end, ended) = oneshot::channel();
        let beats = async move {
            tokio::select! {
                biased;
                _ = ended => {}
                () = beat(beating, lane, show) => {}
            }
        };
        let thread = thread::Builder::new()
            .name("beat".to_owned())
            .spawn(move || runtime.block_on(beats));
        let thread = thread.map_err(|error| Failure::of(reason::INTERNAL, error))?;
        Ok(Self {
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn beat(beating: Beating, mut lane: impl Beats, show: impl Fn(Progress)) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_ordered = false;
    loop {
        ticks.tick().await;
        let is_closed = is_closed(&beating.closed_windows, beating.clock.now());
        beating.control.pause(is_ordered || is_closed);
        let progress = Progress {
            files_expected: beating.expected.files_expected,
            bytes_expected: beating.expected.bytes_expected,
            ..progress_of(&beating.meter)
        };
        show(progress);
        match lane.beat(progress).await {
            Ok(Order::GoOn | Order::Other) => is_ordered = false,
            Ok(Order::Pause) => is_ordered = true,
            Ok(Order::Cancel) => {
                let detail = "somebody cancelled the run";
                beating
                    .control
                    .stop(Failure::new(reason::CANCELLED, detail));
            }
            Err(error) => match Verdict::on(&error) {
                // What the run has to send waits for it too, and gives up in time.
                Verdict::Again(..) => tracing::debug!(%error, "a beat was lost"),
                Verdict::Never(reason) => beating.control.stop(Failure::of(reason, error)),
            },
        }
        beating.control.pause(is_ordered || is_closed);
    }
}

/// Whether no run is to go on at this time.
pub(crate) fn is_closed(windows: &[(u16, u16)], now: UnixMillis) -> bool {
    let minute = now.0.div_euclid(60_000).rem_euclid(DAY_MINUTES);
    windows.iter().any(|(from, until)| {
        let (from, until) = (i64::from(*from), i64::from(*until));
        if from <= until {
            (from..until).contains(&minute)
        } else {
            minute >= from || minute < until
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_close_over_midnight_too() {
        let at = |hour: i64, minute: i64| UnixMillis((hour * 60 + minute) * 60_000 + 59_999);
        let night = [(22 * 60, 6 * 60)];
        for (hour, minute, closed) in [(21, 59, false), (22, 0, true), (5, 59, true), (6, 0, false)]
        {
            assert_eq!(
                is_closed(&night, at(hour, minute)),
                closed,
                "{hour}:{minute}"
            );
        }
        let day = [(8 * 60, 9 * 60), (10 * 60, 11 * 60)];
        for (hour, minute, closed) in [(7, 59, false), (8, 0, true), (9, 0, false), (10, 30, true)]
        {
            assert_eq!(is_closed(&day, at(hour, minute)), closed, "{hour}:{minute}");
        }
        assert!(!is_closed(&[], at(0, 0)));
    }
}
