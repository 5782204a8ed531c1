//! When the host booted, by a clock that may have been wrong, then or now.
//!
//! The kernel's boot time is "now" less the uptime, so it moves with every step of the clock. Files that are written once,
//! early in the boot, keep what the clock said then. Between the two, and for [`MARGIN_S`] after both, nobody can say
//! whether a file is older than the boot.

use std::os::unix::fs::MetadataExt;

use crate::collect::Root;

/// Steps of the clock this large make no evidence of what is none: a clock in local time, and one that was hours off.
pub(super) const MARGIN_S: i64 = 3 * 3600;
/// Made by init and not again before the next boot.
const EARLY: &[&str] = &[
    "run/systemd/private",
    "run/systemd/notify",
    "run/openrc/softlevel",
];

/// The boot, as Unix time in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot {
    /// As the kernel says now.
    pub(super) at: i64,
    /// As the clock said then, where that is known.
    pub(super) by_files: Option<i64>,
}

/// Where a time lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    BeforeBoot,
    Unclear,
    SinceBoot,
}

impl Boot {
    pub(super) fn read(root: &Root) -> Option<Self> {
        let stat = root.read("proc/stat").ok()?;
        let at = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        let time = |path: &&str| Some(root.path(path).metadata().ok()?.mtime());
        Some(Self {
            at: at.trim().parse().ok()?,
            by_files: EARLY.iter().filter_map(time).min(),
        })
    }

    pub(super) fn place(&self, time: i64) -> Place {
        let by_files = self.by_files.unwrap_or(self.at);
        if time < self.at.min(by_files) {
            Place::BeforeBoot
        } else if time > self.at.max(by_files).saturating_add(MARGIN_S) {
            Place::SinceBoot
        } else {
            Place::Unclear
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_two_hours_off_makes_nothing_newer_than_the_boot() {
        const HOUR: i64 = 3600;
        let boot = 1_700_000_000;
        for step in [-2 * HOUR, -60, 0, 60, 2 * HOUR] {
            // The clock was stepped since the boot, or had been off before it, when the package came.
            for by_files in [None, Some(boot + step), Some(boot)] {
                let found = Boot { at: boot, by_files };
                let ten_minutes_before = boot - 600;
                for told in [ten_minutes_before, ten_minutes_before + step] {
                    assert_ne!(found.place(told), Place::SinceBoot, "{step} {by_files:?}");
                }
                let day = boot + 24 * HOUR;
                assert_eq!(found.place(day), Place::SinceBoot, "{step} {by_files:?}");
                assert_eq!(found.place(boot - 24 * HOUR), Place::BeforeBoot);
            }
        }
        // A clock that is ten hours slow now: the files know better.
        let slow = Boot {
            at: boot - 10 * HOUR,
            by_files: Some(boot),
        };
        assert_eq!(slow.place(boot - HOUR), Place::Unclear);
    }
}
