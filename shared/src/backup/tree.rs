//! Directories: one document for each entry, in the order of the names.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use thiserror::Error;

use super::Content;
use crate::codec::{DecodeError, EncodeError, Limits, decode, encode, first_document};

/// One entry, in bytes: names and targets are short, a list of chunks has at most 32 KiB, extended attributes have 64 KiB each.
const MAX_NODE_BYTES: usize = 4 * 1024 * 1024;
/// One part of a path: what file systems of Linux allow is less.
const MAX_NAME_BYTES: usize = 4096;
const LIMITS: Limits = Limits {
    bytes: MAX_NODE_BYTES,
    items: 200_000,
    depth: 8,
    string_bytes: 1024 * 1024,
};

/// What an entry is (`st_mode & S_IFMT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    Char,
    Block,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// One part of a path, as the file system has it.
    pub name: ByteBuf,
    pub kind: Kind,
    /// `st_mode & 07777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    /// Of a file, or of a directory: its tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// Of a symlink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ByteBuf>,
    /// Major and minor of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// In the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(ByteBuf, ByteBuf)>,
    /// Offset and length of each, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<(u64, u64)>,
    /// What all names of one inode have in common within a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard_link: Option<u64>,
    /// It changed while it was read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub torn: bool,
}

/// Why bytes are no tree.
#[derive(Debug, Error)]
pub enum TreeError {
    #[error("its entry {at} is none")]
    Node {
        at: u64,
        #[source]
        source: DecodeError,
    },
    #[error("its entry {at} is named {name:?}, which no directory can have")]
    Name { at: u64, name: String },
    #[error("its entry {at} does not come after the one before")]
    Order { at: u64 },
    #[error("its entry {at} lacks its {what}")]
    Lacks { at: u64, what: &'static str },
    #[error("its entry {at} has holes that are not in order within the file")]
    Holes { at: u64 },
}

impl Node {
    /// As it stands in its directory.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        encode(self)
    }

    fn check(&self, at: u64) -> Result<(), TreeError> {
        let name = self.name.as_slice();
        let is_impossible = name.contains(&b'/') || name.contains(&0);
        if matches!(name, b"" | b"." | b"..") || name.len() > MAX_NAME_BYTES || is_impossible {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(TreeError::Name { at, name });
        }
        let lacks = match self.kind {
            Kind::File | Kind::Directory => self.content.is_none().then_some("content"),
            Kind::Symlink => self.target.is_none().then_some("target"),
            Kind::Char | Kind::Block => self.device.is_none().then_some("device"),
            Kind::Fifo | Kind::Socket => None,
        };
        if let Some(what) = lacks {
            return Err(TreeError::Lacks { at, what });
        }
        let size = self.content.as_ref().map_or(0, |content| content.size);
        let mut end = 0;
        for (offset, length) in &self.holes {
            let Some(next) = offset.checked_add(*length) else {
                return Err(TreeError::Holes { at });
            };
            if *offset < end || *length == 0 || next > size {
                return Err(TreeError::Holes { at });
            }
            end = next;
        }
        Ok(())
    }
}

/// Reads a tree from the pieces that its chunks are, whatever ends where.
#[derive(Debug, Default)]
pub struct TreeReader {
    /// What is not read yet.
    pending: Vec<u8>,
    /// Up to there it is.
    done: usize,
    at: u64,
    last: Option<ByteBuf>,
}

impl TreeReader {
    /// The next piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.pending.drain(..std::mem::take(&mut self.done));
        self.pending.extend_from_slice(bytes);
    }

    /// The next entry; `None` where another piece is needed, or there is none.
    pub fn next_node(&mut self) -> Result<Option<Node>, TreeError> {
        let rest = &self.pending[self.done..];
        if rest.is_empty() {
            return Ok(None);
        }
        let at = self.at;
        let wrong = |source| TreeError::Node { at, source };
        let length = match first_document(rest, &LIMITS) {
            Ok(length) => length,
            Err(DecodeError::Truncated { .. }) if rest.len() < MAX_NODE_BYTES => return Ok(None),
            Err(error) => return Err(wrong(error)),
        };
        let node: Node = decode(&rest[..length], &LIMITS).map_err(wrong)?;
        node.check(at)?;
        if self.last.as_ref().is_some_and(|last| *last >= node.name) {
            return Err(TreeError::Order { at });
        }
        self.last = Some(node.name.clone());
        self.done += length;
        self.at += 1;
        Ok(Some(node))
    }

    /// Refuses a tree that ends within an entry.
    pub fn finish(self) -> Result<(), TreeError> {
        let at = self.pending.len() - self.done;
        if at == 0 {
            return Ok(());
        }
        Err(TreeError::Node {
            at: self.at,
            source: DecodeError::Truncated { at },
        })
    }
}
