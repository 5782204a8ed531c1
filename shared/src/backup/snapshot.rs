//! A snapshot: what a volume was at one time. Its head is in clear, for the collector; its manifest is sealed.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::chunk::{Algorithm, OpenError, Salt, SealError};
use super::{Content, KeyId, MAX_HEAD_BYTES, MAX_SNAPSHOT_BYTES, Refs, VolumeKey, array};
use crate::codec::{DecodeError, EncodeError, Limits, decode, encode};
use crate::ids::{HostId, SnapshotId, VolumeId};

const MAGIC: &[u8; 8] = b"ITSNAP\0\x01";
/// A key is for one manifest only.
const NONCE: [u8; 12] = [0; 12];
const HEAD_LIMITS: Limits = Limits {
    bytes: MAX_HEAD_BYTES,
    // Three at least of an origin, and a pack has one.
    items: 8_000_000,
    depth: 8,
    string_bytes: 4096,
};
const MANIFEST_LIMITS: Limits = Limits {
    bytes: MAX_SNAPSHOT_BYTES,
    items: 100_000,
    depth: 8,
    string_bytes: 64 * 1024,
};
/// Errors that are named.
pub const MAX_ERRORS: usize = 1_000;

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Everything is in it.
    Ok,
    /// The manifest says what is not.
    Incomplete,
}

/// Of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotKind {
    Files,
    Command,
}

/// What anybody may know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub volume_id: VolumeId,
    pub snapshot_id: SnapshotId,
    pub host_id: HostId,
    pub key_id: KeyId,
    pub salt: Salt,
    pub algorithm: Algorithm,
    /// By the host's clock, in milliseconds since the Unix epoch.
    pub started_at_ms: i64,
    pub ended_at_ms: i64,
    pub state: SnapshotState,
    pub kind: SnapshotKind,
    pub files: u64,
    /// Of what the files have, before anything is done to it.
    pub bytes: u64,
    pub refs: Refs,
}

/// What only the key opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The tree.
    pub root: Content,
    pub hostname: String,
    /// The paths, or the program's name.
    pub source: Vec<String>,
    /// The agent's version.
    pub agent: String,
    /// The first [`MAX_ERRORS`].
    #[serde(default)]
    pub errors: Vec<Unread>,
    #[serde(default)]
    pub errors_total: u64,
    /// Of a database's dump whose program is to be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
}

/// What a database had in the transaction that its dump is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Names of the roles that what is dumped may belong to.
    pub roles: Vec<String>,
    /// Schema, table, rows.
    pub rows: Vec<(String, String, u64)>,
}

/// What could not be read, or not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    pub path: String,
    pub what: String,
}

/// Why bytes are no snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error("it has {got} bytes, more than the {MAX_SNAPSHOT_BYTES} of a snapshot")]
    Size { got: usize },
    #[error("it does not begin as a snapshot of version 1")]
    Magic,
    #[error("its head of {0} bytes does not fit what there is")]
    Length(u32),
    #[error("its head is none")]
    Head(#[source] DecodeError),
    #[error("it is of another key: {0}")]
    Key(KeyId),
    #[error("its manifest does not open")]
    Sealed(#[from] OpenError),
    #[error("its manifest is none")]
    Manifest(#[source] DecodeError),
    #[error("cannot write it")]
    Encode(#[from] EncodeError),
    #[error("cannot seal it")]
    Seal(#[from] SealError),
}

impl Head {
    /// Reads the head of a snapshot: all that there is to read without a key.
    pub fn of_snapshot(snapshot: &[u8]) -> Result<Self, SnapshotError> {
        split(snapshot).map(|(head, _, _)| head)
    }

    /// The snapshot of this head and a manifest. The salt is random, and of no other.
    pub fn seal(&self, manifest: &Manifest, key: &VolumeKey) -> Result<Vec<u8>, SnapshotError> {
        let head = encode(self)?;
        let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&head);
        let mut sealed = encode(manifest)?;
        let secret = key.of_snapshot(&self.salt);
        self.algorithm.seal(&secret, NONCE, &bytes, &mut sealed)?;
        bytes.extend_from_slice(&sealed);
        // What could not be read again is not written.
        split(&bytes)?;
        Ok(bytes)
    }
}

impl Manifest {
    /// Opens a snapshot.
    pub fn open(snapshot: &[u8], key: &VolumeKey) -> Result<(Head, Self), SnapshotError> {
        let (head, clear, sealed) = split(snapshot)?;
        if head.key_id != key.id() {
            return Err(SnapshotError::Key(head.key_id));
        }
        let secret = key.of_snapshot(&head.salt);
        let plain = head.algorithm.open(&secret, NONCE, clear, sealed)?;
        let manifest = decode(&plain, &MANIFEST_LIMITS).map_err(SnapshotError::Manifest)?;
        Ok((head, manifest))
    }
}

/// The head; everything up to its end; the rest.
fn split(snapshot: &[u8]) -> Result<(Head, &[u8], &[u8]), SnapshotError> {
    if snapshot.len() > MAX_SNAPSHOT_BYTES {
        let got = snapshot.len();
        return Err(SnapshotError::Size { got });
    }
    let start = MAGIC.len() + 4;
    let (magic, rest) = snapshot
        .split_at_checked(MAGIC.len())
        .ok_or(SnapshotError::Magic)?;
    if magic != MAGIC {
        return Err(SnapshotError::Magic);
    }
    let length = rest.get(..4).ok_or(SnapshotError::Length(0))?;
    let length = u32::from_be_bytes(array(length));
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| start.checked_add(length));
    let cut = end.and_then(|end| snapshot.split_at_checked(end));
    let (clear, sealed) = cut.ok_or(SnapshotError::Length(length))?;
    let head = decode(&clear[start..], &HEAD_LIMITS).map_err(SnapshotError::Head)?;
    Ok((head, clear, sealed))
}
