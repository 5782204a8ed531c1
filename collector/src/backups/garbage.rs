//! Packs that nothing needs any more: condemned, and after a time of grace removed.
//!
//! A chunk is live while a snapshot that was not deleted needs it, or while it stands for a lost one that may be needed. Packs
//! are condemned under the volume's lock, and only while no run is under way: what a run was told to be held is not condemned
//! before it ends, and a snapshot that names a condemned chunk is not committed. So nothing comes to need a pack between its
//! condemnation and its end, unless its host sends it again.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, ensure};
use infratrack_shared::backup::{MAX_HEAD_BYTES, PackHash, Refs, Salt};
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::{SnapshotId, VolumeId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::expiry::remove_object;
use super::{objects, orphans, rewrite, verification};
use crate::app::App;
use crate::store::garbage::{self as store, CollectedRow, PackRow};
use crate::store::{packs, snapshots};

/// Of what a snapshot needs.
pub const REFS: Limits = Limits {
    bytes: MAX_HEAD_BYTES,
    items: 8_000_000,
    depth: 8,
    string_bytes: 64,
};
/// Packs that are looked at together: with the most chunks that they may have, a million.
const PAGE: i64 = 16;
/// Of a volume with more chunks that stand for lost ones nothing is condemned.
const MOST_SUBSTITUTES: i64 = 100_000;
/// A pack is sparse when less than one of so many bytes is live: to write it anew costs a read of it all and frees three
/// quarters and more; of fuller packs most of what is read would only be moved.
const SPARSE: i64 = 4;
/// Sparse packs of a volume that are written anew in one pass.
const MOST_SPARSE: usize = 1_000;

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub condemned: u64,
    pub spared: u64,
    pub removed: u64,
    pub rewritten: u64,
    pub orphans: u64,
}

/// What a volume's snapshots need.
#[derive(Debug)]
pub struct Live {
    pub(super) volume: Uuid,
    refs: Refs,
    seen: HashSet<Uuid>,
}

/// What is live of a pack, of all that is in it.
#[derive(Clone, Copy, Debug, Default)]
struct Bytes {
    live: i64,
    all: i64,
}

impl Live {
    /// Of a volume as it is now.
    pub async fn of(app: &App, volume: Uuid) -> anyhow::Result<Self> {
        let mut live = Self {
            volume,
            refs: Refs::default(),
            seen: HashSet::new(),
        };
        let mut connection = app.pool.acquire().await?;
        live.refresh(&mut connection).await?;
        Ok(live)
    }

    /// Adds what came since. Under the volume's lock it is everything.
    pub(super) async fn refresh(&mut self, connection: &mut PgConnection) -> anyhow::Result<()> {
        for snapshot in store::list_keeping(connection, self.volume).await? {
            if self.seen.contains(&snapshot) {
                continue;
            }
            let (volume, id) = (VolumeId(self.volume), SnapshotId(snapshot));
            if let Some(refs) = snapshots::find_refs(connection, volume, id).await? {
                self.unite(refs).await?;
            }
            self.seen.insert(snapshot);
        }
        let found = store::list_substitutes(connection, self.volume, MOST_SUBSTITUTES + 1).await?;
        ensure!(
            found.len() as i64 <= MOST_SUBSTITUTES,
            "more than {MOST_SUBSTITUTES} chunks stand for lost ones"
        );
        for (salt, counter) in found {
            if let Some((salt, counter)) = place(&salt, counter) {
                self.refs.insert(salt, counter);
            }
        }
        Ok(())
    }

    /// Beside those who wait for the network: a large snapshot's refs take milliseconds.
    async fn unite(&mut self, refs: Vec<u8>) -> anyhow::Result<()> {
        let mut all = std::mem::take(&mut self.refs);
        let united = tokio::task::spawn_blocking(move || {
            let refs: Refs = codec::decode(&refs, &REFS)?;
            all.unite(&refs);
            anyhow::Ok(all)
        });
        self.refs = united.await?.context("what a snapshot needs")?;
        Ok(())
    }

    /// Whether a chunk is live.
    pub(super) fn has(&self, salt: &Salt, counter: u16) -> bool {
        self.refs.contains(salt, counter)
    }

    async fn weigh(
        &self,
        connection: &mut PgConnection,
        packs: &[i64],
    ) -> sqlx::Result<HashMap<i64, Bytes>> {
        let mut weighed: HashMap<_, _> = packs.iter().map(|id| (*id, Bytes::default())).collect();
        for row in store::list_chunks(connection, packs).await? {
            let bytes = weighed.entry(row.pack_id).or_default();
            for (counter, length) in row.counters.iter().zip(&row.lengths) {
                let length = i64::from(*length);
                let found = place(&row.salt, *counter);
                // What can't be read is kept.
                let is_live = found.is_none_or(|(salt, counter)| self.has(&salt, counter));
                bytes.all += length;
                bytes.live += if is_live { length } else { 0 };
            }
        }
        Ok(weighed)
    }

    /// Those of these packs that have no live chunk.
    pub(super) async fn dead(
        &self,
        connection: &mut PgConnection,
        packs: &[i64],
    ) -> sqlx::Result<Vec<i64>> {
        let weighed = self.weigh(connection, packs).await?;
        let dead = weighed.into_iter().filter(|(_, bytes)| bytes.live == 0);
        Ok(dead.map(|(pack, _)| pack).collect())
    }

    /// Condemns those of these packs that nothing needs. `None`: a run is under way.
    async fn condemn(&mut self, app: &App, packs: &[i64]) -> anyhow::Result<Option<u64>> {
        let mut transaction = app.pool.begin().await?;
        packs::allow_time(&mut transaction).await?;
        store::lock(&mut transaction, self.volume).await?;
        if store::is_running(&mut transaction, self.volume).await? {
            return Ok(None);
        }
        self.refresh(&mut transaction).await?;
        let dead = self.dead(&mut transaction, packs).await?;
        let condemned = store::condemn(&mut transaction, &dead).await?;
        transaction.commit().await?;
        Ok(Some(condemned))
    }

    /// Takes back the condemnation of those that are live after all, which nothing should bring about. Answers them.
    async fn spare(&mut self, app: &App, packs: &[i64]) -> anyhow::Result<Vec<i64>> {
        let mut transaction = app.pool.begin().await?;
        packs::allow_time(&mut transaction).await?;
        store::lock(&mut transaction, self.volume).await?;
        self.refresh(&mut transaction).await?;
        let weighed = self.weigh(&mut transaction, packs).await?;
        let live = weighed.into_iter().filter(|(_, bytes)| bytes.live > 0);
        let live: Vec<_> = live.map(|(pack, _)| pack).collect();
        store::spare(&mut transaction, &live).await?;
        transaction.commit().await?;
        Ok(live)
    }
}

/// A chunk's place, as it stands in the tables.
pub(super) fn place(salt: &[u8], counter: i32) -> Option<(Salt, u16)> {
    Some((Salt::new(salt.try_into().ok()?), counter.try_into().ok()?))
}

/// Collects the garbage of a volume: all that can be done by now.
pub async fn collect(app: &App, row: CollectedRow) -> anyhow::Result<Collected> {
    let mut live = Live::of(app, row.volume_id).await?;
    let mut done = Collected::default();
    if row.is_due && pass(app, &mut live, &mut done).await? {
        done.orphans = orphans::sweep(app, VolumeId(row.volume_id)).await?;
        let mut connection = app.pool.acquire().await?;
        store::update_collected(&mut connection, row.volume_id).await?;
    }
    remove(app, &mut live, &mut done).await?;
    Ok(done)
}

/// Looks at every pack. `false`: a run came between.
async fn pass(app: &App, live: &mut Live, done: &mut Collected) -> anyhow::Result<bool> {
    let (mut after, mut sparse) = (0, Vec::new());
    loop {
        let mut connection = app.pool.acquire().await?;
        let page = store::list_packs(&mut connection, live.volume, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.pack_id;
        let ids: Vec<_> = page.iter().map(|pack| pack.pack_id).collect();
        let weighed = live.weigh(&mut connection, &ids).await?;
        drop(connection);
        let of = |pack: &PackRow| weighed.get(&pack.pack_id).copied().unwrap_or_default();
        let dead = page.iter().filter(|pack| of(pack).live == 0);
        let dead: Vec<_> = dead.map(|pack| pack.pack_id).collect();
        if !dead.is_empty() {
            let Some(condemned) = live.condemn(app, &dead).await? else {
                return Ok(false);
            };
            done.condemned += condemned;
        }
        let room = MOST_SPARSE - sparse.len();
        let is_sparse = |pack: &PackRow| {
            let bytes = of(pack);
            !pack.is_lost && bytes.live > 0 && bytes.live * SPARSE < bytes.all
        };
        sparse.extend(page.into_iter().filter(is_sparse).take(room));
    }
    done.rewritten = rewrite::rewrite(app, live, sparse).await?;
    Ok(true)
}

/// Removes packs that were condemned long enough ago, and are dead still.
async fn remove(app: &App, live: &mut Live, done: &mut Collected) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let mut connection = app.pool.acquire().await?;
        let page = store::list_condemned(&mut connection, live.volume, after, PAGE).await?;
        drop(connection);
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.pack_id;
        let ids: Vec<_> = page.iter().map(|pack| pack.pack_id).collect();
        let spared = live.spare(app, &ids).await?;
        done.spared += spared.len() as u64;
        for pack in page {
            if !spared.contains(&pack.pack_id) {
                done.removed += u64::from(remove_pack(app, live.volume, &pack).await?);
                continue;
            }
            tracing::warn!(pack = pack.pack_id, "a condemned pack is needed and stays");
            // A removal of it may have been cut off behind its object.
            verification::check(app, live.volume, pack.pack_id).await?;
        }
    }
}

/// Removes a pack's object, then its rows: who wants to store it again waits, and finds neither.
async fn remove_pack(app: &App, volume: Uuid, pack: &PackRow) -> anyhow::Result<bool> {
    let mut transaction = app.pool.begin().await?;
    packs::allow_time(&mut transaction).await?;
    if !store::lock_condemned(&mut transaction, pack.pack_id).await? {
        return Ok(false);
    }
    remove_object(app, &objects::pack(VolumeId(volume), hash_of(pack)?)?).await?;
    store::delete_pack(&mut transaction, pack.pack_id).await?;
    transaction.commit().await?;
    Ok(true)
}

/// A pack's name.
pub(super) fn hash_of(pack: &PackRow) -> anyhow::Result<PackHash> {
    let hash = pack.hash.as_slice().try_into();
    Ok(PackHash::new(
        hash.context("a pack's hash has no 32 bytes")?,
    ))
}

/// Removes what is left of volumes that were deleted: keys, runs, and their own rows. Answers how many.
pub async fn remove_volumes(app: &App, most: i64) -> anyhow::Result<u64> {
    let mut connection = app.pool.acquire().await?;
    let empty = store::list_empty(&mut connection, most).await?;
    drop(connection);
    let mut removed = 0;
    for volume in empty {
        orphans::remove_all(app, VolumeId(volume)).await?;
        let mut transaction = app.pool.begin().await?;
        packs::allow_time(&mut transaction).await?;
        store::lock(&mut transaction, volume).await?;
        removed += store::delete_volume(&mut transaction, volume).await?;
        let change = crate::audit::Change::new("volume.remove", "volume", volume);
        let actor = crate::audit::Actor::job("backup_garbage");
        crate::audit::record(&mut transaction, &actor, change, app.clock.now()).await?;
        transaction.commit().await?;
    }
    Ok(removed)
}
