//! Restore drills on the wire: a host restores a volume's newest whole snapshot into a scratch directory, compares what came, and
//! reports. A volume whose drill is due says so ([`super::backup::Volume::is_drill_due`]).

use serde::{Deserialize, Serialize};

use super::backup::{Outcome, Progress, Trigger, Volume};
use crate::ids::{DrillId, SnapshotId, VolumeId};
use crate::time::UnixMillis;

/// `POST /agent/v1/backup/drills`: a drill begins. Said again with the same id, it is the same drill. A host has one at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginDrill {
    pub protocol: u16,
    pub drill: DrillId,
    pub volume: VolumeId,
    pub trigger: Trigger,
    /// By the host's clock.
    pub started_at: UnixMillis,
    /// The agent's version.
    pub agent: String,
    /// What somebody on the host wants; `None`: as the collector says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<DrillMode>,
}

/// How much of a restore is rehearsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillMode {
    /// Everything is written, read back and compared; what a program wrote is checked by its recipe too.
    #[default]
    Full,
    /// What a program wrote is written once and checked by its recipe.
    Database,
    /// Everything is read and opened; nothing is written.
    Validation,
    /// Of a newer collector: as `full`.
    #[serde(other)]
    Other,
}

/// The drill may go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunDrill {
    pub volume: Volume,
    pub mode: DrillMode,
    /// Without a beat for so long the drill counts as interrupted.
    pub lease_ms: u32,
    pub server_time: UnixMillis,
}

/// `POST /agent/v1/backup/drill-beat`: the drill is alive. The answer is [`super::backup::Beaten`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillBeat {
    pub drill: DrillId,
    pub progress: Progress,
}

/// `POST /agent/v1/backup/drill-end`: the drill has ended. Said again it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndDrill {
    pub drill: DrillId,
    pub volume: VolumeId,
    /// By the host's clock.
    pub started_at: UnixMillis,
    pub ended_at: UnixMillis,
    /// `ok`, `failed` or `cancelled`.
    pub outcome: Outcome,
    /// Why it is not `ok`: one of [`super::backup::reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub report: DrillReport,
}

/// What was rehearsed, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// There was no room for all of it: `files` and `bytes` are of a sample.
    #[serde(default)]
    pub is_sampled: bool,
    /// That were restored; where nothing was written, that were read.
    pub files: u64,
    pub bytes: u64,
    /// Of the snapshot.
    pub files_total: u64,
    pub bytes_total: u64,
    /// Read from the store.
    pub read_bytes: u64,
    /// Entries that did not come back as the snapshot says.
    pub mismatches: u64,
    /// The first of them. Empty for volumes whose names the collector must not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differing: Vec<String>,
    /// Until what was lost could be used again: without the comparison.
    pub restore_ms: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<DrillCheck>,
    /// Name and version of what was used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<(String, String)>,
}

/// One check of what was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillCheck {
    /// `content`, `pg_restore_list`, `throwaway_cluster`, `row_counts`, `check_argv`.
    pub name: String,
    pub outcome: CheckOutcome,
    /// What was found, or why it was not done.
    pub detail: String,
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    Ok,
    Failed,
    /// It could not be done here, which proves nothing.
    #[serde(other)]
    Skipped,
}
