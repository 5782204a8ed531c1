//! `/api/v1/hosts`: hosts with their state, what each of them reported, and what operators say of them.

pub mod bulk;
pub mod edit;
pub mod export;
pub mod facts;
pub mod fields;
pub mod list;
pub mod metrics;
pub mod query;
pub mod reported;
pub mod retire;
pub mod rules;
pub mod timeline;
pub mod what_changed;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use infratrack_shared::ids::HostId;
use serde::Serialize;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::input::{Path, Query};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store;
use crate::store::hosts::list::HostRow;
use fields::{Fields, HostQuery};

/// A host as programs see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Host {
    pub id: Uuid,
    pub name: String,
    /// `healthy | degraded | unhealthy | unknown`.
    pub status: String,
    /// Why, in words.
    pub reasons: Vec<String>,
    /// Why, as stable words to filter by.
    pub reason_codes: Vec<String>,
    /// `online | late | offline | never`.
    pub liveness: String,
    pub liveness_reason: Option<String>,
    #[serde(with = "rfc3339::option")]
    pub last_seen_at: Option<OffsetDateTime>,
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    pub machine_id: Option<String>,
    pub tags: Vec<String>,
    pub owner: Option<String>,
    pub environment: Option<String>,
    pub addresses: Vec<String>,
    /// The cloud's.
    pub instance_id: Option<String>,
    /// As in os-release: `debian`.
    pub os_id: Option<String>,
    pub os_name: Option<String>,
    /// `agent | manual | inventory`.
    pub origin: String,
    /// What an operator set by hand, which neither the host nor an inventory overwrites.
    pub edited: Vec<String>,
    /// Of what operators edit; the `ETag` has it too.
    pub version: i64,
    /// When an operator last edited it.
    #[serde(with = "rfc3339::option")]
    pub updated_at: Option<OffsetDateTime>,
    #[serde(with = "rfc3339::option")]
    pub retired_at: Option<OffsetDateTime>,
    /// Since when its inventory no longer lists it.
    #[serde(with = "rfc3339::option")]
    pub missing_since: Option<OffsetDateTime>,
    /// The host that it was another row of.
    pub merged_into: Option<Uuid>,
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
            reason_codes: row.reasons,
            name: row.name,
            status: row.status,
            liveness: row.liveness,
            liveness_reason: row.liveness_reason,
            last_seen_at: row.last_seen_at,
            created_at: row.created_at,
            machine_id: row.machine_id,
            tags: row.tags,
            owner: row.owner,
            environment: row.environment,
            addresses: row.addresses,
            instance_id: row.instance_id,
            os_id: row.os_id,
            os_name: row.os_name,
            origin: row.origin,
            edited: row.edited,
            version: row.version,
            updated_at: row.updated_at,
            retired_at: row.retired_at,
            missing_since: row.missing_since,
            merged_into: row.merged_into,
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

/// What `host_reasons` in the database gives.
pub const REASONS: [&str; 11] = [
    "offline",
    "identity_conflict",
    "disk_critical",
    "late",
    "unprobed",
    "disk_warning",
    "failed_units",
    "reboot_required",
    "security_overdue",
    "clock_skew",
    "certificate_expiring",
];

/// The words for a reason that `host_reasons` in the database gave.
fn reason(code: &str, row: &HostRow) -> String {
    let percent = |ratio: Option<f32>| ratio.unwrap_or_default() * 100.0;
    match code {
        "offline" | "late" => match &row.liveness_reason {
            Some(why) if row.liveness == code => silence(code, why),
            _ => code.to_owned(),
        },
        "unprobed" => "it has no agent, and is not probed any more".to_owned(),
        "identity_conflict" => "two machines report as this host (cloned disk?)".to_owned(),
        "disk_critical" | "disk_warning" => {
            format!("a filesystem is {:.0} % full", percent(row.disk_used_ratio))
        }
        "failed_units" => match row.failed_unit_count.unwrap_or_default() {
            1 => "a systemd unit failed".to_owned(),
            count => format!("{count} systemd units failed"),
        },
        "reboot_required" => "a reboot has been required for over 7 days".to_owned(),
        "security_overdue" => "a security update is overdue".to_owned(),
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

/// How silent a host is, and why.
pub fn silence(liveness: &str, why: &str) -> String {
    match why {
        "unknown" => format!("{liveness}, why is not known"),
        why => format!("{liveness}: {why}"),
    }
}

/// One host, with what lists leave out.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostDetail {
    #[serde(flatten)]
    pub host: Host,
    /// Markdown.
    pub notes: Option<String>,
}

/// One host with all that is known of it. The `ETag` is of what operators edit, not of what the host reports.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}",
    tag = "hosts",
    params(("id" = Uuid, Path), HostQuery),
    responses((status = 200, body = HostDetail, headers(("ETag" = String)))),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<HostQuery>,
) -> Result<Response, Problem> {
    let fields = Fields::parse(query.fields.as_deref(), fields::of_detail)?;
    let detail = detail(&app, HostId(id)).await?;
    Ok(tagged(&detail, fields.json(&detail)))
}

/// An answer with the `ETag` of what it shows.
pub fn tagged(detail: &HostDetail, answer: impl IntoResponse) -> Response {
    ([(header::ETAG, etag(detail.host.version))], answer).into_response()
}

/// The host with this id and its notes, or 404.
pub async fn detail(app: &App, id: HostId) -> Result<HostDetail, Problem> {
    let host = find(app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let notes = store::hosts::edit::find_notes(&mut connection, id).await?;
    Ok(HostDetail { host, notes })
}

/// The host with this id, or 404.
pub async fn find(app: &App, id: HostId) -> Result<Host, Problem> {
    let mut connection = app.pool.acquire().await?;
    let cutoffs = app.silence.cutoffs(app.clock.now());
    let row = store::hosts::list::find(&mut connection, id, cutoffs).await?;
    row.map(Host::from)
        .ok_or_else(|| Problem::missing("host", id))
}

/// The `ETag` of a version: of what operators edit, not of what agents report.
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}
