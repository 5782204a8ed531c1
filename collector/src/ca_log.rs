//! The signed log of the CA: each issuance and each revocation is an object in the blob store too.
//!
//! It is there for the day a database is restored from a backup: what was issued or revoked since is in no
//! table then. The database comes first and the log follows ([`crate::jobs::ca_log`]), so that nobody waits
//! for the blob store; [`replay`] brings back what the tables lack. docs/formats/ca-log.md has the format.

pub mod replay;

use bytes::Bytes;
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::HostId;
use infratrack_shared::time::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use thiserror::Error;
use time::{Date, Duration, OffsetDateTime};

use crate::blob::{BlobError, Key};
use crate::ca::{Ca, CaError, signature};

/// Certificates are remembered, in the tables and in the log, this long after they expired.
pub const KEPT: Duration = Duration::days(90);
/// The largest object.
pub const OBJECT_BYTES: usize = 16 * 1024;
/// Where the log is in the blob store.
pub const PREFIX: &str = "ca-log";
/// What the signature covers begins with this.
const CONTEXT: &[u8] = b"infratrack ca-log 1\n";

/// Why an object is not believed.
#[derive(Debug, Error)]
pub enum LogError {
    #[error("its name is not day/serial.issued or day/serial.revoked")]
    Name,
    #[error("it does not decode")]
    Decode(#[from] codec::DecodeError),
    #[error("it is signed by none of this CA's keys")]
    Signer,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is about something else than its name says")]
    Misplaced,
    #[error("it cannot be read")]
    Blob(#[from] BlobError),
    #[error("it is gone")]
    Gone,
}

/// Why an object could not be made.
#[derive(Debug, Error)]
pub enum SealError {
    #[error("an entry of the log cannot be encoded")]
    Encode(#[from] codec::EncodeError),
    #[error("an entry of the log cannot be signed")]
    Sign(#[from] CaError),
    #[error("an entry of the log has no name")]
    Name(#[from] BlobError),
}

/// An object of the log, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Object {
    /// MessagePack of an [`Entry`]: what is signed.
    entry: ByteBuf,
    /// SHA-256 of the signing key's `SubjectPublicKeyInfo`.
    signer: ByteBuf,
    /// ECDSA P-256 with SHA-256, ASN.1, over [`CONTEXT`] and `entry`.
    signature: ByteBuf,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    Issued(Issued),
    Revoked(Revoked),
}

/// A certificate was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    pub serial: ByteBuf,
    /// DER.
    pub certificate: ByteBuf,
    pub issued_at: UnixMillis,
    pub not_after: UnixMillis,
    #[serde(default)]
    pub token_id: Option<String>,
    pub host: Host,
}

/// The host it was issued to, as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub host_id: HostId,
    pub name: String,
    #[serde(default)]
    pub machine_id: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    pub created_at: UnixMillis,
}

/// A certificate was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    pub serial: ByteBuf,
    pub host_id: HostId,
    pub revoked_at: UnixMillis,
    pub by: String,
    pub reason: String,
}

/// Which of the two an object is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Issued,
    Revoked,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Revoked => "revoked",
        }
    }
}

impl Entry {
    /// What it is about.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Issued(_) => Kind::Issued,
            Self::Revoked(_) => Kind::Revoked,
        }
    }

    fn serial(&self) -> &[u8] {
        match self {
            Self::Issued(issued) => &issued.serial,
            Self::Revoked(revoked) => &revoked.serial,
        }
    }
}

/// The name of an object, by the day its certificate expires: what is too old to matter is a range of names.
pub fn key(expires: Date, serial: &[u8], kind: Kind) -> Result<Key, BlobError> {
    let serial = hex::encode(serial);
    Key::new(format!("{PREFIX}/{expires}/{serial}.{}", kind.word()))
}

/// A name before those of every certificate that is still remembered at `now`.
pub fn key_before_kept(now: OffsetDateTime) -> Result<Key, BlobError> {
    Key::new(format!("{PREFIX}/{}", (now - KEPT).date()))
}

/// Serial and kind, from an object's name.
pub fn parse_key(key: &Key) -> Option<(Vec<u8>, Kind)> {
    let (_, name) = key.as_str().rsplit_once('/')?;
    let (serial, kind) = name.split_once('.')?;
    let kind = match kind {
        "issued" => Kind::Issued,
        "revoked" => Kind::Revoked,
        _ => return None,
    };
    Some((hex::decode(serial).ok()?, kind))
}

/// Encodes and signs an entry.
pub fn seal(ca: &Ca, entry: &Entry) -> Result<Bytes, SealError> {
    let entry = codec::encode(entry)?;
    let (signature, signer) = ca.sign_message(&[CONTEXT, &entry].concat())?;
    let object = Object {
        signature: ByteBuf::from(signature),
        signer: ByteBuf::from(signer),
        entry: ByteBuf::from(entry),
    };
    Ok(Bytes::from(codec::encode(&object)?))
}

/// The entry in an object, if one of the CA's keys signed it and it is about what its name says.
pub fn unseal(ca: &Ca, key: &Key, bytes: &[u8]) -> Result<Entry, LogError> {
    let (serial, kind) = parse_key(key).ok_or(LogError::Name)?;
    let limits = Limits::bytes(OBJECT_BYTES);
    let object: Object = codec::decode(bytes, &limits)?;
    let signer = ca.signer(&object.signer).ok_or(LogError::Signer)?;
    let message = [CONTEXT, &object.entry].concat();
    if !signature::verifies(signer, &message, &object.signature) {
        return Err(LogError::Signature);
    }
    let entry: Entry = codec::decode(&object.entry, &limits)?;
    if entry.kind() != kind || entry.serial() != serial {
        return Err(LogError::Misplaced);
    }
    Ok(entry)
}

#[cfg(test)]
mod tests;
