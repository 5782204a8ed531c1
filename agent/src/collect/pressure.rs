//! The heartbeat's pressure: the share of the last minute in which work waited for CPU, memory or disks.
//!
//! `avg60` of the kernel's pressure stall information (Documentation/accounting/psi.rst): "some" is time
//! in which at least one task waited, "full" time in which none could run. A container has that of its own
//! cgroup, never its host's. Called by the heartbeat.

use super::{Reason, Root, cgroup};

/// Shares from 0 to 1. For CPU there is no "full": somebody always runs.
#[derive(Debug, PartialEq)]
pub(super) struct Pressure {
    pub(super) cpu_some: Result<f32, Reason>,
    pub(super) memory_some: Result<f32, Reason>,
    pub(super) memory_full: Result<f32, Reason>,
    pub(super) io_some: Result<f32, Reason>,
    pub(super) io_full: Result<f32, Reason>,
}

/// The pressure on the host, or in the container the agent runs in.
pub(super) fn read(root: &Root, in_container: bool) -> Pressure {
    let group = in_container.then(|| cgroup::v2_directory(root));
    let text = |resource: &str| match &group {
        None => root.text(&format!("proc/pressure/{resource}")),
        Some(Ok(group)) => {
            let group = group.trim_start_matches('/');
            root.text(&format!("{group}/{resource}.pressure"))
        }
        Some(Err(reason)) => Err(reason.clone()),
    };
    let (cpu, memory, io) = (text("cpu"), text("memory"), text("io"));
    Pressure {
        cpu_some: share(&cpu, "some"),
        memory_some: share(&memory, "some"),
        memory_full: share(&memory, "full"),
        io_some: share(&io, "some"),
        io_full: share(&io, "full"),
    }
}

/// `some avg10=0.00 avg60=1.53 avg300=0.87 total=…`, in per cent.
fn share(text: &Result<String, Reason>, kind: &str) -> Result<f32, Reason> {
    let line = text.as_ref().map_err(Clone::clone)?.lines();
    let mut words = line.map(str::split_whitespace);
    words
        .find_map(|mut words| (words.next() == Some(kind)).then_some(words))
        .and_then(|mut words| words.find_map(|word| word.strip_prefix("avg60=")))
        .and_then(|percent| percent.parse().ok())
        .filter(|percent: &f32| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("the kernel gives no \"{kind}\" of the last 60 s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    const DOCKER: &str = include_str!("../../tests/fixtures/mountinfo-docker");
    const DOCKER_V1: &str = include_str!("../../tests/fixtures/mountinfo-docker-v1");

    fn lines(some: &str, full: &str) -> String {
        format!(
            "some avg10=0.00 avg60={some} avg300=0.87 total=13711712114\n\
             full avg10=0.00 avg60={full} avg300=0.00 total=0\n"
        )
    }

    #[test]
    fn a_hosts_pressure_is_that_of_the_last_minute() {
        let (_keep, root) = fixture::host(&[
            ("proc/pressure/cpu", &lines("25.00", "0.00")),
            ("proc/pressure/memory", &lines("1.50", "0.50")),
            ("proc/pressure/io", &lines("100.00", "75.00")),
        ]);
        let expected = Pressure {
            cpu_some: Ok(0.25),
            memory_some: Ok(0.015),
            memory_full: Ok(0.005),
            io_some: Ok(1.0),
            io_full: Ok(0.75),
        };
        assert_eq!(read(&root, false), expected);
    }

    #[test]
    fn a_container_has_its_own_groups_and_under_v1_none() {
        let host = ("proc/pressure/cpu", &*lines("99.00", "0.00"));
        let group = "sys/fs/cgroup/kubepods.slice/pod1.slice/cri-1.scope";
        let (_keep, root) = fixture::host(&[
            host,
            ("proc/self/mountinfo", DOCKER),
            (
                "proc/1/cgroup",
                "0::/kubepods.slice/pod1.slice/cri-1.scope\n",
            ),
            (&format!("{group}/cpu.pressure"), &lines("50.00", "0.00")),
        ]);
        let pressure = read(&root, true);
        assert_eq!(pressure.cpu_some, Ok(0.5));
        let reason = pressure.io_full.unwrap_err();
        assert!(reason.contains("cri-1.scope/io.pressure: "), "{reason}");

        let (_keep, root) = fixture::host(&[host, ("proc/self/mountinfo", DOCKER_V1)]);
        let reason = "no cgroup v2 hierarchy is mounted".to_owned();
        assert_eq!(read(&root, true).cpu_some, Err(reason));
    }

    #[test]
    fn what_is_no_share_is_a_reason() {
        for text in [
            "",
            "some\n",
            "some avg10=1\n",
            &lines("101", "-1"),
            &lines("NaN", "x"),
        ] {
            let text = Ok(text.to_owned());
            assert!(share(&text, "some").is_err() && share(&text, "full").is_err());
        }
        let (_keep, root) = fixture::host(&[]);
        let reason = read(&root, false).memory_full.unwrap_err();
        assert!(reason.starts_with("/proc/pressure/memory: "), "{reason}");
    }
}
