//! Seals the audit log into its chain, and signs the end of the chain now and then; see [`crate::audit`].

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_bytes::ByteBuf;
use sqlx::PgConnection;
use tokio::time::timeout;

use crate::app::App;
use crate::audit::chain::{self, GENESIS};
use crate::audit::checkpoint::{self, Checkpoint};
use crate::blob::{Key, Put};
use crate::ca::Ca;
use crate::jobs::run::Done;
use crate::store::{audit_chain as store, unix_millis};

/// Rows sealed in one go: with the largest documents, 32 MiB.
const BATCH: i64 = 256;
/// And so many times in one run.
const BATCHES: u32 = 16;
/// A run's transaction is idle while it waits for the blob store; Postgres ends it after 10 s.
const TIME_LIMIT: Duration = Duration::from_secs(7);

/// Seals what was added. Only rows of transactions that have committed are there to be seen, and each until it is
/// sealed: one whose id is older than the last that was sealed is no exception.
pub async fn seal(_app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    for _ in 0..BATCHES {
        let rows = store::list_pending(connection, BATCH).await?;
        if rows.is_empty() {
            break;
        }
        let head = store::find_head(connection).await?;
        let (seq, hash) = head.map_or((0, GENESIS.to_vec()), |head| (head.seq, head.hash));
        let hash = hash.try_into().ok().context("a seal has no 32 bytes")?;
        let seals = chain::seal(seq, hash, &rows);
        let ids: Vec<_> = rows.iter().map(|row| row.audit_id).collect();
        store::insert_seals(connection, &seals).await?;
        store::delete_pending(connection, &ids).await?;
    }
    Ok(Done::Whole)
}

/// Puts a checkpoint into the blob store.
async fn keep(
    app: &App,
    ca: &Ca,
    key: &Key,
    object: Bytes,
    made: &Checkpoint,
) -> anyhow::Result<()> {
    let put = app.blob.put_bytes(key, object).await;
    if put.context("the blob store does not take a checkpoint")? == Put::Existed {
        // Of a run that was cut off after the object and before its row.
        let bytes = app.blob.find_bytes(key, checkpoint::OBJECT_BYTES).await?;
        let stored = checkpoint::unseal(ca, key, &bytes.unwrap_or_default());
        let stored = stored.with_context(|| format!("the checkpoint {key} is not believed"))?;
        ensure!(
            stored.hash == made.hash,
            "the audit log is not what {key} says; run infratrack-collector audit verify"
        );
    }
    Ok(())
}

/// Signs the end of the chain, if there is something since the last checkpoint.
pub async fn checkpoint(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    let last = store::find_last_checkpoint(connection).await?;
    if let Some((last, _)) = &last {
        let now = store::find_seal(connection, last.seq).await?;
        // What was signed is signed: a chain that left it is not signed as if nothing had happened.
        ensure!(
            now.as_ref() == Some(last),
            "the audit log is not what was signed at seal {}; run infratrack-collector audit verify",
            last.seq
        );
    }
    let Some(head) = store::find_head(connection).await? else {
        return Ok(Done::Whole);
    };
    if last.is_some_and(|(last, _)| last.seq == head.seq) {
        return Ok(Done::Whole);
    }
    let now = app.clock.now();
    let made = Checkpoint {
        seq: head.seq,
        hash: ByteBuf::from(head.hash.clone()),
        at: unix_millis(now),
        collector: app.id,
    };
    let ca = app.ca.load();
    let key = checkpoint::key(head.seq)?;
    let object = checkpoint::seal(&ca, &made)?;
    let kept = timeout(TIME_LIMIT, keep(app, &ca, &key, object, &made)).await;
    kept.context("the blob store did not answer in time")??;
    store::insert_checkpoint(connection, &head, now).await?;
    tracing::info!(
        seq = head.seq,
        hash = hex::encode(&head.hash),
        "the end of the audit log was signed"
    );
    Ok(Done::Whole)
}
