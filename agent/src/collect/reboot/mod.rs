//! `facts.reboot` and the heartbeat's flag: whether the host waits for a reboot, by what evidence, and which services run
//! what was replaced under them.
//!
//! Read (`host.rs`), then decided by a pure function (`decide.rs`, `kernels.rs`): the same for fact and heartbeat. "No" is said
//! only where something was looked at that would have said "yes". Called by facts and the heartbeat.

mod boot;
mod decide;
mod host;
mod kernels;
mod services;
#[cfg(test)]
mod states;

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::bounded::Bounded;
use super::fact::to_value;
use super::{Reason, Root};
use host::Host;

/// A database of packages is read; nothing else takes longer.
const LIMIT: Duration = Duration::from_secs(3);
/// Heartbeats between two readings though nothing changed that is looked at for each: 10 minutes.
const BEATS: u32 = 20;
const RELEASE: &str = "proc/sys/kernel/osrelease";
/// What is looked at for each heartbeat. Not `/boot`: a look may mount it.
const INPUTS: &[&str] = &[
    "run/reboot-required",
    "run/reboot-required.pkgs",
    "run/reboot-needed",
    "var/run/reboot-required",
    "run/ostree/staged-deployment",
    "var/lib/dpkg/status",
    "lib/apk/db/installed",
    "usr/lib/apk/db/installed",
    "var/lib/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages",
    "usr/lib/modules",
    "lib/modules",
    "etc/default/grub",
];

/// What speaks for a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Evidence {
    kind: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    packages: Vec<String>,
}

/// What was looked at, and what it said or why it said nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Checked {
    what: &'static str,
    result: String,
}

/// A service that runs what is no more on disk; a process by its name where no unit is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Service {
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<String>,
    why: String,
}

#[derive(Serialize)]
struct Facts {
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<Reason>,
    /// Each of them alone asks for a reboot.
    reasons: Vec<Evidence>,
    /// What is worth knowing and decides nothing.
    hints: Vec<Evidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    running_kernel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest_kernel: Option<String>,
    services: Vec<Service>,
    #[serde(skip_serializing_if = "Option::is_none")]
    services_unknown: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_id: Option<String>,
    /// Unix time in seconds, by the clock as it goes now.
    #[serde(skip_serializing_if = "Option::is_none")]
    booted_at: Option<i64>,
    checked: Vec<Checked>,
}

/// The body of `facts.reboot`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    to_value(&facts(&Host::read(root), services::read(root)))
}

fn facts(host: &Host, services: services::Found) -> Facts {
    let mut decision = decide::decide(host);
    decision.hints.extend(services.init);
    Facts {
        required: decision.required.as_ref().ok().copied(),
        unknown: decision.required.err(),
        reasons: decision.reasons,
        hints: decision.hints,
        running_kernel: host.release.clone(),
        newest_kernel: decision.newest_kernel,
        services: services.services,
        services_unknown: services.unknown,
        boot_id: host.boot_id.clone(),
        booted_at: host.boot.as_ref().map(|boot| boot.at),
        checked: decision.checked,
    }
}

/// The heartbeat's flag: the decision stands until something changes that is looked at.
#[derive(Default)]
pub(super) struct Watch {
    bounded: Bounded,
    last: Option<Seen>,
}

struct Seen {
    inputs: Vec<Option<SystemTime>>,
    beats_left: u32,
    required: Result<bool, Reason>,
}

impl Watch {
    pub(super) async fn is_required(&mut self, root: &Root) -> Result<bool, Reason> {
        let inputs: Vec<_> = INPUTS.iter().map(|path| changed(root, path)).collect();
        if let Some(last) = &mut self.last
            && last.beats_left > 0
            && last.inputs == inputs
        {
            last.beats_left -= 1;
            return last.required.clone();
        }
        let work = {
            let root = root.clone();
            move || decide::decide(&Host::read(&root)).required
        };
        let required = if root.exists(RELEASE) {
            let answer = self.bounded.run("reboot", LIMIT, work).await;
            answer.and_then(|required| required)
        } else {
            // No kernel to compare, and no thread to find that out.
            work()
        };
        self.last = Some(Seen {
            inputs,
            beats_left: BEATS,
            required: required.clone(),
        });
        required
    }
}

fn changed(root: &Root, path: &str) -> Option<SystemTime> {
    root.path(path).metadata().ok()?.modified().ok()
}

#[cfg(test)]
mod tests;
