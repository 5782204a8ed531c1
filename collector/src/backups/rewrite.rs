//! Sparse packs: their live chunks move into new packs as they are sealed, without any key, and the old ones are condemned.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use infratrack_shared::backup::{
    Entry, KeyId, MAX_PACK_BYTES, PackBuilder, PackHash, PackKind, TARGET_PACK_BYTES, Table,
};
use infratrack_shared::ids::VolumeId;
use sqlx::PgConnection;

use super::garbage::{Live, hash_of};
use super::{objects, verification};
use crate::app::App;
use crate::store::garbage::{self as store, Moved, PackRow};
use crate::store::packs::{self, NewPack};

/// What is live of a pack.
struct Taken {
    pack: PackRow,
    kind: PackKind,
    key_id: KeyId,
    bytes: Bytes,
    live: Vec<Entry>,
}

/// A pack in the making.
struct Batch {
    builder: PackBuilder,
    kind: PackKind,
    key_id: KeyId,
    ids: HashSet<infratrack_shared::backup::ChunkId>,
    from: Vec<i64>,
}

/// Writes sparse packs anew. Answers how many.
pub(super) async fn rewrite(
    app: &App,
    live: &mut Live,
    mut sparse: Vec<PackRow>,
) -> anyhow::Result<u64> {
    sparse.sort_by(|a, b| (a.kind, &a.key_id, a.pack_id).cmp(&(b.kind, &b.key_id, b.pack_id)));
    let (mut batch, mut rewritten): (Option<Batch>, _) = (None, 0);
    for pack in sparse {
        let Some(taken) = take(app, live, pack).await? else {
            continue;
        };
        if batch.as_ref().is_some_and(|batch| !batch.fits(&taken))
            && let Some(full) = batch.take()
        {
            rewritten += full.keep(app, live).await?;
        }
        let volume = VolumeId(live.volume);
        let made = batch.get_or_insert_with(|| Batch::new(volume, &taken));
        made.add(&taken)?;
    }
    if let Some(last) = batch {
        rewritten += last.keep(app, live).await?;
    }
    Ok(rewritten)
}

/// Reads a pack. `None`: it is not what it was, and is lost from now on, or nothing of it is to be moved.
async fn take(app: &App, live: &Live, pack: PackRow) -> anyhow::Result<Option<Taken>> {
    let hash = hash_of(&pack)?;
    let key = objects::pack(VolumeId(live.volume), hash)?;
    let bytes = verification::read(app, &key, MAX_PACK_BYTES, *hash.as_bytes()).await?;
    let table = bytes.and_then(|bytes| Some((Table::of_pack(&bytes).ok()?, bytes)));
    let Some((table, bytes)) = table else {
        verification::check(app, live.volume, pack.pack_id).await?;
        return Ok(None);
    };
    let mut connection = app.pool.acquire().await?;
    let mut here = HashSet::new();
    for row in store::list_chunks(&mut connection, &[pack.pack_id]).await? {
        here.extend(
            row.counters
                .iter()
                .map(|counter| (row.salt.clone(), *counter)),
        );
    }
    let is_live = |entry: &Entry| {
        let sealed = entry.sealed;
        let place = (sealed.salt.as_bytes().to_vec(), i32::from(sealed.counter));
        live.has(&sealed.salt, sealed.counter) && here.contains(&place)
    };
    let (kind, key_id) = (table.kind, table.key_id);
    let entries: Vec<_> = table.entries.into_iter().filter(is_live).collect();
    Ok((!entries.is_empty()).then_some(Taken {
        pack,
        kind,
        key_id,
        bytes,
        live: entries,
    }))
}

impl Batch {
    fn new(volume: VolumeId, taken: &Taken) -> Self {
        Self {
            builder: PackBuilder::new(volume, taken.key_id, taken.kind),
            kind: taken.kind,
            key_id: taken.key_id,
            ids: HashSet::new(),
            from: Vec::new(),
        }
    }

    /// Whether all of it has room: a pack has no chunk twice.
    fn fits(&self, taken: &Taken) -> bool {
        let bytes: usize = taken.live.iter().map(|entry| entry.bytes().len()).sum();
        self.kind == taken.kind
            && self.key_id == taken.key_id
            && self.builder.size() + bytes <= TARGET_PACK_BYTES
            && !taken.live.iter().any(|entry| self.ids.contains(&entry.id))
    }

    fn add(&mut self, taken: &Taken) -> anyhow::Result<()> {
        for entry in &taken.live {
            let sealed = &taken.bytes[entry.bytes()];
            self.builder.take_over(entry, sealed)?;
            self.ids.insert(entry.id);
        }
        self.from.push(taken.pack.pack_id);
        Ok(())
    }

    /// Stores it, moves its chunks there, and condemns the packs that have no live one any more. Answers how many. Where a run
    /// is under way nothing is moved, and what was stored is an orphan.
    async fn keep(self, app: &App, live: &mut Live) -> anyhow::Result<u64> {
        let volume = VolumeId(live.volume);
        let (kind, key_id, from) = (self.kind, self.key_id, self.from);
        let (hash, bytes) = self.builder.finish();
        let bytes = Bytes::from(bytes);
        let table = Table::of_pack(&bytes)?;
        let key = objects::pack(volume, hash)?;
        verification::within(app.blob.put_whole(&key, bytes.clone())).await?;
        let mut transaction = app.pool.begin().await?;
        packs::allow_time(&mut transaction).await?;
        store::lock(&mut transaction, live.volume).await?;
        if store::is_running(&mut transaction, live.volume).await? {
            return Ok(0);
        }
        let new = NewPack {
            volume,
            hash,
            kind: match kind {
                PackKind::Content => 1,
                PackKind::Trees => 2,
            },
            key_id: key_id.as_bytes(),
            size_bytes: i32::try_from(bytes.len())?,
        };
        let Some(to) = packs::insert(&mut transaction, &new).await? else {
            return Ok(0);
        };
        let moved = moved(&mut transaction, volume, &table).await?;
        store::update_moved(&mut transaction, (&from, to), &moved).await?;
        live.refresh(&mut transaction).await?;
        let dead = live.dead(&mut transaction, &from).await?;
        let condemned = store::condemn(&mut transaction, &dead).await?;
        transaction.commit().await?;
        told(hash, condemned);
        Ok(condemned)
    }
}

fn told(hash: PackHash, condemned: u64) {
    tracing::debug!(%hash, condemned, "sparse packs were written anew");
}

/// Where the chunks of a pack lie in it.
async fn moved(
    connection: &mut PgConnection,
    volume: VolumeId,
    table: &Table,
) -> anyhow::Result<Moved> {
    let entries = &table.entries;
    let origins = entries.iter().map(|e| (e.sealed.salt, e.sealed.algorithm));
    let origins: Vec<_> = origins.collect::<BTreeSet<_>>().into_iter().collect();
    let known = packs::list_origins(connection, volume, &origins).await?;
    let mut moved = Moved::default();
    for entry in entries {
        let Some((origin, _)) = known.get(entry.sealed.salt.as_bytes().as_slice()) else {
            continue;
        };
        moved.origins.push(*origin);
        moved.counters.push(i32::from(entry.sealed.counter));
        moved.offsets.push(i32::try_from(entry.range.start)?);
        moved.lengths.push(i32::try_from(entry.bytes().len())?);
    }
    Ok(moved)
}
