//! What comes back for a batch: a sequence of [`Frame`]s.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::{CommandId, StreamId};
use crate::time::UnixMillis;
use crate::wire::batch::Class;

/// One frame of an answer: exactly one field is set, or none where a newer collector sent a frame
/// this build does not know, which is then skipped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<Ack>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goaway: Option<Goaway>,
}

impl From<Ack> for Frame {
    fn from(ack: Ack) -> Self {
        Self {
            ack: Some(ack),
            ..Self::default()
        }
    }
}

impl From<Policy> for Frame {
    fn from(policy: Policy) -> Self {
        Self {
            policy: Some(policy),
            ..Self::default()
        }
    }
}

impl From<Command> for Frame {
    fn from(command: Command) -> Self {
        Self {
            command: Some(command),
            ..Self::default()
        }
    }
}

impl From<Goaway> for Frame {
    fn from(goaway: Goaway) -> Self {
        Self {
            goaway: Some(goaway),
            ..Self::default()
        }
    }
}

/// What is committed, sent only after COMMIT. Always the first frame; `packages` and `updates`, which take longer, are
/// acknowledged by one of their own later in the same answer, or not at all where the collector has no room for them now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Everything up to and including `acked_seq` is in the tables, or known to be lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cursors: Vec<Cursor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<StateAck>,
    /// Keys (`facts` for every `facts.` key) whose whole the collector wants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub want_whole: Vec<WantWhole>,
    /// What was not stored and must not be sent again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
    /// Where a part began above what is stored: nothing of it was stored, go on from here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<Expected>,
    pub server_time: UnixMillis,
}

/// How far a class of a stream is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub stream: StreamId,
    pub class: Class,
    pub acked_seq: u64,
}

/// A state version that is stored, or older than what is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateAck {
    pub key: String,
    pub version: u64,
    /// Of a version in parts: which of them is stored.
    #[serde(default, skip_serializing_if = "is_first")]
    pub part: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_first(part: &u32) -> bool {
    *part == 0
}

/// A state key whose stored hash differs from the heartbeat's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantWhole {
    pub key: String,
}

/// The sequence number the collector expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    pub stream: StreamId,
    pub class: Class,
    pub seq: u64,
}

/// Something of a batch that can't be stored. Records are kept as dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The live heartbeat's `n`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<u64>,
    /// A stable word for the reason.
    pub code: String,
}

/// What the fleet's operators want of this agent. Replaces the one before as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub version: u64,
    #[serde(default)]
    pub intervals: Intervals,
    /// Root certificates the agent accepts, DER. Empty: keep those it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust_bundle: Vec<ByteBuf>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// How often the agent looks and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intervals {
    pub heartbeat_ms: u32,
    /// How often facts are collected again; they are sent only where they changed.
    pub facts_ms: u32,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            heartbeat_ms: 30_000,
            facts_ms: 600_000,
        }
    }
}

/// One thing to do, from a closed list; never a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub id: CommandId,
    /// Not to be started after this, by the collector's clock.
    pub expires_at: UnixMillis,
    pub action: Action,
    /// The volume or drill it is about, where the action needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// The closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Collect all facts now and send them whole.
    RefreshFacts,
    /// Get a new certificate now.
    Renew,
    /// Ask what there is to protect, now.
    RefreshVolumes,
    RunBackup,
    RunDrill,
    Verify,
    /// An action of a newer collector: answered `unsupported`.
    #[serde(other)]
    Unsupported,
}

/// The collector is going away: take another endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goaway {
    /// Reconnect after a uniformly random part of this.
    pub within_ms: u32,
}
