//! Every limit of the wire, in one place. Both sides hold to them; the collector enforces them.

/// Depth of nesting any document may have (arrays and maps).
pub const DEPTH: usize = 32;
/// Length of one string or binary, in bytes.
pub const STRING_BYTES: usize = 64 * 1024;
/// A batch as it travels, compressed or not, in bytes.
pub const BATCH_WIRE_BYTES: usize = 512 * 1024;
/// A batch after decompression, in bytes.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Values (keys, scalars, arrays and maps) in one document.
pub const ITEMS: usize = 100_000;
/// Records in one batch, over all its parts.
pub const BATCH_RECORDS: usize = 500;
/// Parts in one batch.
pub const BATCH_PARTS: usize = 16;
/// Lost ranges in one batch, over all its parts.
pub const BATCH_LOST_RANGES: usize = 1_000;
/// Command ids confirmed in one batch.
pub const BATCH_COMMANDS_SEEN: usize = 1_000;
/// State parts in one batch.
pub const BATCH_STATE_PARTS: usize = 256;
/// One encoded record, in bytes.
pub const RECORD_BYTES: usize = 256 * 1024;
/// One encoded state part, in bytes.
pub const STATE_PART_BYTES: usize = 1024 * 1024;
/// Parts one state version may be split into.
pub const STATE_PARTS: u32 = 64;
/// The name of a record's kind or of a state's key, in bytes.
pub const NAME_BYTES: usize = 128;
/// Filesystems in one heartbeat.
pub const HEARTBEAT_FILESYSTEMS: usize = 256;
/// An enrollment, renewal or return request, in bytes.
pub const ENROLL_BYTES: usize = 8 * 1024;
/// A request with records of plays, before and after decompression, in bytes.
pub const PLAYS_BYTES: usize = 512 * 1024;
/// Records of plays in one request.
pub const PLAYS_RECORDS: usize = 500;
/// A request about backups that is a document, in bytes.
pub const BACKUP_BYTES: usize = 128 * 1024;
/// Ids in one question what is missing.
pub const BACKUP_MISSING_IDS: usize = 2_000;
/// Ids in one question where chunks are.
pub const BACKUP_PLACES: usize = 2_000;
/// Places in an answer that nobody asked for by their ids.
pub const BACKUP_NEIGHBORS: usize = 4_096;
/// Snapshots in one answer.
pub const BACKUP_SNAPSHOTS: usize = 500;
/// Volumes of one host.
pub const BACKUP_VOLUMES: usize = 200;
/// Errors that a run tells the collector of.
pub const BACKUP_ERRORS: usize = 100;
/// One frame of an answer, in bytes.
pub const FRAME_BYTES: usize = 1024 * 1024;
/// The longest an answer is held for commands, in milliseconds.
pub const WAIT_MS: u32 = 60_000;
/// Bodies below this are not compressed, in bytes: a lone heartbeat grows by it.
pub const COMPRESS_ABOVE_BYTES: usize = 1024;
/// Largest window a zstd frame may ask for, as a power of two (4 MiB).
pub const ZSTD_WINDOW_LOG: u32 = 22;
