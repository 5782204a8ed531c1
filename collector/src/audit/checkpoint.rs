//! Checkpoints: now and then the end of the chain is signed and put into the blob store, out of the database's
//! reach. Whoever rewrites the chain up to its end is told by them.

use bytes::Bytes;
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::CollectorId;
use infratrack_shared::time::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use thiserror::Error;

use crate::blob::{BlobError, Key};
use crate::ca::{Ca, CaError, signature};

/// The largest object.
pub const OBJECT_BYTES: usize = 4096;
/// Where they are in the blob store.
pub const PREFIX: &str = "audit-checkpoints";
/// What the signature covers begins with this.
const CONTEXT: &[u8] = b"infratrack audit checkpoint 1\n";

/// Up to `seq` the chain has this hash. As `seq` counts from 1 without a hole, so many rows there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub seq: i64,
    pub hash: ByteBuf,
    pub at: UnixMillis,
    pub collector: CollectorId,
}

/// As it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Object {
    /// MessagePack of a [`Checkpoint`]: what is signed.
    checkpoint: ByteBuf,
    /// SHA-256 of the signing key's `SubjectPublicKeyInfo`.
    signer: ByteBuf,
    /// ECDSA P-256 with SHA-256, ASN.1, over [`CONTEXT`] and `checkpoint`.
    signature: ByteBuf,
}

/// Why a checkpoint could not be made.
#[derive(Debug, Error)]
pub enum SealError {
    #[error("a checkpoint cannot be encoded")]
    Encode(#[from] codec::EncodeError),
    #[error("a checkpoint cannot be signed")]
    Sign(#[from] CaError),
}

/// Why an object is not believed.
#[derive(Debug, Error)]
pub enum CheckpointError {
    #[error("its name is no number")]
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

/// The name of the object: in the order of names, later is larger.
pub fn key(seq: i64) -> Result<Key, BlobError> {
    Key::new(format!("{PREFIX}/{seq:020}"))
}

/// Encodes and signs.
pub fn seal(ca: &Ca, checkpoint: &Checkpoint) -> Result<Bytes, SealError> {
    let checkpoint = codec::encode(checkpoint)?;
    let (signature, signer) = ca.sign_message(&[CONTEXT, &checkpoint].concat())?;
    let object = Object {
        checkpoint: ByteBuf::from(checkpoint),
        signer: ByteBuf::from(signer),
        signature: ByteBuf::from(signature),
    };
    Ok(Bytes::from(codec::encode(&object)?))
}

/// The checkpoint in an object, if one of the CA's keys signed it and it is about what its name says.
pub fn unseal(ca: &Ca, name: &Key, bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let seq = name.as_str().rsplit_once('/').map(|(_, seq)| seq.parse());
    let Some(Ok(seq)) = seq else {
        return Err(CheckpointError::Name);
    };
    let limits = Limits::bytes(OBJECT_BYTES);
    let object: Object = codec::decode(bytes, &limits)?;
    let signer = ca.signer(&object.signer).ok_or(CheckpointError::Signer)?;
    let message = [CONTEXT, &object.checkpoint].concat();
    if !signature::verifies(signer, &message, &object.signature) {
        return Err(CheckpointError::Signature);
    }
    let checkpoint: Checkpoint = codec::decode(&object.checkpoint, &limits)?;
    if checkpoint.seq != seq || key(seq)? != *name {
        return Err(CheckpointError::Misplaced);
    }
    Ok(checkpoint)
}
