//! `POST /ingest/ansible`: records of plays, from the callback of the collection. Each is stored once, in its order.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use infratrack_shared::ids::ChangeId;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{believed, body, join};
use crate::api::input::{self, Json};
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::changes::correlate;
use crate::changes::play::{self, BadRecord, Batch, MAX_RECORDS, Rows, Start};
use crate::store::change_runs::{self, NewRun};
use crate::store::{changes, plays, storable};

/// Bytes of a request, unpacked.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// How far a run is known.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AnsibleTaken)]
pub struct Taken {
    pub change_id: Uuid,
    pub run_id: Uuid,
    /// Everything up to this record is stored.
    pub acked_seq: i64,
}

/// Takes records of a run, numbered without a hole. Those that are there already are passed over; where some before them
/// are missing it is 409, with `acked_seq`. The format is docs/formats/ansible-ingest.md.
#[utoipa::path(
    post,
    path = "/ingest/ansible",
    tag = "changes",
    request_body(content = Object, content_type = "application/json", description = "`{run, first_seq, records}`, plain, gzip or zstd; at most 4 MiB unpacked"),
    responses((status = 200, body = Taken)),
)]
pub async fn take(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, sent) = request.into_parts();
    let text = body::read(&parts.headers, sent, MAX_BYTES).await?;
    let text = String::from_utf8(text)
        .map_err(|_| Problem::field("", "is not UTF-8"))?
        // Postgres has no text with it.
        .replace("\\u0000", "\\ufffd");
    let batch: Batch = input::parse(storable(&text).as_bytes())?;
    if batch.records.len() > MAX_RECORDS {
        let detail = format!("has more than {MAX_RECORDS} records");
        return Err(Problem::field("/records", detail));
    }
    if batch.first_seq == 0 {
        return Err(Problem::field("/first_seq", "must be 1 or more"));
    }
    store(&app, &caller, batch).await
}

async fn store(app: &App, caller: &Caller, batch: Batch) -> Result<Response, Problem> {
    let (run_id, first_seq) = (batch.run, batch.first_seq);
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let known = plays::lock(&mut transaction, run_id).await?;
    if let Some(known) = &known
        && known.brought_by != caller.name
    {
        let detail = "this run was begun with another token";
        return Err(Problem::new(StatusCode::FORBIDDEN, "another_token", detail));
    }
    let acked = known.as_ref().map_or(0, |known| known.acked_seq);
    let acked_seq = u64::try_from(acked).unwrap_or(0);
    if first_seq > acked_seq + 1 {
        return Ok(hole(acked));
    }
    let last = first_seq + batch.records.len() as u64 - 1;
    let rows = play::read(batch, acked_seq).map_err(|bad| refused(&bad))?;
    let change_id = match (&known, &rows.start) {
        (Some(known), _) => known.change_id,
        (None, Some(start)) => begin(&mut transaction, app, caller, run_id, start).await?,
        (None, None) => return Err(Problem::field("/records", "is empty")),
    };
    let acked_seq = i64::try_from(last).unwrap_or(i64::MAX).max(acked);
    if acked_seq > acked {
        add(&mut transaction, run_id, acked + 1, &rows, now).await?;
        plays::update_acked(&mut transaction, run_id, acked_seq).await?;
        changes::refresh(&mut transaction, change_id, now).await?;
    }
    transaction.commit().await?;
    let taken = Taken {
        change_id,
        run_id,
        acked_seq,
    };
    Ok(Json(taken).into_response())
}

fn hole(acked_seq: i64) -> Response {
    let detail = format!(
        "records before these are missing: send again from {}",
        acked_seq + 1
    );
    let problem = Problem::conflict("missing_records", detail);
    let mut document = json!(problem);
    if let Value::Object(members) = &mut document {
        members.insert("acked_seq".to_owned(), json!(acked_seq));
    }
    let kind = [(http::header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::CONFLICT, kind, document.to_string()).into_response()
}

fn refused(bad: &BadRecord) -> Problem {
    let mut problem = Problem::field(bad.pointer.clone(), &bad.what);
    if bad.is_large {
        problem.status = StatusCode::PAYLOAD_TOO_LARGE.as_u16();
        problem.code = "too_large";
    }
    problem
}

/// Makes the run, of the change that it belongs to.
async fn begin(
    connection: &mut PgConnection,
    app: &App,
    caller: &Caller,
    run_id: Uuid,
    start: &Start,
) -> Result<Uuid, Problem> {
    let now = app.clock.now();
    let claims = start
        .claims()
        .map_err(|bad| Problem::field("/records/0", bad))?;
    let new_id = ChangeId::at(app.clock.unix_millis()).0;
    let keys = correlate::keys(&claims);
    let change_id = join(connection, &keys, new_id, now).await?;
    let at = believed(start.at, now);
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
        brought_by: caller.name.clone(),
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

async fn add(
    connection: &mut PgConnection,
    run_id: Uuid,
    first_seq: i64,
    rows: &Rows,
    now: OffsetDateTime,
) -> Result<(), Problem> {
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
    Ok(())
}
