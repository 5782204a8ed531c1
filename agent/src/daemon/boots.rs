//! Boots as events: each once, however often the agent starts in it.
//!
//! What is remembered is of the boot that the agent ran in last, and whether it was stopped there. It becomes durable with the
//! record that goes with it: that of the boot and of the agent's start, and that of its stop.

use infratrack_shared::ids::BootId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::event::{Boot, BootExpected, StopReason};
use serde::{Deserialize, Serialize};

use crate::collect::{self, BootRecords, Ended, Root};
use crate::spool::{Spool, SpoolError};

/// The value in the spool.
pub(super) const NAME: &str = "boot";

/// The boot that the agent ran in last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Last {
    boot_id: BootId,
    #[serde(default)]
    kernel: Option<String>,
    /// Why it was stopped; none while it runs, and where it was cut off.
    #[serde(default)]
    stopped: Option<StopReason>,
}

impl Last {
    pub(super) async fn load(spool: &Spool) -> Result<Option<Self>, SpoolError> {
        let saved = spool.get(NAME).await?;
        Ok(saved.and_then(|saved| serde_json::from_slice(&saved).ok()))
    }

    /// As it is saved.
    pub(super) fn saved(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The same with the agent stopped.
    pub(super) fn stopped(&self, reason: StopReason) -> Self {
        Self {
            stopped: Some(reason),
            ..self.clone()
        }
    }
}

/// What is to be remembered from here on, and the boot where it is another than the last.
pub(super) async fn begin(
    root: &Root,
    last: Option<Last>,
    boot_id: BootId,
    now: UnixMillis,
) -> (Last, Option<Boot>) {
    if let Some(last) = last.as_ref().filter(|last| last.boot_id == boot_id) {
        let running = Last {
            stopped: None,
            ..last.clone()
        };
        return (running, None);
    }
    let uptime_ms = i64::try_from(collect::mono_ms()).unwrap_or(i64::MAX);
    let booted_at = now.plus_millis(uptime_ms.saturating_neg());
    let records = BootRecords::read(root, booted_at.0 / 1000).await;
    let (expected, evidence) = judge(last.as_ref(), &records);
    let kernel = records.kernel;
    let is_container = records.container.is_some();
    let previous_kernel = last.as_ref().and_then(|last| last.kernel.clone());
    let boot = Boot {
        boot_id,
        booted_at,
        kernel: kernel.clone(),
        container: records.container,
        previous_boot_id: last.map(|last| last.boot_id),
        // A kernel that the machine below may have changed is not the container's to tell of.
        previous_kernel: previous_kernel
            .or(records.previous_kernel)
            .filter(|_| !is_container),
        expected,
        evidence,
    };
    let running = Last {
        boot_id,
        kernel,
        stopped: None,
    };
    (running, Some(boot))
}

/// Whether the boot before had been ended in order. An agent that was cut off may have been killed: it takes another witness.
fn judge(last: Option<&Last>, records: &BootRecords) -> (BootExpected, Vec<String>) {
    let mut evidence = Vec::new();
    let mut say = |text: &str| evidence.push(text.to_owned());
    let stopped = last.map(|last| last.stopped);
    match stopped {
        None => say("the agent remembers no boot before"),
        Some(None) => say("the agent was running, and was not stopped"),
        Some(Some(StopReason::Shutdown)) => say("the agent was stopped as the host went down"),
        Some(Some(StopReason::Stopped | StopReason::Other)) => {
            say("the agent had been stopped before");
        }
    }
    match &records.ended {
        None => {}
        Some(Ok(Ended::InOrder)) => say("wtmp has a shutdown before this boot"),
        Some(Ok(Ended::CutOff)) => say("wtmp has no shutdown before this boot"),
        Some(Err(reason)) => say(reason),
    }
    if records.has_unclosed_journal {
        say("journald found a journal that was not closed");
    }
    let was_cut_off = stopped == Some(None);
    let expected = if stopped == Some(Some(StopReason::Shutdown)) {
        BootExpected::Yes
    } else {
        match &records.ended {
            Some(Ok(Ended::InOrder)) => BootExpected::Yes,
            Some(Ok(Ended::CutOff)) => BootExpected::No,
            _ if was_cut_off && records.has_unclosed_journal => BootExpected::No,
            _ => BootExpected::Unknown,
        }
    };
    (expected, evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(stopped: Option<StopReason>) -> Last {
        Last {
            boot_id: BootId::random(),
            kernel: Some("6.1.0-27-amd64".to_owned()),
            stopped,
        }
    }

    fn records(ended: Result<Ended, String>, has_unclosed_journal: bool) -> BootRecords {
        BootRecords {
            kernel: Some("6.1.0-28-amd64".to_owned()),
            ended: Some(ended),
            has_unclosed_journal,
            ..BootRecords::default()
        }
    }

    #[test]
    fn a_boot_is_unexpected_only_by_a_witness_beside_the_agent() {
        let unknown = || Err("no wtmp".to_owned());
        let (down, stopped) = (Some(StopReason::Shutdown), Some(StopReason::Stopped));
        let cases = [
            (
                Some(last(down)),
                records(unknown(), false),
                BootExpected::Yes,
            ),
            // Going down, it lost its power.
            (
                Some(last(down)),
                records(Ok(Ended::CutOff), true),
                BootExpected::Yes,
            ),
            (
                Some(last(None)),
                records(Ok(Ended::InOrder), true),
                BootExpected::Yes,
            ),
            (None, records(Ok(Ended::InOrder), false), BootExpected::Yes),
            (None, records(Ok(Ended::CutOff), false), BootExpected::No),
            (Some(last(None)), records(unknown(), true), BootExpected::No),
            (
                Some(last(None)),
                records(unknown(), false),
                BootExpected::Unknown,
            ),
            (
                Some(last(stopped)),
                records(unknown(), true),
                BootExpected::Unknown,
            ),
            (None, BootRecords::default(), BootExpected::Unknown),
        ];
        for (last, records, expected) in cases {
            let (told, evidence) = judge(last.as_ref(), &records);
            assert_eq!(told, expected, "{last:?} {records:?}");
            assert!(!evidence.is_empty());
        }
    }

    #[tokio::test]
    async fn a_boot_is_told_once_with_the_kernel_before() {
        let host = tempfile::tempdir().unwrap();
        let kernel = host.path().join("proc/sys/kernel");
        std::fs::create_dir_all(&kernel).unwrap();
        std::fs::write(kernel.join("osrelease"), "6.1.0-28-amd64\n").unwrap();
        let root = Root::new(host.path());
        let now = UnixMillis(1_800_000_000_000);
        let before = last(None);
        let boot_id = BootId::random();
        let (running, boot) = begin(&root, Some(before.clone()), boot_id, now).await;
        let boot = boot.unwrap();
        assert_eq!(boot.previous_boot_id, Some(before.boot_id));
        assert_eq!(boot.previous_kernel, before.kernel);
        assert_eq!(boot.kernel.as_deref(), Some("6.1.0-28-amd64"));
        assert!(boot.booted_at < now);
        let stopped = running.stopped(StopReason::Stopped);
        let saved = serde_json::from_slice(&stopped.saved()).unwrap();
        let (again, none) = begin(&root, Some(saved), boot_id, now).await;
        assert_eq!((again, none), (running, None));
    }

    #[tokio::test]
    async fn a_container_names_no_kernel_though_one_was_known() {
        let host = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(host.path().join("run/systemd")).unwrap();
        std::fs::write(host.path().join("run/systemd/container"), "lxc").unwrap();
        let root = Root::new(host.path());
        let (running, boot) = begin(
            &root,
            Some(last(None)),
            BootId::random(),
            UnixMillis(1_800_000_000_000),
        )
        .await;
        let boot = boot.unwrap();
        assert_eq!((boot.kernel, boot.previous_kernel), (None, None));
        assert_eq!(boot.container.as_deref(), Some("lxc"));
        assert_eq!(running.kernel, None);
    }
}
