//! `/api/v1/tasks`: an operator's log of what was done on a host, or is to be.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::etag;
use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::store::tasks::{self, Filter, TaskRow};

const KINDS: [&str; 4] = ["patch", "reboot", "installation", "other"];
const STATES: [&str; 4] = ["planned", "in_progress", "done", "failed"];
const TITLE_CHARS: usize = 200;
const NOTES_BYTES: usize = 16 * 1024;

/// A task to be written down.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTask {
    pub host_id: Uuid,
    /// `patch | reboot | installation | other`.
    pub kind: String,
    #[schema(min_length = 1, max_length = 200)]
    pub title: String,
    /// `planned | in_progress | done | failed`; `done` where it is not said.
    pub status: Option<String>,
    /// Markdown, 16 KiB at most.
    #[serde(default)]
    pub notes: String,
    /// When it was, or is to be; now where it is not said.
    #[serde(default, with = "rfc3339::option")]
    pub at: Option<OffsetDateTime>,
}

/// What is to change; what is not said stays.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TaskUpdate {
    pub kind: Option<String>,
    pub title: Option<String>,
    pub status: Option<String>,
    pub notes: Option<String>,
    #[serde(with = "rfc3339::option")]
    pub at: Option<OffsetDateTime>,
}

/// The parameters of the list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct TasksQuery {
    pub host_id: Option<Uuid>,
    pub kind: Option<String>,
    pub status: Option<String>,
    /// From then on.
    #[serde(with = "rfc3339::option")]
    pub from: Option<OffsetDateTime>,
    /// Before then.
    #[serde(with = "rfc3339::option")]
    pub to: Option<OffsetDateTime>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// Lists tasks, the latest first.
#[utoipa::path(
    get,
    path = "/api/v1/tasks",
    tag = "tasks",
    params(TasksQuery),
    responses((status = 200, body = Page<TaskRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<TasksQuery>,
) -> Result<Json<Page<TaskRow>>, Problem> {
    let limit = page::limit(query.limit)?;
    input::one_of("kind", query.kind.as_deref(), &KINDS)?;
    input::one_of("status", query.status.as_deref(), &STATES)?;
    let before = page::by_time(page::cursor(query.cursor.as_deref())?);
    let filter = Filter {
        host_id: query.host_id,
        kind: query.kind,
        status: query.status,
        from: query.from,
        to: query.to,
    };
    let mut connection = app.pool.acquire().await?;
    let rows = tasks::list(&mut connection, &filter, before, limit).await?;
    let total = tasks::count(&mut connection, &filter).await?;
    Ok(page::page(rows, total, limit, |row| {
        (row.at.unix_timestamp_nanos(), row.task_id)
    }))
}

/// Writes a task down.
#[utoipa::path(
    post,
    path = "/api/v1/tasks",
    tag = "tasks",
    request_body = NewTask,
    responses((status = 201, body = TaskRow)),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<NewTask>,
) -> Result<Response, Problem> {
    let now = app.clock.now();
    let task = TaskRow {
        task_id: Uuid::new_v4(),
        host_id: body.host_id,
        kind: word("/kind", &body.kind, &KINDS)?,
        status: word("/status", body.status.as_deref().unwrap_or("done"), &STATES)?,
        title: input::text("/title", &body.title, 1..=TITLE_CHARS)?,
        notes: notes(&body.notes)?,
        at: body.at.unwrap_or(now),
        created_at: now,
        created_by: caller.name.clone(),
        updated_at: now,
        updated_by: caller.name.clone(),
    };
    let mut transaction = app.pool.begin().await?;
    if tasks::insert(&mut transaction, &task).await? == 0 {
        return Err(Problem::field("/host_id", "must be a host's id"));
    }
    let change = Change::new("task.create", "host", task.host_id).after(json!(task));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    let made = get_row(&mut transaction, task.task_id).await?;
    transaction.commit().await?;
    Ok(etag::tagged(StatusCode::CREATED, made))
}

/// One task.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{id}",
    tag = "tasks",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = TaskRow)),
)]
pub async fn get(State(app): State<Arc<App>>, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let mut connection = app.pool.acquire().await?;
    let task = get_row(&mut connection, id).await?;
    Ok(etag::tagged(StatusCode::OK, task))
}

/// Changes a task.
#[utoipa::path(
    patch,
    path = "/api/v1/tasks/{id}",
    tag = "tasks",
    params(("id" = Uuid, Path), ("If-Match" = String, Header)),
    request_body = TaskUpdate,
    responses((status = 200, body = TaskRow)),
)]
pub async fn update(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(body): Json<TaskUpdate>,
) -> Result<Response, Problem> {
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let found = tasks::find_for_update(&mut transaction, id).await?;
    let before = found.ok_or_else(|| Problem::missing("task", id))?;
    etag::check(&headers, &etag::of(&before))?;
    let mut task = before.clone();
    if let Some(kind) = body.kind {
        task.kind = word("/kind", &kind, &KINDS)?;
    }
    if let Some(status) = body.status {
        task.status = word("/status", &status, &STATES)?;
    }
    if let Some(title) = body.title {
        task.title = input::text("/title", &title, 1..=TITLE_CHARS)?;
    }
    if let Some(text) = body.notes {
        task.notes = notes(&text)?;
    }
    task.at = body.at.unwrap_or(task.at);
    (task.updated_at, task.updated_by) = (now, caller.name.clone());
    tasks::update(&mut transaction, &task).await?;
    let task = get_row(&mut transaction, id).await?;
    let change = Change::new("task.update", "host", task.host_id)
        .before(json!(before))
        .after(json!(task));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(etag::tagged(StatusCode::OK, task))
}

/// Deletes a task; the audit log keeps what it said.
#[utoipa::path(
    delete,
    path = "/api/v1/tasks/{id}",
    tag = "tasks",
    params(("id" = Uuid, Path)),
    responses((status = 204)),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let mut transaction = app.pool.begin().await?;
    let found = tasks::find_for_update(&mut transaction, id).await?;
    let before = found.ok_or_else(|| Problem::missing("task", id))?;
    tasks::delete(&mut transaction, id).await?;
    let change = Change::new("task.delete", "host", before.host_id).before(json!(before));
    audit::record(&mut transaction, &caller.actor(), change, app.clock.now()).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn get_row(connection: &mut sqlx::PgConnection, id: Uuid) -> Result<TaskRow, Problem> {
    let found = tasks::find(connection, id).await?;
    found.ok_or_else(|| Problem::missing("task", id))
}

fn word(pointer: &str, word: &str, words: &[&str]) -> Result<String, Problem> {
    if words.contains(&word) {
        return Ok(word.to_owned());
    }
    Err(Problem::field(
        pointer,
        format!("must be one of {}", words.join(", ")),
    ))
}

fn notes(text: &str) -> Result<String, Problem> {
    if text.len() > NOTES_BYTES {
        return Err(Problem::field(
            "/notes",
            format!("must have {NOTES_BYTES} bytes at most"),
        ));
    }
    if text.contains('\0') {
        return Err(Problem::field("/notes", "must have no NUL"));
    }
    Ok(text.to_owned())
}
