//! Kinds of critical records with a shape this build knows. Everything else is kept raw.
//!
//! docs/adding-an-event.md lists what a new kind touches.

use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError, EncodeError};
use crate::ids::{BootId, CommandId, InstanceId, StreamId};
use crate::time::UnixMillis;
use crate::wire::backup::EndRun;
use crate::wire::batch::Class;
use crate::wire::packages::Manager;

/// What happened on a host.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    AgentStart(AgentStart),
    AgentStop(AgentStop),
    SpoolDamaged(SpoolDamaged),
    CommandResult(CommandResult),
    CertificateRenewed(CertificateRenewed),
    PackageTransaction(PackageTransaction),
    Boot(Boot),
    BackupResult(EndRun),
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
    "package_transaction" => PackageTransaction,
    "boot" => Boot,
    "backup_result" => BackupResult,
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

/// The host booted: told once of each boot that an agent ran in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    pub boot_id: BootId,
    /// By the clock as it went when this was told.
    pub booted_at: UnixMillis,
    /// The kernel's release. None where it is not known, and in a container, which has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The container manager that the agent runs under: it was the machine below that booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The last boot before it that is known of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_boot_id: Option<BootId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_kernel: Option<String>,
    /// Whether the host had been shut down in order.
    #[serde(default)]
    pub expected: BootExpected,
    /// What says so, and what could not be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// Whether a boot was to be expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootExpected {
    Yes,
    No,
    #[default]
    #[serde(other)]
    Unknown,
}

/// What one run of a package manager did, as its log tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageTransaction {
    pub manager: Manager,
    /// The log: `/var/log/dpkg.log`, `/var/log/dnf.rpm.log`, `rpm` for its database.
    pub source: String,
    pub started_at: UnixMillis,
    /// None where it has not ended in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMillis>,
    /// The command line, as the log has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The user who asked for it, before `sudo`: a name, or `uid 1000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// What ran it, where that can be told: `unattended-upgrades`, `ansible`, `dnf-automatic`, `packagekit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// What it changed, in the log's order.
    pub changes: Vec<PackageChange>,
    /// Why it failed, in the log's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where it is too long for one record: this one's place, from 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub part: u32,
    /// Likewise: how many there are.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub parts: u32,
}

/// One package in a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageChange {
    pub action: PackageAction,
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arch: String,
    /// The version before, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The version after, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Where it failed half-way: the state that it was left in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// It came because another needs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automatic: bool,
}

/// What became of a package.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageAction {
    Installed,
    Reinstalled,
    Upgraded,
    Downgraded,
    /// Its configuration files may still be there.
    Removed,
    Purged,
    #[default]
    #[serde(other)]
    Other,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
