//! A volume's key and everything that is derived from it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use zeroize::Zeroizing;

use super::chunk::{ChunkId, Salt};
use crate::codec::{DecodeError, EncodeError, Limits, decode, encode};
use crate::ids::VolumeId;

bytes! {
    /// Which key a pack or a snapshot is sealed with: it says nothing of the key.
    KeyId, 16
}

/// The secret of one volume. It is made on the host and never sent but wrapped for who may recover it.
#[derive(Clone)]
pub struct VolumeKey {
    secret: Zeroizing<[u8; 32]>,
    chunk_ids: Zeroizing<[u8; 32]>,
    packs: Zeroizing<[u8; 32]>,
    snapshots: Zeroizing<[u8; 32]>,
}

impl VolumeKey {
    /// Of 32 bytes that nobody else knows.
    pub fn new(secret: [u8; 32]) -> Self {
        let derived = |what: &str| Zeroizing::new(blake3::derive_key(&context(what), &secret));
        Self {
            chunk_ids: derived("chunk id"),
            packs: derived("packs"),
            snapshots: derived("snapshots"),
            secret: Zeroizing::new(secret),
        }
    }

    pub fn id(&self) -> KeyId {
        let derived = blake3::derive_key(&context("key id"), &*self.secret);
        let first = derived.first_chunk().expect("32 bytes have 16");
        KeyId::new(*first)
    }

    /// Under what name a chunk is kept.
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        ChunkId::new(*blake3::keyed_hash(&self.chunk_ids, plain).as_bytes())
    }

    /// The chunker's 256 numbers.
    pub(super) fn gear(&self) -> Box<[u64; 256]> {
        let mut hasher = blake3::Hasher::new_derive_key(&context("gear table"));
        hasher.update(&*self.secret);
        let mut bytes = Zeroizing::new([0; 2048]);
        hasher.finalize_xof().fill(&mut *bytes);
        let mut gear = Box::new([0; 256]);
        for (number, bytes) in gear.iter_mut().zip(bytes.chunks_exact(8)) {
            *number = u64::from_le_bytes(super::array(bytes));
        }
        gear
    }

    pub(super) fn of_pack(&self, salt: &Salt) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*blake3::keyed_hash(&self.packs, salt.as_bytes()).as_bytes())
    }

    pub(super) fn of_snapshot(&self, salt: &Salt) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*blake3::keyed_hash(&self.snapshots, salt.as_bytes()).as_bytes())
    }

    /// What is wrapped for the recipients.
    pub fn to_document(&self, volume_id: VolumeId) -> KeyDocument {
        KeyDocument {
            format: KeyDocument::FORMAT,
            volume_id,
            key: ByteArray::new(*self.secret),
        }
    }
}

impl fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolumeKey({})", self.id())
    }
}

fn context(what: &str) -> String {
    format!("infratrack backup 1 2026-11-23 {what}")
}

/// The inside of a wrapped key.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeyDocument {
    pub format: u16,
    pub volume_id: VolumeId,
    key: ByteArray<32>,
}

impl KeyDocument {
    pub const FORMAT: u16 = 1;

    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, EncodeError> {
        encode(self).map(Zeroizing::new)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes, &Limits::bytes(1024))
    }

    pub fn key(&self) -> VolumeKey {
        VolumeKey::new(*self.key)
    }
}

impl Drop for KeyDocument {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut *self.key);
    }
}

impl fmt::Debug for KeyDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDocument({})", self.volume_id)
    }
}
