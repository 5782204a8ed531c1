//! When a volume's next run is due: by its schedule, each host a little later at a time of its own, never within a closed window,
//! and once for all that was missed while the host was off.

use std::collections::BTreeMap;

use infratrack_shared::ids::{HostId, VolumeId};
use infratrack_shared::schedule::Schedule;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::backup::Volume;
use serde::{Deserialize, Serialize};

pub(crate) use super::pulse::is_closed;

/// What is remembered of the schedules: for each volume the time up to which its runs were begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Begun(BTreeMap<VolumeId, UnixMillis>);

impl Begun {
    /// Forgets volumes that are not there any more. One that is there for the first time is due at its next time, and not at
    /// one before.
    pub fn keep(&mut self, volumes: &[Volume], now: UnixMillis) {
        self.0
            .retain(|id, _| volumes.iter().any(|volume| volume.id == *id));
        for volume in volumes {
            let begun = self.0.entry(volume.id).or_insert(now);
            // The clock was ahead.
            *begun = (*begun).min(now);
        }
    }

    /// A run of this volume begins.
    pub fn begin(&mut self, volume: VolumeId, now: UnixMillis) {
        self.0.insert(volume, now);
    }

    /// When a volume is due; `None`: by no schedule.
    pub fn next(&self, host: HostId, volume: &Volume) -> Option<UnixMillis> {
        if volume.is_paused {
            return None;
        }
        let schedule: Schedule = volume.schedule.as_deref()?.parse().ok()?;
        let begun = self.0.get(&volume.id)?;
        let jitter_ms = jitter_ms(host, volume);
        // What its time gave, without what is added to it: else a run begun late would take the next one's place.
        let after = UnixMillis(begun.0.saturating_sub(jitter_ms));
        let at = schedule.next_after(after)?;
        Some(UnixMillis(at.0.saturating_add(jitter_ms)))
    }

    /// Those of the volumes that are due.
    pub fn due<'a>(
        &self,
        host: HostId,
        volumes: &'a [Volume],
        now: UnixMillis,
    ) -> impl Iterator<Item = &'a Volume> {
        volumes.iter().filter(move |volume| {
            let is_due = self.next(host, volume).is_some_and(|at| at <= now);
            is_due && !is_closed(&volume.closed_windows, now)
        })
    }
}

/// The same at each run, and another on each host.
fn jitter_ms(host: HostId, volume: &Volume) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(host.0.as_bytes());
    hasher.update(volume.id.0.as_bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    let most = u64::from(volume.jitter_s) * 1000 + 1;
    i64::try_from(u64::from_le_bytes(first) % most).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use infratrack_shared::wire::backup::Source;
    use uuid::Uuid;

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn volume(jitter_s: u32) -> Volume {
        Volume {
            id: VolumeId(Uuid::from_u128(7)),
            name: "a".to_owned(),
            source: Source::default(),
            is_database: false,
            schedule: Some("0 2 * * *".to_owned()),
            jitter_s,
            closed_windows: Vec::new(),
            bandwidth: None,
            pre_hook: None,
            post_hook: None,
            is_catalog_visible: false,
            is_paused: false,
            is_drill_due: false,
        }
    }

    fn host(number: u128) -> HostId {
        HostId(Uuid::from_u128(number))
    }

    fn known(volume: &Volume, at: i64) -> Begun {
        let mut begun = Begun::default();
        begun.keep(std::slice::from_ref(volume), UnixMillis(at));
        begun
    }

    #[test]
    fn it_is_due_at_its_next_time_and_after_that_a_day_later() {
        let volume = volume(0);
        let mut begun = known(&volume, HOUR);
        assert_eq!(begun.next(host(1), &volume), Some(UnixMillis(2 * HOUR)));
        begun.begin(volume.id, UnixMillis(2 * HOUR + 5));
        assert_eq!(begun.next(host(1), &volume), Some(UnixMillis(26 * HOUR)));
    }

    #[test]
    fn what_was_missed_is_made_up_for_once() {
        let volume = volume(0);
        let mut begun = known(&volume, HOUR);
        let now = UnixMillis(24 * 10 * HOUR);
        let due: Vec<_> = begun
            .due(host(1), std::slice::from_ref(&volume), now)
            .collect();
        assert_eq!(due.len(), 1);
        begun.begin(volume.id, now);
        assert!(begun.next(host(1), &volume).unwrap() > now);
    }

    #[test]
    fn hosts_begin_at_times_of_their_own_within_the_jitter() {
        let volume = volume(3600);
        let begun = known(&volume, HOUR);
        let mut times: Vec<_> = (0..100)
            .map(|number| begun.next(host(number), &volume).unwrap().0)
            .collect();
        assert_eq!(begun.next(host(3), &volume).unwrap().0, times[3]);
        assert!(times.iter().all(|at| (2 * HOUR..=3 * HOUR).contains(at)));
        times.sort_unstable();
        times.dedup();
        assert!(times.len() > 90, "{}", times.len());
        // However late in its jitter a run begins, there is one a day.
        for number in 0..100 {
            let mut begun = begun.clone();
            let first = begun.next(host(number), &volume).unwrap();
            begun.begin(volume.id, first);
            let second = begun.next(host(number), &volume).unwrap();
            assert_eq!(second.0 - first.0, 24 * HOUR);
        }
    }

    #[test]
    fn in_a_closed_window_and_while_it_is_paused_nothing_begins() {
        let mut volume = volume(0);
        volume.closed_windows = vec![(60, 180)];
        let begun = known(&volume, HOUR);
        let is_due = |volume: &Volume, at| {
            begun
                .due(host(1), std::slice::from_ref(volume), UnixMillis(at))
                .count()
                == 1
        };
        assert!(!is_due(&volume, 2 * HOUR + 1));
        assert!(is_due(&volume, 3 * HOUR));
        volume.is_paused = true;
        assert!(!is_due(&volume, 3 * HOUR));
        volume.is_paused = false;
        volume.schedule = None;
        assert!(!is_due(&volume, 3 * HOUR));
    }

    #[test]
    fn a_clock_that_was_ahead_keeps_no_run_from_beginning() {
        let volume = volume(0);
        let mut begun = known(&volume, HOUR);
        begun.begin(volume.id, UnixMillis(i64::MAX / 2));
        begun.keep(std::slice::from_ref(&volume), UnixMillis(HOUR));
        assert_eq!(begun.next(host(1), &volume), Some(UnixMillis(2 * HOUR)));
        begun.keep(&[], UnixMillis(HOUR));
        assert_eq!(begun, Begun::default());
    }
}
