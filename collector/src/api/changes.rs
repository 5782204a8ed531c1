//! `/api/v1/changes`: what changed the fleet, from which runs, or as somebody wrote it down.

pub mod compare;
pub mod edit;
pub mod hosts;
pub mod rules;
pub mod runs;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::export::{Export, Format, is_whole};
use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::changes::applied::Applied;
use crate::store::change_hosts;
use crate::store::change_runs::{self, RunRow};
use crate::store::changes::{self as store, ChangeRow, Which};

/// What changes a fleet.
pub const TOOLS: [&str; 3] = ["terraform", "ansible", "manual"];
/// How a change ended.
pub const OUTCOMES: [&str; 6] = [
    "planned",
    "running",
    "succeeded",
    "failed",
    "interrupted",
    "unknown",
];

const EXPORT: Export<ChangeRow, (OffsetDateTime, Uuid)> = Export {
    name: "changes",
    columns: &[
        "id",
        "origin",
        "title",
        "started_at",
        "ended_at",
        "outcome",
        "tools",
        "add_count",
        "change_count",
        "destroy_count",
        "host_count",
        "actor",
        "repository",
        "commit",
        "branch",
        "pull_request",
        "environment",
        "workspace",
        "run_url",
        "note",
    ],
    rows: 500,
    key: |row| (row.started_at, row.change_id),
};

/// Which changes.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct ChangesQuery {
    pub repository: Option<String>,
    pub actor: Option<String>,
    /// A host that they touched, by its id.
    pub host: Option<Uuid>,
    /// `terraform | ansible | manual`.
    pub tool: Option<String>,
    /// `planned | running | succeeded | failed | interrupted | unknown`.
    pub outcome: Option<String>,
    /// Begun at this time or later (RFC 3339).
    #[serde(with = "time::serde::rfc3339::option")]
    pub from: Option<OffsetDateTime>,
    /// Begun before this time.
    #[serde(with = "time::serde::rfc3339::option")]
    pub to: Option<OffsetDateTime>,
    /// `csv` and `ndjson` have all that match.
    #[param(inline)]
    pub format: Option<Format>,
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
    /// The newest plan against what applies did since, of the same workspace; null where there is not both.
    pub applied: Option<Applied>,
    /// Hosts that somebody linked to it by hand, by their ids.
    pub manual_hosts: Vec<Uuid>,
}

/// Lists changes, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/changes",
    tag = "changes",
    params(ChangesQuery),
    responses((status = 200, content(
        (Page<ChangeRow> = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
    ))),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<ChangesQuery>,
) -> Result<Response, Problem> {
    let format = query.format.filter(|format| *format != Format::Json);
    let Some(format) = format else {
        return Ok(Json(rows(&app, &query).await?).into_response());
    };
    is_whole(query.limit, query.cursor.as_deref())?;
    let asked = Arc::new((app, which(&query)?));
    Ok(EXPORT.begin(format, None, move |after, limit| {
        let asked = Arc::clone(&asked);
        async move {
            let (app, which) = &*asked;
            let mut connection = app.pool.acquire().await?;
            Ok(store::list(&mut connection, which, after, limit).await?)
        }
    }))
}

/// As the API and the page list them.
pub async fn rows(app: &App, query: &ChangesQuery) -> Result<Page<ChangeRow>, Problem> {
    let limit = page::limit(query.limit)?;
    let which = which(query)?;
    let before = page::by_time(page::cursor(query.cursor.as_deref())?);
    let mut connection = app.pool.acquire().await?;
    let rows = store::list(&mut connection, &which, before, limit).await?;
    let total = store::count(&mut connection, &which).await?;
    let Json(page) = page::page(rows, total, limit, |row| {
        (row.started_at.unix_timestamp_nanos(), row.change_id)
    });
    Ok(page)
}

fn which(query: &ChangesQuery) -> Result<Which, Problem> {
    input::one_of("tool", query.tool.as_deref(), &TOOLS)?;
    input::one_of("outcome", query.outcome.as_deref(), &OUTCOMES)?;
    // As long as a claim may be.
    let text = |name: &str, value: &Option<String>| {
        let value = value.as_deref().map(str::trim);
        let value = value.filter(|value| !value.is_empty());
        if value.is_some_and(|value| value.chars().count() > 512 || value.contains('\0')) {
            let detail = "must have at most 512 characters";
            return Err(Problem::parameter(name, detail));
        }
        Ok(value.map(str::to_owned))
    };
    Ok(Which {
        repository: text("repository", &query.repository)?,
        actor: text("actor", &query.actor)?,
        tool: query.tool.clone(),
        outcome: query.outcome.clone(),
        host_id: query.host,
        from: query.from,
        to: query.to,
    })
}

/// A change and what it is made of. The `ETag` is of what people say of it, not of its runs.
#[utoipa::path(
    get,
    path = "/api/v1/changes/{id}",
    tag = "changes",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = ChangeWithRuns, headers(("ETag" = String)))),
)]
pub async fn get(State(app): State<Arc<App>>, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let found = read(&app, id).await?;
    let tag = [(header::ETAG, etag(found.change.version))];
    Ok((tag, Json(found)).into_response())
}

/// The change with this id, with its runs, or 404.
pub async fn read(app: &App, id: Uuid) -> Result<ChangeWithRuns, Problem> {
    let mut connection = app.pool.acquire().await?;
    let change = find(&mut connection, id).await?;
    let runs = change_runs::list(&mut connection, id).await?;
    let applied = compare::compare(&mut connection, &app.compared, &runs).await?;
    let manual_hosts = change_hosts::list_manual(&mut connection, id).await?;
    Ok(ChangeWithRuns {
        change,
        runs,
        applied,
        manual_hosts,
    })
}

/// Hosts that somebody linked to the change with this id.
pub async fn manual_hosts(app: &App, id: Uuid) -> Result<Vec<Uuid>, Problem> {
    let mut connection = app.pool.acquire().await?;
    Ok(change_hosts::list_manual(&mut connection, id).await?)
}

/// The change with this id, or 404.
async fn find(connection: &mut PgConnection, id: Uuid) -> Result<ChangeRow, Problem> {
    let found = store::find(connection, id).await?;
    found.ok_or_else(|| Problem::missing("change", id))
}

/// The `ETag` of a version.
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}
