//! The documents of the wire: named-field MessagePack in both directions.
//!
//! Every field added after a release has a default; unknown fields are ignored; an unknown kind of
//! record stays whole as a raw value. A change here is a change of the protocol: docs/protocol.md.

pub mod answer;
pub mod backup;
pub mod batch;
pub mod drill;
pub mod enroll;
pub mod event;
pub mod frame;
pub mod heartbeat;
pub mod packages;
pub mod plays;
pub mod problem;

/// The version this build speaks. Version N talks to N-1 and N+1.
pub const PROTOCOL: u16 = 1;

/// `Content-Type` of every body on the agent and enrollment listeners.
pub const CONTENT_TYPE: &str = "application/msgpack";

/// `Content-Type` of a held answer: frames as [`frame`] describes them.
pub const FRAMES_CONTENT_TYPE: &str = "application/vnd.infratrack.frames";

/// Paths of the agent and enrollment listeners.
pub mod path {
    pub const BATCH: &str = "/agent/v1/batch";
    pub const PLAYS: &str = "/agent/v1/plays";
    pub const BACKUP_VOLUMES: &str = "/agent/v1/backup/volumes";
    pub const BACKUP_RUNS: &str = "/agent/v1/backup/runs";
    pub const BACKUP_BEAT: &str = "/agent/v1/backup/beat";
    pub const BACKUP_END: &str = "/agent/v1/backup/end";
    pub const BACKUP_MISSING: &str = "/agent/v1/backup/missing";
    pub const BACKUP_SNAPSHOTS: &str = "/agent/v1/backup/snapshots";
    pub const BACKUP_PLACES: &str = "/agent/v1/backup/places";
    pub const BACKUP_DRILLS: &str = "/agent/v1/backup/drills";
    pub const BACKUP_DRILL_BEAT: &str = "/agent/v1/backup/drill-beat";
    pub const BACKUP_DRILL_END: &str = "/agent/v1/backup/drill-end";
    /// With a hash, or a volume and a hash.
    pub const PACKS: &str = "/agent/v1/packs/";
    /// With a snapshot, or a volume and a snapshot.
    pub const SNAPSHOTS: &str = "/agent/v1/snapshots/";
    pub const RENEW: &str = "/agent/v1/renew";
    pub const ENROLL: &str = "/enroll/v1";
    pub const CHALLENGE: &str = "/enroll/v1/challenge";
    pub const RETURN: &str = "/enroll/v1/return";
}
