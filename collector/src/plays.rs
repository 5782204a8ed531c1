//! Records of plays become rows, each once and in its order: for both ways by which they come, `POST /ingest/ansible` and
//! `POST /agent/v1/plays`.

use infratrack_shared::ids::ChangeId;
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use thiserror::Error;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::changes::claims::BadClaim;
use crate::changes::play::{self, BadRecord, Batch, Rows, Start};
use crate::changes::{correlate, linking};
use crate::links;
use crate::runs::{Bringer, NotJoined, believed, brought_by_agent, join, of_bringer};
use crate::store::change_runs::{self, NewRun};
use crate::store::{change_links, changes, hosts, plays, storable};

/// How far a run is known.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AnsibleTaken)]
pub struct Taken {
    pub change_id: Uuid,
    pub run_id: Uuid,
    /// Everything up to this record is stored.
    pub acked_seq: i64,
}

/// What came of a request.
#[derive(Debug)]
pub enum Stored {
    Taken(Taken),
    /// Records before it are missing; nothing was stored.
    Missing {
        acked_seq: i64,
    },
}

/// Why nothing of a request was stored.
#[derive(Debug, Error)]
pub enum NotStored {
    #[error("this run was begun with another token")]
    AnotherToken,
    #[error("there are no records")]
    NoRecords,
    #[error("{} {}", .0.pointer, .0.what)]
    Record(BadRecord),
    #[error("the run's claims are none")]
    Claim(#[source] BadClaim),
    #[error(transparent)]
    NotJoined(#[from] NotJoined),
    #[error("the database did not take a play")]
    Database(#[from] sqlx::Error),
}

/// A text of records as Postgres can store what it says: it has no text with a NUL.
pub fn readable(text: &str) -> String {
    storable(&text.replace("\\u0000", "\\ufffd"))
}

/// Stores the records that are not there yet, all or none.
pub async fn store(app: &App, bringer: Bringer<'_>, batch: Batch) -> Result<Stored, NotStored> {
    let (run_id, first_seq) = (batch.run, batch.first_seq);
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let known = plays::lock(&mut transaction, run_id).await?;
    if let Some(known) = &known
        && !bringer.has_brought(&known.brought_by)
    {
        return Err(NotStored::AnotherToken);
    }
    let acked = known.as_ref().map_or(0, |known| known.acked_seq);
    let acked_seq = u64::try_from(acked).unwrap_or(0);
    if first_seq > acked_seq + 1 {
        return Ok(Stored::Missing { acked_seq: acked });
    }
    let last = first_seq + batch.records.len() as u64 - 1;
    let rows = play::read(batch, acked_seq).map_err(NotStored::Record)?;
    let change_id = match (&known, &rows.start) {
        (Some(known), _) => known.change_id,
        (None, Some(start)) => {
            let new_id = ChangeId::at(app.clock.unix_millis()).0;
            begin(&mut transaction, bringer, run_id, start, (new_id, now)).await?
        }
        (None, None) => return Err(NotStored::NoRecords),
    };
    let acked_seq = i64::try_from(last).unwrap_or(i64::MAX).max(acked);
    if acked_seq > acked {
        add(&mut transaction, run_id, acked + 1, &rows, now).await?;
        plays::update_acked(&mut transaction, run_id, acked_seq).await?;
        changes::refresh(&mut transaction, change_id, now).await?;
    }
    transaction.commit().await?;
    Ok(Stored::Taken(Taken {
        change_id,
        run_id,
        acked_seq,
    }))
}

/// Makes the run, of the change that it belongs to, or of a new one with this id.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    bringer: Bringer<'_>,
    run_id: Uuid,
    start: &Start,
    (new_id, now): (Uuid, OffsetDateTime),
) -> Result<Uuid, NotStored> {
    let claims = start.claims().map_err(NotStored::Claim)?;
    let claims = of_bringer(bringer, claims)?;
    let keys = correlate::keys(&claims);
    let change_id = join(connection, bringer, &keys, new_id, now).await?;
    let at = believed(start.at, now);
    let brought_by = match bringer {
        Bringer::Caller(caller) => caller.name.clone(),
        Bringer::Host(host) => brought_by_agent(&hosts::get_name(connection, host).await?, host),
    };
    let run = NewRun {
        run_id,
        change_id,
        tool: "ansible",
        kind: "play",
        content_hash: *blake3::hash(format!("ansible {run_id}").as_bytes()).as_bytes(),
        received_at: now,
        started_at: at,
        ended_at: at,
        outcome: "running",
        exit_code: None,
        tool_version: start.ansible_version.clone(),
        format: Some(start.format.to_string()),
        claims: json!(claims),
        brought_by,
        summary: json!({}),
        detail: json!({
            "playbook": start.playbook, "playbook_path": start.playbook_path, "controller": start.controller,
            "user": start.user, "check": start.check, "limit": start.limit, "tags": start.tags,
            "skip_tags": start.skip_tags, "inventory": start.inventory, "git": start.git,
            "python_version": start.python_version,
        }),
        warnings: Vec::new(),
        redactions: 0,
        artifact: None,
    };
    change_runs::insert(connection, &run).await?;
    plays::insert(connection, run_id).await?;
    Ok(change_id)
}

/// Stores what records come to; the change is not summed up yet.
pub(crate) async fn add(
    connection: &mut PgConnection,
    run_id: Uuid,
    first_seq: i64,
    rows: &Rows,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let hosts: Vec<_> = rows.hosts.values().collect();
    plays::upsert_hosts(connection, run_id, &hosts).await?;
    let batches: Vec<_> = rows.plays.values().collect();
    plays::insert_plays(connection, run_id, &batches).await?;
    let tasks: Vec<_> = rows.tasks.values().collect();
    plays::upsert_tasks(connection, run_id, first_seq, &tasks).await?;
    plays::insert_results(connection, run_id, &rows.results).await?;
    plays::update_recap(connection, run_id, &rows.recap).await?;
    let gaps = rows.gaps.iter().map(|gap| {
        let (count, reason) = (gap.count, &gap.reason);
        format!("{count} events are missing: {reason}")
    });
    let empty = rows
        .without_hosts
        .iter()
        .map(|none| format!("a play had no hosts: {}", none.reason));
    let warnings: Vec<_> = gaps.chain(empty).collect();
    let end = rows.end.as_ref();
    let end = end.map(|end| (believed(end.at, now), play::outcome(end)));
    plays::update_run(connection, run_id, end, &warnings, now).await?;
    if !hosts.is_empty() {
        let numbers: Vec<_> = hosts.iter().map(|host| host.number).collect();
        let known = plays::list_hosts(connection, run_id, &numbers).await?;
        let mut wanted: Vec<_> = known.iter().map(linking::of_play).collect();
        wanted.retain(|wanted| !wanted.marks.is_empty());
        links::of_run(connection, run_id, now, &wanted).await?;
    } else if end.is_some() {
        change_links::refresh_hosts(connection, &[run_id]).await?;
    }
    Ok(())
}
