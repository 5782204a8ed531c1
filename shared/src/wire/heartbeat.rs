//! The heartbeat: what a host says of itself every 30 seconds.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::StreamId;
use crate::time::UnixMillis;

/// One heartbeat. `None` is "unknown", never 0; why is in `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// With `n`, the heartbeat's identity, kept when it is sent again or queued.
    pub stream: StreamId,
    /// Counts up within the stream.
    pub n: u64,
    /// The host's wall clock.
    pub at: UnixMillis,
    /// Milliseconds since boot (`CLOCK_BOOTTIME`).
    pub mono_ms: u64,
    /// Busy share of all CPUs since the last heartbeat, 0 to 1.
    #[serde(default)]
    pub cpu_ratio: Option<f32>,
    #[serde(default)]
    pub load_1: Option<f32>,
    #[serde(default)]
    pub load_5: Option<f32>,
    #[serde(default)]
    pub load_15: Option<f32>,
    #[serde(default)]
    pub memory_total_bytes: Option<u64>,
    /// As the kernel estimates it (`MemAvailable`), or the container's limit less its use.
    #[serde(default)]
    pub memory_available_bytes: Option<u64>,
    #[serde(default)]
    pub swap_total_bytes: Option<u64>,
    #[serde(default)]
    pub swap_used_bytes: Option<u64>,
    /// Shares of the last minute, 0 to 1, in which work waited ("some") or nothing else could run ("full"): the
    /// kernel's pressure stall information (Documentation/accounting/psi.rst), in a container its own group's.
    #[serde(default)]
    pub cpu_pressure_some_ratio: Option<f32>,
    #[serde(default)]
    pub memory_pressure_some_ratio: Option<f32>,
    #[serde(default)]
    pub memory_pressure_full_ratio: Option<f32>,
    #[serde(default)]
    pub io_pressure_some_ratio: Option<f32>,
    #[serde(default)]
    pub io_pressure_full_ratio: Option<f32>,
    /// The hottest of the machine's sensors.
    #[serde(default)]
    pub temperature_max_celsius: Option<f32>,
    #[serde(default)]
    pub filesystems: Vec<FilesystemUsage>,
    /// Rates since the last heartbeat, whole disks only.
    #[serde(default)]
    pub disk_read_bytes_per_s: Option<u64>,
    #[serde(default)]
    pub disk_written_bytes_per_s: Option<u64>,
    /// Rates since the last heartbeat, over all interfaces but loopback.
    #[serde(default)]
    pub net_received_bytes_per_s: Option<u64>,
    #[serde(default)]
    pub net_sent_bytes_per_s: Option<u64>,
    #[serde(default)]
    pub uptime_s: Option<u64>,
    #[serde(default)]
    pub process_count: Option<u32>,
    #[serde(default)]
    pub failed_unit_count: Option<u32>,
    #[serde(default)]
    pub reboot_required: Option<bool>,
    #[serde(default)]
    pub spool: SpoolUsage,
    #[serde(default)]
    pub agent: AgentUsage,
    /// [`Digest::of_set`] over the facts' state keys.
    #[serde(default)]
    pub facts_hash: Option<Digest>,
    /// The hash of the package inventory.
    #[serde(default)]
    pub inventory_hash: Option<Digest>,
    /// What could not be read, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
}

impl Heartbeat {
    /// Its kind where it travels as a record.
    pub const KIND: &'static str = "heartbeat";
}

/// One mounted filesystem that holds data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesystemUsage {
    pub mount: String,
    pub total_bytes: u64,
    /// Free to an unprivileged user (`f_bavail`).
    pub available_bytes: u64,
    /// 0 where the filesystem has no inode table (btrfs).
    #[serde(default)]
    pub inodes_total: u64,
    #[serde(default)]
    pub inodes_free: u64,
}

/// The agent's own queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolUsage {
    pub critical_records: u64,
    pub beat_records: u64,
    /// Bytes the spool takes on disk.
    pub size_bytes: u64,
}

/// The agent's own cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentUsage {
    pub version: String,
    #[serde(default)]
    pub rss_bytes: Option<u64>,
    /// CPU time the process has used since its start, user and system.
    #[serde(default)]
    pub cpu_ms: Option<u64>,
}

/// A value that could not be had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// The field or fact source it is about.
    pub field: String,
    pub reason: String,
}
