//! Packs as they arrive: whole, named by their content, in the store before they are in the tables, and there before the answer.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use infratrack_shared::backup::{Entry, MAX_PACK_BYTES, PackHash, PackKind, Table};
use infratrack_shared::ids::{HostId, VolumeId};
use infratrack_shared::wire::backup::PackStored;
use sqlx::{PgConnection, Postgres, Transaction};

use super::memory::receive;
use super::runs::volume_of;
use super::{Put, apart, nothing, running, stored, unkept, unstored};
use crate::agents::answer::AnswerBody;
use crate::agents::ingest::invalid;
use crate::agents::problem::Refusal;
use crate::agents::service::{message, within};
use crate::app::App;
use crate::backups::{objects, orphans};
use crate::blob::{self, BlobError, Key};
use crate::http::body;
use crate::store::packs::{self, NewPack};

/// A pack on its way.
struct Arrived {
    volume: VolumeId,
    hash: PackHash,
    key: Key,
    table: Table,
    bytes: Bytes,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Stored,
    /// It was there.
    Known,
}

/// Stores a pack.
pub(super) async fn put(
    app: &App,
    host: HostId,
    put: &Put<'_>,
    body: Incoming,
) -> Result<Response<AnswerBody>, Refusal> {
    let done = take(app, host, put, body).await;
    let (outcome, bytes) = match &done {
        Ok((_, Outcome::Stored, bytes)) => ("stored", *bytes),
        Ok((_, Outcome::Known, bytes)) => ("known", *bytes),
        Err(refusal) if refusal.status.is_client_error() => ("refused", 0),
        Err(_) => ("failed", 0),
    };
    app.metrics.backup_pack(outcome, Some(bytes));
    let (hash, outcome, _) = done?;
    let status = match outcome {
        Outcome::Stored => StatusCode::CREATED,
        Outcome::Known => StatusCode::OK,
    };
    message(status, &PackStored { hash })
}

/// Answers its name, what became of it, and its bytes.
async fn take(
    app: &App,
    host: HostId,
    put: &Put<'_>,
    body: Incoming,
) -> Result<(PackHash, Outcome, usize), Refusal> {
    let checked = async {
        let size = put.length(MAX_PACK_BYTES)?;
        let (hash, run) = put.named::<PackHash>().ok_or_else(|| nothing("pack"))?;
        let run = within(running(app, host, run)).await?;
        Ok((size, hash, run))
    };
    let (size, hash, run) = match checked.await {
        Ok(checked) => checked,
        Err(refusal) => {
            body::discard(body).await;
            return Err(refusal);
        }
    };
    let (_room, body) = app.backup_memory.room(size, 1, body).await?;
    let (bytes, is) = receive(body, size).await?;
    if is.as_bytes() != hash.as_bytes() {
        return Err(invalid(format!("the pack's hash is {is}")));
    }
    let table = apart(&bytes, Table::of_pack).await?;
    let table = table.map_err(|error| invalid(format!("this is no pack: {error}")))?;
    let (volume, _) = volume_of(&run);
    if table.volume_id != volume {
        return Err(invalid("the pack is of another volume than its run"));
    }
    if run.key_id.as_deref() != Some(table.key_id.as_bytes()) {
        return Err(invalid("the pack is of another key than its run"));
    }
    let key = objects::pack(volume, hash).map_err(unkept)?;
    let arrived = Arrived {
        volume,
        hash,
        key,
        table,
        bytes,
    };
    Ok((hash, arrived.keep(app).await?, size))
}

impl Arrived {
    async fn keep(&self, app: &App) -> Result<Outcome, Refusal> {
        let found = async {
            let mut connection = app.pool.acquire().await?;
            packs::find(&mut connection, self.volume, self.hash).await
        };
        match within(async { found.await.map_err(unstored) }).await? {
            Some(row) if row.is_sound() => return Ok(Outcome::Known),
            Some(_) => return self.put_again(app).await,
            None => {}
        }
        // One that is there without a row came this far before: its name says that it is the same.
        match stored(app.blob.put_whole(&self.key, self.bytes.clone())).await? {
            blob::Put::Stored => within(self.index(app)).await,
            blob::Put::Existed => self.adopt(app).await,
        }
    }

    /// Has a new pack and its chunks in the tables.
    async fn index(&self, app: &App) -> Result<Outcome, Refusal> {
        let transaction = app.pool.begin().await.map_err(unstored)?;
        self.index_in(transaction).await
    }

    /// Likewise of one that was in the store before: nobody sweeps it away meanwhile.
    async fn adopt(&self, app: &App) -> Result<Outcome, Refusal> {
        let mut transaction = app.pool.begin().await.map_err(unstored)?;
        let is_ours = async {
            packs::allow_time(&mut transaction).await?;
            orphans::hold(&mut transaction, &self.key).await
        };
        if !is_ours.await.map_err(unstored)? {
            return Err(changed());
        }
        stored(app.blob.put_whole(&self.key, self.bytes.clone())).await?;
        self.index_in(transaction).await
    }

    async fn index_in(
        &self,
        mut transaction: Transaction<'_, Postgres>,
    ) -> Result<Outcome, Refusal> {
        packs::allow_time(&mut transaction)
            .await
            .map_err(unstored)?;
        let new = NewPack {
            volume: self.volume,
            hash: self.hash,
            kind: match self.table.kind {
                PackKind::Content => 1,
                PackKind::Trees => 2,
            },
            key_id: self.table.key_id.as_bytes(),
            size_bytes: i32::try_from(self.bytes.len()).unwrap_or(i32::MAX),
        };
        let inserted = packs::insert(&mut transaction, &new).await;
        let Some(pack_id) = inserted.map_err(unstored)? else {
            let row = packs::find(&mut transaction, self.volume, self.hash).await;
            return match row.map_err(unstored)? {
                Some(row) if row.is_sound() => Ok(Outcome::Known),
                Some(_) | None => Err(changed()),
            };
        };
        self.insert_chunks(&mut transaction, pack_id).await?;
        transaction.commit().await.map_err(unstored)?;
        Ok(Outcome::Stored)
    }

    async fn insert_chunks(
        &self,
        connection: &mut PgConnection,
        pack_id: i64,
    ) -> Result<(), Refusal> {
        let entries = &self.table.entries;
        let origins = entries.iter().map(|e| (e.sealed.salt, e.sealed.algorithm));
        let origins: Vec<_> = origins.collect::<BTreeSet<_>>().into_iter().collect();
        let volume = self.volume;
        packs::insert_origins(connection, volume, &origins)
            .await
            .map_err(unstored)?;
        let known = packs::list_origins(connection, volume, &origins).await;
        let known = known.map_err(unstored)?;
        let of_entry = |entry: &Entry| {
            let sealed = entry.sealed;
            let (origin, algorithm) = known.get(sealed.salt.as_bytes().as_slice())?;
            (*algorithm == i16::from(u8::from(sealed.algorithm))).then_some(*origin)
        };
        let chunks = entries.iter().map(|entry| Some((of_entry(entry)?, entry)));
        let chunks: Option<Vec<_>> = chunks.collect();
        let Some(mut chunks) = chunks else {
            return Err(invalid(
                "an origin of the pack was of another algorithm before",
            ));
        };
        chunks.sort_unstable_by_key(|(origin, entry)| (*origin, entry.sealed.counter));
        packs::insert_chunks(connection, pack_id, &chunks)
            .await
            .map(drop)
            .map_err(unstored)
    }

    /// A pack that was condemned or lost. Its row is locked while its object is put, so that nobody removes that meanwhile.
    async fn put_again(&self, app: &App) -> Result<Outcome, Refusal> {
        let mut transaction = app.pool.begin().await.map_err(unstored)?;
        packs::allow_time(&mut transaction)
            .await
            .map_err(unstored)?;
        let row = packs::lock(&mut transaction, self.volume, self.hash).await;
        let Some(row) = row.map_err(unstored)? else {
            return Err(changed());
        };
        if row.is_sound() {
            return Ok(Outcome::Known);
        }
        stored(self.mend(&app.blob)).await?;
        let done = async {
            packs::update_sound(&mut transaction, row.pack_id).await?;
            packs::update_chunks_found(&mut transaction, row.pack_id).await
        };
        done.await.map_err(unstored)?;
        self.insert_chunks(&mut transaction, row.pack_id).await?;
        transaction.commit().await.map_err(unstored)?;
        Ok(Outcome::Stored)
    }

    /// Has the object as it was: what is there under its name and is another was damaged in the store.
    async fn mend(&self, blob: &blob::BlobStore) -> Result<(), BlobError> {
        if blob.put_bytes(&self.key, self.bytes.clone()).await? == blob::Put::Stored {
            return Ok(());
        }
        let there = blob.find_bytes(&self.key, MAX_PACK_BYTES).await;
        if matches!(&there, Ok(Some(bytes)) if *bytes == self.bytes) {
            return Ok(());
        }
        if let Err(error @ (BlobError::S3(_) | BlobError::File { .. })) = there {
            return Err(error);
        }
        tracing::warn!(object = %self.key, "a damaged pack is put anew");
        blob.delete(&self.key).await?;
        blob.put_whole(&self.key, self.bytes.clone())
            .await
            .map(drop)
    }
}

fn changed() -> Refusal {
    Refusal::unavailable(
        "the pack was changed meanwhile; send it again",
        rand::random_range(1..=3),
    )
}
