//! What a simulated host says of itself: plausible, and the same for the same seed.

use infratrack_shared::ids::StreamId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::heartbeat::{AgentUsage, FilesystemUsage, Heartbeat, SpoolUsage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const GIB: u64 = 1 << 30;

/// One host's numbers.
#[derive(Debug)]
pub(crate) struct Host {
    random: StdRng,
    memory_bytes: u64,
    disk_bytes: u64,
}

impl Host {
    /// Host number `index` of the fleet that is seeded with `seed`.
    pub(crate) fn new(seed: u64, index: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) ^ index as u64);
        Self {
            memory_bytes: GIB << random.random_range(2..8),
            disk_bytes: GIB << random.random_range(5..12),
            random,
        }
    }

    /// A part of the whole, 0 to 1.
    pub(crate) fn part(&mut self) -> f64 {
        self.random.random()
    }

    /// The next heartbeat.
    pub(crate) fn heartbeat(
        &mut self,
        (stream, n): (StreamId, u64),
        at: UnixMillis,
        mono_ms: u64,
        spool: SpoolUsage,
    ) -> Heartbeat {
        let random = &mut self.random;
        let load = random.random_range(0.0..4.0);
        let filesystem = |mount: &str, total_bytes: u64, free: u64| FilesystemUsage {
            mount: mount.to_owned(),
            total_bytes,
            available_bytes: total_bytes / 100 * free,
            inodes_total: total_bytes / 16_384,
            inodes_free: total_bytes / 16_384 / 100 * 90,
        };
        Heartbeat {
            stream,
            n,
            at,
            mono_ms,
            cpu_ratio: Some(random.random()),
            load_1: Some(load),
            load_5: Some(load * 0.9),
            load_15: Some(load * 0.8),
            memory_total_bytes: Some(self.memory_bytes),
            memory_available_bytes: Some(self.memory_bytes / 100 * random.random_range(20..90)),
            swap_total_bytes: Some(GIB),
            swap_used_bytes: Some(random.random_range(0..GIB)),
            cpu_pressure_some_ratio: Some(random.random()),
            memory_pressure_some_ratio: Some(random.random()),
            memory_pressure_full_ratio: Some(0.0),
            io_pressure_some_ratio: Some(random.random()),
            io_pressure_full_ratio: Some(0.0),
            temperature_max_celsius: Some(random.random_range(30.0..90.0)),
            filesystems: vec![
                filesystem("/", self.disk_bytes, random.random_range(10..60)),
                filesystem("/srv", self.disk_bytes * 4, random.random_range(10..60)),
            ],
            disk_read_bytes_per_s: Some(random.random_range(0..50_000_000)),
            disk_written_bytes_per_s: Some(random.random_range(0..50_000_000)),
            net_received_bytes_per_s: Some(random.random_range(0..10_000_000)),
            net_sent_bytes_per_s: Some(random.random_range(0..10_000_000)),
            uptime_s: Some(mono_ms / 1000),
            process_count: Some(random.random_range(80..400)),
            failed_unit_count: Some(0),
            reboot_required: Some(false),
            spool,
            agent: AgentUsage {
                version: format!("{}-simulated", env!("CARGO_PKG_VERSION")),
                rss_bytes: Some(14_000_000),
                cpu_ms: Some(mono_ms / 500),
            },
            facts_hash: None,
            inventory_hash: None,
            unknown: Vec::new(),
        }
    }
}
