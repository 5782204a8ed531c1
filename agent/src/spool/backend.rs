//! What the queue needs of a store: point reads, atomic batches, a sync, one small file.
//!
//! No iteration on purpose: after damage sled's iterators fail forever and hide what is behind, so
//! every read is of a key the ledger says should exist.

use std::io;

use bytes::Bytes;
use infratrack_shared::wire::batch::Class;
use thiserror::Error;

use super::ledger::Ledger;

/// A key of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(Vec<u8>);

impl Key {
    pub(super) fn record(slot: u32, class: Class, seq: u64) -> Self {
        let class = match class {
            Class::Critical => 0,
            Class::Beat => 1,
        };
        let mut key = vec![b'r'];
        key.extend_from_slice(&slot.to_be_bytes());
        key.push(class);
        key.extend_from_slice(&seq.to_be_bytes());
        Self(key)
    }

    /// A small value.
    pub(super) fn value(name: &str) -> Self {
        Self([b"v", name.as_bytes()].concat())
    }

    /// A record of a newer version, put aside.
    pub(super) fn unread(number: u64) -> Self {
        Self([&b"u"[..], &number.to_be_bytes()].concat())
    }

    /// The ledger's copy.
    pub(super) fn ledger() -> Self {
        Self(b"l".to_vec())
    }

    /// The key of the same record in another section. `None` for any other key.
    pub(super) fn moved(&self, from: u32, to: u32) -> Option<Self> {
        let rest = self
            .0
            .strip_prefix(b"r")?
            .strip_prefix(&from.to_be_bytes())?;
        Some(Self([&b"r"[..], &to.to_be_bytes(), rest].concat()))
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One change: a value to set, or a key to remove.
pub(super) type Write = (Key, Option<Bytes>);

/// Why the store did not do as told.
#[derive(Debug, Error)]
pub(super) enum BackendError {
    #[error("the disk is full")]
    Full,
    #[error("cannot {doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// The key's page can't be read; others may.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Closed after an error; to be opened again when its pause is over.
    #[error("closed after an error, opened again after a pause")]
    Pausing,
}

impl BackendError {
    pub(super) fn io(doing: &'static str, source: io::Error) -> Self {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        if full.contains(&source.kind()) {
            Self::Full
        } else {
            Self::Io { doing, source }
        }
    }
}

/// A store that takes the place of the one it is a copy of.
pub(super) struct Awake {
    pub store: Box<dyn Backend>,
    pub ledger: Ledger,
}

/// See the module.
pub(super) trait Backend: Send {
    fn get(&mut self, key: &Key) -> Result<Option<Bytes>, BackendError>;

    /// All or nothing, with a copy of the ledger; survives the process only after `sync`.
    fn apply(&mut self, writes: Vec<Write>, ledger: Option<&Ledger>) -> Result<(), BackendError>;

    /// Everything applied survives power loss.
    fn sync(&mut self) -> Result<(), BackendError>;

    /// Replaces the ledger beside the store; survives power loss.
    fn store_ledger(&mut self, ledger: &Ledger) -> Result<(), BackendError>;

    /// What the store takes on disk.
    fn size_bytes(&mut self) -> u64;

    /// Room is held back on the disk, for what makes room. Without any, nothing is to be added.
    fn has_reserve(&mut self) -> bool;

    /// Closes a store that is idle. Asked for now and then.
    fn rest(&mut self);

    /// Where the store is closed: a copy of it, open, and the stored ledger that names it. It takes this one's
    /// place, which stays as it was closed until then; every use comes after this.
    fn awaken(&mut self, ledger: &Ledger) -> Result<Option<Awake>, BackendError>;

    /// An empty store beside this one, in use once a ledger that names `generation` is stored.
    fn fresh(&mut self, generation: u64) -> Result<Box<dyn Backend>, BackendError>;

    /// Deletes a store that the stored ledger does not name.
    fn discard(self: Box<Self>);
}
