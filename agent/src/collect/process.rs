//! What `/proc` says in one line: load, uptime, the processes, and the agent's own cost.
//!
//! Called by the heartbeat, and by facts that know a service by its process.

use std::collections::BTreeSet;

use infratrack_shared::wire::heartbeat::AgentUsage;
use nix::time::{ClockId, clock_gettime};

use super::{Reason, Root};

/// The three load averages.
pub(super) fn load(root: &Root) -> Result<[f32; 3], Reason> {
    let text = root.text("proc/loadavg")?;
    let mut numbers = text.split(' ').map_while(|number| number.parse().ok());
    let mut next = || numbers.next().ok_or("/proc/loadavg has no three numbers");
    Ok([next()?, next()?, next()?])
}

/// Whole seconds since boot.
pub(super) fn uptime_s(root: &Root) -> Result<u64, Reason> {
    let text = root.text("proc/uptime")?;
    text.split(['.', ' '])
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .ok_or_else(|| "/proc/uptime has no number".to_owned())
}

/// How many processes there are; unknown where other users' are hidden.
pub(super) fn count(root: &Root) -> Result<u32, Reason> {
    u32::try_from(ids(root)?.len()).map_err(|error| error.to_string())
}

/// The names of all processes, as the kernel cuts them: 15 bytes.
pub(super) fn names(root: &Root) -> Result<BTreeSet<String>, Reason> {
    let name = |id: &String| root.find(&format!("proc/{id}/comm"));
    Ok(ids(root)?.iter().filter_map(name).collect())
}

/// The ids of all processes; unknown where other users' are hidden.
pub(super) fn ids(root: &Root) -> Result<Vec<String>, Reason> {
    if !root.exists("proc/1") {
        return Err("/proc hides the processes of other users".to_owned());
    }
    let mut names = root.names("proc")?;
    names.retain(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    Ok(names)
}

/// The agent's own memory and CPU time.
pub(super) fn own(root: &Root) -> AgentUsage {
    AgentUsage {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rss_bytes: root
            .read("proc/self/status")
            .ok()
            .and_then(|status| parse_rss(&status)),
        cpu_ms: cpu_ms(),
    }
}

fn parse_rss(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

fn cpu_ms() -> Option<u64> {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok()?;
    let seconds = u64::try_from(time.tv_sec()).ok()?;
    let nanos = u64::try_from(time.tv_nsec()).ok()?;
    Some(seconds * 1000 + nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    #[test]
    fn load_uptime_and_processes_are_read() {
        let (_keep, root) = fixture::host(&[
            ("proc/loadavg", "0.52 1.04 2.00 1/523 12345\n"),
            ("proc/uptime", "35103.27 68003.19\n"),
            ("proc/1/comm", "systemd"),
            ("proc/77/comm", "sshd"),
            ("proc/meminfo", ""),
        ]);
        assert_eq!(load(&root), Ok([0.52, 1.04, 2.0]));
        assert_eq!(uptime_s(&root), Ok(35_103));
        assert_eq!(count(&root), Ok(2));
        let expected = ["sshd", "systemd"].map(str::to_owned);
        assert_eq!(names(&root), Ok(expected.into()));
    }

    #[test]
    fn hidden_processes_are_not_counted_as_few() {
        let (_keep, root) = fixture::host(&[("proc/77/comm", "agent")]);
        assert!(count(&root).is_err());
    }

    #[test]
    fn broken_files_are_reasons() {
        let (_keep, root) = fixture::host(&[("proc/loadavg", "0.1 x\n"), ("proc/uptime", "\n")]);
        assert_eq!(
            load(&root),
            Err("/proc/loadavg has no three numbers".to_owned())
        );
        assert_eq!(
            uptime_s(&root),
            Err("/proc/uptime has no number".to_owned())
        );
    }

    #[test]
    fn own_memory_is_read_in_bytes() {
        assert_eq!(
            parse_rss("Name:\tagent\nVmRSS:\t    7424 kB\n"),
            Some(7424 * 1024)
        );
        assert_eq!(parse_rss("VmRSS:\n"), None);
        let own = own(&Root::default());
        assert!(own.rss_bytes.is_some() && own.cpu_ms.is_some());
    }
}
