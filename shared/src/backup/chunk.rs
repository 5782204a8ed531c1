//! One chunk: compressed where that pays, sealed, and opened again.

use std::{fmt, io};

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{MAX_CHUNK_BYTES, VolumeKey};
use crate::compress;
use crate::ids::VolumeId;

/// What AEAD adds, in bytes.
const TAG_BYTES: usize = 16;
/// Bytes that sealing adds: the codec and the tag.
pub(super) const OVERHEAD_BYTES: usize = 1 + TAG_BYTES;
const STORED: u8 = 0;
const ZSTD: u8 = 1;
/// Of zstd (RFC 8878).
const LEVEL: i32 = 3;

bytes! {
    /// Keyed BLAKE3 of a chunk's bytes.
    ChunkId, 32
}
bytes! {
    /// What makes a pack's key its own: 16 random bytes, never used twice.
    Salt, 16
}

/// With what is sealed: the faster on this machine, the number says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Algorithm {
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Algorithm {
    /// AES where the processor has instructions for it, in constant time and three times as fast.
    pub fn of_this_machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        let has_aes = std::arch::is_x86_feature_detected!("aes");
        #[cfg(target_arch = "aarch64")]
        let has_aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let has_aes = false;
        if has_aes {
            Self::Aes256Gcm
        } else {
            Self::ChaCha20Poly1305
        }
    }

    fn key(self, key: &[u8; 32]) -> LessSafeKey {
        let algorithm = match self {
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        LessSafeKey::new(UnboundKey::new(algorithm, key).expect("both take keys of 32 bytes"))
    }

    /// Appends the tag. Never twice with the same key and nonce.
    pub(super) fn seal(
        self,
        key: &[u8; 32],
        nonce: [u8; 12],
        aad: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key(key)
            .seal_in_place_append_tag(nonce, Aad::from(aad), plain)
            .map_err(|_| SealError)
    }

    pub(super) fn open(
        self,
        key: &[u8; 32],
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self
            .key(key)
            .open_in_place(nonce, Aad::from(aad), &mut bytes)
            .map_err(|_| OpenError::NotSealed)?
            .len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

impl From<Algorithm> for u8 {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Aes256Gcm => 1,
            Algorithm::ChaCha20Poly1305 => 2,
        }
    }
}

impl TryFrom<u8> for Algorithm {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            1 => Ok(Self::Aes256Gcm),
            2 => Ok(Self::ChaCha20Poly1305),
            other => Err(format!(
                "there is no algorithm {other}; is this release too old?"
            )),
        }
    }
}

/// The library refused to seal, which it does of texts over 64 GiB.
#[derive(Debug, Error)]
#[error("cannot seal")]
pub struct SealError;

/// Why a chunk or a manifest does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("it is not what was sealed: damaged, or of another key, volume or place")]
    NotSealed,
    #[error("its bytes are not those of its id")]
    AnotherId,
    #[error("there is no codec {0}; is this release too old?")]
    Codec(u8),
    #[error("it has no bytes")]
    Empty,
    #[error("cannot decompress it")]
    Decompress(#[from] compress::DecompressError),
}

/// A chunk as it is sealed: its codec, and its bytes in that.
pub struct Packed(Vec<u8>);

impl Packed {
    /// How long it is when it is sealed.
    pub fn sealed_length(&self) -> usize {
        self.0.len() + TAG_BYTES
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({} bytes)", self.0.len())
    }
}

/// Compresses chunks where that pays. One for each thread: it keeps its tables.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    pub fn new() -> io::Result<Self> {
        zstd::bulk::Compressor::new(LEVEL).map(Self)
    }

    /// Of a chunk of at most [`MAX_CHUNK_BYTES`] that is not empty.
    pub fn pack(&mut self, plain: &[u8]) -> Packed {
        // What does not get shorter does not fit, and that is all there is to know of it.
        let mut bytes = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
        bytes.resize(plain.len(), 0);
        let (codec, room) = bytes.split_first_mut().expect("a chunk is not empty");
        *codec = ZSTD;
        if let Ok(length) = self.0.compress_to_buffer(plain, room) {
            bytes.truncate(1 + length);
        } else {
            bytes.clear();
            bytes.push(STORED);
            bytes.extend_from_slice(plain);
        }
        Packed(bytes)
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

/// The place in which a chunk was sealed: which key and which nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub salt: Salt,
    pub algorithm: Algorithm,
    pub counter: u16,
}

impl Sealed {
    fn nonce(self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[10..].copy_from_slice(&self.counter.to_be_bytes());
        nonce
    }

    /// Seals a chunk.
    pub fn seal(
        self,
        key: &VolumeKey,
        volume_id: VolumeId,
        id: &ChunkId,
        packed: Packed,
    ) -> Result<Vec<u8>, SealError> {
        let Packed(mut bytes) = packed;
        let pack_key = key.of_pack(&self.salt);
        self.algorithm
            .seal(&pack_key, self.nonce(), &aad(volume_id, id), &mut bytes)?;
        Ok(bytes)
    }

    /// Opens a chunk, and checks that it is the one of this id.
    pub fn open(
        self,
        key: &VolumeKey,
        volume_id: VolumeId,
        id: &ChunkId,
        sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        let pack_key = key.of_pack(&self.salt);
        let bytes = self
            .algorithm
            .open(&pack_key, self.nonce(), &aad(volume_id, id), sealed)?;
        let (codec, data) = bytes.split_first().ok_or(OpenError::Empty)?;
        let plain = match *codec {
            STORED => data.to_vec(),
            ZSTD => compress::decompress(data, MAX_CHUNK_BYTES)?,
            other => return Err(OpenError::Codec(other)),
        };
        if key.chunk_id(&plain) == *id {
            Ok(plain)
        } else {
            Err(OpenError::AnotherId)
        }
    }
}

fn aad(volume_id: VolumeId, id: &ChunkId) -> [u8; 66] {
    let mut aad = [0; 66];
    aad[..18].copy_from_slice(b"infratrack chunk 1");
    aad[18..34].copy_from_slice(volume_id.0.as_bytes());
    aad[34..].copy_from_slice(id.as_bytes());
    aad
}
