//! Runs of volumes: started by command, paused, cancelled, listed.

use std::sync::Arc;

use axum::extract::{Extension, State};
use http::StatusCode;
use infratrack_shared::ids::{CommandId, HostId};
use infratrack_shared::wire::answer::Action;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::find;
use crate::api::commands::{self, Wanted};
use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::store::backup_run_search::{self as store, RunRow, STATES, Which};
use crate::store::volume_search::{self, Key};

/// Volumes that are read at a time.
const CHUNK: i64 = 500;

/// Which runs.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct BackupRunsQuery {
    /// A volume, by its id.
    pub volume: Option<Uuid>,
    /// A host, by its id.
    pub host: Option<Uuid>,
    /// `running | ok | incomplete | failed | cancelled`.
    pub state: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// What to run: exactly one of them.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewRuns {
    /// Volumes, by their ids.
    #[schema(max_items = 500)]
    pub volumes: Vec<Uuid>,
    /// All volumes of a host, by its id.
    pub host: Option<Uuid>,
    /// Every volume there is.
    pub all: bool,
}

/// What was asked of agents. Each of these is a run once its agent begins it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StartedRuns {
    /// One for each volume.
    #[schema(value_type = Vec<Uuid>)]
    pub commands: Vec<CommandId>,
}

/// What is wanted of a run.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunOrder {
    /// `pause | go_on | cancel`.
    pub order: String,
}

/// Asks agents to back volumes up now; 201 once that is queued. A host that is away for an hour is not asked any more.
#[utoipa::path(
    post,
    path = "/api/v1/backup-runs",
    tag = "backups",
    request_body = NewRuns,
    responses((status = 201, body = StartedRuns)),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(new): Json<NewRuns>,
) -> Result<(StatusCode, Json<StartedRuns>), Problem> {
    let commands = start(&app, &caller, &new).await?;
    Ok((StatusCode::CREATED, Json(StartedRuns { commands })))
}

/// As the API and the pages start them.
pub async fn start(app: &App, caller: &Caller, new: &NewRuns) -> Result<Vec<CommandId>, Problem> {
    let ways = [!new.volumes.is_empty(), new.host.is_some(), new.all];
    if ways.iter().filter(|is_set| **is_set).count() != 1 {
        let detail = "the body must have exactly one of volumes, host and all";
        return Err(Problem::field("", detail));
    }
    if i64::try_from(new.volumes.len()).unwrap_or(i64::MAX) > CHUNK {
        let detail = format!("must have at most {CHUNK} volumes");
        return Err(Problem::field("/volumes", detail));
    }
    let mut transaction = app.pool.begin().await?;
    let mut targets = Vec::new();
    for (index, id) in new.volumes.iter().enumerate() {
        let found = find(app, &mut transaction, *id).await;
        let pointer = format!("/volumes/{index}");
        let found = found.map_err(|_| Problem::field(pointer, "is not a volume's id"))?;
        targets.push((found.host_id, found.volume_id));
    }
    if new.volumes.is_empty() {
        let which = volume_search::Which {
            host_id: new.host,
            ..volume_search::Which::default()
        };
        let mut after: Option<Key> = None;
        loop {
            let now = app.clock.now();
            let rows =
                volume_search::list(&mut transaction, &which, now, after.take(), CHUNK).await?;
            targets.extend(rows.iter().map(|row| (row.host_id, row.volume_id)));
            let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < CHUNK);
            after = rows
                .last()
                .filter(|_| !is_last)
                .map(|row| (row.host.clone(), row.name.clone(), row.volume_id));
            if after.is_none() {
                break;
            }
        }
    }
    let mut commands = Vec::with_capacity(targets.len());
    for (host, volume) in targets {
        let wanted = Wanted {
            host: HostId(host),
            action: Action::RunBackup,
            target: Some(volume.to_string()),
        };
        commands.push(commands::insert(app, &mut transaction, &wanted, caller).await?);
    }
    transaction.commit().await?;
    Ok(commands)
}

/// Lists runs, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/backup-runs",
    tag = "backups",
    params(BackupRunsQuery),
    responses((status = 200, body = Page<RunRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<BackupRunsQuery>,
) -> Result<Json<Page<RunRow>>, Problem> {
    rows(&app, &query).await.map(Json)
}

/// As the API and the pages list them.
pub async fn rows(app: &App, query: &BackupRunsQuery) -> Result<Page<RunRow>, Problem> {
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
        (row.started_at.unix_timestamp_nanos(), row.run_id)
    });
    Ok(page)
}

/// A run.
#[utoipa::path(
    get,
    path = "/api/v1/backup-runs/{id}",
    tag = "backups",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = RunRow)),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
) -> Result<Json<RunRow>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let found = store::find(&mut connection, id).await?;
    found
        .map(Json)
        .ok_or_else(|| Problem::missing("backup run", id))
}

/// Pauses a run, lets it go on, or cancels it. Its agent hears of it within a second; 409 where it has ended.
#[utoipa::path(
    post,
    path = "/api/v1/backup-runs/{id}/orders",
    tag = "backups",
    params(("id" = Uuid, Path)),
    request_body = RunOrder,
    responses((status = 200, body = RunRow)),
)]
pub async fn order(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Json(body): Json<RunOrder>,
) -> Result<Json<RunRow>, Problem> {
    give(&app, &caller, id, &body.order).await.map(Json)
}

/// As the API and the pages give it.
pub async fn give(app: &App, caller: &Caller, id: Uuid, order: &str) -> Result<RunRow, Problem> {
    const ORDERS: [&str; 3] = ["pause", "go_on", "cancel"];
    if !ORDERS.contains(&order) {
        let detail = format!("must be one of {}", ORDERS.join(", "));
        return Err(Problem::field("/order", detail));
    }
    let mut transaction = app.pool.begin().await?;
    let before = store::find(&mut transaction, id).await?;
    let before = before.ok_or_else(|| Problem::missing("backup run", id))?;
    if store::update_orders(&mut transaction, id, order).await? == 0 {
        return Err(Problem::conflict("run_ended", "the run has ended"));
    }
    let change = Change::new("backup_run.order", "backup_run", id);
    let change = change
        .before(json!({"order": before.orders}))
        .after(json!({"order": order}));
    audit::record(&mut transaction, &caller.actor(), change, app.clock.now()).await?;
    let after = store::find(&mut transaction, id).await?;
    transaction.commit().await?;
    after.ok_or_else(|| Problem::missing("backup run", id))
}
