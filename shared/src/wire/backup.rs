//! Backups on the wire: what a host is to protect, runs, chunks that the collector has, and where they are. What is stored is
//! docs/formats/backup.md; packs and snapshots travel as the bytes they are, all else as documents.
//!
//! A host is told of its own volumes and of those it has a grant for, and of no other: `not_found`.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::backup::{Algorithm, ChunkId, KeyId, PackHash, Refs, Salt};
use crate::ids::{BackupRunId, HostId, SnapshotId, VolumeId};
use crate::time::UnixMillis;

/// `POST /agent/v1/backup/volumes`: what this host is to protect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesAsked {
    pub protocol: u16,
}

/// All of them; one that is not in it any more is not to be protected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volumes {
    pub volumes: Vec<Volume>,
    pub server_time: UnixMillis,
}

/// A volume as its host has to know it.
#[expect(clippy::struct_excessive_bools, reason = "each is told by itself")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub id: VolumeId,
    /// Of this host's volumes; letters, digits and `-_.`.
    pub name: String,
    pub source: Source,
    /// Smaller chunks: it changes a little in many places.
    #[serde(default)]
    pub is_database: bool,
    /// Cron of five fields, in UTC; `None`: on command only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// A run begins up to this later, each host at its own time.
    #[serde(default)]
    pub jitter_s: u32,
    /// When no run begins and a running one waits: minutes of the day in UTC, from and until; over midnight where the second
    /// is smaller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed_windows: Vec<(u16, u16)>,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// Names in the host's own configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_hook: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_hook: Option<String>,
    /// Names of files may be known to the collector.
    #[serde(default)]
    pub is_catalog_visible: bool,
    /// Nothing is run by schedule.
    #[serde(default)]
    pub is_paused: bool,
    /// A restore of it is to be rehearsed now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_drill_due: bool,
}

/// What is protected. Exactly one is set; none: a kind of a newer collector, which is not run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Program>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Program>,
}

/// Trees of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Absolute.
    pub paths: Vec<String>,
    /// Patterns as gitignore(5) has them, from the root; a match is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<String>,
    /// Other file systems that are mounted below are entered too.
    #[serde(default)]
    pub crosses_file_systems: bool,
}

/// A program by its name in the host's own configuration: what it runs stands there alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub program: String,
}

/// `POST /agent/v1/backup/runs`: a run begins. Said again with the same id, it is the same run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginRun {
    pub protocol: u16,
    pub run: BackupRunId,
    pub volume: VolumeId,
    pub trigger: Trigger,
    /// By the host's clock.
    pub started_at: UnixMillis,
    /// The agent's version.
    pub agent: String,
    /// `None`: of a source without chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<WrappedKey>,
    /// The snapshot whose chunks the agent remembers. While the run is under way they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// The run has the volume's lock on its host: whatever ran there before is dead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_lock: bool,
}

/// A volume's key for its recovery recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    pub id: KeyId,
    /// An age file.
    pub age: ByteBuf,
    /// Public keys, as they are written.
    pub recipients: Vec<String>,
}

/// What began a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    Schedule,
    /// From the collector.
    Command,
    /// Somebody on the host.
    Host,
    #[serde(other)]
    Other,
}

/// The run may go on. `volume` is as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    pub volume: Volume,
    /// Without a beat for so long the run counts as interrupted.
    pub lease_ms: u32,
    pub server_time: UnixMillis,
    /// The newest whole snapshot, to compare sizes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ok: Option<Snapshot>,
    /// The parent is there. Otherwise the agent forgets what it remembers, and asks for each chunk.
    #[serde(default)]
    pub has_parent: bool,
    /// Chunks of the parent that are lost: the agent forgets these.
    #[serde(default, skip_serializing_if = "Refs::is_empty")]
    pub lost: Refs,
}

/// `POST /agent/v1/backup/beat`: the run is alive. Every second while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub run: BackupRunId,
    pub progress: Progress,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub files: u64,
    /// Of content, read or known to be unchanged.
    pub bytes: u64,
    /// What is expected, by the snapshot before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_expected: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_expected: Option<u64>,
    /// Of packs that are stored.
    pub sent_bytes: u64,
    pub packs: u64,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beaten {
    pub order: Order,
}

/// What somebody wants of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    #[default]
    GoOn,
    Pause,
    Cancel,
    /// Of a newer collector.
    #[serde(other)]
    Other,
}

/// `POST /agent/v1/backup/missing`: which of these chunks have to be sent. At most
/// [`crate::limits::BACKUP_MISSING_IDS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingAsked {
    pub run: BackupRunId,
    /// Ids, one after another.
    pub ids: ByteBuf,
}

/// For each id, in their order, 19 bytes: 1, salt and counter (big-endian) of a chunk that is held; or 0s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub held: ByteBuf,
}

/// The answer to `PUT /agent/v1/packs/{hash}?run={id}`, whose body is the pack: 201, or 200 where it was there. It is in the
/// store and in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackStored {
    pub hash: PackHash,
}

/// The answer to `PUT /agent/v1/snapshots/{id}?run={id}`, whose body is the snapshot. 201 and nothing missing: it is committed,
/// and the run can end as its state says. 409: chunks that it needs are not there; send them and come again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStored {
    #[serde(default, skip_serializing_if = "Refs::is_empty")]
    pub missing: Refs,
}

/// `POST /agent/v1/backup/end`, and the body of the record `backup_result`, which is sent where the collector could not be told:
/// the run has ended. Said again it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRun {
    pub run: BackupRunId,
    pub volume: VolumeId,
    pub trigger: Trigger,
    /// By the host's clock.
    pub started_at: UnixMillis,
    pub ended_at: UnixMillis,
    pub outcome: Outcome,
    /// Why it is not `ok`: one of [`reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What could not be read; the first of them. Empty for volumes whose names the collector must not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    #[serde(default)]
    pub errors_total: u64,
    pub progress: Progress,
    /// Of chunks that were not there before, as they were read.
    #[serde(default)]
    pub new_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// CPU time of the run's process, in milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    /// There is a snapshot, and it says what is not in it.
    Incomplete,
    /// There is none.
    Failed,
    Cancelled,
    #[serde(other)]
    Other,
}

/// Why a run or a drill is not `ok`. Stable words, that programs branch on.
pub mod reason {
    /// The program ended with another code than 0.
    pub const EXIT_CODE: &str = "exit_code";
    /// The program was ended by a signal.
    pub const SIGNAL: &str = "signal";
    pub const TIMEOUT: &str = "timeout";
    pub const EMPTY_OUTPUT: &str = "empty_output";
    /// Below `min_bytes`.
    pub const TOO_SMALL: &str = "too_small";
    /// More than `max_shrink_percent` below the snapshot before.
    pub const SHRUNK: &str = "shrunk";
    /// The host's configuration names no such program.
    pub const UNKNOWN_PROGRAM: &str = "unknown_program";
    pub const CANNOT_START: &str = "cannot_start";
    pub const PRE_HOOK: &str = "pre_hook_failed";
    pub const POST_HOOK: &str = "post_hook_failed";
    pub const UNREADABLE_FILES: &str = "unreadable_files";
    pub const CHANGED_FILES: &str = "changed_while_read";
    /// A path outside `allowed_paths`.
    pub const NOT_ALLOWED: &str = "path_not_allowed";
    /// None of the paths is there.
    pub const NOTHING_THERE: &str = "nothing_there";
    pub const NO_RECIPIENTS: &str = "no_recipients";
    /// The host's configuration is missing, not root's, or not valid.
    pub const CONFIGURATION: &str = "host_configuration";
    pub const DISK_FULL: &str = "disk_full";
    pub const COLLECTOR_AWAY: &str = "collector_away";
    /// The collector could not store it: S3 or its database.
    pub const STORE_AWAY: &str = "store_away";
    pub const REFUSED: &str = "collector_refused";
    /// The host's clock is wrong; what it made is dated by the collector.
    pub const CLOCK_WRONG: &str = "clock_wrong";
    pub const CANCELLED: &str = "cancelled";
    /// Its process died; said by the collector when the lease ran out, or by the agent that finds its traces.
    pub const INTERRUPTED: &str = "interrupted";
    /// The tool that is wrapped says so.
    pub const EXTERNAL: &str = "external_failed";
    pub const UNSUPPORTED: &str = "unsupported";
    /// Of drills: there is no whole snapshot.
    pub const NO_SNAPSHOT: &str = "no_snapshot";
    /// The host has not the key that the snapshot is sealed with.
    pub const NO_KEY: &str = "no_key";
    /// Something is lost, damaged, or came back otherwise.
    pub const NOT_RESTORABLE: &str = "not_restorable";
    /// It came back, and its recipe says that it is not good.
    pub const CHECK_FAILED: &str = "check_failed";
    pub const INTERNAL: &str = "internal_error";
}

/// The collector has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {}

/// `POST /agent/v1/backup/snapshots`: newest first, at most [`crate::limits::BACKUP_SNAPSHOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotsAsked {
    pub volume: VolumeId,
    /// Only those before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<SnapshotId>,
}

/// What there is to restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    pub snapshots: Vec<Snapshot>,
    /// The volume's keys, for who has a recovery identity.
    pub keys: Vec<WrappedKey>,
}

/// A snapshot; its object is at `GET /agent/v1/snapshots/{volume}/{id}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub host: HostId,
    /// By the collector's clock, where the host's was wrong.
    pub at: UnixMillis,
    pub is_whole: bool,
    pub files: u64,
    pub bytes: u64,
}

/// `POST /agent/v1/backup/places`: where chunks are. At most [`crate::limits::BACKUP_PLACES`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacesAsked {
    pub volume: VolumeId,
    /// Ids, one after another.
    pub ids: ByteBuf,
    /// Those too that lie beside them in their packs, at most [`crate::limits::BACKUP_NEIGHBORS`] in all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_neighbors: bool,
}

/// The places, in no order; an id that was asked for and is not among them is lost or was never there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    pub places: Vec<Place>,
}

/// Where a chunk is, and what it was sealed with. Its pack is at `GET /agent/v1/packs/{volume}/{hash}`, which takes one
/// `Range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub id: ChunkId,
    pub pack: PackHash,
    pub offset: u32,
    pub length: u32,
    pub salt: Salt,
    pub algorithm: Algorithm,
    pub counter: u16,
}
