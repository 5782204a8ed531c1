//! Hard links: what is known of an inode whose other names are still to come, so that it is read once. What is remembered has a
//! bound; beyond it an inode is read for each name, and its names are linked all the same.

use std::collections::HashMap;

use infratrack_shared::backup::Node;
use rustix::fs::Stat;

use super::cache::Fingerprint;

/// Of entries that are remembered.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// An entry in memory, without what it points to.
const ENTRY_BYTES: usize = 400;

#[derive(Debug, Default)]
pub(super) struct Links {
    known: HashMap<(u64, u64), Known>,
    bytes: usize,
    /// In the order in which they were seen, so that numbers are the same after a boot.
    devices: Vec<u64>,
}

#[derive(Debug)]
struct Known {
    fingerprint: Fingerprint,
    node: Node,
    bytes: usize,
    /// Names to come; how wide the kernel's number is differs by machine.
    left: u128,
}

impl Links {
    /// The number of an inode: of its own, whatever other inodes there are.
    pub(super) fn number(&mut self, stat: &Stat) -> u64 {
        let found = self.devices.iter().position(|known| *known == stat.st_dev);
        let device = found.unwrap_or_else(|| {
            self.devices.push(stat.st_dev);
            self.devices.len() - 1
        });
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(device as u64).to_be_bytes());
        hasher.update(&stat.st_ino.to_be_bytes());
        let hash = hasher.finalize();
        let number = hash.as_bytes().first_chunk().expect("32 bytes have 8");
        u64::from_be_bytes(*number)
    }

    /// The entry of another name of this inode.
    pub(super) fn find(&mut self, stat: &Stat, fingerprint: Fingerprint) -> Option<Node> {
        let key = (stat.st_dev, stat.st_ino);
        let known = self.known.get_mut(&key)?;
        if known.fingerprint != fingerprint {
            return None;
        }
        known.left = known.left.saturating_sub(1);
        if known.left > 0 {
            return Some(known.node.clone());
        }
        let known = self.known.remove(&key)?;
        self.bytes -= known.bytes;
        Some(known.node)
    }

    pub(super) fn insert(&mut self, stat: &Stat, fingerprint: Fingerprint, node: &Node) {
        let xattrs = node
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let content = node.content.as_ref();
        let ids = content.and_then(|content| content.chunks().or_else(|| Some(content.lists())));
        let ids = ids.and_then(Result::ok).map_or(0, |ids| ids.len() * 32);
        let bytes = ENTRY_BYTES + ids + xattrs.sum::<usize>() + node.holes.len() * 16;
        if self.bytes + bytes > MAX_BYTES {
            return;
        }
        let known = Known {
            fingerprint,
            node: node.clone(),
            bytes,
            left: u128::from(stat.st_nlink).saturating_sub(1),
        };
        self.bytes += bytes;
        if let Some(before) = self.known.insert((stat.st_dev, stat.st_ino), known) {
            self.bytes -= before.bytes;
        }
    }
}
