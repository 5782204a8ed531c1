//! `/api/v1/hosts`: hosts with their state, and what each of them reported.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use infratrack_shared::ids::HostId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::serde::rfc3339;
use uuid::Uuid;

use crate::api::auth::Caller;
use crate::api::page::{self, Page, PageQuery};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::events::EventRow;
use crate::store::facts::FactRow;
use crate::store::gaps::GapRow;
use crate::store::heartbeats::HeartbeatRow;
use crate::store::hosts::{Filter, HostRow};
use crate::store::{self, agent_certs};

/// A host as programs see it.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    pub id: Uuid,
    pub name: String,
    /// `healthy | degraded | unhealthy | unknown`.
    pub status: String,
    /// Why, in words.
    pub reasons: Vec<String>,
    /// `online | late | offline | never`.
    pub liveness: String,
    pub liveness_reason: Option<String>,
    #[serde(with = "rfc3339::option")]
    pub last_seen_at: Option<OffsetDateTime>,
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    pub machine_id: Option<String>,
    pub tags: Vec<String>,
    pub agent_version: Option<String>,
    /// The host's clock less the collector's.
    pub skew_ms: Option<i64>,
    pub cpu_ratio: Option<f32>,
    pub memory_used_ratio: Option<f32>,
    pub disk_used_ratio: Option<f32>,
    pub failed_unit_count: Option<i32>,
    pub reboot_required: Option<bool>,
    pub spool_records: Option<i64>,
    #[serde(with = "rfc3339::option")]
    pub certificate_not_after: Option<OffsetDateTime>,
}

impl From<HostRow> for Host {
    fn from(row: HostRow) -> Self {
        Self {
            id: row.host_id,
            reasons: row.reasons.iter().map(|code| reason(code, &row)).collect(),
            name: row.name,
            status: row.status,
            liveness: row.liveness,
            liveness_reason: row.liveness_reason,
            last_seen_at: row.last_seen_at,
            created_at: row.created_at,
            machine_id: row.machine_id,
            tags: row.tags,
            agent_version: row.agent_version,
            skew_ms: row.skew_ms,
            cpu_ratio: row.cpu_ratio,
            memory_used_ratio: row.memory_used_ratio,
            disk_used_ratio: row.disk_used_ratio,
            failed_unit_count: row.failed_unit_count,
            reboot_required: row.reboot_required,
            spool_records: row.spool_records,
            certificate_not_after: row.cert_not_after,
        }
    }
}

/// The words for a reason that `host_reasons` in the database gave.
fn reason(code: &str, row: &HostRow) -> String {
    let percent = |ratio: Option<f32>| ratio.unwrap_or_default() * 100.0;
    match code {
        "offline" | "late" => match &row.liveness_reason {
            Some(why) if row.liveness == code => format!("{code}: {why}"),
            _ => code.to_owned(),
        },
        "identity_conflict" => "two machines report as this host (cloned disk?)".to_owned(),
        "disk_critical" | "disk_warning" => {
            format!("a filesystem is {:.0} % full", percent(row.disk_used_ratio))
        }
        "failed_units" => format!(
            "{} systemd units failed",
            row.failed_unit_count.unwrap_or_default()
        ),
        "reboot_required" => "a reboot has been required for over 7 days".to_owned(),
        "clock_skew" => {
            format!(
                "the clock is off by {} s",
                row.skew_ms.unwrap_or_default() / 1000
            )
        }
        "certificate_expiring" => "the certificate expires in less than 10 days".to_owned(),
        other => other.to_owned(),
    }
}

/// The parameters of the list of hosts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostsQuery {
    pub status: Option<String>,
    pub liveness: Option<String>,
    pub q: Option<String>,
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

impl HostsQuery {
    /// The filter, if its words exist.
    pub fn filter(&self) -> Result<Filter, Problem> {
        one_of(
            "status",
            self.status.as_deref(),
            &["healthy", "degraded", "unhealthy", "unknown"],
        )?;
        one_of(
            "liveness",
            self.liveness.as_deref(),
            &["online", "late", "offline", "never"],
        )?;
        Ok(Filter {
            status: self.status.clone(),
            liveness: self.liveness.clone(),
            q: self.q.clone(),
        })
    }
}

fn one_of(name: &str, value: Option<&str>, words: &[&str]) -> Result<(), Problem> {
    match value {
        Some(value) if !words.contains(&value) => Err(Problem::invalid(format!(
            "{name} must be one of {}",
            words.join(", ")
        ))),
        _ => Ok(()),
    }
}

/// `GET /api/v1/hosts`.
pub async fn list(
    State(app): State<Arc<App>>,
    query: Result<Query<HostsQuery>, QueryRejection>,
) -> Result<Json<Page<Host>>, Problem> {
    let Query(query) = query?;
    let limit = page::limit(query.limit)?;
    let asked = store::hosts::Page {
        filter: query.filter()?,
        host: None,
        after: page::cursor(query.cursor.as_deref())?,
        limit,
    };
    let mut connection = app.pool.acquire().await?;
    let cutoffs = app.silence.cutoffs(app.clock.now());
    let rows = store::hosts::list(&mut connection, &asked, cutoffs).await?;
    let total = rows.first().map_or(0, |row| row.total);
    let hosts: Vec<Host> = rows.into_iter().map(Host::from).collect();
    Ok(page::page(hosts, total, limit, |host| {
        (host.name.clone(), host.id)
    }))
}

/// `GET /api/v1/hosts/{id}`.
pub async fn get(
    State(app): State<Arc<App>>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Json<Host>, Problem> {
    find(&app, HostId(id?.0)).await.map(Json)
}

/// The host with this id, or 404.
pub async fn find(app: &App, id: HostId) -> Result<Host, Problem> {
    let asked = store::hosts::Page {
        filter: Filter::default(),
        host: Some(id),
        after: None,
        limit: 1,
    };
    let mut connection = app.pool.acquire().await?;
    let cutoffs = app.silence.cutoffs(app.clock.now());
    let row = store::hosts::list(&mut connection, &asked, cutoffs)
        .await?
        .pop();
    row.map(Host::from)
        .ok_or_else(|| Problem::missing("host", id))
}

/// `GET /api/v1/hosts/{id}/heartbeats`: raw, newest first.
pub async fn heartbeats(
    State(app): State<Arc<App>>,
    id: Result<Path<Uuid>, PathRejection>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Page<HeartbeatRow>>, Problem> {
    let (id, query) = (HostId(id?.0), query?.0);
    let limit = page::limit(query.limit)?;
    let before: Option<i128> = page::cursor(query.cursor.as_deref())?;
    let before = before.and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok());
    find(&app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let rows = store::heartbeats::list(&mut connection, id, before, limit).await?;
    let total = store::heartbeats::count(&mut connection, id).await?;
    Ok(page::page(rows, total, limit, |row| {
        row.at.unix_timestamp_nanos()
    }))
}

/// `GET /api/v1/hosts/{id}/facts`.
pub async fn facts(
    State(app): State<Arc<App>>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Json<Page<FactRow>>, Problem> {
    let id = HostId(id?.0);
    find(&app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let items = store::facts::list(&mut connection, id).await?;
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(Json(Page {
        items,
        total,
        next_cursor: None,
    }))
}

/// `GET /api/v1/hosts/{id}/events`: newest first.
pub async fn events(
    State(app): State<Arc<App>>,
    id: Result<Path<Uuid>, PathRejection>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Page<EventRow>>, Problem> {
    let (id, query) = (HostId(id?.0), query?.0);
    let limit = page::limit(query.limit)?;
    let before: Option<(i128, i64)> = page::cursor(query.cursor.as_deref())?;
    let before = before.and_then(|(nanos, event)| {
        Some((
            OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?,
            event,
        ))
    });
    find(&app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let rows = store::events::list(&mut connection, id, before, limit).await?;
    let total = store::events::count(&mut connection, id).await?;
    Ok(page::page(rows, total, limit, |row| {
        (row.at.unix_timestamp_nanos(), row.event_id)
    }))
}

/// `GET /api/v1/hosts/{id}/gaps`: what will never come, newest first; at most 500.
pub async fn gaps(
    State(app): State<Arc<App>>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Json<Page<GapRow>>, Problem> {
    let id = HostId(id?.0);
    find(&app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let items = store::gaps::list(&mut connection, id, 500).await?;
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(Json(Page {
        items,
        total,
        next_cursor: None,
    }))
}

/// How many certificates were revoked.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Revoked {
    pub revoked: u64,
}

/// `POST /api/v1/hosts/{id}/revoke`: every certificate of the host; every collector acts within 5 s.
pub async fn revoke(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Json<Revoked>, Problem> {
    let id = HostId(id?.0);
    find(&app, id).await?;
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let revoked = agent_certs::revoke(
        &mut transaction,
        id,
        &caller.name,
        "revoked by an operator",
        now,
    )
    .await?;
    agent_certs::notify_revoked(&mut transaction).await?;
    transaction.commit().await?;
    tracing::info!(host = %id, by = caller.name, revoked, "certificates revoked");
    Ok(Json(Revoked { revoked }))
}
