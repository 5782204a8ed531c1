//! `POST /agent/v1/plays`: records of plays of Ansible that a callback left on the host. docs/formats/ansible-ingest.md has
//! what they say; here they are texts, which nobody reads on the way.

use serde::{Deserialize, Serialize};

use crate::ids::RunId;

/// Some records of a run, one after another. At most [`crate::limits::PLAYS_BYTES`], and
/// [`crate::limits::PLAYS_RECORDS`] of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plays {
    pub protocol: u16,
    pub run: RunId,
    /// Of the first record; the first of a run is 1.
    pub first_seq: u64,
    /// JSON, an object each.
    pub records: Vec<String>,
}

/// How far the collector has the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaysTaken {
    /// Everything up to this record is committed. Before `first_seq - 1`: records before are missing, and the agent goes back.
    pub acked_seq: u64,
    /// A record that can't be taken, now or later; nothing of the request was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedPlay>,
}

/// A record in whose place something else has to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedPlay {
    pub seq: u64,
    /// In the words of HTTP: 422, or 413 where it is too large.
    pub status: u16,
    pub detail: String,
}
