//! Facts between collection and Ack: what is known, and which of it the collector still needs.

use std::collections::BTreeMap;
use std::time::Duration;

use infratrack_shared::codec::{self, Limits};
use infratrack_shared::digest::Digest;
use infratrack_shared::wire::answer::Ack;
use infratrack_shared::wire::batch::{FACTS, StatePart};
use tokio::time::Instant;

use crate::collect::{Fact, FactSources};
use crate::reporter::{STATE_BYTES, STATE_ITEMS};
use crate::spool::{Spool, SpoolError};

/// The facts and the versions under way.
pub(super) struct Facts {
    sources: FactSources,
    interval: Duration,
    next: Instant,
    known: BTreeMap<String, Fact>,
    /// Keys to be sent, with the version they are sent as.
    pending: BTreeMap<String, u64>,
}

impl Facts {
    pub(super) fn new(sources: FactSources) -> Self {
        Self {
            sources,
            interval: Duration::from_secs(600),
            next: Instant::now(),
            known: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// When to collect again.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn set_interval(&mut self, millis: u32) {
        self.interval = Duration::from_millis(u64::from(millis.max(10_000)));
    }

    /// Over all facts: what the heartbeat says.
    pub(super) fn hash(&self) -> Digest {
        Digest::of_set(
            self.known
                .values()
                .map(|fact| (fact.key.as_str(), fact.hash)),
        )
    }

    /// Collects; what changed since the last time is to be sent. Answers whether anything is.
    pub(super) async fn collect(&mut self, spool: &Spool) -> Result<bool, SpoolError> {
        let first = self.known.is_empty();
        for fact in self.sources.collect().await {
            let fact = within_limits(fact);
            let changed = self
                .known
                .get(&fact.key)
                .is_none_or(|known| known.hash != fact.hash);
            // What the collector has after a restart is told by its answer to the hash.
            if changed && !first {
                self.want(&fact.key, spool).await?;
            }
            self.known.insert(fact.key.clone(), fact);
        }
        self.next = Instant::now() + self.interval;
        Ok(!self.pending.is_empty())
    }

    /// Every fact is to be sent, and the list of them: the collector may have one that is no more.
    pub(super) async fn want_all(&mut self, spool: &Spool) -> Result<(), SpoolError> {
        let keys: Vec<String> = self.known.keys().cloned().collect();
        for key in keys {
            self.want(&key, spool).await?;
        }
        self.want(FACTS, spool).await
    }

    /// What is to be sent.
    pub(super) fn pending(&self) -> Vec<StatePart> {
        let part = |(key, version): (&String, &u64)| {
            let (new_hash, body) = if key == FACTS {
                let keys = self.known.keys().map(|key| key.as_str().into());
                (self.hash(), rmpv::Value::Array(keys.collect()))
            } else {
                let fact = self.known.get(key)?;
                (fact.hash, fact.body.clone())
            };
            Some(StatePart {
                key: key.clone(),
                version: *version,
                base_hash: None,
                new_hash,
                part: 0,
                parts: 1,
                body,
            })
        };
        self.pending.iter().filter_map(part).collect()
    }

    /// The collector refused these versions even alone: they are given up.
    pub(super) fn refused(&mut self, versions: Vec<(String, u64)>) {
        for (key, version) in versions {
            tracing::error!(key, "the collector refuses this fact");
            if self.pending.get(&key) == Some(&version) {
                self.pending.remove(&key);
            }
        }
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes over what the collector has, refuses, or wants.
    pub(super) async fn acknowledged(
        &mut self,
        ack: &Ack,
        spool: &Spool,
    ) -> Result<(), SpoolError> {
        let rejected = ack
            .rejected
            .iter()
            .filter_map(|r| Some((r.key.as_ref()?, r.version?)));
        let stored = ack.state.iter().map(|state| (&state.key, state.version));
        for (key, version) in stored.chain(rejected) {
            if self.pending.get(key) == Some(&version) {
                self.pending.remove(key);
            }
        }
        // What is under way already explains the difference.
        if self.pending.is_empty() {
            for want in &ack.want_whole {
                if want.key == FACTS {
                    self.want_all(spool).await?;
                } else if self.known.contains_key(&want.key) {
                    self.want(&want.key, spool).await?;
                }
            }
        }
        Ok(())
    }

    /// Versions count with the heartbeats: durable, and never the same twice in a stream.
    async fn want(&mut self, key: &str, spool: &Spool) -> Result<(), SpoolError> {
        let version = spool.heartbeat_number().await?;
        self.pending.insert(key.to_owned(), version);
        Ok(())
    }
}

/// A fact that no batch has room for is replaced by saying so.
fn within_limits(fact: Fact) -> Fact {
    let encoded = codec::encode(&fact.body).unwrap_or_default();
    let items = codec::check(&encoded, &Limits::default());
    if encoded.len() <= STATE_BYTES / 2 && items.is_ok_and(|items| items <= STATE_ITEMS / 2) {
        return fact;
    }
    let reason = format!("{} bytes are too many to send", encoded.len());
    let body = rmpv::Value::Map(vec![("unknown".into(), reason.into())]);
    let hash = Digest::of(&codec::encode(&body).unwrap_or_default());
    Fact { body, hash, ..fact }
}
