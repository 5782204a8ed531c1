//! Some of a snapshot's files, where there is no room for all: by a hash of their paths, so that it is nobody's choice and the same
//! again for the same snapshot.

use infratrack_shared::backup::{Content, Kind, Node};

use super::{Fetcher, Options, RestoreError, list};

/// Of how many parts a sample takes the first.
const PARTS: u16 = 4096;
/// What a file takes on the disk beside its content.
const FILE_BYTES: u64 = 4096;

/// Which files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    seed: [u8; 32],
    /// Parts that are taken.
    parts: u16,
    /// Of the largest file that is taken.
    most_bytes: u64,
    files: u64,
}

/// What a snapshot takes on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub files: u64,
    pub bytes: u64,
    pub on_disk: u64,
}

impl Sample {
    /// The largest that has room; and what all would take. Reads trees alone.
    pub fn within(
        from: Fetcher<'_>,
        root: &Content,
        seed: [u8; 32],
        room: u64,
    ) -> Result<(Self, Sizes), RestoreError> {
        let mut sizes = Sizes::default();
        let mut parts = vec![(0_u64, 0_u64); usize::from(PARTS)];
        let mut sample = Self {
            seed,
            parts: 0,
            most_bytes: room.saturating_sub(FILE_BYTES),
            files: 0,
        };
        list(from, root, &Options::default(), &mut |path, node| {
            let on_disk = size(node).saturating_add(FILE_BYTES);
            sizes.on_disk = sizes.on_disk.saturating_add(on_disk);
            if node.kind == Kind::File {
                sizes.files += 1;
                sizes.bytes = sizes.bytes.saturating_add(size(node));
            }
            if size(node) <= sample.most_bytes {
                let (bytes, files) = &mut parts[usize::from(sample.part(path))];
                *bytes = bytes.saturating_add(on_disk);
                *files += u64::from(node.kind == Kind::File);
            }
        })?;
        let mut taken = 0_u64;
        for (bytes, files) in parts {
            taken = taken.saturating_add(bytes);
            if taken > room {
                break;
            }
            sample.parts += 1;
            sample.files += files;
        }
        Ok((sample, sizes))
    }

    /// Not one file has room.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// Whether a file is in it.
    pub fn has(&self, path: &[u8], node: &Node) -> bool {
        size(node) <= self.most_bytes && self.part(path) < self.parts
    }

    fn part(&self, path: &[u8]) -> u16 {
        let hash = blake3::keyed_hash(&self.seed, path);
        let bytes = hash.as_bytes();
        u16::from_le_bytes([bytes[0], bytes[1]]) % PARTS
    }
}

fn size(node: &Node) -> u64 {
    let content = node.content.as_ref();
    let content = content.filter(|_| node.kind == Kind::File);
    content.map_or(0, |content| content.size)
}
