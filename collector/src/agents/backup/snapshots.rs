//! Snapshots as they are committed: every chunk that one needs is there, and stays from then on.

use bytes::Bytes;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use infratrack_shared::backup::{Head, MAX_SNAPSHOT_BYTES, Refs, SnapshotKind, SnapshotState};
use infratrack_shared::codec;
use infratrack_shared::ids::{BackupRunId, HostId, SnapshotId, VolumeId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::backup::SnapshotStored;
use infratrack_shared::wire::problem::code;
use sqlx::PgConnection;

use super::memory::receive;
use super::runs::{of_rows, volume_of};
use super::{Put, apart, nothing, running, stored, unkept, unstored};
use crate::agents::answer::AnswerBody;
use crate::agents::ingest::invalid;
use crate::agents::problem::Refusal;
use crate::agents::service::{message, within};
use crate::app::App;
use crate::backups::{ending, objects};
use crate::blob::{self, BlobError};
use crate::http::body;
use crate::store::backup_runs::{self, RunRow, big};
use crate::store::packs::{self, Ranges};
use crate::store::snapshots::{self, KnownRow, NewSnapshot, Object};
use crate::store::{timestamp, volumes};

/// A head has so many times its bytes when it is read.
const TIMES: usize = 8;
/// Ranges and chunks that an answer names: the others are told the next time.
const MOST_TORN: i64 = 10_000;
const MOST_MISSING: i64 = 10_000;

/// A snapshot on its way.
struct Arrived {
    run: RunRow,
    host: HostId,
    head: Head,
    ranges: Ranges,
    hash: [u8; 32],
    bytes: Bytes,
}

/// What became of it.
enum Outcome {
    Stored,
    /// It was there.
    Known,
    Missing(Refs),
}

/// Commits a snapshot.
pub(super) async fn put(
    app: &App,
    host: HostId,
    put: &Put<'_>,
    body: Incoming,
) -> Result<Response<AnswerBody>, Refusal> {
    let checked = async {
        let size = put.length(MAX_SNAPSHOT_BYTES)?;
        let (id, run) = put
            .named::<SnapshotId>()
            .ok_or_else(|| nothing("snapshot"))?;
        let run = within(running(app, host, run)).await?;
        Ok((size, id, run))
    };
    let (size, id, run) = match checked.await {
        Ok(checked) => checked,
        Err(refusal) => {
            body::discard(body).await;
            return Err(refusal);
        }
    };
    let (_room, body) = app.backup_memory.room(size, TIMES, body).await?;
    let (bytes, hash) = receive(body, size).await?;
    let read = |bytes: &[u8]| Head::of_snapshot(bytes).map(|h| (Ranges::of(&h.refs), h));
    let read = apart(&bytes, read).await?;
    let no = |error| {
        invalid(format!(
            "this is no snapshot: {:#}",
            anyhow::Error::from(error)
        ))
    };
    let (ranges, head) = read.map_err(no)?;
    check(&head, &run, host, id)?;
    let arrived = Arrived {
        run,
        host,
        head,
        ranges,
        hash: *hash.as_bytes(),
        bytes,
    };
    let (status, missing) = match arrived.keep(app).await? {
        Outcome::Stored => (StatusCode::CREATED, Refs::default()),
        Outcome::Known => (StatusCode::OK, Refs::default()),
        Outcome::Missing(missing) => (StatusCode::CONFLICT, missing),
    };
    message(status, &SnapshotStored { missing })
}

/// Whether it is of its run, host and place.
fn check(head: &Head, run: &RunRow, host: HostId, id: SnapshotId) -> Result<(), Refusal> {
    for (is_so, what) in [
        (head.snapshot_id == id, "snapshot_id: is another"),
        (
            head.volume_id.0 == run.volume_id,
            "volume_id: is not its run's",
        ),
        (head.host_id == host, "host_id: is another host's"),
        (
            run.key_id.as_deref() == Some(head.key_id.as_bytes()),
            "key_id: is not its run's",
        ),
    ] {
        if !is_so {
            return Err(invalid(what));
        }
    }
    Ok(())
}

impl Arrived {
    async fn keep(&self, app: &App) -> Result<Outcome, Refusal> {
        let (volume, of_run) = volume_of(&self.run);
        let id = self.head.snapshot_id;
        let found = within(self.look(app, volume)).await?;
        match (&found.known, of_run) {
            (Some(known), _) => return self.compare(known),
            (None, Some(_)) => return Err(differs("its run has made another snapshot")),
            (None, None) => {}
        }
        if !found.missing.is_empty() {
            return Ok(Outcome::Missing(found.missing));
        }
        let key = objects::snapshot(volume, id).map_err(unkept)?;
        let put = app.blob.put_bytes(&key, self.bytes.clone());
        if stored(put).await? == blob::Put::Existed {
            // It came this far before, or another one of its id did.
            let there = match app.blob.find_bytes(&key, MAX_SNAPSHOT_BYTES).await {
                Err(BlobError::TooLarge { .. }) => None,
                other => other.map_err(unkept)?,
            };
            if there.is_none_or(|there| there != self.bytes) {
                return Err(differs("another snapshot of this id is in the store"));
            }
        }
        within(self.commit(app, volume)).await
    }

    /// The same again, or another one.
    fn compare(&self, known: &KnownRow) -> Result<Outcome, Refusal> {
        let is_same = known.volume_id == self.run.volume_id
            && known.run_id == self.run.run_id
            && known.hash.as_deref() == Some(&self.hash)
            && !known.is_deleted;
        if is_same {
            Ok(Outcome::Known)
        } else {
            Err(differs("there is another snapshot of this id"))
        }
    }

    /// What is known before anything is stored.
    async fn look(&self, app: &App, volume: VolumeId) -> Result<Found, Refusal> {
        let looked = async {
            let mut transaction = app.pool.begin().await?;
            packs::allow_time(&mut transaction).await?;
            let known = snapshots::find(&mut transaction, self.head.snapshot_id).await?;
            let missing = match known {
                Some(_) => Refs::default(),
                None => missing(&mut transaction, volume, &self.ranges).await?,
            };
            sqlx::Result::Ok(Found { known, missing })
        };
        looked.await.map_err(unstored)
    }

    /// Has it in the tables, if its chunks are still there: whoever removes chunks waits.
    async fn commit(&self, app: &App, volume: VolumeId) -> Result<Outcome, Refusal> {
        let mut transaction = app.pool.begin().await.map_err(unstored)?;
        let looked = async {
            packs::allow_time(&mut transaction).await?;
            let is_there = volumes::lock(&mut transaction, self.host, volume).await?;
            let run = BackupRunId(self.run.run_id);
            let run = backup_runs::lock(&mut transaction, run).await?;
            let known = snapshots::find(&mut transaction, self.head.snapshot_id).await?;
            let missing = missing(&mut transaction, volume, &self.ranges).await?;
            let is_running = is_there && run.as_ref().is_some_and(|run| run.state == "running");
            let has_another = run.is_some_and(|run| run.snapshot_id.is_some());
            sqlx::Result::Ok((is_running, has_another, Found { known, missing }))
        };
        let (is_running, has_another, found) = looked.await.map_err(unstored)?;
        if !is_running {
            return Err(nothing("run under way"));
        }
        if let Some(known) = &found.known {
            return self.compare(known);
        }
        if has_another {
            return Err(differs("its run has made another snapshot"));
        }
        if !found.missing.is_empty() {
            return Ok(Outcome::Missing(found.missing));
        }
        let inserted = self.insert(&mut transaction, app, volume).await;
        if !inserted.map_err(unstored)? {
            return Err(differs("there is another snapshot of this id"));
        }
        transaction.commit().await.map_err(unstored)?;
        Ok(Outcome::Stored)
    }

    /// `false`: another one has this id.
    async fn insert(
        &self,
        connection: &mut PgConnection,
        app: &App,
        volume: VolumeId,
    ) -> sqlx::Result<bool> {
        let (head, run) = (&self.head, BackupRunId(self.run.run_id));
        let now = app.clock.now();
        let in_head = timestamp(UnixMillis(head.started_at_ms));
        let (at, is_clock_wrong) = ending::dated(
            self.run.host_started_at,
            self.run.started_at,
            (in_head, now),
        );
        let is_whole = head.state == SnapshotState::Ok;
        let refs = codec::encode(&head.refs).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
        let new = NewSnapshot {
            snapshot: head.snapshot_id,
            volume,
            run,
            host: self.host,
            key_id: Some(head.key_id.as_bytes()),
            kind: match head.kind {
                SnapshotKind::Files => "files",
                SnapshotKind::Command => "command",
            },
            is_whole,
            at,
            is_clock_wrong,
            arrived_at: now,
            files: big(head.files),
            bytes: big(head.bytes),
            object: Some(Object {
                size_bytes: i32::try_from(self.bytes.len()).unwrap_or(i32::MAX),
                hash: self.hash,
                refs: &refs,
                chunks: big(head.refs.len()),
            }),
        };
        if snapshots::insert(connection, &new).await? == 0 {
            return Ok(false);
        }
        backup_runs::update_snapshot(connection, run, head.snapshot_id).await?;
        volumes::update_protected(connection, volume, at, is_whole).await?;
        Ok(true)
    }
}

/// What is known of a snapshot.
struct Found {
    known: Option<KnownRow>,
    missing: Refs,
}

/// Chunks that a snapshot needs and the volume lacks, or is about to remove; the first of them.
async fn missing(
    connection: &mut PgConnection,
    volume: VolumeId,
    ranges: &Ranges,
) -> sqlx::Result<Refs> {
    let torn = packs::list_torn(connection, volume.0, ranges, MOST_TORN).await?;
    let mut missing = packs::list_condemned(connection, volume.0, ranges, MOST_MISSING).await?;
    if !torn.is_empty() {
        missing.extend(packs::list_missing(connection, volume.0, &torn, MOST_MISSING).await?);
    }
    Ok(of_rows(missing))
}

fn differs(detail: &str) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, code::SNAPSHOT_DIFFERS, detail)
}
