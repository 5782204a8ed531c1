//! Counters of the kernel, and what two readings of them say: busy share, bytes a second.
//!
//! A counter that went back (a reset, a wrap, a device that was replaced) gives no rate at all: an
//! unknown is honest, a huge number is not. Interfaces and disks are compared one by one, so that
//! one that comes or goes between two readings is no jump. Called by the heartbeat.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Reason, Root};

/// Every size in `/proc/diskstats` is in sectors of this many bytes, whatever the disk has.
const SECTOR_BYTES: u64 = 512;
/// Devices that only pass on what another device does, or hold no data of their own.
const NO_DISKS: &[&str] = &[
    "loop", "ram", "zram", "dm-", "md", "sr", "fd", "drbd", "nbd",
];
/// Two readings this near say nothing of a rate.
const SHORTEST: Duration = Duration::from_millis(10);

pub(super) const RESET: &str = "a counter was reset between the two readings";

/// Time all CPUs together have spent, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuTimes {
    idle: u64,
    total: u64,
}

/// Bytes in and out so far, by device.
pub(super) type Flows = BTreeMap<String, Flow>;

/// Bytes in (read, received) and out (written, sent).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) inward: u64,
    pub(super) outward: u64,
}

pub(super) fn cpu_times(root: &Root) -> Result<CpuTimes, Reason> {
    parse_cpu(&root.text("proc/stat")?).ok_or_else(|| "/proc/stat has no line for all CPUs".into())
}

/// Whole disks only.
pub(super) fn disk_flows(root: &Root) -> Result<Flows, Reason> {
    let mut flows = parse_disks(&root.text("proc/diskstats")?);
    let whole = root.names("sys/block")?;
    flows.retain(|name, _| whole.binary_search(name).is_ok());
    if flows.is_empty() {
        return Err("no whole disk is visible".to_owned());
    }
    Ok(flows)
}

/// Every interface but loopback.
pub(super) fn network_flows(root: &Root) -> Result<Flows, Reason> {
    Ok(parse_network(&root.text("proc/net/dev")?))
}

/// The busy share of all CPUs between two readings.
pub(super) fn busy_ratio(before: CpuTimes, after: CpuTimes) -> Result<f32, Reason> {
    let total = after.total.checked_sub(before.total).ok_or(RESET)?;
    if total == 0 {
        return Err("no time has passed since the last reading".to_owned());
    }
    // The kernel lets the time spent waiting for disks go back now and then.
    let idle = after.idle.saturating_sub(before.idle).min(total);
    Ok((total - idle) as f32 / total as f32)
}

/// Bytes a second over all devices that both readings have.
pub(super) fn per_second(before: &Flows, after: &Flows, elapsed: Duration) -> Result<Flow, Reason> {
    if elapsed < SHORTEST {
        return Err("no time has passed since the last reading".to_owned());
    }
    let mut sum = Flow::default();
    for (name, after) in after {
        let Some(before) = before.get(name) else {
            continue;
        };
        let inward = after.inward.checked_sub(before.inward).ok_or(RESET)?;
        let outward = after.outward.checked_sub(before.outward).ok_or(RESET)?;
        sum.inward = sum.inward.saturating_add(inward);
        sum.outward = sum.outward.saturating_add(outward);
    }
    let rate = |bytes: u64| {
        let rate = u128::from(bytes) * 1000 / elapsed.as_millis().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    };
    Ok(Flow {
        inward: rate(sum.inward),
        outward: rate(sum.outward),
    })
}

fn parse_cpu(text: &str) -> Option<CpuTimes> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; guests are counted in user already.
    let times: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map_while(|time| time.parse().ok())
        .collect();
    let idle = times
        .get(3)?
        .checked_add(times.get(4).copied().unwrap_or(0))?;
    let total = times
        .iter()
        .try_fold(0_u64, |sum, time| sum.checked_add(*time))?;
    Some(CpuTimes { idle, total })
}

fn parse_disks(text: &str) -> Flows {
    let line = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        let name = fields.next()?;
        let number = |text: Option<&str>| text?.parse::<u64>().ok()?.checked_mul(SECTOR_BYTES);
        let flow = Flow {
            inward: number(fields.nth(2))?,
            outward: number(fields.nth(3))?,
        };
        let is_disk = !NO_DISKS.iter().any(|prefix| name.starts_with(prefix));
        is_disk.then(|| (name.to_owned(), flow))
    };
    text.lines().filter_map(line).collect()
}

fn parse_network(text: &str) -> Flows {
    let line = |line: &str| {
        let (name, counters) = line.rsplit_once(':')?;
        let mut counters = counters.split_whitespace();
        let flow = Flow {
            inward: counters.next()?.parse().ok()?,
            outward: counters.nth(7)?.parse().ok()?,
        };
        let name = name.trim();
        (name != "lo").then(|| (name.to_owned(), flow))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    const DISKSTATS: &str = include_str!("../../tests/fixtures/diskstats-debian");
    const NET_DEV: &str = include_str!("../../tests/fixtures/net-dev-debian");

    fn flows(entries: &[(&str, u64, u64)]) -> Flows {
        let flow = |&(name, inward, outward): &(&str, u64, u64)| {
            (name.to_owned(), Flow { inward, outward })
        };
        entries.iter().map(flow).collect()
    }

    #[test]
    fn the_busy_share_counts_neither_idle_nor_waiting_nor_guests_twice() {
        let before = parse_cpu("cpu  100 0 100 800 0 0 0 0 50 0\ncpu0 1 2 3\n").unwrap();
        let after = parse_cpu("cpu  150 0 120 920 10 0 0 0 90 0\n").unwrap();
        assert!((busy_ratio(before, after).unwrap() - 0.35).abs() < 1e-6);
        assert_eq!(busy_ratio(after, before), Err(RESET.to_owned()));
        assert!(busy_ratio(after, after).is_err());
        assert_eq!(parse_cpu("cpu  1 2\n"), None);
        assert_eq!(parse_cpu("intr 5\n"), None);
    }

    #[test]
    fn only_whole_disks_are_counted() {
        let (_keep, root) = fixture::host(&[
            ("proc/diskstats", DISKSTATS),
            ("sys/block/sda/size", "1\n"),
            ("sys/block/nvme0n1/size", "1\n"),
            ("sys/block/dm-0/size", "1\n"),
            ("sys/block/loop0/size", "1\n"),
        ]);
        let expected = flows(&[("nvme0n1", 2048, 4096), ("sda", 100 * 512, 300 * 512)]);
        assert_eq!(disk_flows(&root), Ok(expected));
    }

    #[test]
    fn where_no_disk_is_visible_there_is_a_reason() {
        let (_keep, root) = fixture::host(&[("proc/diskstats", ""), ("sys/block/loop0/size", "")]);
        assert_eq!(
            disk_flows(&root),
            Err("no whole disk is visible".to_owned())
        );
    }

    #[test]
    fn loopback_is_no_traffic_and_aliases_keep_their_name() {
        let expected = flows(&[
            ("eth0", 176_957_633, 811_647),
            ("eth0:1", 5, 6),
            ("wg0", 7, 8),
        ]);
        assert_eq!(parse_network(NET_DEV), expected);
    }

    #[test]
    fn rates_are_per_second_over_what_both_readings_have() {
        let before = flows(&[("a", 0, 100), ("gone", 50, 50)]);
        let after = flows(&[("a", 3000, 400), ("come", 1 << 40, 1 << 40)]);
        let rate = per_second(&before, &after, Duration::from_secs(30));
        assert_eq!(
            rate,
            Ok(Flow {
                inward: 100,
                outward: 10
            })
        );
    }

    #[test]
    fn a_counter_that_went_back_gives_no_rate() {
        let rate = per_second(
            &flows(&[("a", 9, 9)]),
            &flows(&[("a", 10, 8)]),
            Duration::from_secs(1),
        );
        assert_eq!(rate, Err(RESET.to_owned()));
        assert!(per_second(&Flows::new(), &Flows::new(), Duration::ZERO).is_err());
    }
}
