//! The ids of packages in the dictionary: remembered, because a fleet has the same few thousand.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use infratrack_shared::digest::Digest;
use sqlx::PgConnection;

use crate::store::packages::{self as store, Entry};

/// Ids that are remembered; with more, all are forgotten. Each takes some 40 bytes.
const MOST: usize = 500_000;

#[derive(Debug, Default)]
pub(super) struct Dictionary(Mutex<HashMap<Digest, i64>>);

impl Dictionary {
    /// The id of each entry; entries that are not there are added. Never within a transaction that does more: rows
    /// that hosts share are not to be locked for longer than that takes.
    pub(super) async fn ids(
        &self,
        connection: &mut PgConnection,
        entries: &BTreeMap<Digest, Entry>,
    ) -> sqlx::Result<HashMap<Digest, i64>> {
        let mut ids: HashMap<_, _> = {
            let known = self.lock();
            let found = entries.keys();
            let found = found.filter_map(|digest| Some((*digest, *known.get(digest)?)));
            found.collect()
        };
        let missing = |ids: &HashMap<Digest, i64>| -> Vec<Digest> {
            let missing = entries.keys().filter(|digest| !ids.contains_key(digest));
            missing.copied().collect()
        };
        let unknown = missing(&ids);
        if unknown.is_empty() {
            return Ok(ids);
        }
        ids.extend(store::find_ids(connection, &unknown).await?);
        let new = missing(&ids);
        if !new.is_empty() {
            let rows = new.iter().map(|digest| (*digest, &entries[digest]));
            let rows: Vec<_> = rows.collect();
            store::insert(connection, &rows).await?;
            ids.extend(store::find_ids(connection, &new).await?);
        }
        let mut known = self.lock();
        if known.len() + unknown.len() > MOST {
            known.clear();
        }
        let learned = unknown.iter();
        known.extend(learned.filter_map(|digest| Some((*digest, *ids.get(digest)?))));
        Ok(ids)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an entry is known by: its fields, each with its length before it.
pub(super) fn digest(entry: &Entry) -> Digest {
    let manager = store::manager_name(entry.manager);
    let fields = [
        manager,
        &entry.name,
        &entry.version,
        &entry.arch,
        &entry.source,
        &entry.source_version,
        &entry.vendor,
    ];
    let mut bytes = Vec::with_capacity(128);
    for field in fields {
        bytes.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(field.as_bytes());
    }
    Digest::of(&bytes)
}
