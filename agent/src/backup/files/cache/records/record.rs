//! The cache's records, as bytes: a kind, a length, and what it is of. In the order of the walk: a directory is entered, its
//! entries follow, it is left; a file begins, its chunks follow, it ends.

use std::io::{self, Read, Write};

use infratrack_shared::backup::{ChunkId, Salt};

/// More than an entry of a tree can have.
const MAX_BYTES: u32 = 5 * 1024 * 1024;
const ROW_BYTES: usize = 32 + 1 + 16 + 2;

/// What tells whether a file is as it was: size, mtime, ctime, inode and device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; Fingerprint::BYTES]);

impl Fingerprint {
    /// Numbers of eight bytes.
    pub const BYTES: usize = 7 * 8;
    /// Of a file that may change without that it shows: no file has it.
    pub const NONE: Self = Self([0; Self::BYTES]);
}

/// A chunk, and where it lies, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: ChunkId,
    pub place: Option<(Salt, u16)>,
}

/// BLAKE3 of the plain bytes of a piece of a tree.
pub type TreeHash = [u8; 32];

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Enter(Vec<u8>),
    Begin(Vec<u8>, Fingerprint),
    Chunks(Vec<Row>),
    /// The file's entry in its tree; `None` where it came to nothing.
    End(Option<Vec<u8>>),
    Tree(TreeHash, Row),
    Leave,
}

impl Record {
    /// Appends its bytes.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        let kind = match self {
            Self::Enter(name) => {
                bytes.extend_from_slice(name);
                1
            }
            Self::Begin(name, fingerprint) => {
                bytes.extend_from_slice(&fingerprint.0);
                bytes.extend_from_slice(name);
                2
            }
            Self::Chunks(rows) => {
                for row in rows {
                    row.write(&mut bytes);
                }
                3
            }
            Self::End(Some(node)) => {
                bytes.extend_from_slice(node);
                4
            }
            Self::End(None) => 5,
            Self::Tree(hash, row) => {
                bytes.extend_from_slice(hash);
                row.write(&mut bytes);
                6
            }
            Self::Leave => 7,
        };
        let length = u32::try_from(bytes.len()).map_err(|_| wrong("a record is too long"))?;
        if length > MAX_BYTES {
            return Err(wrong("a record is too long"));
        }
        out.write_all(&[kind])?;
        out.write_all(&length.to_be_bytes())?;
        out.write_all(&bytes)
    }

    /// `None` at the end.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut kind = [0];
        if from.read(&mut kind)? == 0 {
            return Ok(None);
        }
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_BYTES {
            return Err(wrong("a record is too long"));
        }
        let mut bytes = Vec::new();
        from.take(u64::from(length)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != u64::from(length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::of(kind[0], bytes)
            .map(Some)
            .ok_or_else(|| wrong("a record is none"))
    }

    fn of(kind: u8, bytes: Vec<u8>) -> Option<Self> {
        match kind {
            1 => Some(Self::Enter(bytes)),
            2 => {
                let (fingerprint, name) = bytes.split_first_chunk()?;
                Some(Self::Begin(name.to_vec(), Fingerprint(*fingerprint)))
            }
            3 => {
                let (rows, []) = bytes.as_chunks::<ROW_BYTES>() else {
                    return None;
                };
                let rows = rows.iter().map(Row::of).collect::<Option<_>>()?;
                Some(Self::Chunks(rows))
            }
            4 => Some(Self::End(Some(bytes))),
            5 => bytes.is_empty().then_some(Self::End(None)),
            6 => {
                let (hash, row) = bytes.split_first_chunk()?;
                Some(Self::Tree(*hash, Row::of(row.try_into().ok()?)?))
            }
            7 => bytes.is_empty().then_some(Self::Leave),
            _ => None,
        }
    }
}

impl Row {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.push(u8::from(self.place.is_some()));
        let (salt, counter) = self.place.unwrap_or((Salt::new([0; 16]), 0));
        bytes.extend_from_slice(salt.as_bytes());
        bytes.extend_from_slice(&counter.to_be_bytes());
    }

    fn of(bytes: &[u8; ROW_BYTES]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (is_known, rest) = rest.split_first()?;
        let (salt, counter) = rest.split_first_chunk()?;
        let place = (
            Salt::new(*salt),
            u16::from_be_bytes(counter.try_into().ok()?),
        );
        Some(Self {
            id: ChunkId::new(*id),
            place: match is_known {
                0 => None,
                1 => Some(place),
                _ => return None,
            },
        })
    }
}

/// What is read is none.
pub fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
