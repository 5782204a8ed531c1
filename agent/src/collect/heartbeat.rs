//! The heartbeat's measurements, and the counters of the last one that rates are made from.
//!
//! Cheap by design: a few lines of `/proc`, one `statvfs` a filesystem, one child of `systemctl`.
//! Whatever fails is `None` with its reason; the heartbeat itself always goes out. Called by the
//! run loop every 30 seconds.

use std::time::Duration;

use infratrack_shared::wire::heartbeat::{Heartbeat, Unknown};
use tokio::time::Instant;

use super::bounded::Bounded;
use super::fact::clean_text;
use super::filesystems::Filesystems;
use super::rates::{self, CpuTimes, Flow, Flows};
use super::{Reason, Root, memory, pressure, process, reboot, sensors, systemd, virtualization};

const SYSTEMD: Duration = Duration::from_secs(2);
/// A sensor answers in microseconds, one behind a slow bus in milliseconds.
const SENSORS: Duration = Duration::from_secs(1);
const FIRST: &str = "the first heartbeat has nothing to compare with";

/// Fills heartbeats. Keep one for the agent's life: rates are between two calls.
pub struct HeartbeatSource {
    root: Root,
    in_container: bool,
    filesystems: Filesystems,
    sensors: Bounded,
    reboot: reboot::Watch,
    last: Option<Counters>,
}

/// What rates are made from.
struct Counters {
    at: Instant,
    cpu: Result<CpuTimes, Reason>,
    disks: Result<Flows, Reason>,
    networks: Result<Flows, Reason>,
}

impl HeartbeatSource {
    /// A source that reads below `root`.
    pub fn new(root: Root) -> Self {
        Self {
            in_container: virtualization::container(&root).is_some(),
            filesystems: Filesystems::new(),
            sensors: Bounded::default(),
            reboot: reboot::Watch::default(),
            last: None,
            root,
        }
    }

    /// Fills `base`. Identity, times, spool and hashes stay as the caller set them.
    pub async fn collect(&mut self, base: Heartbeat) -> Heartbeat {
        let mut beat = Filling { beat: base };
        beat.counters(
            self.last.take(),
            self.last.insert(Counters::read(&self.root)),
        );
        beat.process(&self.root);
        beat.memory(memory::read(&self.root, self.in_container));
        beat.pressure(pressure::read(&self.root, self.in_container));
        beat.temperature(&mut self.sensors, &self.root).await;
        beat.filesystems(&mut self.filesystems, &self.root).await;
        beat.beat.failed_unit_count = beat.known(
            &["failed_unit_count"],
            systemd::failed_count(&self.root, SYSTEMD).await,
        );
        beat.beat.reboot_required = beat.known(
            &["reboot_required"],
            self.reboot.is_required(&self.root).await,
        );
        beat.beat
    }
}

impl Counters {
    fn read(root: &Root) -> Self {
        Self {
            at: Instant::now(),
            cpu: rates::cpu_times(root),
            disks: rates::disk_flows(root),
            networks: rates::network_flows(root),
        }
    }
}

struct Filling {
    beat: Heartbeat,
}

impl Filling {
    /// The value, or `None` and the reason under each of `fields`.
    fn known<T>(&mut self, fields: &[&str], value: Result<T, Reason>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(reason) => {
                for field in fields {
                    self.unknown((*field).to_owned(), &reason);
                }
                None
            }
        }
    }

    fn unknown(&mut self, field: String, reason: &str) {
        self.beat.unknown.push(Unknown {
            field: clean_text(field),
            reason: clean_text(reason.to_owned()),
        });
    }

    fn counters(&mut self, before: Option<Counters>, after: &Counters) {
        let first = || FIRST.to_owned();
        let elapsed = before.as_ref().map(|before| after.at - before.at);
        let (cpu, disks, networks) = match before {
            Some(before) => (before.cpu, before.disks, before.networks),
            None => (Err(first()), Err(first()), Err(first())),
        };
        // What cannot be read is the better reason than what could not be read before.
        let ratio = after
            .cpu
            .clone()
            .and_then(|after| rates::busy_ratio(cpu?, after));
        self.beat.cpu_ratio = self.known(&["cpu_ratio"], ratio);

        let elapsed = elapsed.unwrap_or_default();
        let rate = |before: Result<Flows, Reason>, after: &Result<Flows, Reason>| {
            let after = after.as_ref().map_err(Clone::clone)?;
            rates::per_second(&before?, after, elapsed)
        };
        let flow = rate(disks, &after.disks);
        let fields = ["disk_read_bytes_per_s", "disk_written_bytes_per_s"];
        let flow: Option<Flow> = self.known(&fields, flow);
        self.beat.disk_read_bytes_per_s = flow.map(|flow| flow.inward);
        self.beat.disk_written_bytes_per_s = flow.map(|flow| flow.outward);

        let flow = rate(networks, &after.networks);
        let fields = ["net_received_bytes_per_s", "net_sent_bytes_per_s"];
        let flow: Option<Flow> = self.known(&fields, flow);
        self.beat.net_received_bytes_per_s = flow.map(|flow| flow.inward);
        self.beat.net_sent_bytes_per_s = flow.map(|flow| flow.outward);
    }

    fn process(&mut self, root: &Root) {
        let load = self.known(&["load_1", "load_5", "load_15"], process::load(root));
        self.beat.load_1 = load.map(|[one, _, _]| one);
        self.beat.load_5 = load.map(|[_, five, _]| five);
        self.beat.load_15 = load.map(|[_, _, fifteen]| fifteen);
        self.beat.uptime_s = self.known(&["uptime_s"], process::uptime_s(root));
        self.beat.process_count = self.known(&["process_count"], process::count(root));
        self.beat.agent = process::own(root);
    }

    fn memory(&mut self, memory: memory::Memory) {
        self.beat.memory_total_bytes = memory.total;
        self.beat.memory_available_bytes = memory.available;
        self.beat.swap_total_bytes = memory.swap_total;
        self.beat.swap_used_bytes = memory.swap_used;
        for (field, reason) in memory.unknown {
            self.unknown(field.to_owned(), &reason);
        }
    }

    fn pressure(&mut self, pressure: pressure::Pressure) {
        let mut known = |field, share| self.known(&[field], share);
        let cpu_some = known("cpu_pressure_some_ratio", pressure.cpu_some);
        let memory_some = known("memory_pressure_some_ratio", pressure.memory_some);
        let memory_full = known("memory_pressure_full_ratio", pressure.memory_full);
        let io_some = known("io_pressure_some_ratio", pressure.io_some);
        let io_full = known("io_pressure_full_ratio", pressure.io_full);
        self.beat.cpu_pressure_some_ratio = cpu_some;
        self.beat.memory_pressure_some_ratio = memory_some;
        self.beat.memory_pressure_full_ratio = memory_full;
        self.beat.io_pressure_some_ratio = io_some;
        self.beat.io_pressure_full_ratio = io_full;
    }

    /// On a thread of its own: a sensor may be behind a bus that hangs.
    async fn temperature(&mut self, sensors: &mut Bounded, root: &Root) {
        let hottest = if sensors::are_there(root) {
            let root = root.clone();
            let hottest = sensors.run("sensors", SENSORS, move || sensors::hottest(&root));
            hottest.await.and_then(|hottest| hottest)
        } else {
            Err(sensors::NONE.to_owned())
        };
        self.beat.temperature_max_celsius = self.known(&["temperature_max_celsius"], hottest);
    }

    async fn filesystems(&mut self, filesystems: &mut Filesystems, root: &Root) {
        let usage = filesystems.collect(root).await;
        let Some(usage) = self.known(&["filesystems"], usage) else {
            return;
        };
        self.beat.filesystems = usage.known;
        for (mount, reason) in usage.unknown {
            self.unknown("filesystems".to_owned(), &format!("{mount}: {reason}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::collect::fixture;

    const MEMINFO: &str = include_str!("../../tests/fixtures/meminfo-debian");

    fn reason<'a>(beat: &'a Heartbeat, field: &str) -> Option<&'a str> {
        let unknown = beat.unknown.iter().find(|unknown| unknown.field == field)?;
        Some(&unknown.reason)
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_between_two_heartbeats_and_the_first_says_why_it_has_none() {
        let disk = |sectors| format!("8 0 sda 1 0 {sectors} 0 1 0 {sectors} 0 0 0 0\n");
        let (_keep, root) = fixture::host(&[
            ("proc/stat", "cpu  0 0 0 100 0 0 0 0\n"),
            ("proc/diskstats", &disk(1000)),
            ("sys/block/sda/size", "1"),
            ("proc/net/dev", "eth0: 0 0 0 0 0 0 0 0 0 0\n"),
            ("proc/meminfo", MEMINFO),
        ]);
        let mut source = HeartbeatSource::new(root.clone());
        let first = source.collect(Heartbeat::default()).await;
        assert_eq!(
            (first.cpu_ratio, reason(&first, "cpu_ratio")),
            (None, Some(FIRST))
        );
        assert_eq!(reason(&first, "net_sent_bytes_per_s"), Some(FIRST));
        assert_eq!(first.memory_total_bytes, Some(8_077_736 * 1024));

        tokio::time::advance(Duration::from_secs(32)).await;
        let write = |path: &str, text: &str| fs::write(root.path(path), text).unwrap();
        write("proc/stat", "cpu  50 0 0 150 0 0 0 0\n");
        write("proc/diskstats", &disk(2000));
        write("proc/net/dev", "eth0: 3200 0 0 0 0 0 0 0 64000 0\n");
        let second = source.collect(Heartbeat::default()).await;
        assert_eq!(second.cpu_ratio, Some(0.5));
        assert_eq!(second.disk_read_bytes_per_s, Some(16_000));
        assert_eq!(second.net_received_bytes_per_s, Some(100));
        assert_eq!(second.net_sent_bytes_per_s, Some(2000));

        tokio::time::advance(Duration::from_secs(30)).await;
        write("proc/diskstats", &disk(10));
        let third = source.collect(Heartbeat::default()).await;
        assert_eq!(third.disk_written_bytes_per_s, None);
        assert_eq!(
            reason(&third, "disk_written_bytes_per_s"),
            Some(rates::RESET)
        );
    }

    #[tokio::test]
    async fn an_empty_host_sends_a_heartbeat_in_which_every_gap_has_its_reason() {
        let (_keep, root) = fixture::host(&[]);
        let base = Heartbeat {
            n: 7,
            mono_ms: 9,
            ..Heartbeat::default()
        };
        let beat = HeartbeatSource::new(root).collect(base).await;
        assert_eq!((beat.n, beat.mono_ms), (7, 9));
        let json = serde_json::to_value(&beat).unwrap();
        let not_filled_here = ["facts_hash", "inventory_hash"];
        for (field, value) in json.as_object().unwrap() {
            if value.is_null() && !not_filled_here.contains(&field.as_str()) {
                assert!(reason(&beat, field).is_some(), "{field}");
            }
        }
        assert_eq!(reason(&beat, "failed_unit_count"), Some("no systemd"));
    }

    #[tokio::test]
    async fn pressure_and_the_hottest_sensor_are_of_this_moment_and_not_of_two_heartbeats() {
        let pressure = "some avg10=0 avg60=12.50 avg300=0 total=1\n\
                        full avg10=0 avg60=6.25 avg300=0 total=1\n";
        let (_keep, root) = fixture::host(&[
            ("proc/pressure/cpu", pressure),
            ("proc/pressure/memory", pressure),
            ("sys/class/hwmon/hwmon0/temp1_input", "41000\n"),
        ]);
        let beat = HeartbeatSource::new(root)
            .collect(Heartbeat::default())
            .await;
        assert_eq!(beat.cpu_pressure_some_ratio, Some(0.125));
        assert_eq!(beat.memory_pressure_some_ratio, Some(0.125));
        assert_eq!(beat.memory_pressure_full_ratio, Some(0.0625));
        assert_eq!(beat.io_pressure_some_ratio, None);
        assert!(reason(&beat, "io_pressure_full_ratio").is_some());
        assert_eq!(beat.temperature_max_celsius, Some(41.0));
    }
}
