//! The resident memory of a process, and the most that it was, from proc(5).

use std::fs;

use anyhow::Context;

/// What a process holds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// At this moment.
    pub bytes: u64,
    /// At most since it began, or since [`forget_peak`].
    pub peak_bytes: u64,
}

/// What a process holds.
pub fn of_process(pid: u32) -> anyhow::Result<Resident> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse(&text).with_context(|| format!("{path} is not as proc(5) says"))
}

/// From here on the peak is counted anew.
pub fn forget_peak(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
}

fn parse(text: &str) -> Option<Resident> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    };
    Some(Resident {
        bytes: bytes("VmRSS:")?,
        peak_bytes: bytes("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_that_since_it_was_forgotten() {
        let text = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let resident = Resident {
            bytes: 1 << 20,
            peak_bytes: 2 << 20,
        };
        assert_eq!(parse(text), Some(resident));
        assert_eq!(parse("Name:\tx\n"), None);
        let own = std::process::id();
        forget_peak(own).unwrap();
        assert!(of_process(own).unwrap().peak_bytes > 0);
    }
}
