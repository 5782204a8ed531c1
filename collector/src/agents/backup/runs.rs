//! Runs: begun with the volume's key safe in the store, kept alive by beats, ended.

use bytes::Bytes;
use http::StatusCode;
use infratrack_shared::backup::{Refs, Salt};
use infratrack_shared::codec;
use infratrack_shared::ids::{HostId, SnapshotId, VolumeId};
use infratrack_shared::limits;
use infratrack_shared::wire::backup::{
    Beat, Beaten, BeginRun, Begun, EndRun, Ended, Order, Volume, Volumes, VolumesAsked, WrappedKey,
};
use infratrack_shared::wire::problem::code;
use time::{Duration, OffsetDateTime};

use super::{check_protocol, nothing, stored, unkept, unstored};
use crate::agents::ingest::invalid;
use crate::agents::problem::Refusal;
use crate::app::App;
use crate::backups::ending::{self, cut, word};
use crate::backups::garbage::REFS;
use crate::backups::objects;
use crate::blob::Put;
use crate::store::backup_runs::{self, NewRun};
use crate::store::drills;
use crate::store::snapshots;
use crate::store::volumes::{self, KeyRow, VolumeRow};
use crate::store::{packs, timestamp, unix_millis};

/// Without a beat for so long a run counts as interrupted.
const LEASE: Duration = Duration::minutes(2);
/// With this every file of age begins.
const AGE: &[u8] = b"age-encryption.org/v1\n";
/// Whoever has one identity alone loses it some day.
const LEAST_RECIPIENTS: usize = 2;
const MOST_RECIPIENTS: usize = 50;
const RECIPIENT_BYTES: usize = 4096;
const KEY_BYTES: usize = 32 * 1024;
/// Keys of one volume: a host that was set up anew makes another.
pub(super) const MOST_KEYS: i64 = 100;
/// The agent's version, in characters.
const AGENT: usize = 128;
/// Lost chunks that are named; with more, all is asked anew.
const MOST_LOST: i64 = 10_000;

/// What this host is to protect.
pub(super) async fn volumes(
    app: &App,
    host: HostId,
    asked: VolumesAsked,
) -> Result<Volumes, Refusal> {
    check_protocol(asked.protocol)?;
    let found = async {
        let mut connection = app.pool.acquire().await?;
        let most = limits::BACKUP_VOLUMES as i64;
        let volumes = volumes::list_of_host(&mut connection, host, most).await?;
        let due = drills::find_due(&mut connection, host, app.clock.now()).await?;
        sqlx::Result::Ok((volumes, due))
    };
    let (found, due) = found.await.map_err(unstored)?;
    let volume = |row: &VolumeRow| Volume {
        is_drill_due: due == Some(row.volume_id),
        ..row.to_wire()
    };
    Ok(Volumes {
        volumes: found.iter().map(volume).collect(),
        server_time: unix_millis(app.clock.now()),
    })
}

/// Begins a run, or answers the same again.
pub(super) async fn begin(app: &App, host: HostId, asked: BeginRun) -> Result<Begun, Refusal> {
    check_protocol(asked.protocol)?;
    let found = async {
        let mut connection = app.pool.acquire().await?;
        volumes::find_of_host(&mut connection, host, asked.volume).await
    };
    let volume = found.await.map_err(unstored)?;
    let volume = volume.ok_or_else(|| nothing("volume"))?;
    let has_chunks = volume.kind != "external";
    let key = asked.key.as_ref().filter(|_| has_chunks);
    match key {
        Some(key) => keep_key(app, asked.volume, key).await?,
        None if has_chunks => return Err(invalid("key: a volume with chunks needs one")),
        None => {}
    }
    let now = app.clock.now();
    insert(app, host, &asked, key, now).await?;
    let mut begun = Begun {
        volume: volume.to_wire(),
        lease_ms: u32::try_from(LEASE.whole_milliseconds()).unwrap_or(u32::MAX),
        server_time: unix_millis(now),
        last_ok: None,
        has_parent: false,
        lost: Refs::default(),
    };
    relate(app, &asked, &mut begun).await?;
    Ok(begun)
}

/// Has the run in the tables, as the only one of its volume that is under way.
async fn insert(
    app: &App,
    host: HostId,
    asked: &BeginRun,
    key: Option<&WrappedKey>,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let agent = cut(&asked.agent, AGENT);
    let key_id = key.map(|key| key.id);
    let new = NewRun {
        run: asked.run,
        volume: asked.volume,
        host,
        state: "running",
        trigger: word(asked.trigger),
        started_at: now,
        host_started_at: timestamp(asked.started_at),
        lease_until: now + LEASE,
        parent: asked.parent,
        key_id: key_id.as_ref().map(|id| id.as_bytes().as_slice()),
        agent: &agent,
    };
    let inserted = async {
        let mut transaction = app.pool.begin().await?;
        volumes::share(&mut transaction, asked.volume).await?;
        backup_runs::update_stale(&mut transaction, Some(asked.volume), now).await?;
        if asked.has_lock {
            backup_runs::update_dead(&mut transaction, &new).await?;
        }
        let inserted = backup_runs::insert(&mut transaction, &new).await?;
        let known = backup_runs::find(&mut transaction, asked.run).await?;
        let lease = backup_runs::find_lease(&mut transaction, asked.volume).await?;
        transaction.commit().await?;
        sqlx::Result::Ok((inserted == 1, known, lease))
    };
    let (is_inserted, known, lease) = inserted.await.map_err(unstored)?;
    if is_inserted {
        return Ok(());
    }
    let Some(known) = known else {
        let detail = "another run of this volume is under way";
        let refusal = Refusal::new(StatusCode::CONFLICT, code::VOLUME_BUSY, detail);
        let left = lease.map_or(Duration::ZERO, |lease| lease - now);
        return Err(Refusal {
            retry_after_s: Some(u64::try_from(left.whole_seconds()).unwrap_or(0) + 1),
            ..refusal
        });
    };
    let is_same = known.host_id == host.0
        && known.volume_id == asked.volume.0
        && known.key_id.as_deref() == new.key_id
        && known.state == "running";
    if is_same {
        Ok(())
    } else {
        Err(nothing("run under way"))
    }
}

/// What there is of the volume already.
async fn relate(app: &App, asked: &BeginRun, begun: &mut Begun) -> Result<(), Refusal> {
    let found = async {
        let mut connection = app.pool.acquire().await?;
        begun.last_ok = snapshots::find_last_ok(&mut connection, asked.volume).await?;
        let Some(parent) = asked.parent else {
            return Ok(None);
        };
        let Some(refs) = snapshots::find_refs(&mut connection, asked.volume, parent).await? else {
            return Ok(None);
        };
        let lost = packs::list_lost(&mut connection, asked.volume, MOST_LOST + 1).await?;
        sqlx::Result::Ok(Some((refs, lost)))
    };
    let Some((refs, lost)) = found.await.map_err(unstored)? else {
        return Ok(());
    };
    begun.has_parent = lost.len() as i64 <= MOST_LOST;
    if begun.has_parent && !lost.is_empty() {
        let refs: Refs = codec::decode(&refs, &REFS).map_err(|e| Refusal::unavailable(e, 30))?;
        let lost = of_rows(lost);
        for (salt, ranges) in lost.origins() {
            let counters = ranges.iter().flat_map(|(first, last)| *first..=*last);
            for counter in counters.filter(|counter| refs.contains(salt, *counter)) {
                begun.lost.insert(*salt, counter);
            }
        }
    }
    Ok(())
}

/// Chunks by their origins.
pub(super) fn of_rows(rows: Vec<(Vec<u8>, i32)>) -> Refs {
    let mut refs = Refs::default();
    for (salt, counter) in rows {
        if let (Ok(salt), Ok(counter)) = (salt.as_slice().try_into(), counter.try_into()) {
            refs.insert(Salt::new(salt), counter);
        }
    }
    refs
}

/// Has a volume's key in the store and in the tables: without it, whatever else is stored is lost with its host.
async fn keep_key(app: &App, volume: VolumeId, key: &WrappedKey) -> Result<(), Refusal> {
    check_key(key)?;
    let id = key.id.as_bytes().to_vec();
    let known = async {
        let mut connection = app.pool.acquire().await?;
        volumes::count_keys(&mut connection, volume, &id).await
    };
    let (count, is_known) = known.await.map_err(unstored)?;
    if is_known {
        return Ok(());
    }
    if count >= MOST_KEYS {
        let detail = format!("key: this volume has {MOST_KEYS} others");
        return Err(invalid(detail));
    }
    let name = objects::key(volume, key.id).map_err(unkept)?;
    let mut wrapped = Bytes::copy_from_slice(&key.age);
    let put = stored(app.blob.put_bytes(&name, wrapped.clone())).await?;
    if put == Put::Existed {
        // It came this far before: what is in the store is what there is.
        let there = stored(app.blob.find_bytes(&name, KEY_BYTES)).await?;
        wrapped = there.ok_or_else(|| Refusal::unavailable("the key is not there", 5))?;
    }
    let row = KeyRow {
        key_id: id,
        wrapped: wrapped.to_vec(),
        recipients: key.recipients.clone(),
    };
    let inserted = async {
        let mut connection = app.pool.acquire().await?;
        volumes::insert_key(&mut connection, volume, &row, app.clock.now()).await
    };
    inserted.await.map(drop).map_err(unstored)
}

fn check_key(key: &WrappedKey) -> Result<(), Refusal> {
    if !key.age.starts_with(AGE) || key.age.len() > KEY_BYTES {
        let detail = format!("key/age: is no file of age of at most {KEY_BYTES} bytes");
        return Err(invalid(detail));
    }
    let recipients: std::collections::BTreeSet<_> = key.recipients.iter().collect();
    if !(LEAST_RECIPIENTS..=MOST_RECIPIENTS).contains(&recipients.len()) {
        let got = recipients.len();
        let detail = format!(
            "key/recipients: {got}, and not {LEAST_RECIPIENTS} to {MOST_RECIPIENTS} different ones"
        );
        return Err(invalid(detail));
    }
    let is_plain = |recipient: &&String| {
        (1..=RECIPIENT_BYTES).contains(&recipient.len()) && !recipient.contains(char::is_control)
    };
    if recipients.iter().all(is_plain) {
        Ok(())
    } else {
        Err(invalid(
            "key/recipients: one is empty, too long or not plain",
        ))
    }
}

/// Keeps a run alive.
pub(super) async fn beat(app: &App, host: HostId, beat: Beat) -> Result<Beaten, Refusal> {
    let lease_until = app.clock.now() + LEASE;
    let alive = async {
        let mut connection = app.pool.acquire().await?;
        backup_runs::update_alive(&mut connection, host, beat.run, lease_until, &beat.progress)
            .await
    };
    let orders = alive.await.map_err(unstored)?;
    let orders = orders.ok_or_else(|| nothing("run under way"))?;
    let order = match orders.as_str() {
        "pause" => Order::Pause,
        "cancel" => Order::Cancel,
        _ => Order::GoOn,
    };
    Ok(Beaten { order })
}

/// Ends a run.
pub(super) async fn end(app: &App, host: HostId, end: EndRun) -> Result<Ended, Refusal> {
    let ended = async {
        let mut transaction = app.pool.begin().await?;
        let ended = ending::end(&mut transaction, host, &end, app.clock.now()).await?;
        transaction.commit().await?;
        sqlx::Result::Ok(ended)
    };
    if ended.await.map_err(unstored)? {
        Ok(Ended {})
    } else {
        Err(nothing("volume with this run"))
    }
}

/// The ids of a run's row.
pub(super) fn volume_of(run: &backup_runs::RunRow) -> (VolumeId, Option<SnapshotId>) {
    (VolumeId(run.volume_id), run.snapshot_id.map(SnapshotId))
}
