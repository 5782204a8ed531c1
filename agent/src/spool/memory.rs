//! A store in memory: for fleets of simulated agents, and for tests that crash it.
//!
//! [`Memory`] is one generation on a [`Medium`] that outlives it, as a directory outlives a process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::backend::{Awake, Backend, BackendError, Key, Write};
use super::ledger::Ledger;

/// See the module.
pub(super) struct Memory {
    medium: Medium,
    generation: u64,
}

/// What a crash leaves behind.
#[derive(Clone, Default)]
pub(super) struct Medium {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    generations: BTreeMap<u64, Store>,
    ledger: Option<Ledger>,
    /// Remember how to undo what is not synced.
    journal: bool,
}

#[derive(Default)]
struct Store {
    map: BTreeMap<Key, Bytes>,
    bytes: u64,
    undo: Vec<Write>,
}

impl Medium {
    /// A store that forgets at [`Medium::power_loss`] what was not synced.
    #[cfg(test)]
    pub(super) fn journaled() -> Self {
        let medium = Self::default();
        medium.lock().journal = true;
        medium
    }

    pub(super) fn generation(&self, generation: u64) -> Memory {
        Memory {
            medium: self.clone(),
            generation,
        }
    }

    /// What was not synced is gone; answers the ledger that was stored last.
    #[cfg(test)]
    pub(super) fn power_loss(&self) -> Option<Ledger> {
        let mut inner = self.lock();
        for store in inner.generations.values_mut() {
            while let Some((key, value)) = store.undo.pop() {
                store.write(key, value);
            }
        }
        inner.ledger.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn write(&mut self, key: Key, value: Option<Bytes>) -> Option<Bytes> {
        self.bytes += value.as_ref().map_or(0, |value| value.len() as u64);
        let before = match value {
            Some(value) => self.map.insert(key, value),
            None => self.map.remove(&key),
        };
        self.bytes -= before.as_ref().map_or(0, |value| value.len() as u64);
        before
    }
}

impl Backend for Memory {
    fn get(&mut self, key: &Key) -> Result<Option<Bytes>, BackendError> {
        let inner = self.medium.lock();
        let store = inner.generations.get(&self.generation);
        Ok(store.and_then(|store| store.map.get(key).cloned()))
    }

    fn apply(&mut self, writes: Vec<Write>, _ledger: Option<&Ledger>) -> Result<(), BackendError> {
        let mut inner = self.medium.lock();
        let journal = inner.journal;
        let store = inner.generations.entry(self.generation).or_default();
        for (key, value) in writes {
            if journal {
                let before = store.write(key.clone(), value);
                store.undo.push((key, before));
            } else {
                store.write(key, value);
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), BackendError> {
        let mut inner = self.medium.lock();
        let store = inner.generations.entry(self.generation).or_default();
        store.undo.clear();
        Ok(())
    }

    fn has_reserve(&mut self) -> bool {
        true
    }

    fn rest(&mut self) {}

    fn awaken(&mut self, _ledger: &Ledger) -> Result<Option<Awake>, BackendError> {
        Ok(None)
    }

    fn store_ledger(&mut self, ledger: &Ledger) -> Result<(), BackendError> {
        self.medium.lock().ledger = Some(ledger.clone());
        Ok(())
    }

    fn size_bytes(&mut self) -> u64 {
        let inner = self.medium.lock();
        let store = inner.generations.get(&self.generation);
        store.map_or(0, |store| store.bytes)
    }

    fn fresh(&mut self, generation: u64) -> Result<Box<dyn Backend>, BackendError> {
        self.medium.lock().generations.remove(&generation);
        Ok(Box::new(self.medium.generation(generation)))
    }

    fn discard(self: Box<Self>) {
        self.medium.lock().generations.remove(&self.generation);
    }
}
