//! Packs: many sealed chunks as one object, with a table in clear that says which and where, so that a chunk can be moved and
//! the collector's index rebuilt without a key.

use std::collections::HashSet;
use std::ops::Range;
use std::{fmt, str};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::chunk::{
    Algorithm, ChunkId, OVERHEAD_BYTES, OpenError, Packed, Salt, SealError, Sealed,
};
use super::{KeyId, MAX_CHUNK_BYTES, MAX_PACK_BYTES, MAX_PACK_CHUNKS, VolumeKey, array};
use crate::ids::VolumeId;

const MAGIC: &[u8; 8] = b"ITPACK\0\x01";
const END_MAGIC: &[u8; 4] = b"ITPT";
/// Magic, volume, key, kind, zeros.
const HEADER_BYTES: usize = 8 + 16 + 16 + 8;
const FOOTER_BYTES: usize = 8;
const ORIGIN_BYTES: usize = 16 + 1;
const ENTRY_BYTES: usize = 32 + 2 + 2 + 4;
/// An empty table's.
const COUNTS_BYTES: usize = 2 + 4;
/// A chunk has at least a byte.
const SEALED_LENGTHS: std::ops::RangeInclusive<usize> =
    OVERHEAD_BYTES + 1..=MAX_CHUNK_BYTES + OVERHEAD_BYTES;

bytes! {
    /// BLAKE3 of a whole pack: its name.
    PackHash, 32
}

impl PackHash {
    pub fn of(pack: &[u8]) -> Self {
        Self::new(*blake3::hash(pack).as_bytes())
    }
}

impl str::FromStr for PackHash {
    type Err = blake3::HexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(text).map(|hash| Self::new(*hash.as_bytes()))
    }
}

/// What a pack has: so that content may lie where reading takes hours, and trees may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackKind {
    Content,
    Trees,
}

impl PackKind {
    fn number(self) -> u8 {
        match self {
            Self::Content => 1,
            Self::Trees => 2,
        }
    }

    fn of(number: u8) -> Result<Self, PackError> {
        match number {
            1 => Ok(Self::Content),
            2 => Ok(Self::Trees),
            other => Err(PackError::Kind(other)),
        }
    }
}

/// Why bytes are no pack. Offsets are from the beginning of what was read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PackError {
    #[error("it has {got} bytes, a pack has from {} to {MAX_PACK_BYTES}", HEADER_BYTES + COUNTS_BYTES + FOOTER_BYTES)]
    Size { got: u64 },
    #[error("it does not begin as a pack of version 1")]
    Magic,
    #[error("there is no kind {0}")]
    Kind(u8),
    #[error("its header has other bytes where zeros should be")]
    Header,
    #[error("it does not end as a pack")]
    End,
    #[error("its table of {table} bytes does not fit what there is")]
    Table { table: u32 },
    #[error("{0}")]
    Algorithm(String),
    #[error("its chunk {at} is of origin {origin}, of {origins}")]
    Origin {
        at: usize,
        origin: u16,
        origins: usize,
    },
    #[error("no chunk is of its origin {0}")]
    Unused(usize),
    #[error("its chunk {at} is {length} bytes long")]
    Length { at: usize, length: u32 },
    #[error("its chunk {at} is there twice")]
    Twice { at: usize },
    #[error("its chunks have {chunks} bytes, between header and table are {room}")]
    Room { chunks: u64, room: u64 },
}

/// A chunk in a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: ChunkId,
    pub sealed: Sealed,
    /// Its sealed bytes, from the beginning of the pack.
    pub range: Range<u32>,
}

/// Everything that a pack says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub volume_id: VolumeId,
    pub key_id: KeyId,
    pub kind: PackKind,
    pub entries: Vec<Entry>,
}

impl Table {
    /// Of a whole pack.
    pub fn of_pack(pack: &[u8]) -> Result<Self, PackError> {
        Self::of_ends(pack, pack, pack.len() as u64)
    }

    /// Bytes at the end of a pack that have its table for sure.
    pub const MAX_TAIL_BYTES: usize =
        MAX_PACK_CHUNKS * (ORIGIN_BYTES + ENTRY_BYTES) + COUNTS_BYTES + FOOTER_BYTES;
    /// Bytes at its beginning that are needed.
    pub const HEAD_BYTES: usize = HEADER_BYTES;

    /// How many bytes at the end are needed, told by the last 8.
    pub fn tail_bytes(last: &[u8; FOOTER_BYTES]) -> Result<usize, PackError> {
        let (length, magic) = last.split_at(4);
        if magic != END_MAGIC {
            return Err(PackError::End);
        }
        let table = u32::from_be_bytes(array(length));
        let bytes = usize::try_from(table).unwrap_or(usize::MAX);
        bytes
            .checked_add(FOOTER_BYTES)
            .filter(|bytes| *bytes <= Self::MAX_TAIL_BYTES)
            .ok_or(PackError::Table { table })
    }

    /// Of the beginning and the end of a pack that has `size` bytes.
    pub fn of_ends(head: &[u8], tail: &[u8], size: u64) -> Result<Self, PackError> {
        let least = (HEADER_BYTES + COUNTS_BYTES + FOOTER_BYTES) as u64;
        if !(least..=MAX_PACK_BYTES as u64).contains(&size) {
            return Err(PackError::Size { got: size });
        }
        let (volume_id, key_id, kind) = header(head)?;
        let last = tail.last_chunk().ok_or(PackError::End)?;
        let needed = Self::tail_bytes(last)?;
        let table = needed - FOOTER_BYTES;
        let wrong = PackError::Table {
            table: u32::try_from(table).unwrap_or(u32::MAX),
        };
        let start = tail.len().checked_sub(needed).ok_or(wrong.clone())?;
        let room = size
            .checked_sub((HEADER_BYTES + needed) as u64)
            .ok_or(wrong.clone())?;
        let bytes = &tail[start..start + table];
        let entries = entries(bytes, room).ok_or(wrong)??;
        Ok(Self {
            volume_id,
            key_id,
            kind,
            entries,
        })
    }
}

fn header(head: &[u8]) -> Result<(VolumeId, KeyId, PackKind), PackError> {
    let head: &[u8; HEADER_BYTES] = head.first_chunk().ok_or(PackError::Magic)?;
    if !head.starts_with(MAGIC) {
        return Err(PackError::Magic);
    }
    let kind = PackKind::of(head[40])?;
    if head[41..] != [0; 7] {
        return Err(PackError::Header);
    }
    let volume_id = VolumeId(Uuid::from_bytes(array(&head[8..24])));
    Ok((volume_id, KeyId::new(array(&head[24..40])), kind))
}

/// `None` where the table is not as long as it says.
fn entries(table: &[u8], room: u64) -> Option<Result<Vec<Entry>, PackError>> {
    let (count, rest) = table.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_be_bytes(*count));
    let (origins, rest) = rest.split_at_checked(count * ORIGIN_BYTES)?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
    if count > MAX_PACK_CHUNKS || rest.len() != count * ENTRY_BYTES {
        return None;
    }
    Some(checked(origins, rest, room))
}

fn checked(origins: &[u8], rows: &[u8], room: u64) -> Result<Vec<Entry>, PackError> {
    let origins = origins.chunks_exact(ORIGIN_BYTES).map(|origin| {
        let algorithm = Algorithm::try_from(origin[16]).map_err(PackError::Algorithm)?;
        Ok((Salt::new(array(&origin[..16])), algorithm))
    });
    let origins: Vec<_> = origins.collect::<Result<_, PackError>>()?;
    let mut used = vec![false; origins.len()];
    let (mut ids, mut places) = (HashSet::new(), HashSet::new());
    let mut end = HEADER_BYTES as u64;
    let mut entries = Vec::with_capacity(rows.len() / ENTRY_BYTES);
    for (at, row) in rows.chunks_exact(ENTRY_BYTES).enumerate() {
        let id = ChunkId::new(array(&row[..32]));
        let origin = u16::from_be_bytes(array(&row[32..34]));
        let counter = u16::from_be_bytes(array(&row[34..36]));
        let length = u32::from_be_bytes(array(&row[36..]));
        let Some((salt, algorithm)) = origins.get(usize::from(origin)).copied() else {
            let origins = origins.len();
            return Err(PackError::Origin {
                at,
                origin,
                origins,
            });
        };
        used[usize::from(origin)] = true;
        if !usize::try_from(length).is_ok_and(|length| SEALED_LENGTHS.contains(&length)) {
            return Err(PackError::Length { at, length });
        }
        if !ids.insert(id) || !places.insert((salt, counter)) {
            return Err(PackError::Twice { at });
        }
        let start = end;
        end += u64::from(length);
        let wrong = |_| PackError::Room { chunks: end, room };
        entries.push(Entry {
            id,
            sealed: Sealed {
                salt,
                algorithm,
                counter,
            },
            range: u32::try_from(start).map_err(wrong)?..u32::try_from(end).map_err(wrong)?,
        });
    }
    let chunks = end - HEADER_BYTES as u64;
    if chunks != room {
        return Err(PackError::Room { chunks, room });
    }
    match used.iter().position(|used| !used) {
        Some(unused) => Err(PackError::Unused(unused)),
        None => Ok(entries),
    }
}

impl Entry {
    /// Opens it, out of its pack.
    pub fn open(
        &self,
        key: &VolumeKey,
        volume_id: VolumeId,
        sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        self.sealed.open(key, volume_id, &self.id, sealed)
    }

    /// Where it is, for slices of a pack that is in memory.
    pub fn bytes(&self) -> Range<usize> {
        let offset = |offset| usize::try_from(offset).expect("a pack is small");
        offset(self.range.start)..offset(self.range.end)
    }
}

/// A pack in the making.
pub struct PackBuilder {
    bytes: Vec<u8>,
    origins: Vec<(Salt, Algorithm)>,
    /// Id, origin, counter, length.
    rows: Vec<(ChunkId, u16, u16, u32)>,
    volume_id: VolumeId,
}

/// Why a chunk can't be moved into a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MoveError {
    #[error("the pack is full")]
    Full,
    #[error("the chunk is not of the length that its pack's table says")]
    Length,
}

impl PackBuilder {
    /// Whose key and salt are new chunks sealed with; the salt is random and of no other pack.
    pub fn new(volume_id: VolumeId, key_id: KeyId, kind: PackKind) -> Self {
        let mut bytes = Vec::with_capacity(super::TARGET_PACK_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(volume_id.0.as_bytes());
        bytes.extend_from_slice(key_id.as_bytes());
        bytes.push(kind.number());
        bytes.extend_from_slice(&[0; 7]);
        Self {
            bytes,
            origins: Vec::new(),
            rows: Vec::new(),
            volume_id,
        }
    }

    /// How long the pack is by now.
    pub fn size(&self) -> usize {
        self.bytes.len()
            + COUNTS_BYTES
            + self.origins.len() * ORIGIN_BYTES
            + self.rows.len() * ENTRY_BYTES
            + FOOTER_BYTES
    }

    /// Whether a chunk of this sealed length still fits.
    pub fn has_room_for(&self, sealed_length: usize) -> bool {
        let size = self.size() + ORIGIN_BYTES + ENTRY_BYTES + sealed_length;
        size <= MAX_PACK_BYTES && self.rows.len() < MAX_PACK_CHUNKS - 1
    }

    /// Seals a chunk into its next place. There has to be room.
    pub fn push(
        &mut self,
        key: &VolumeKey,
        origin: (Salt, Algorithm),
        id: ChunkId,
        packed: Packed,
    ) -> Result<Sealed, SealError> {
        let counter = u16::try_from(self.rows.len()).map_err(|_| SealError)?;
        let (salt, algorithm) = origin;
        let sealed = Sealed {
            salt,
            algorithm,
            counter,
        };
        let bytes = sealed.seal(key, self.volume_id, &id, packed)?;
        self.append(sealed, id, &bytes).map_err(|_| SealError)?;
        Ok(sealed)
    }

    /// Takes a chunk over from another pack, as it is.
    pub fn take_over(&mut self, entry: &Entry, sealed: &[u8]) -> Result<(), MoveError> {
        if sealed.len() != entry.bytes().len() {
            return Err(MoveError::Length);
        }
        self.append(entry.sealed, entry.id, sealed)
    }

    fn append(&mut self, sealed: Sealed, id: ChunkId, bytes: &[u8]) -> Result<(), MoveError> {
        if !self.has_room_for(bytes.len()) {
            return Err(MoveError::Full);
        }
        let origin = (sealed.salt, sealed.algorithm);
        // The last one in most cases: chunks are moved in the order of their packs.
        let found = self.origins.iter().rposition(|known| *known == origin);
        let at = found.unwrap_or_else(|| {
            self.origins.push(origin);
            self.origins.len() - 1
        });
        let at = u16::try_from(at).map_err(|_| MoveError::Full)?;
        let length = u32::try_from(bytes.len()).map_err(|_| MoveError::Full)?;
        self.bytes.extend_from_slice(bytes);
        self.rows.push((id, at, sealed.counter, length));
        Ok(())
    }

    /// The pack, and its name.
    pub fn finish(self) -> (PackHash, Vec<u8>) {
        let mut bytes = self.bytes;
        let start = bytes.len();
        let count = u16::try_from(self.origins.len()).expect("a pack has fewer origins");
        bytes.extend_from_slice(&count.to_be_bytes());
        for (salt, algorithm) in &self.origins {
            bytes.extend_from_slice(salt.as_bytes());
            bytes.push(u8::from(*algorithm));
        }
        let count = u32::try_from(self.rows.len()).expect("a pack has fewer chunks");
        bytes.extend_from_slice(&count.to_be_bytes());
        for (id, origin, counter, length) in &self.rows {
            bytes.extend_from_slice(id.as_bytes());
            bytes.extend_from_slice(&origin.to_be_bytes());
            bytes.extend_from_slice(&counter.to_be_bytes());
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        let table = u32::try_from(bytes.len() - start).expect("a table has fewer bytes");
        bytes.extend_from_slice(&table.to_be_bytes());
        bytes.extend_from_slice(END_MAGIC);
        (PackHash::of(&bytes), bytes)
    }
}

impl fmt::Debug for PackBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackBuilder({} chunks)", self.rows.len())
    }
}
