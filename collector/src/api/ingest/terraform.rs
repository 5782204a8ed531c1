//! `POST /ingest/terraform`: a plan, a state or the outcome of an apply becomes a run of a change.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use infratrack_shared::digest::Digest;
use infratrack_shared::ids::{ChangeId, RunId};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{believed, body, claims, header, join};
use crate::api::input::Json;
use crate::api::problem::Problem;
use crate::app::App;
use crate::blob::Key as BlobKey;
use crate::caller::Caller;
use crate::changes::claims::Claims;
use crate::changes::correlate;
use crate::changes::json::Json as Exact;
use crate::changes::terraform::{
    self, Apply, Attribute, Document, Options, Plan, Refusal, Resource, State as Existing, Summary,
    Table,
};
use crate::store::change_runs::{self, Artifact, NewRun, ResourceRow};
use crate::store::changes;

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
    /// Hosts that the change is linked to. Resources are not linked to hosts yet.
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
    let said = said(&parts.headers)?;
    let document = body::read(&parts.headers, sent, body::MAX_BYTES).await?;
    let hash = content_hash(&document, &said);
    let mut connection = app.pool.acquire().await?;
    if let Some(run) = change_runs::find_by_content(&mut connection, &hash).await? {
        return Ok((StatusCode::OK, Json(again(run))).into_response());
    }
    drop(connection);
    let read = read(&app, document, &said).await?;
    let taken = store(&app, &caller, said, hash, read).await?;
    Ok((StatusCode::CREATED, Json(taken)).into_response())
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

fn again(run: change_runs::RunRow) -> Taken {
    Taken {
        change_id: run.change_id,
        run_id: run.run_id,
        kind: run.kind,
        summary: run.summary,
        linked_hosts: 0,
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
    let read =
        tokio::task::spawn_blocking(move || terraform::read(&document, options, &Table::default()));
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

/// What is stored of a document.
struct Parts {
    kind: &'static str,
    outcome: &'static str,
    at: Option<String>,
    tool_version: Option<String>,
    format: Option<String>,
    summary: Value,
    detail: Value,
    warnings: Vec<String>,
    redactions: u64,
    artifact: String,
    resources: Box<dyn Iterator<Item = ResourceRow> + Send>,
}

async fn store(
    app: &App,
    caller: &Caller,
    said: Said,
    hash: [u8; 32],
    document: Document,
) -> Result<Taken, Problem> {
    let parts = match document {
        Document::Plan(plan) => of_plan(*plan, said.exit_code),
        Document::State(state) => of_state(state),
        Document::Apply(apply) => of_apply(apply, said.exit_code),
    };
    let now = app.clock.now();
    let at = parts
        .at
        .as_deref()
        .and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
    let at = at.map_or(now, |at| believed(at, now));
    let run_id = RunId::at(app.clock.unix_millis()).0;
    let artifact = keep(app, run_id, parts.artifact).await?;
    let mut transaction = app.pool.begin().await?;
    let keys = correlate::keys(&said.claims);
    let new_id = ChangeId::at(app.clock.unix_millis()).0;
    let change_id = join(&mut transaction, &keys, new_id, now).await?;
    let run = NewRun {
        run_id,
        change_id,
        tool: "terraform",
        kind: parts.kind,
        content_hash: hash,
        received_at: now,
        started_at: at,
        ended_at: at,
        outcome: parts.outcome,
        exit_code: said.exit_code,
        tool_version: parts.tool_version,
        format: parts.format,
        claims: json!(said.claims),
        brought_by: caller.name.clone(),
        summary: parts.summary,
        detail: parts.detail,
        warnings: parts.warnings,
        redactions: i64::try_from(parts.redactions).unwrap_or(i64::MAX),
        artifact,
    };
    if let Err(error) = change_runs::insert(&mut transaction, &run).await {
        let is_twin = error
            .as_database_error()
            .is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        if !is_twin {
            return Err(error.into());
        }
        // The same was posted at the same time, and is there by now.
        transaction.rollback().await?;
        let mut connection = app.pool.acquire().await?;
        let run = change_runs::find_by_content(&mut connection, &hash).await?;
        return run
            .map(again)
            .ok_or_else(|| Problem::unavailable("try again"));
    }
    change_runs::insert_resources(&mut transaction, run_id, parts.resources).await?;
    changes::refresh(&mut transaction, change_id, now).await?;
    transaction.commit().await?;
    Ok(Taken {
        change_id,
        run_id,
        kind: run.kind.to_owned(),
        summary: run.summary,
        linked_hosts: 0,
        redactions: run.redactions,
        warnings: run.warnings,
    })
}

/// Puts what can be downloaded into the blob store, before the run that refers to it.
async fn keep(app: &App, run_id: Uuid, text: String) -> Result<Option<Artifact>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let key = format!("artifacts/{run_id}.json");
    let (bytes, hash) = (text.len(), Digest::of(text.as_bytes()));
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

fn of_plan(plan: Plan, exit_code: Option<i32>) -> Parts {
    // 2 is "there are changes" of `-detailed-exitcode`.
    let is_failed =
        plan.is_errored == Some(true) || exit_code.is_some_and(|code| ![0, 2].contains(&code));
    let outputs: Vec<_> = plan
        .outputs
        .iter()
        .map(|output| {
            json!({
                "name": output.name, "action": output.action.name(), "is_sensitive": output.is_sensitive,
                "attributes": attributes(&output.attributes),
            })
        })
        .collect();
    let (major, minor) = plan.format;
    let rows = plan.resources.into_iter().zip(0..);
    Parts {
        kind: "plan",
        outcome: if is_failed { "failed" } else { "planned" },
        at: plan.timestamp,
        tool_version: plan.terraform_version,
        format: Some(format!("{major}.{minor}")),
        summary: json!(plan.summary),
        detail: json!({
            "outputs": outputs, "checks": plan.checks, "applyable": plan.is_applyable,
            "complete": plan.is_complete, "errored": plan.is_errored,
        }),
        warnings: plan.warnings,
        redactions: plan.redactions,
        artifact: plan.artifact,
        resources: Box::new(rows.map(|(resource, ordinal)| row(resource, ordinal))),
    }
}

fn of_state(state: Existing) -> Parts {
    let (major, minor) = state.format;
    Parts {
        kind: "state",
        outcome: "succeeded",
        at: None,
        tool_version: state.terraform_version,
        format: Some(format!("{major}.{minor}")),
        summary: json!(Summary::default()),
        detail: json!({"resource_count": state.resources.len()}),
        warnings: Vec::new(),
        redactions: state.redactions,
        artifact: state.artifact,
        resources: Box::new(std::iter::empty()),
    }
}

fn of_apply(apply: Apply, exit_code: Option<i32>) -> Parts {
    let outcome = match exit_code {
        Some(0) => "succeeded",
        Some(_) => "failed",
        None if apply.error_count > 0 => "failed",
        None if apply.counted.is_some() => "succeeded",
        None => "interrupted",
    };
    let mut warnings = Vec::new();
    if apply.is_cut {
        warnings.push("the last line is cut off".to_owned());
    }
    if apply.other_lines > 0 {
        warnings.push(format!("{} lines are no events", apply.other_lines));
    }
    let counted = apply.counted.unwrap_or_default();
    let summary = Summary {
        add: counted.add,
        change: counted.change,
        destroy: counted.remove,
        import: counted.import,
        ..Summary::default()
    };
    let rows = apply.operations.into_iter().zip(0..);
    let rows = rows.map(|(operation, ordinal)| ResourceRow {
        ordinal,
        part: "operation".to_owned(),
        address: operation.address,
        deposed: None,
        module_address: None,
        mode: "managed".to_owned(),
        kind: String::new(),
        name: String::new(),
        provider: String::new(),
        actions: vec![operation.action.clone()],
        action: operation.action,
        action_reason: None,
        previous_address: None,
        is_imported: false,
        outcome: Some(operation.outcome),
        attributes: json!([]),
        is_cut: false,
    });
    Parts {
        kind: "apply",
        outcome,
        at: None,
        tool_version: apply.terraform_version,
        format: None,
        summary: json!(summary),
        detail: json!({"diagnostics": apply.diagnostics, "errors": apply.error_count, "warnings": apply.warning_count}),
        warnings,
        redactions: apply.redactions,
        artifact: apply.artifact,
        resources: Box::new(rows),
    }
}

fn row(resource: Resource, ordinal: i32) -> ResourceRow {
    ResourceRow {
        ordinal,
        part: part(&resource).to_owned(),
        attributes: attributes(&resource.attributes),
        action: resource.action.name().to_owned(),
        address: resource.address,
        deposed: resource.deposed,
        module_address: resource.module_address,
        mode: resource.mode,
        kind: resource.kind,
        name: resource.name,
        provider: resource.provider,
        actions: resource.actions,
        action_reason: resource.action_reason,
        previous_address: resource.previous_address,
        is_imported: resource.is_imported,
        outcome: None,
        is_cut: resource.is_cut,
    }
}

fn part(resource: &Resource) -> &'static str {
    match resource.part {
        terraform::Part::Change => "change",
        terraform::Part::Drift => "drift",
        terraform::Part::Deferred => "deferred",
    }
}

fn attributes(attributes: &[Attribute]) -> Value {
    let one = |attribute: &Attribute| {
        json!({
            "path": attribute.path, "what": attribute.what,
            "before": attribute.before.as_ref().map(Exact::to_text),
            "after": attribute.after.as_ref().map(Exact::to_text),
        })
    };
    Value::Array(attributes.iter().map(one).collect())
}
