//! What a measurement ran on, in words.

use std::fs;

use anyhow::Context;
use nix::sys::utsname::uname;

use super::cpu;

/// Processor, cores, memory, kernel: one line.
pub fn describe() -> anyhow::Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let model = value(&cpus, "model name").unwrap_or("unknown processor");
    let kib: u64 = value(&memory, "MemTotal")
        .and_then(|total| total.trim_end_matches(" kB").parse().ok())
        .context("/proc/meminfo has no total")?;
    let system = uname()?;
    // Without what the builder of the kernel named it.
    let release = system.release().to_string_lossy();
    let release = release.split('-').next().unwrap_or_default();
    Ok(format!(
        "{model}, {} cores, {:.0} GiB, {} {}",
        cpu::count()?,
        kib as f64 / f64::from(1 << 20),
        system.sysname().to_string_lossy(),
        release,
    ))
}

/// The runnable processes of the last minute: a busy neighbour shows here.
pub fn load() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let first = text.split_whitespace().next();
    first
        .and_then(|load| load.parse().ok())
        .context("/proc/loadavg is not as proc(5) says")
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut of_name = lines.filter(|(key, _)| key.trim() == name);
    of_name.next().map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn the_first_value_of_a_name_counts() {
        let text = "processor\t: 0\nmodel name\t: Fast CPU\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(value(text, "model name"), Some("Fast CPU"));
        assert_eq!(value(text, "MemTotal"), None);
    }
}
