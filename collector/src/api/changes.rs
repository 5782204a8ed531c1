//! `/api/v1/changes`: what changed the fleet, from which runs.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::blob::Key as BlobKey;
use crate::store::change_runs::{self, ResourceRow, RunRow};
use crate::store::changes::{self as store, ChangeRow, Which};
use crate::store::plays::{self, ResultRow, TaskRow};

const TOOLS: [&str; 2] = ["terraform", "ansible"];
const OUTCOMES: [&str; 6] = [
    "planned",
    "running",
    "succeeded",
    "failed",
    "interrupted",
    "unknown",
];

/// Which changes.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct ChangesQuery {
    pub repository: Option<String>,
    pub actor: Option<String>,
    /// `terraform | ansible`.
    pub tool: Option<String>,
    /// `planned | running | succeeded | failed | interrupted | unknown`.
    pub outcome: Option<String>,
    /// Begun at this time or later (RFC 3339).
    #[serde(with = "time::serde::rfc3339::option")]
    pub from: Option<OffsetDateTime>,
    /// Begun before this time.
    #[serde(with = "time::serde::rfc3339::option")]
    pub to: Option<OffsetDateTime>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// A change with its runs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChangeWithRuns {
    pub change: ChangeRow,
    /// The first first.
    pub runs: Vec<RunRow>,
}

/// Which resources of a run.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct ResourcesQuery {
    /// Those that stay as they are, too.
    pub unchanged: bool,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// Lists changes, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/changes",
    tag = "changes",
    params(ChangesQuery),
    responses((status = 200, body = Page<ChangeRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<ChangesQuery>,
) -> Result<Json<Page<ChangeRow>>, Problem> {
    let limit = page::limit(query.limit)?;
    input::one_of("tool", query.tool.as_deref(), &TOOLS)?;
    input::one_of("outcome", query.outcome.as_deref(), &OUTCOMES)?;
    let text = crate::api::packages::text;
    let which = Which {
        repository: text("repository", query.repository.as_deref())?,
        actor: text("actor", query.actor.as_deref())?,
        tool: query.tool,
        outcome: query.outcome,
        from: query.from,
        to: query.to,
    };
    let before = page::by_time(page::cursor(query.cursor.as_deref())?);
    let mut connection = app.pool.acquire().await?;
    let rows = store::list(&mut connection, &which, before, limit).await?;
    let total = store::count(&mut connection, &which).await?;
    Ok(page::page(rows, total, limit, |row| {
        (row.started_at.unix_timestamp_nanos(), row.change_id)
    }))
}

/// A change and what it is made of.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}",
    tag = "changes",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = ChangeWithRuns)),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
) -> Result<Json<ChangeWithRuns>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let change = store::find(&mut connection, id).await?;
    let change = change.ok_or_else(|| Problem::missing("change", id))?;
    let runs = change_runs::list(&mut connection, id).await?;
    Ok(Json(ChangeWithRuns { change, runs }))
}

/// Lists the resources of a run, in the document's order.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}/runs/{run}/resources",
    tag = "changes",
    params(("id" = Uuid, Path), ("run" = Uuid, Path), ResourcesQuery),
    responses((status = 200, body = Page<ResourceRow>)),
)]
pub async fn resources(
    State(app): State<Arc<App>>,
    Path((id, run)): Path<(Uuid, Uuid)>,
    Query(query): Query<ResourcesQuery>,
) -> Result<Json<Page<ResourceRow>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<i32> = page::cursor(query.cursor.as_deref())?;
    let run = find(&app, id, run).await?;
    let mut connection = app.pool.acquire().await?;
    let (id, all, after) = (run.run_id, query.unchanged, after.unwrap_or(-1));
    let rows = change_runs::list_resources(&mut connection, id, all, after, limit).await?;
    let total = change_runs::count_resources(&mut connection, id, all).await?;
    Ok(page::page(rows, total, limit, |row| row.ordinal))
}

/// What was posted, without secrets, to download.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}/runs/{run}/artifact",
    tag = "changes",
    params(("id" = Uuid, Path), ("run" = Uuid, Path)),
    responses((status = 200, content((String = "application/octet-stream")))),
)]
pub async fn artifact(
    State(app): State<Arc<App>>,
    Path((id, run)): Path<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    let run = find(&app, id, run).await?;
    let missing = || Problem::missing("artifact of run", run.run_id);
    let key = BlobKey::new(run.artifact_key.clone().ok_or_else(missing)?);
    let key = key.map_err(Problem::unavailable)?;
    let found = app.blob.find(&key).await.map_err(Problem::unavailable)?;
    let blob = found.ok_or_else(missing)?;
    let file = format!("attachment; filename=\"{}-{}.json\"", run.kind, run.run_id);
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DISPOSITION, file),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, axum::body::Body::from_stream(blob.body)).into_response())
}

/// Lists the tasks of a play, in their order.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}/runs/{run}/tasks",
    tag = "changes",
    params(("id" = Uuid, Path), ("run" = Uuid, Path), page::PageQuery),
    responses((status = 200, body = Page<TaskRow>)),
)]
pub async fn tasks(
    State(app): State<Arc<App>>,
    Path((id, run)): Path<(Uuid, Uuid)>,
    Query(query): Query<page::PageQuery>,
) -> Result<Json<Page<TaskRow>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<i64> = page::cursor(query.cursor.as_deref())?;
    let run = find(&app, id, run).await?;
    let mut connection = app.pool.acquire().await?;
    let (id, after) = (run.run_id, after.unwrap_or(0));
    let rows = plays::list_tasks(&mut connection, id, after, limit).await?;
    let total = plays::count_tasks(&mut connection, id).await?;
    Ok(page::page(rows, total, limit, |row| row.first_seq))
}

/// Lists what tasks of a play changed, failed at or could not reach, in the order in which it happened.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}/runs/{run}/results",
    tag = "changes",
    params(("id" = Uuid, Path), ("run" = Uuid, Path), page::PageQuery),
    responses((status = 200, body = Page<ResultRow>)),
)]
pub async fn results(
    State(app): State<Arc<App>>,
    Path((id, run)): Path<(Uuid, Uuid)>,
    Query(query): Query<page::PageQuery>,
) -> Result<Json<Page<ResultRow>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<i64> = page::cursor(query.cursor.as_deref())?;
    let run = find(&app, id, run).await?;
    let mut connection = app.pool.acquire().await?;
    let (id, after) = (run.run_id, after.unwrap_or(0));
    let rows = plays::list_results(&mut connection, id, after, limit).await?;
    let total = plays::count_results(&mut connection, id).await?;
    Ok(page::page(rows, total, limit, |row| row.seq))
}

async fn find(app: &App, change: Uuid, run: Uuid) -> Result<RunRow, Problem> {
    let mut connection = app.pool.acquire().await?;
    let found = change_runs::find(&mut connection, change, run).await?;
    found.ok_or_else(|| Problem::missing("run", run))
}
