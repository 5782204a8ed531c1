//! What package managers write down of what they do: the formats of their logs, a line at a time, and the transactions that
//! the lines make.
//!
//! Nothing here reads a file or a clock: `collect/package_logs.rs` brings the lines with their places and the times in UTC,
//! and the fuzz targets bring anything.

pub mod apt;
pub mod dnf;
pub mod dnf5;
pub mod dpkg;
pub mod merge;
mod open;
pub mod parts;
mod rpm;
pub mod source;
pub mod stamp;
pub mod transactions;
mod via;
pub mod yum;
pub mod zypp;

use infratrack_shared::wire::event::PackageChange;

pub use stamp::{Civil, Stamp};

/// Changes told of one transaction at most; how many more there were is told in its error.
pub const MOST_CHANGES: usize = 20_000;
/// What is kept of one transaction at most, about.
pub const TRANSACTION_BYTES: usize = 8 * 1024 * 1024;
/// Of a command line; a longer one is cut.
pub const COMMAND_BYTES: usize = 4096;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// apt or dnf begins to change packages. What the log of dpkg or rpm says until the end belongs to it.
    Begin,
    Command(String),
    /// A name, or `uid 1000`.
    RequestedBy(String),
    Error(String),
    /// What apt is about to do.
    Planned(PackageChange),
    /// apt or dnf has done what [`Said::Begin`] began.
    End,
    /// dpkg or rpm begins, for whomever.
    Run,
    /// dpkg or rpm does this; a version before may be in a [`Said::Before`] of its own.
    Change(PackageChange),
    /// The version that a change has taken the place of.
    Before {
        name: String,
        arch: String,
        version: String,
    },
    /// dpkg: how a package is from here on.
    State {
        name: String,
        arch: String,
        version: String,
        state: String,
    },
    /// dnf5: so many packages are to be installed and removed.
    Elements(u32),
    /// dnf5: one of them is done.
    Element,
    /// dnf5: a script runs.
    ScriptStarts,
    ScriptEnds,
}

impl Said {
    /// Of what is logged in one second, in which order. A run is between the begin and the end of what started it; a state
    /// that is logged before the run is of the run before.
    pub fn rank(&self) -> u8 {
        match self {
            Self::State { .. } => 0,
            Self::Begin
            | Self::Command(_)
            | Self::RequestedBy(_)
            | Self::Error(_)
            | Self::Planned(_) => 1,
            Self::Run
            | Self::Change(_)
            | Self::Before { .. }
            | Self::Elements(_)
            | Self::Element
            | Self::ScriptStarts
            | Self::ScriptEnds => 2,
            Self::End => 3,
        }
    }
}

/// Reads one log, line by line.
pub trait Parser: Send {
    /// Adds what the line says, in its order. A line that says nothing of interest adds nothing.
    fn line(&mut self, line: &str, said: &mut Vec<(Stamp, Said)>);
}
