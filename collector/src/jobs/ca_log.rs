//! Keeps the signed log of the CA and the tables in step, in both directions; see [`crate::ca_log`].
//!
//! Issuing never waits for the log: what is not in it yet stays marked in the table until it is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::{StreamExt, stream};
use infratrack_shared::ids::HostId;
use serde_bytes::ByteBuf;
use sqlx::PgConnection;
use time::Date;
use tokio::time::Instant;

use crate::app::App;
use crate::blob::{Key, Put};
use crate::ca_log::replay::{self, Report};
use crate::ca_log::{self, Entry, Host, Issued, Kind, Revoked};
use crate::jobs::run::Done;
use crate::store::ca_log::UnloggedRow;
use crate::store::{self, unix_millis};

/// Certificates looked at in one run.
const BATCH: i64 = 500;
/// Objects written at once.
const WRITES: usize = 16;
/// A run's transaction is idle while it writes; Postgres ends it after 10 s.
const TIME_LIMIT: Duration = Duration::from_secs(7);
/// A collector that starts does not wait longer for the log than this.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Names looked at for one round of removal.
const PAGE: usize = 1000;

/// Writes what the log lacks.
pub async fn run(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    let began = Instant::now();
    let rows = store::ca_log::list_unlogged(connection, BATCH).await?;
    let missing: Vec<Missing> = rows.into_iter().flat_map(missing).collect();
    let mut writing = stream::iter(missing)
        .map(|missing| write(app, missing))
        .buffer_unordered(WRITES);
    let (mut issued, mut revoked) = (Vec::new(), Vec::new());
    let mut failed = None;
    while let Ok(Some(written)) = tokio::time::timeout_at(began + TIME_LIMIT, writing.next()).await
    {
        match written {
            Ok((serial, Kind::Issued)) => issued.push(serial),
            Ok((serial, Kind::Revoked)) => revoked.push(serial),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    drop(writing);
    let now = app.clock.now();
    store::ca_log::update_issue_logged(connection, &issued, now).await?;
    store::ca_log::update_revocation_logged(connection, &revoked, now).await?;
    Ok(failed.map_or(Done::Whole, Done::ButFor))
}

/// An entry that the log lacks, of a certificate that expires on this day.
struct Missing {
    serial: Vec<u8>,
    expires: Date,
    entry: Entry,
}

fn missing(row: UnloggedRow) -> Vec<Missing> {
    let (host_id, expires) = (HostId(row.host_id), row.not_after.date());
    let missing = |entry| Missing {
        serial: row.serial.clone(),
        expires,
        entry,
    };
    let mut entries = Vec::new();
    if let Some(revoked_at) = row.revoked_at.filter(|_| !row.revocation_logged) {
        entries.push(missing(Entry::Revoked(Revoked {
            serial: ByteBuf::from(row.serial.clone()),
            host_id,
            revoked_at: unix_millis(revoked_at),
            by: row.revoked_by.unwrap_or_default(),
            reason: row.revoked_reason.unwrap_or_default(),
        })));
    }
    if !row.issue_logged {
        entries.push(missing(Entry::Issued(Issued {
            serial: ByteBuf::from(row.serial.clone()),
            certificate: ByteBuf::from(row.certificate),
            issued_at: unix_millis(row.issued_at),
            not_after: unix_millis(row.not_after),
            token_id: row.token_id,
            host: Host {
                host_id,
                name: row.name,
                machine_id: row.machine_id,
                tags: row.tags,
                created_at: unix_millis(row.created_at),
            },
        })));
    }
    entries
}

async fn write(app: &App, missing: Missing) -> anyhow::Result<(Vec<u8>, Kind)> {
    let kind = missing.entry.kind();
    let key = ca_log::key(missing.expires, &missing.serial, kind)?;
    let object = ca_log::seal(&app.ca.load(), &missing.entry)?;
    let put = app.blob.put_bytes(&key, object.clone()).await;
    if put.context("the blob store does not take the log of the CA")? == Put::Existed
        && !is_sound(app, &key).await?
    {
        // Nothing but this writes here, and this writes nothing that it would not believe.
        tracing::error!(%key, "an object of the CA's log was damaged or forged; it is written again");
        app.blob.delete(&key).await?;
        app.blob.put_bytes(&key, object).await?;
    }
    Ok((missing.serial, kind))
}

/// Whether the object of this name, written before a crash or a restored backup, says what it should.
async fn is_sound(app: &App, key: &Key) -> anyhow::Result<bool> {
    let bytes = app.blob.find_bytes(key, ca_log::OBJECT_BYTES).await;
    let bytes = match bytes {
        Err(crate::blob::BlobError::TooLarge { .. }) => return Ok(false),
        other => other?.unwrap_or_default(),
    };
    Ok(ca_log::unseal(&app.ca.load(), key, &bytes).is_ok())
}

/// Brings back what the tables lack.
pub async fn replay(app: Arc<App>) -> anyhow::Result<()> {
    let report = replay::replay(&app.pool, &app.blob, &app.ca.load(), app.clock.now()).await?;
    say(&report);
    Ok(())
}

/// The first replay, before anyone is let in or turned away. A blob store that is away stops nobody.
pub async fn replay_at_start(app: &Arc<App>) {
    let replayed = tokio::time::timeout(START_LIMIT, replay(Arc::clone(app)));
    match replayed.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(
            error = format!("{error:#}"),
            "the log of the CA was not replayed; it is tried again"
        ),
        Err(_) => {
            tracing::warn!(limit = ?START_LIMIT, "the log of the CA is long; it is replayed later");
        }
    }
}

fn say(report: &Report) {
    for (key, error) in &report.refused {
        let error: &(dyn std::error::Error + 'static) = error;
        tracing::error!(%key, error, "an object of the CA's log is not believed");
    }
    if !report.is_quiet() {
        tracing::warn!(
            hosts = report.hosts_restored,
            certificates = report.certificates_restored,
            revocations = report.revocations_restored,
            refused = report.refused.len(),
            "the CA's log knew what the database did not: was it restored from a backup?"
        );
    }
}

/// Removes from the log what the tables no longer keep either.
pub async fn remove_old(app: Arc<App>) -> anyhow::Result<()> {
    let prefix = Key::new(ca_log::PREFIX)?;
    let kept = ca_log::key_before_kept(app.clock.now())?;
    loop {
        let page = app.blob.list(&prefix, None, PAGE).await?;
        let old = page.iter().filter(|entry| entry.key < kept);
        let mut removed = 0;
        for entry in old {
            app.blob.delete(&entry.key).await?;
            removed += 1;
        }
        if removed < PAGE {
            return Ok(());
        }
    }
}
