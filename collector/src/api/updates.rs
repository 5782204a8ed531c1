//! `/api/v1/updates` and `/api/v1/advisories`: what there is to install, on which hosts, and by when.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use infratrack_shared::ids::HostId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::advisories;
use crate::api::export::{Export, Format, is_whole};
use crate::api::hosts::find;
use crate::api::input::{self, Json, Path, Query};
use crate::api::packages::text;
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::exposure::{self, DayRow, TimeToPatch};
use crate::store::host_states;
use crate::store::update_search::{
    self as store, AdvisoryRow, HostRow, PackageRow, Place, UpdateRow, Which, WhichHosts,
};

const SEVERITIES: [&str; 7] = [
    "critical",
    "important",
    "high",
    "moderate",
    "medium",
    "low",
    "unrated",
];
/// What hosts can be asked for by.
pub const STATES: [&str; 5] = ["security", "overdue", "updates", "reboot", "unknown"];
/// The trend goes back so far.
const TREND: Duration = Duration::days(90);

/// Rows of an export that are read at a time where each time sums up the fleet.
const EXPORT_ROWS: i64 = 5000;
const UPDATES: Export<UpdateRow, Place> = Export {
    name: "updates",
    columns: &[
        "host_id",
        "host_name",
        "manager",
        "name",
        "arch",
        "installed",
        "candidate",
        "source",
        "repository",
        "is_security",
        "severity",
        "advisories",
        "cves",
        "blocked_why",
        "blocked_detail",
        "first_seen_at",
        "security_since",
        "due_at",
    ],
    rows: 500,
    key: |row| {
        let id = format!("{}{}:{}", row.host_id, row.manager, row.arch);
        (row.due_at, row.name.clone(), id)
    },
};
const PACKAGES: Export<PackageRow, Place> = Export {
    name: "packages-to-update",
    columns: &[
        "manager",
        "name",
        "host_count",
        "security_host_count",
        "overdue_host_count",
        "blocked_host_count",
        "advisories",
        "security_since",
        "due_at",
    ],
    rows: EXPORT_ROWS,
    key: |row| (row.due_at, row.name.clone(), row.manager.clone()),
};
const ADVISORIES: Export<AdvisoryRow, Place> = Export {
    name: "advisories",
    columns: &[
        "id",
        "severity",
        "host_count",
        "overdue_host_count",
        "packages",
        "security_since",
        "due_at",
    ],
    rows: EXPORT_ROWS,
    key: |row| (row.due_at, row.id.clone(), row.id.clone()),
};
const HOSTS: Export<HostRow, Place> = Export {
    name: "patches",
    columns: &[
        "host_id",
        "host_name",
        "unknown",
        "metadata_at",
        "checked_at",
        "update_count",
        "security_count",
        "blocked_count",
        "security_since",
        "due_at",
        "reboot_required",
        "reboot_required_since",
    ],
    rows: EXPORT_ROWS,
    key: |row| {
        let id = row.host_id.to_string();
        (row.due_at, row.host_name.clone(), id)
    },
};

/// Which updates.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct UpdatesQuery {
    /// The beginning of a package's name.
    pub q: Option<String>,
    /// The package's whole name.
    pub name: Option<String>,
    /// Those that mend a vulnerability, or those of which nothing says so.
    pub security: Option<bool>,
    /// `critical | important | high | moderate | medium | low`, or `unrated` for security updates without any.
    pub severity: Option<String>,
    /// This advisory comes with it.
    pub advisory: Option<String>,
    /// Something keeps it from being installed, or nothing does.
    pub blocked: Option<bool>,
    /// Those that should have been installed by now.
    #[serde(default)]
    pub overdue: bool,
    /// On hosts with this tag.
    pub tag: Option<String>,
    pub host_id: Option<Uuid>,
    /// `csv` or `ndjson`: everything that matches; what changes while it is written may come twice or not at all.
    #[param(inline)]
    pub format: Option<Format>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// Which hosts.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct PatchHostsQuery {
    /// `security | overdue | updates | reboot | unknown`; all hosts where it is not said.
    pub state: Option<String>,
    /// With this tag.
    pub tag: Option<String>,
    /// `csv` or `ndjson`: everything that matches; what changes while it is written may come twice or not at all.
    #[param(inline)]
    pub format: Option<Format>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// How the fleet stands, and stood.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UpdatesSummary {
    /// By the day (UTC), of the last ninety; today's is not over.
    pub days: Vec<DayRow>,
    /// Of the security updates that were installed in the last ninety days.
    pub time_to_patch: TimeToPatch,
}

/// A page of what there is to install on a host.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostUpdates {
    pub items: Vec<UpdateRow>,
    pub total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
    /// Who was asked: `manager`, `tool`, `unknown` with the reason where what is listed is what was known before,
    /// `metadata_at_s` the age of its lists, `warnings`. Null: nothing was reported yet.
    #[schema(value_type = Option<Vec<Object>>)]
    pub checks: Option<Value>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub reported_at: Option<OffsetDateTime>,
}

/// Lists updates that are pending, those first that are due first.
#[utoipa::path(
    get,
    path = "/api/v1/updates",
    tag = "packages",
    params(UpdatesQuery),
    responses((status = 200, content(
        (Page<UpdateRow> = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
    ))),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<UpdatesQuery>,
) -> Result<Response, Problem> {
    let Some(format) = whole(query.format) else {
        return Ok(Json(pending(&app, &query).await?).into_response());
    };
    is_whole(query.limit, query.cursor.as_deref())?;
    let (_, which, after) = asked(&app, &query)?;
    let asked = Arc::new((app, which));
    Ok(UPDATES.begin(format, after, move |after, limit| {
        let asked = Arc::clone(&asked);
        async move {
            let (app, which) = &*asked;
            let mut connection = app.pool.acquire().await?;
            let mut rows = store::list(&mut connection, which, after, limit).await?;
            drop(connection);
            let named = advisories::name_mended(app, &mut rows).await;
            named.map_err(|problem| anyhow::anyhow!(problem.detail.unwrap_or_default()))?;
            Ok(rows)
        }
    }))
}

/// As the API and the pages list them.
pub async fn pending(app: &App, query: &UpdatesQuery) -> Result<Page<UpdateRow>, Problem> {
    let (limit, which, after) = asked(app, query)?;
    let mut connection = app.pool.acquire().await?;
    let mut rows = store::list(&mut connection, &which, after, limit).await?;
    let total = store::count(&mut connection, &which).await?;
    drop(connection);
    advisories::name_mended(app, &mut rows).await?;
    Ok(paged(rows, total, limit, UPDATES.key))
}

/// Lists the packages that are to be updated anywhere, those first that are due first.
#[utoipa::path(
    get,
    path = "/api/v1/updates/packages",
    tag = "packages",
    params(UpdatesQuery),
    responses((status = 200, content(
        (Page<PackageRow> = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
    ))),
)]
pub async fn packages(
    State(app): State<Arc<App>>,
    Query(query): Query<UpdatesQuery>,
) -> Result<Response, Problem> {
    let Some(format) = whole(query.format) else {
        return Ok(Json(by_package(&app, &query).await?).into_response());
    };
    is_whole(query.limit, query.cursor.as_deref())?;
    let (_, which, after) = asked(&app, &query)?;
    let asked = Arc::new((app, which));
    Ok(PACKAGES.begin(format, after, move |after, limit| {
        let asked = Arc::clone(&asked);
        async move {
            let (app, which) = &*asked;
            let mut connection = app.pool.acquire().await?;
            let now = app.clock.now();
            Ok(
                store::list_packages(&mut connection, which, now, after, limit)
                    .await?
                    .0,
            )
        }
    }))
}

/// As the API and the pages list them.
pub async fn by_package(app: &App, query: &UpdatesQuery) -> Result<Page<PackageRow>, Problem> {
    let (limit, which, after) = asked(app, query)?;
    let now = app.clock.now();
    let mut connection = app.pool.acquire().await?;
    let (rows, total) = store::list_packages(&mut connection, &which, now, after, limit).await?;
    let total = match total {
        Some(total) => total,
        None => store::count_packages(&mut connection, &which).await?,
    };
    Ok(paged(rows, total, limit, PACKAGES.key))
}

/// Lists the advisories of which an update is pending anywhere, those first that are due first.
#[utoipa::path(
    get,
    path = "/api/v1/advisories",
    tag = "packages",
    params(UpdatesQuery),
    responses((status = 200, content(
        (Page<AdvisoryRow> = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
    ))),
)]
pub async fn advisories(
    State(app): State<Arc<App>>,
    Query(query): Query<UpdatesQuery>,
) -> Result<Response, Problem> {
    let Some(format) = whole(query.format) else {
        return Ok(Json(by_advisory(&app, &query).await?).into_response());
    };
    is_whole(query.limit, query.cursor.as_deref())?;
    let (_, which, after) = asked(&app, &query)?;
    let asked = Arc::new((app, which));
    Ok(ADVISORIES.begin(format, after, move |after, limit| {
        let asked = Arc::clone(&asked);
        async move {
            let (app, which) = &*asked;
            let mut connection = app.pool.acquire().await?;
            let now = app.clock.now();
            Ok(
                store::list_advisories(&mut connection, which, now, after, limit)
                    .await?
                    .0,
            )
        }
    }))
}

/// As the API and the pages list them.
pub async fn by_advisory(app: &App, query: &UpdatesQuery) -> Result<Page<AdvisoryRow>, Problem> {
    let (limit, which, after) = asked(app, query)?;
    let now = app.clock.now();
    let mut connection = app.pool.acquire().await?;
    let (rows, total) = store::list_advisories(&mut connection, &which, now, after, limit).await?;
    let total = match total {
        Some(total) => total,
        None => store::count_advisories(&mut connection, &which).await?,
    };
    Ok(paged(rows, total, limit, ADVISORIES.key))
}

/// Lists hosts by how they stand, those first that are due first.
#[utoipa::path(
    get,
    path = "/api/v1/updates/hosts",
    tag = "packages",
    params(PatchHostsQuery),
    responses((status = 200, content(
        (Page<HostRow> = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
    ))),
)]
pub async fn hosts(
    State(app): State<Arc<App>>,
    Query(query): Query<PatchHostsQuery>,
) -> Result<Response, Problem> {
    let Some(format) = whole(query.format) else {
        return Ok(Json(by_host(&app, &query).await?).into_response());
    };
    is_whole(query.limit, query.cursor.as_deref())?;
    let (_, which, after) = asked_hosts(&query)?;
    let asked = Arc::new((app, which));
    Ok(HOSTS.begin(format, after, move |after, limit| {
        let asked = Arc::clone(&asked);
        async move {
            let (app, which) = &*asked;
            let mut connection = app.pool.acquire().await?;
            let now = app.clock.now();
            Ok(store::list_hosts(&mut connection, which, now, after, limit).await?)
        }
    }))
}

/// As the API and the pages list them.
pub async fn by_host(app: &App, query: &PatchHostsQuery) -> Result<Page<HostRow>, Problem> {
    let (limit, which, after) = asked_hosts(query)?;
    let now = app.clock.now();
    let mut connection = app.pool.acquire().await?;
    let rows = store::list_hosts(&mut connection, &which, now, after, limit).await?;
    let total = store::count_hosts(&mut connection, &which, now).await?;
    Ok(paged(rows, total, limit, HOSTS.key))
}

/// How many security updates are open in the fleet by the day, and how long they take.
#[utoipa::path(
    get,
    path = "/api/v1/updates/summary",
    tag = "packages",
    responses((status = 200, body = UpdatesSummary)),
)]
pub async fn summary(State(app): State<Arc<App>>) -> Result<Json<UpdatesSummary>, Problem> {
    trend(&app).await.map(Json)
}

/// As the API and the pages show it.
pub async fn trend(app: &App) -> Result<UpdatesSummary, Problem> {
    let since = app.clock.now() - TREND;
    let mut connection = app.pool.acquire().await?;
    Ok(UpdatesSummary {
        days: exposure::list_days(&mut connection, since.date()).await?,
        time_to_patch: exposure::time_to_patch(&mut connection, since).await?,
    })
}

/// Lists what there is to install on a host, what is due first first.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/updates",
    tag = "packages",
    params(("id" = Uuid, Path), page::PageQuery),
    responses((status = 200, body = HostUpdates)),
)]
pub async fn of_host(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<page::PageQuery>,
) -> Result<Json<HostUpdates>, Problem> {
    find(&app, HostId(id)).await?;
    on_host(&app, HostId(id), query).await.map(Json)
}

/// As the API and the pages list them.
pub async fn on_host(
    app: &App,
    id: HostId,
    query: page::PageQuery,
) -> Result<HostUpdates, Problem> {
    let query = UpdatesQuery {
        host_id: Some(id.0),
        limit: query.limit,
        cursor: query.cursor,
        ..UpdatesQuery::default()
    };
    let page = pending(app, &query).await?;
    let mut connection = app.pool.acquire().await?;
    let state = host_states::find(&mut connection, id, "updates").await?;
    let (body, reported_at) = state.unzip();
    Ok(HostUpdates {
        items: page.items,
        total: page.total,
        next_cursor: page.next_cursor,
        checks: body.and_then(|mut body: Value| Some(body.get_mut("checks")?.take())),
        reported_at,
    })
}

fn asked(app: &App, query: &UpdatesQuery) -> Result<(i64, Which, Option<Place>), Problem> {
    input::one_of("severity", query.severity.as_deref(), &SEVERITIES)?;
    let which = Which {
        host: query.host_id.map(HostId),
        prefix: text("q", query.q.as_deref())?,
        name: text("name", query.name.as_deref())?,
        is_security: query.security,
        severity: query.severity.clone(),
        advisory: text("advisory", query.advisory.as_deref())?,
        is_blocked: query.blocked,
        overdue_at: query.overdue.then(|| app.clock.now()),
        tag: text("tag", query.tag.as_deref())?,
    };
    let limit = page::limit(query.limit)?;
    Ok((limit, which, place(query.cursor.as_deref())?))
}

fn asked_hosts(query: &PatchHostsQuery) -> Result<(i64, WhichHosts, Option<Place>), Problem> {
    input::one_of("state", query.state.as_deref(), &STATES)?;
    let which = WhichHosts {
        tag: text("tag", query.tag.as_deref())?,
        state: query.state.clone(),
    };
    let limit = page::limit(query.limit)?;
    Ok((limit, which, place(query.cursor.as_deref())?))
}

/// Not a page but everything.
fn whole(format: Option<Format>) -> Option<Format> {
    format.filter(|format| *format != Format::Json)
}

/// Reads the cursor of a list by due dates: nanoseconds since the Unix epoch, name, id.
fn place(cursor: Option<&str>) -> Result<Option<Place>, Problem> {
    let key: Option<(Option<i128>, String, String)> = page::cursor(cursor)?;
    let instant = |nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    Ok(key.map(|(due_at, name, id)| (due_at.and_then(instant), name, id)))
}

fn paged<T>(rows: Vec<T>, total: i64, limit: i64, key: impl Fn(&T) -> Place) -> Page<T> {
    let Json(page) = page::page(rows, total, limit, |row| {
        let (due_at, name, id) = key(row);
        (due_at.map(OffsetDateTime::unix_timestamp_nanos), name, id)
    });
    page
}
