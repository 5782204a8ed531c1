//! This boot, and how the one before it ended, as the host's own records tell: wtmp, and what journald left behind.
//!
//! In a container both are those of a system that does not boot. The agent's own part, whether it was stopped before, is with its
//! caller, `daemon/boots.rs`.

mod wtmp;

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::bounded::Bounded;
use super::{Reason, Root, machine_id, virtualization};
pub use wtmp::Ended;

const RELEASE: &str = "proc/sys/kernel/osrelease";
const SYSTEMD: &str = "run/systemd/system";
const JOURNALS: &str = "var/log/journal";
/// journald looks at its journal this soon after the boot.
const EARLY_S: i64 = 600;
const LIMIT: Duration = Duration::from_secs(5);

/// What is known of a boot without having been there before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootRecords {
    /// None in a container, too.
    pub kernel: Option<String>,
    pub container: Option<String>,
    /// How the boot before it ended by wtmp, or why that is not known.
    pub ended: Option<Result<Ended, Reason>>,
    /// Of the boot before, by wtmp.
    pub previous_kernel: Option<String>,
    /// journald has put a journal aside that was not closed.
    pub has_unclosed_journal: bool,
}

impl BootRecords {
    /// Reads them; `booted_at_s` is in Unix time.
    pub async fn read(root: &Root, booted_at_s: i64) -> Self {
        let root = root.clone();
        let read = move || Self::read_now(&root, booted_at_s);
        let read = Bounded::default().run("boot", LIMIT, read).await;
        read.unwrap_or_else(|reason| Self {
            ended: Some(Err(reason)),
            ..Self::default()
        })
    }

    fn read_now(root: &Root, booted_at_s: i64) -> Self {
        if let Some(container) = virtualization::container(root) {
            return Self {
                container: Some(container),
                ..Self::default()
            };
        }
        let kernel = root.find(RELEASE);
        let told = wtmp::read(root, kernel.as_deref(), booted_at_s);
        let (ended, previous_kernel) = match told {
            // Who else writes a line at the end of each boot is not known.
            Ok((Ended::CutOff, _)) if !root.exists(SYSTEMD) => {
                (Err("wtmp is not written by systemd here".to_owned()), None)
            }
            Ok((ended, kernel)) => (Ok(ended), kernel),
            Err(reason) => (Err(reason), None),
        };
        Self {
            kernel,
            container: None,
            ended: Some(ended),
            previous_kernel,
            has_unclosed_journal: has_unclosed_journal(root, booted_at_s),
        }
    }
}

/// Names of journals can be listed by whom their contents are closed to. One that was not closed gets another name.
fn has_unclosed_journal(root: &Root, booted_at_s: i64) -> bool {
    let Ok(machine) = machine_id(root) else {
        return false;
    };
    let directory = format!("{JOURNALS}/{machine}");
    let names = root.names(&directory).unwrap_or_default();
    let mut aside = names
        .iter()
        .filter(|name| name.starts_with("system@") && name.ends_with(".journal~"));
    aside.any(|name| {
        let renamed = root.path(&format!("{directory}/{name}")).symlink_metadata();
        let since = renamed.map(|found| found.ctime().saturating_sub(booted_at_s));
        since.is_ok_and(|since| (0..EARLY_S).contains(&since))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    const MACHINE: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_container_has_no_kernel_and_no_boot_of_its_own() {
        let (_keep, root) = fixture::host(&[
            ("run/systemd/container", "lxc\n"),
            (RELEASE, "6.1.0-28-amd64\n"),
        ]);
        let told = BootRecords::read_now(&root, 0);
        let expected = BootRecords {
            container: Some("lxc".to_owned()),
            ..BootRecords::default()
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn a_journal_that_was_put_aside_early_in_the_boot_was_not_closed() {
        let journal = format!("{JOURNALS}/{MACHINE}/system@0006.journal~");
        let (_keep, root) = fixture::host(&[("etc/machine-id", MACHINE), (&journal, "")]);
        let renamed = root.path(&journal).metadata().unwrap().ctime();
        let is_unclosed = |booted_at_s| has_unclosed_journal(&root, booted_at_s);
        assert!(is_unclosed(renamed - 5));
        assert!(!is_unclosed(renamed - EARLY_S), "later for another reason");
        assert!(!is_unclosed(renamed + 1), "in a boot before this one");
    }

    #[test]
    fn without_wtmp_the_reason_is_told() {
        let (_keep, root) = fixture::host(&[(RELEASE, "6.1.0-28-amd64\n")]);
        let told = BootRecords::read_now(&root, 0);
        assert_eq!(told.kernel.as_deref(), Some("6.1.0-28-amd64"));
        let reason = told.ended.unwrap().unwrap_err();
        assert!(reason.starts_with("/var/log/wtmp: "), "{reason}");
    }
}
