//! The CPU time that processes have had, from proc(5).
//!
//! A cluster's processes come and go (autovacuum): those that ended are in what their parent has waited for, so
//! the sum over a tree never goes back.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// `USER_HZ`: the unit of /proc, the same on every architecture this runs on.
const TICKS_PER_S: u64 = 100;

/// What /proc/PID/stat says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Of its own threads.
    own: u64,
    /// Of children that ended.
    waited: u64,
}

/// The CPU time of a process, all threads, user and system.
pub fn of_process(pid: u32) -> anyhow::Result<Duration> {
    Ok(duration(read(pid)?.own))
}

/// The CPU time of this process.
pub fn of_self() -> anyhow::Result<Duration> {
    of_process(std::process::id())
}

/// The CPU time of a process and its children, ended ones too.
pub fn of_family(pid: u32) -> anyhow::Result<Duration> {
    let parent = read(pid)?;
    let mut ticks = parent.own + parent.waited;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended since it was listed: then its parent has its time, at the next look.
        if let Ok(stat) = read(child)
            && stat.parent == pid
        {
            ticks += stat.own + stat.waited;
        }
    }
    Ok(duration(ticks))
}

/// Whose child a process is.
pub fn parent_of(pid: u32) -> anyhow::Result<u32> {
    Ok(read(pid)?.parent)
}

/// How many CPUs this process may use.
pub fn count() -> anyhow::Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

fn duration(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS_PER_S)
}

fn read(pid: u32) -> anyhow::Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse(&text).with_context(|| format!("{path} is not as proc(5) says"))
}

/// The name, in parentheses, may have spaces and parentheses itself.
fn parse(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        own: number(11)? + number(12)?,
        waited: number(13)? + number(14)?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Stat, of_family, of_self, parse};

    #[test]
    fn a_name_may_look_like_the_end_of_a_name() {
        let text = "7 (a) b) S 3 7 7 0 -1 4194304 9 8 0 0 120 30 5 6 20 0 1 0 99 1 2";
        let stat = Stat {
            parent: 3,
            own: 150,
            waited: 11,
        };
        assert_eq!(parse(text), Some(stat));
        assert_eq!(parse("7 (a) S 3"), None);
    }

    #[test]
    fn the_time_of_a_family_has_that_of_a_child_that_ended() {
        let (own, family) = (of_self().unwrap(), of_family(std::process::id()).unwrap());
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let done = std::process::Command::new("sh")
            .args(["-c", script])
            .status();
        assert!(done.unwrap().success());
        let family = of_family(std::process::id())
            .unwrap()
            .saturating_sub(family);
        assert!(
            family > of_self().unwrap().saturating_sub(own),
            "{family:?}"
        );
    }
}
