//! Advisories: what distributions say of vulnerabilities in their packages, imported from documents that an operator
//! names, and kept beside what hosts have.
//!
//! A feed's statements are replaced in one transaction. One that can't be read keeps what it said before, and says why.

pub mod documents;
mod files;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use infratrack_shared::wire::packages::Manager;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::app::App;
use crate::config::advisories::{Feed, Place};
use crate::store::advisories::{self as store, Advisory, Counts, FeedRow, Statement};
use crate::store::locks;
use crate::store::packages::{self, manager, sort_key, source_key};
use documents::{Refused, Sink};
use files::Found;

/// Who replaces what is known holds this: a job that lost its lead may still be at it.
const LOCK: &str = "infratrack advisories";
/// Statements that are stored at once.
const CHUNK: usize = 2_000;
/// A transaction is heard of this often, for Postgres ends one that is idle for 10 s.
const HEARD: Duration = Duration::from_secs(2);
/// What is open is found anew at least this often: hosts come and go.
const COUNTED: time::Duration = time::Duration::hours(1);

/// Imports the feeds whose documents have changed, and finds what is open. A feed that fails keeps none of the others
/// from it.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let feeds = &app.config.advisories.feeds;
    let mut connection = app.pool.acquire().await?;
    let known = store::list_feeds(&mut connection).await?;
    if feeds.is_empty() && known.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = feeds.iter().map(|feed| feed.name.clone()).collect();
    if known.iter().any(|row| !names.contains(&row.name)) {
        let mut transaction = connection.begin().await?;
        store::allow_minutes(&mut transaction).await?;
        store::delete_feeds_but(&mut transaction, &names).await?;
        transaction.commit().await?;
    }
    drop(connection);
    let mut failed = Ok(());
    for feed in feeds {
        let before = known.iter().find(|row| row.name == feed.name);
        let is_same =
            |row: &&FeedRow| row.format == feed.format.name() && row.location == feed.location;
        let before = before.filter(is_same);
        let every = app.config.advisories.every;
        if before.is_some_and(|row| row.looked_at + every > app.clock.now()) {
            continue;
        }
        if let Err(error) = import(&app, feed, before).await {
            let said = crate::store::storable(&format!("{error:#}"));
            note(&app, feed, Some(&said)).await?;
            let error = error.context(format!("advisories {}", feed.name));
            tracing::warn!(error = format!("{error:#}"), "advisories were not imported");
            failed = Err(error);
        }
    }
    complete_keys(&app.pool).await?;
    find_open(&app).await?;
    failed
}

async fn note(app: &App, feed: &Feed, error: Option<&str>) -> sqlx::Result<i64> {
    let mut connection = app.pool.acquire().await?;
    let (format, now) = (feed.format.name(), app.clock.now());
    store::upsert_feed(
        &mut connection,
        &feed.name,
        format,
        &feed.location,
        error,
        now,
    )
    .await
}

/// What is read, on its way to the database.
#[derive(Default)]
struct Chunk {
    advisories: Vec<Advisory>,
    statements: Vec<Statement>,
}

async fn import(app: &App, feed: &Feed, before: Option<&FeedRow>) -> anyhow::Result<()> {
    let found = match feed.place()? {
        Place::Path(path) => spawn_blocking(move || files::find(&path)).await??,
        Place::S3(object) => {
            let known = before.and_then(|row| row.fingerprint.as_deref());
            files::find_object(&app.config.s3, object, known).await?
        }
    };
    let fingerprint = found.fingerprint().to_owned();
    let is_known = before.is_some_and(|row| row.fingerprint.as_ref() == Some(&fingerprint));
    let id = note(app, feed, None).await?;
    if is_known {
        return Ok(());
    }
    let (sender, receiver) = mpsc::channel(4);
    let format = feed.format;
    let reading = spawn_blocking(move || read(format, &found, &sender));
    let mut connection = app.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    if !locks::try_lock(&mut transaction, LOCK).await? {
        return Ok(());
    }
    store_all(&mut transaction, id, receiver).await?;
    // What can't be read whole takes no effect: the transaction ends with this function.
    let counts = reading.await??;
    store::update_imported(&mut transaction, id, &fingerprint, counts, app.clock.now()).await?;
    transaction.commit().await?;
    let (advisories, statements) = (counts.advisories, counts.statements);
    tracing::info!(
        feed = feed.name,
        advisories,
        statements,
        "advisories imported"
    );
    Ok(())
}

/// Puts what comes in the place of what the feed said before.
async fn store_all(
    connection: &mut PgConnection,
    feed: i64,
    mut receiver: mpsc::Receiver<Chunk>,
) -> anyhow::Result<()> {
    store::allow_minutes(connection).await?;
    let mut is_first = true;
    loop {
        let Ok(received) = timeout(HEARD, receiver.recv()).await else {
            connection.ping().await?;
            continue;
        };
        if std::mem::take(&mut is_first) {
            store::delete_statements(connection, feed).await?;
            store::delete_advisories(connection, feed).await?;
        }
        let Some(mut chunk) = received else {
            return Ok(());
        };
        // One statement can't touch a row twice.
        chunk.advisories.sort_by(|a, b| a.id.cmp(&b.id));
        chunk.advisories.dedup_by(|a, b| a.id == b.id);
        store::upsert_advisories(connection, feed, &chunk.advisories).await?;
        store::insert_statements(connection, feed, &chunk.statements).await?;
    }
}

/// Reads all documents of a feed. Blocks.
fn read(
    format: documents::Format,
    found: &Found,
    sender: &mpsc::Sender<Chunk>,
) -> anyhow::Result<Counts> {
    let mut chunk = Chunk::default();
    let send = |chunk: &mut Chunk| {
        let sent = sender.blocking_send(std::mem::take(chunk));
        sent.map_err(|_| Refused::at("", "was given up by the database"))
    };
    let mut take = |advisory: documents::Advisory| {
        chunk.statements.extend(statements(&advisory));
        chunk.advisories.push(named(advisory));
        if chunk.statements.len() < CHUNK {
            return Ok(());
        }
        send(&mut chunk)
    };
    let mut sink = Sink::new(&mut take);
    found.read(format, &mut sink)?;
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let counts = Counts {
        advisories: count(sink.advisories),
        statements: count(sink.statements),
        skipped: count(sink.skipped),
    };
    send(&mut chunk)?;
    Ok(counts)
}

fn named(advisory: documents::Advisory) -> Advisory {
    let mut names = advisory.cves;
    names.push(advisory.id.clone());
    names.sort();
    names.dedup();
    Advisory {
        id: advisory.id,
        names,
        severity: advisory.severity,
        summary: advisory.summary,
    }
}

fn statements(advisory: &documents::Advisory) -> impl Iterator<Item = Statement> {
    advisory.statements.iter().map(|said| {
        let of = manager(said.distribution.manager);
        let key = |version: &String| Some(hex::encode(sort_key(of, version)?));
        let last = said.last_affected.as_ref();
        // The first key after this one.
        let after_last = last.and_then(|last| Some(key(last)? + "00"));
        let fixed = said.fixed_version.as_ref();
        let is_module = |version: &String| version.contains(".module");
        Statement {
            advisory_id: advisory.id.clone(),
            distribution: said.distribution.name.clone(),
            manager: said.distribution.manager,
            package: said.package.clone(),
            applies: match said.applies {
                documents::Applies::Source => "source",
                documents::Applies::Binary => "binary",
                documents::Applies::Either => "either",
            },
            // Where versions can't be ordered, neither can the bounds.
            state: if of == Manager::Apk && (last.is_some() || said.first_affected.is_some()) {
                documents::State::Unknown.name()
            } else {
                said.state.name()
            },
            fixed_version: said.fixed_version.clone(),
            from_key: said.first_affected.as_ref().and_then(key),
            before_key: fixed.and_then(key).or(after_last),
            is_extra: said.distribution.is_extra,
            is_module: fixed.is_some_and(is_module),
            note: said.note.clone(),
        }
    })
}

/// Fills in what collectors of before did not store of packages.
async fn complete_keys(pool: &PgPool) -> anyhow::Result<()> {
    let (mut connection, mut after) = (pool.acquire().await?, 0);
    loop {
        let rows = packages::list_without_source_key(&mut connection, after).await?;
        let Some((last, ..)) = rows.last() else {
            return Ok(());
        };
        after = *last;
        let keys = rows.iter().filter_map(|(id, of, version, source_version)| {
            Some((*id, source_key(manager(of), version, source_version)?))
        });
        let keys: Vec<_> = keys.collect();
        packages::update_source_keys(&mut connection, &keys).await?;
    }
}

/// Finds what is open in the fleet, where anything it depends on has changed.
async fn find_open(app: &App) -> anyhow::Result<()> {
    let now = app.clock.now();
    let mut connection = app.pool.acquire().await?;
    if store::is_counted(&mut connection, now - COUNTED).await? {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    if !locks::try_lock(&mut transaction, LOCK).await? {
        return Ok(());
    }
    store::allow_minutes(&mut transaction).await?;
    store::delete_findings(&mut transaction).await?;
    let found = store::insert_findings(&mut transaction).await;
    found.context("cannot find what is open in the fleet")?;
    store::upsert_counted(&mut transaction, now).await?;
    transaction.commit().await?;
    Ok(())
}
