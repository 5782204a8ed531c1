//! What a daemon costs its host: the process and all it started that still runs.
//!
//! Memory is the proportional set: what processes share is divided among them, so that a sum over processes
//! counts nothing twice. It moves when neighbours come and go that share a library, which anonymous memory does
//! not. CPU time is the scheduler's, in nanoseconds, threads that have ended included; only for
//! children that have ended there is no better than ticks of 10 ms.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Of a daemon with its children, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub pss_bytes: u64,
    pub rss_bytes: u64,
    /// What no file is behind: heap, stacks, data that was written to.
    pub anonymous_bytes: u64,
    pub threads: u64,
    pub processes: u64,
    /// Since the daemon started.
    pub cpu: Duration,
}

/// Measures `root` and its descendants.
pub fn measure(root: u32) -> anyhow::Result<Usage> {
    let mut usage = Usage::default();
    add(&mut usage, root).with_context(|| format!("process {root} can't be measured"))?;
    let parents = parents()?;
    let is_below = |mut pid: u32| {
        while let Some(parent) = parents.get(&pid) {
            if *parent == root {
                return true;
            }
            pid = *parent;
        }
        false
    };
    for pid in parents.keys().copied().filter(|pid| is_below(*pid)) {
        let before = usage;
        // A child may end while it is looked at.
        if add(&mut usage, pid).is_err() {
            usage = before;
        }
    }
    Ok(usage)
}

/// The memory that a process has, without its children's.
pub fn rss_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(line(&status, "VmRSS:")? * 1024)
}

/// The most memory that a process had since it started, or since that was reset.
pub fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(line(&status, "VmHWM:")? * 1024)
}

fn add(usage: &mut Usage, pid: u32) -> anyhow::Result<()> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let maps = read("smaps_rollup")?;
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))?;
    usage.cpu += Duration::from(clock_gettime(clock)?) + ended_children(&read("stat")?)?;
    usage.pss_bytes += line(&maps, "Pss:")? * 1024;
    usage.rss_bytes += line(&maps, "Rss:")? * 1024;
    usage.anonymous_bytes += line(&maps, "Anonymous:")? * 1024;
    usage.threads += line(&read("status")?, "Threads:")?;
    usage.processes += 1;
    Ok(())
}

/// The number after `name`.
fn line(text: &str, name: &str) -> anyhow::Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next());
    Ok(number.with_context(|| format!("no {name}"))?.parse()?)
}

/// The parent of every process.
fn parents() -> anyhow::Result<BTreeMap<u32, u32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        parents.insert(pid, field(&stat, 4)?);
    }
    Ok(parents)
}

/// CPU time of children that were waited for.
fn ended_children(stat: &str) -> anyhow::Result<Duration> {
    let ticks = field::<u64>(stat, 16)? + field::<u64>(stat, 17)?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no length of a tick")?;
    Ok(Duration::from_secs(ticks) / u32::try_from(per_second)?)
}

/// A field of proc(5)'s `stat` after the second, which is a name and may have anything in it.
fn field<T: std::str::FromStr>(stat: &str, number: usize) -> anyhow::Result<T> {
    let (_, rest) = stat.rsplit_once(") ").context("no name")?;
    let field = rest.split(' ').nth(number - 3).context("too few fields")?;
    let parsed = field.trim().parse().ok();
    parsed.with_context(|| format!("field {number} is {field}"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn fields_are_counted_behind_any_name() {
        let stat = "7 (a) b 1 (c) S 3 7 7 0 -1 0 1 2 3 4 100 200 250 50 20";
        assert_eq!(field::<u32>(stat, 4).unwrap(), 3);
        assert_eq!(ended_children(stat).unwrap(), Duration::from_secs(3));
        assert!(field::<u32>(stat, 3).is_err());
    }

    #[test]
    fn children_and_their_children_count() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'echo; read line; :'; :"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0];
        let started = shell.stdout.as_mut().unwrap();
        std::io::Read::read_exact(started, &mut line).unwrap();
        let own = measure(shell.id()).unwrap();
        let all = measure(std::process::id()).unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert_eq!((own.processes, own.threads), (2, 2), "{own:?}");
        assert!(all.processes >= 3 && all.threads >= 3, "{all:?}");
        assert!(all.pss_bytes > own.pss_bytes && own.pss_bytes > 0);
        assert!(own.rss_bytes >= own.anonymous_bytes && own.anonymous_bytes > 0);
        assert!(own.rss_bytes >= own.pss_bytes && own.cpu > Duration::ZERO);
    }
}
