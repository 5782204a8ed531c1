//! Runs of a change: resources and drift of Terraform, hosts, tasks and results of Ansible, and what can be downloaded.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use serde::Deserialize;
use uuid::Uuid;

use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page, PageQuery};
use crate::api::problem::Problem;
use crate::app::App;
use crate::blob::Key as BlobKey;
use crate::store::change_runs::{self, ResourceRow, RunRow};
use crate::store::play_results::{self, PlayHostRow, ResultRow};
use crate::store::plays::{self, TaskRow};
use crate::store::run_resources::{self, DriftGroup};

const PARTS: [&str; 4] = ["change", "drift", "deferred", "operation"];
/// Groups of drift that are listed.
pub const DRIFT_GROUPS: i64 = 200;

/// Which resources of a run.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct ResourcesQuery {
    /// `change | drift | deferred | operation`; all of them where it is not said.
    pub part: Option<String>,
    /// Those that stay as they are, too.
    pub unchanged: bool,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// Which results of a play.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct ResultsQuery {
    /// Only those that failed or were not reached.
    pub failed: bool,
    /// Only those of this task; `batch` tells which of its batches, the first where it is not said.
    pub task: Option<String>,
    #[param(minimum = 0)]
    pub batch: Option<i32>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// Lists the resources of a run, in the document's order. They are counted up to 100,000.
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
    let run = find(&app, id, run).await?;
    resources_of(&app, run.run_id, &query).await
}

/// As the API and the page list them.
pub async fn resources_of(
    app: &App,
    run_id: Uuid,
    query: &ResourcesQuery,
) -> Result<Json<Page<ResourceRow>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<i32> = page::cursor(query.cursor.as_deref())?;
    input::one_of("part", query.part.as_deref(), &PARTS)?;
    let which = run_resources::Which {
        part: query.part.clone(),
        with_unchanged: query.unchanged,
    };
    let mut connection = app.pool.acquire().await?;
    let after = after.unwrap_or(-1);
    let rows = run_resources::list(&mut connection, run_id, &which, after, limit).await?;
    let total = run_resources::count(&mut connection, run_id, &which).await?;
    Ok(page::page(rows, total, limit, |row| row.ordinal))
}

/// Lists a run's drift in groups: resources of one type of which the same attributes differ. The 200 largest.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}/runs/{run}/drift",
    tag = "changes",
    params(("id" = Uuid, Path), ("run" = Uuid, Path)),
    responses((status = 200, body = Page<DriftGroup>)),
)]
pub async fn drift(
    State(app): State<Arc<App>>,
    Path((id, run)): Path<(Uuid, Uuid)>,
) -> Result<Json<Page<DriftGroup>>, Problem> {
    let run = find(&app, id, run).await?;
    Ok(Json(Page::whole(drift_of(&app, run.run_id).await?)))
}

/// As the API and the page list it.
pub async fn drift_of(app: &App, run_id: Uuid) -> Result<Vec<DriftGroup>, Problem> {
    let mut connection = app.pool.acquire().await?;
    Ok(run_resources::list_drift_groups(&mut connection, run_id, DRIFT_GROUPS).await?)
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

/// Lists the hosts of a play with their recaps, in the order in which it met them.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}/runs/{run}/hosts",
    tag = "changes",
    params(("id" = Uuid, Path), ("run" = Uuid, Path), PageQuery),
    responses((status = 200, body = Page<PlayHostRow>)),
)]
pub async fn hosts(
    State(app): State<Arc<App>>,
    Path((id, run)): Path<(Uuid, Uuid)>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<PlayHostRow>>, Problem> {
    let run = find(&app, id, run).await?;
    hosts_of(&app, run.run_id, &query).await
}

/// As the API and the page list them.
pub async fn hosts_of(
    app: &App,
    run_id: Uuid,
    query: &PageQuery,
) -> Result<Json<Page<PlayHostRow>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<i32> = page::cursor(query.cursor.as_deref())?;
    let mut connection = app.pool.acquire().await?;
    let after = after.unwrap_or(-1);
    let rows = play_results::list_hosts(&mut connection, run_id, after, limit).await?;
    let total = play_results::count_hosts(&mut connection, run_id).await?;
    Ok(page::page(rows, total, limit, |row| row.number))
}

/// Lists the tasks of a play, in their order.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}/runs/{run}/tasks",
    tag = "changes",
    params(("id" = Uuid, Path), ("run" = Uuid, Path), PageQuery),
    responses((status = 200, body = Page<TaskRow>)),
)]
pub async fn tasks(
    State(app): State<Arc<App>>,
    Path((id, run)): Path<(Uuid, Uuid)>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<TaskRow>>, Problem> {
    let run = find(&app, id, run).await?;
    tasks_of(&app, run.run_id, &query).await
}

/// As the API and the page list them.
pub async fn tasks_of(
    app: &App,
    run_id: Uuid,
    query: &PageQuery,
) -> Result<Json<Page<TaskRow>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<i64> = page::cursor(query.cursor.as_deref())?;
    let mut connection = app.pool.acquire().await?;
    let rows = plays::list_tasks(&mut connection, run_id, after.unwrap_or(0), limit).await?;
    let total = plays::count_tasks(&mut connection, run_id).await?;
    Ok(page::page(rows, total, limit, |row| row.first_seq))
}

/// Lists what tasks of a play changed, failed at or could not reach, in the order in which it happened. They are counted up
/// to 100,000.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}/runs/{run}/results",
    tag = "changes",
    params(("id" = Uuid, Path), ("run" = Uuid, Path), ResultsQuery),
    responses((status = 200, body = Page<ResultRow>)),
)]
pub async fn results(
    State(app): State<Arc<App>>,
    Path((id, run)): Path<(Uuid, Uuid)>,
    Query(query): Query<ResultsQuery>,
) -> Result<Json<Page<ResultRow>>, Problem> {
    let run = find(&app, id, run).await?;
    results_of(&app, run.run_id, &query).await
}

/// As the API and the page list them.
pub async fn results_of(
    app: &App,
    run_id: Uuid,
    query: &ResultsQuery,
) -> Result<Json<Page<ResultRow>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<i64> = page::cursor(query.cursor.as_deref())?;
    if query.batch.is_some() && query.task.is_none() {
        return Err(Problem::parameter("batch", "is of a task: say which"));
    }
    let task = query.task.clone();
    let which = play_results::Which {
        failed: query.failed,
        task: task.map(|task| (task, query.batch.unwrap_or(1))),
    };
    let mut connection = app.pool.acquire().await?;
    let after = after.unwrap_or(0);
    let rows = play_results::list(&mut connection, run_id, &which, after, limit).await?;
    let total = play_results::count(&mut connection, run_id, &which).await?;
    Ok(page::page(rows, total, limit, |row| row.seq))
}

async fn find(app: &App, change: Uuid, run: Uuid) -> Result<RunRow, Problem> {
    let mut connection = app.pool.acquire().await?;
    let found = change_runs::find(&mut connection, change, run).await?;
    found.ok_or_else(|| Problem::missing("run", run))
}
