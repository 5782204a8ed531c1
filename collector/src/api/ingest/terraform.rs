//! `POST /ingest/terraform`: a plan, a state or the outcome of an apply becomes a run of a change.

pub(crate) mod parts;

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use infratrack_shared::digest::Digest;
use infratrack_shared::ids::{ChangeId, RunId};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use self::parts::{Links, Parts, apart};
use super::{body, claims, header};
use crate::api::input::Json;
use crate::api::problem::Problem;
use crate::app::App;
use crate::blob::Key as BlobKey;
use crate::caller::Caller;
use crate::changes::claims::Claims;
use crate::changes::correlate;
use crate::changes::terraform::{self, Apply, Document, Options, Refusal, Summary, Table};
use crate::links;
use crate::runs::{Bringer, believed, join, of_bringer};
use crate::store::change_runs::{self, Artifact, NewRun};
use crate::store::{change_hosts, changes};

/// A document waits so long for its turn.
const TURN: std::time::Duration = std::time::Duration::from_secs(10);

/// What was taken.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = TerraformTaken)]
pub struct Taken {
    pub change_id: Uuid,
    pub run_id: Uuid,
    /// `plan | apply | state`.
    pub kind: String,
    #[schema(value_type = Summary)]
    pub summary: Value,
    /// Hosts that the change touches, as far as they are known by now.
    pub linked_hosts: i64,
    /// Places where something secret was taken out.
    pub redactions: i64,
    pub warnings: Vec<String>,
}

/// What the headers say of the run itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    claims: Claims,
    stage: Option<Stage>,
    exit_code: Option<i32>,
    is_lenient: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Plan,
    Apply,
    State,
}

/// Takes what `terraform show -json` or `terraform apply -json` prints. Headers may say more of the run:
/// `Infratrack-Change-Id`, `-Repository`, `-Commit`, `-Merge-Commit`, `-Branch`, `-Pull-Request`, `-CI-Provider`, `-Run-Id`,
/// `-Run-Url`, `-Actor`, `-Environment`, `-Workspace`, `-Stage` (`plan`, `apply`, `state`), `-Exit-Code`, `-Lenient`, and
/// `traceparent`. The same document with the same claims is one run, however often it is posted: then it is 200.
#[utoipa::path(
    post,
    path = "/ingest/terraform",
    tag = "changes",
    request_body(content = String, content_type = "application/json", description = "plain, gzip or zstd; at most 64 MiB unpacked"),
    responses((status = 201, body = Taken), (status = 200, body = Taken)),
)]
pub async fn take(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, sent) = request.into_parts();
    let mut said = said(&parts.headers)?;
    said.claims = of_bringer(Bringer::Caller(&caller), said.claims)?;
    let document = body::read(&parts.headers, sent, body::MAX_BYTES).await?;
    let bytes = document.len();
    let taken = take_document(&app, &caller, said, document).await;
    let (outcome, redactions) = match &taken {
        Ok((StatusCode::CREATED, taken)) => ("stored", taken.redactions),
        Ok(_) => ("known", 0),
        Err(problem) if problem.status < 500 => ("refused", 0),
        Err(_) => ("failed", 0),
    };
    app.metrics
        .change_document("terraform", outcome, bytes, redactions);
    taken.map(|(status, taken)| (status, Json(taken)).into_response())
}

async fn take_document(
    app: &App,
    caller: &Caller,
    said: Said,
    document: Vec<u8>,
) -> Result<(StatusCode, Taken), Problem> {
    let hash = content_hash(&document, &said);
    let mut connection = app.pool.acquire().await?;
    if let Some(taken) = find(&mut connection, &hash).await? {
        return Ok((StatusCode::OK, taken));
    }
    drop(connection);
    let read = read(app, document, &said).await?;
    let taken = store(app, caller, said, hash, read).await?;
    Ok((StatusCode::CREATED, taken))
}

fn said(headers: &HeaderMap) -> Result<Said, Problem> {
    let text = |name: &str| {
        let value = headers.get(format!("infratrack-{name}"));
        value.map(|value| value.to_str().unwrap_or("?").trim().to_owned())
    };
    let stage = match text("stage").as_deref() {
        None | Some("") => None,
        Some("plan") => Some(Stage::Plan),
        Some("apply") => Some(Stage::Apply),
        Some("state") => Some(Stage::State),
        Some(_) => return Err(header("Stage", "must be plan, apply or state")),
    };
    let exit_code = match text("exit-code").as_deref() {
        None | Some("") => None,
        Some(code) => Some(
            code.parse()
                .map_err(|_| header("Exit-Code", "must be a number"))?,
        ),
    };
    let is_lenient = match text("lenient").as_deref() {
        None | Some("" | "false") => false,
        Some("true") => true,
        Some(_) => return Err(header("Lenient", "must be true or false")),
    };
    Ok(Said {
        claims: claims(headers)?,
        stage,
        exit_code,
        is_lenient,
    })
}

/// Of the document and everything that is said of it.
fn content_hash(document: &[u8], said: &Said) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{said:?}").as_bytes());
    hasher.update(&[0]);
    hasher.update(document);
    *hasher.finalize().as_bytes()
}

/// What was taken of the same content before.
async fn find(connection: &mut PgConnection, hash: &[u8]) -> Result<Option<Taken>, Problem> {
    let Some(run) = change_runs::find_by_content(connection, hash).await? else {
        return Ok(None);
    };
    let linked_hosts = change_hosts::count(connection, run.change_id).await?;
    Ok(Some(again(run, linked_hosts)))
}

fn again(run: change_runs::RunRow, linked_hosts: i64) -> Taken {
    Taken {
        change_id: run.change_id,
        run_id: run.run_id,
        kind: run.kind,
        summary: run.summary,
        linked_hosts,
        redactions: run.redactions,
        warnings: run.warnings,
    }
}

/// Reads a document, where the answering tasks do not wait for it.
async fn read(app: &App, document: Vec<u8>, said: &Said) -> Result<Document, Problem> {
    if document.is_empty() && said.stage == Some(Stage::Apply) && said.exit_code.is_some() {
        // All that is known of this apply is how it ended.
        return Ok(Document::Apply(Apply::default()));
    }
    let turn = tokio::time::timeout(TURN, app.ingesting.acquire()).await;
    let _turn = turn
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| Problem::unavailable("other documents are being read; try again"))?;
    let options = Options {
        is_lenient: said.is_lenient,
        is_apply: said.stage == Some(Stage::Apply),
    };
    let table = Arc::clone(&app.link_table);
    let read = tokio::task::spawn_blocking(move || terraform::read(&document, options, &table));
    let read = read.await.map_err(Problem::unavailable)?;
    read.map_err(|refusal| refused(&refusal))
}

fn refused(refusal: &Refusal) -> Problem {
    let mut problem = Problem::field("", refusal);
    problem.code = match refusal {
        Refusal::TooMany { .. } => "too_many",
        Refusal::Version(_) | Refusal::NoVersion => "unknown_version",
        Refusal::Other { .. } => "other_document",
        Refusal::Empty
        | Refusal::Encoding { .. }
        | Refusal::Json(_)
        | Refusal::Cut { .. }
        | Refusal::Wrapped { .. }
        | Refusal::Trailing { .. }
        | Refusal::Shape { .. } => "invalid",
    };
    problem
}

async fn store(
    app: &App,
    caller: &Caller,
    said: Said,
    hash: [u8; 32],
    document: Document,
) -> Result<Taken, Problem> {
    let (mut parts, links) = apart(document, said.exit_code);
    let now = app.clock.now();
    let when = |at: &Option<String>| {
        let at = OffsetDateTime::parse(at.as_deref()?, &Rfc3339).ok()?;
        Some(believed(at, now))
    };
    let at = when(&parts.at).unwrap_or(now);
    let until = when(&parts.until).unwrap_or(at).max(at);
    let run_id = RunId::at(app.clock.unix_millis()).0;
    let artifact = keep(app, run_id, std::mem::take(&mut parts.artifact)).await?;
    let mut transaction = app.pool.begin().await?;
    let (bringer, keys) = (Bringer::Caller(caller), correlate::keys(&said.claims));
    let new_id = ChangeId::at(app.clock.unix_millis()).0;
    let change_id = join(&mut transaction, bringer, &keys, new_id, now).await?;
    let told = Told {
        run_id,
        change_id,
        content_hash: hash,
        received_at: now,
        times: (at, until),
        exit_code: said.exit_code,
        claims: said.claims,
        brought_by: caller.name.clone(),
        artifact,
    };
    let run = match insert(&mut transaction, &app.link_table, told, (parts, links)).await {
        Ok(run) => run,
        Err(error) => {
            let is_twin = error
                .as_database_error()
                .is_some_and(sqlx::error::DatabaseError::is_unique_violation);
            if !is_twin {
                return Err(error.into());
            }
            // The same was posted at the same time, and is there by now.
            transaction.rollback().await?;
            let mut connection = app.pool.acquire().await?;
            let taken = find(&mut connection, &hash).await?;
            return taken.ok_or_else(|| Problem::unavailable("try again"));
        }
    };
    let linked_hosts = change_hosts::count(&mut transaction, change_id).await?;
    transaction.commit().await?;
    Ok(Taken {
        change_id,
        run_id,
        kind: run.kind.to_owned(),
        summary: run.summary,
        linked_hosts,
        redactions: run.redactions,
        warnings: run.warnings,
    })
}

/// What is known of a run beside its document.
pub(crate) struct Told {
    pub(crate) run_id: Uuid,
    pub(crate) change_id: Uuid,
    pub(crate) content_hash: [u8; 32],
    pub(crate) received_at: OffsetDateTime,
    /// When it began, and ended.
    pub(crate) times: (OffsetDateTime, OffsetDateTime),
    pub(crate) exit_code: Option<i32>,
    pub(crate) claims: Claims,
    pub(crate) brought_by: String,
    pub(crate) artifact: Option<Artifact>,
}

/// Stores a run of a change, with its resources and hosts.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    table: &Table,
    told: Told,
    (parts, links): (Parts, Links),
) -> sqlx::Result<NewRun> {
    let run = NewRun {
        run_id: told.run_id,
        change_id: told.change_id,
        tool: "terraform",
        kind: parts.kind,
        content_hash: told.content_hash,
        received_at: told.received_at,
        started_at: told.times.0,
        ended_at: told.times.1,
        outcome: parts.outcome,
        exit_code: told.exit_code,
        tool_version: parts.tool_version,
        format: parts.format,
        claims: json!(told.claims),
        brought_by: told.brought_by,
        summary: parts.summary,
        detail: parts.detail,
        warnings: parts.warnings,
        redactions: i64::try_from(parts.redactions).unwrap_or(i64::MAX),
        artifact: told.artifact,
    };
    change_runs::insert(connection, &run).await?;
    change_runs::insert_resources(connection, run.run_id, parts.resources).await?;
    changes::refresh(connection, run.change_id, run.received_at).await?;
    match links {
        Links::Plan(wanted) => {
            links::of_run(connection, run.run_id, run.started_at, &wanted).await?;
        }
        Links::State(existing) => {
            links::of_state(connection, &told.claims, &existing, run.received_at).await?;
        }
        Links::Apply(apply) => {
            let ids = (run.change_id, run.run_id);
            let done = run.outcome == "succeeded";
            links::of_apply(connection, ids, &apply, done, table, run.received_at).await?;
        }
    }
    Ok(run)
}

/// Puts what can be downloaded into the blob store, before the run that refers to it.
async fn keep(
    app: &App,
    run_id: Uuid,
    artifact: terraform::Artifact,
) -> Result<Option<Artifact>, Problem> {
    let unpacked = tokio::task::spawn_blocking(move || {
        let text = artifact.text();
        (Digest::of(text.as_bytes()), text)
    });
    let (hash, text) = unpacked.await.map_err(Problem::unavailable)?;
    if text.is_empty() {
        return Ok(None);
    }
    let (bytes, key) = (text.len(), format!("artifacts/{run_id}.json"));
    let name = BlobKey::new(key.clone()).map_err(Problem::unavailable)?;
    app.blob
        .put_bytes(&name, text.into_bytes().into())
        .await
        .map_err(Problem::unavailable)?;
    Ok(Some(Artifact {
        key,
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        hash: hash.as_bytes().to_vec(),
    }))
}
