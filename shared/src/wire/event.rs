//! Kinds of critical records with a shape this build knows. Everything else is kept raw.
//!
//! docs/adding-an-event.md lists what a new kind touches.

use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError, EncodeError};
use crate::ids::{BootId, CommandId, InstanceId, StreamId};
use crate::time::UnixMillis;
use crate::wire::batch::Class;

/// What happened on a host.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    AgentStart(AgentStart),
    AgentStop(AgentStop),
    SpoolDamaged(SpoolDamaged),
    CommandResult(CommandResult),
    CertificateRenewed(CertificateRenewed),
    /// A kind of a newer agent, or of an operator's own.
    Unknown(rmpv::Value),
}

macro_rules! kinds {
    ($($kind:literal => $variant:ident,)*) => {
        impl Event {
            /// The kinds this build knows the shape of.
            pub const KINDS: &'static [&'static str] = &[$($kind,)*];

            /// Reads a record's body by its kind. Fails only where a known kind has a wrong shape.
            pub fn from_body(kind: &str, body: &rmpv::Value) -> Result<Self, DecodeError> {
                match kind {
                    $($kind => codec::decode_value(body).map(Self::$variant),)*
                    _ => Ok(Self::Unknown(body.clone())),
                }
            }

            /// The kind to send it as; `None` for [`Event::Unknown`], whose kind is the record's.
            pub fn kind(&self) -> Option<&'static str> {
                match self {
                    $(Self::$variant(_) => Some($kind),)*
                    Self::Unknown(_) => None,
                }
            }

            /// The body to send.
            pub fn to_body(&self) -> Result<rmpv::Value, EncodeError> {
                match self {
                    $(Self::$variant(body) => codec::to_value(body),)*
                    Self::Unknown(body) => Ok(body.clone()),
                }
            }
        }
    };
}

kinds! {
    "agent_start" => AgentStart,
    "agent_stop" => AgentStop,
    "spool_damaged" => SpoolDamaged,
    "command_result" => CommandResult,
    "certificate_renewed" => CertificateRenewed,
}

/// An agent process began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStart {
    pub instance: InstanceId,
    pub boot_id: BootId,
    pub version: String,
}

/// An agent process is ending in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStop {
    pub instance: InstanceId,
    pub reason: StopReason,
}

/// Why an agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Asked to, while the host goes on.
    Stopped,
    /// The host is shutting down or rebooting.
    Shutdown,
    #[serde(other)]
    Other,
}

/// The spool could not be opened and was moved aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolDamaged {
    /// The stream the damaged spool held.
    pub stream: Option<StreamId>,
    pub detail: String,
    pub classes: Vec<DamagedClass>,
}

/// What was saved of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedClass {
    pub class: Class,
    pub expected: u64,
    pub salvaged: u64,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    pub id: CommandId,
    pub outcome: CommandOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The ways a command can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandOutcome {
    Done,
    Failed,
    /// The agent died in the middle; it was not started again.
    Interrupted,
    /// It arrived after its expiry.
    Expired,
    /// This agent does not know the action.
    Unsupported,
    #[serde(other)]
    Other,
}

/// The agent has a new certificate in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRenewed {
    /// Hexadecimal, as X.509 tools print it.
    pub serial: String,
    pub not_after: UnixMillis,
}
