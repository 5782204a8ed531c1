//! `/api/v1/drills`: restores that were rehearsed, and their reports.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use infratrack_shared::ids::{CommandId, HostId};
use infratrack_shared::wire::answer::Action;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::commands::{self, Wanted};
use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::api::volumes;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::store::drill_search::{self as store, DrillRow, STATES, Which};
use crate::store::drills;

/// How much of a restore is rehearsed.
pub const MODES: [&str; 3] = ["full", "database", "validation"];

/// Which drills.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct DrillsQuery {
    /// A volume, by its id.
    pub volume: Option<Uuid>,
    /// A host, by its id.
    pub host: Option<Uuid>,
    /// `running | ok | failed | cancelled`.
    pub state: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// What is wanted.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewDrill {
    /// `full | database | validation`; the volume's where it is not said.
    pub mode: Option<String>,
}

/// What was asked of an agent. It is a drill once its agent begins it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AskedDrill {
    #[schema(value_type = Uuid)]
    pub command: CommandId,
}

/// Asks its agent to rehearse restoring a volume now; 201 once that is queued. A host that is away does it when it is back.
#[utoipa::path(
    post,
    path = "/api/v1/volumes/{id}/drills",
    tag = "backups",
    params(("id" = Uuid, Path)),
    request_body = NewDrill,
    responses((status = 201, body = AskedDrill)),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Json(new): Json<NewDrill>,
) -> Result<(StatusCode, Json<AskedDrill>), Problem> {
    let command = ask(&app, &caller, id, new.mode.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(AskedDrill { command })))
}

/// As the API and the page ask for it.
pub async fn ask(
    app: &App,
    caller: &Caller,
    id: Uuid,
    mode: Option<&str>,
) -> Result<CommandId, Problem> {
    if mode.is_some_and(|mode| !MODES.contains(&mode)) {
        let detail = format!("must be one of {}", MODES.join(", "));
        return Err(Problem::field("/mode", detail));
    }
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let volume = volumes::find(app, &mut transaction, id).await?;
    if volume.kind == "external" {
        let detail = "what another tool keeps is not restored from here";
        return Err(Problem::conflict("not_drillable", detail));
    }
    if mode == Some("database") && volume.kind == "files" {
        let detail = "must be full or validation of a volume of files";
        return Err(Problem::field("/mode", detail));
    }
    if volume.last_ok_at.is_none() {
        let detail = "the volume has no whole snapshot yet";
        return Err(Problem::conflict("no_snapshot", detail));
    }
    drills::update_asked(&mut transaction, id, (mode, &caller.name), now).await?;
    let change = Change::new("volume.drill", "volume", id).after(json!({ "mode": mode }));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    let wanted = Wanted {
        host: HostId(volume.host_id),
        action: Action::RunDrill,
        target: Some(id.to_string()),
    };
    let command = commands::insert(app, &mut transaction, &wanted, caller).await?;
    transaction.commit().await?;
    Ok(command)
}

/// Lists drills with their reports, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/drills",
    tag = "backups",
    params(DrillsQuery),
    responses((status = 200, body = Page<DrillRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<DrillsQuery>,
) -> Result<Json<Page<DrillRow>>, Problem> {
    rows(&app, &query).await.map(Json)
}

/// As the API and the pages list them.
pub async fn rows(app: &App, query: &DrillsQuery) -> Result<Page<DrillRow>, Problem> {
    let limit = page::limit(query.limit)?;
    input::one_of("state", query.state.as_deref(), &STATES)?;
    let which = Which {
        volume_id: query.volume,
        host_id: query.host,
        state: query.state.clone(),
    };
    let before: Option<(OffsetDateTime, Uuid)> =
        page::by_time(page::cursor(query.cursor.as_deref())?);
    let mut connection = app.pool.acquire().await?;
    let rows = store::list(&mut connection, &which, before, limit).await?;
    let total = store::count(&mut connection, &which).await?;
    let Json(page) = page::page(rows, total, limit, |row| {
        (row.started_at.unix_timestamp_nanos(), row.drill_id)
    });
    Ok(page)
}

/// A drill's report: JSON, or Markdown to file as evidence where `Accept` has `text/markdown`.
#[utoipa::path(
    get,
    path = "/api/v1/drills/{id}",
    tag = "backups",
    params(("id" = Uuid, Path)),
    responses((status = 200, content((DrillRow = "application/json"), (String = "text/markdown")))),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let drill = find(&app, id).await?;
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/markdown")) {
        return Ok(evidence(&drill));
    }
    Ok(Json(drill).into_response())
}

/// The drill with this id, or 404.
pub async fn find(app: &App, id: Uuid) -> Result<DrillRow, Problem> {
    let mut connection = app.pool.acquire().await?;
    let found = store::find(&mut connection, id).await?;
    found.ok_or_else(|| Problem::missing("drill", id))
}

/// The report as a file.
pub fn evidence(drill: &DrillRow) -> Response {
    let name = format!("attachment; filename=\"drill-{}.md\"", drill.drill_id);
    let headers = [
        (
            header::CONTENT_TYPE,
            "text/markdown; charset=utf-8".to_owned(),
        ),
        (header::CONTENT_DISPOSITION, name),
    ];
    (headers, markdown(drill)).into_response()
}

/// Stops a drill; 409 where it has ended. Its scratch is removed.
#[utoipa::path(
    post,
    path = "/api/v1/drills/{id}/cancel",
    tag = "backups",
    params(("id" = Uuid, Path)),
    responses((status = 204)),
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    stop(&app, &caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// As the API and the page stop it.
pub async fn stop(app: &App, caller: &Caller, id: Uuid) -> Result<(), Problem> {
    let mut transaction = app.pool.begin().await?;
    let known = store::find(&mut transaction, id).await?;
    known.ok_or_else(|| Problem::missing("drill", id))?;
    if drills::update_cancelled(&mut transaction, id).await? == 0 {
        return Err(Problem::conflict("drill_ended", "the drill has ended"));
    }
    let change = Change::new("drill.cancel", "drill", id);
    audit::record(&mut transaction, &caller.actor(), change, app.clock.now()).await?;
    transaction.commit().await?;
    Ok(())
}

/// The report as it is filed.
fn markdown(drill: &DrillRow) -> String {
    let at = |at: Option<OffsetDateTime>| {
        let text = at.and_then(|at| at.format(&Rfc3339).ok());
        text.unwrap_or_else(|| "-".to_owned())
    };
    let count =
        |count: Option<i64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let promise = match (drill.rto_s, drill.is_within_rto) {
        (Some(rto_s), Some(true)) => format!("{rto_s} s, kept"),
        (Some(rto_s), Some(false)) => format!("{rto_s} s, **not kept**"),
        (Some(rto_s), None) => format!("{rto_s} s"),
        (None, _) => "none".to_owned(),
    };
    let estimated = if drill.is_sampled { " (estimated)" } else { "" };
    let (files, bytes) = (count(drill.files), count(drill.bytes));
    let (files_total, bytes_total) = (count(drill.files_total), count(drill.bytes_total));
    let rows = [
        ("Volume", format!("{} ({})", drill.volume, drill.volume_id)),
        ("Host", format!("{} ({})", drill.host, drill.host_id)),
        ("Outcome", drill.state.clone()),
        ("Reason", text(&drill.reason)),
        ("Mode", drill.mode.clone()),
        ("Of a sample", drill.is_sampled.to_string()),
        ("Begun", at(Some(drill.started_at))),
        ("Ended", at(drill.ended_at)),
        ("Asked for by", text(&drill.asked_by)),
        (
            "Snapshot",
            drill
                .snapshot_id
                .map_or_else(|| "-".to_owned(), |id| id.to_string()),
        ),
        ("Snapshot of", at(drill.snapshot_at)),
        ("Files", format!("{files} of {files_total}")),
        ("Bytes", format!("{bytes} of {bytes_total}")),
        ("Bytes read from the store", count(drill.read_bytes)),
        ("Mismatches", count(drill.mismatches)),
        (
            "Restored in",
            format!("{} ms{estimated}", count(drill.restore_ms)),
        ),
        ("Time objective", promise),
        ("Agent", drill.agent.clone()),
    ];
    let mut report = format!(
        "# Restore drill {}\n\n| | |\n| --- | --- |\n",
        drill.drill_id
    );
    for (name, value) in rows {
        let _ = writeln!(report, "| {name} | {} |", cell(&value));
    }
    report.push_str("\n| check | outcome | detail |\n| --- | --- | --- |\n");
    for check in drill.checks.0.as_array().into_iter().flatten() {
        let said = |name: &str| cell(check.get(name).and_then(Value::as_str).unwrap_or_default());
        let (name, outcome, detail) = (said("name"), said("outcome"), said("detail"));
        let _ = writeln!(report, "| {name} | {outcome} | {detail} |");
    }
    report.push_str("\n| tool | version |\n| --- | --- |\n");
    for tool in drill.tools.0.as_array().into_iter().flatten() {
        let said = |at: usize| cell(tool.get(at).and_then(Value::as_str).unwrap_or_default());
        let _ = writeln!(report, "| {} | {} |", said(0), said(1));
    }
    for differing in &drill.differing {
        let _ = write!(report, "\n- {}", cell(differing));
    }
    if let Some(detail) = &drill.detail {
        let _ = write!(report, "\n{}\n", cell(detail));
    }
    report
}

/// A text in a table: what a host says neither ends its cell nor begins something else.
fn cell(text: &str) -> String {
    let plain = text.chars().map(|char| match char {
        '|' | '<' | '>' | '`' | '[' | ']' => ' ',
        char if char.is_control() => ' ',
        char => char,
    });
    plain.collect()
}
