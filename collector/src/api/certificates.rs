//! `/api/v1/certificates`: what hosts prove who they are with.

use std::sync::Arc;

use axum::extract::{Extension, State};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::store::agent_certs::{self, CertificateFilter, CertificateRow};

/// A reason at most.
const REASON_CHARS: usize = 200;

/// The parameters of the list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CertificatesQuery {
    pub host_id: Option<Uuid>,
    /// `valid | expiring | expired | revoked`, `expiring` being valid for at most two weeks; all where it is not said.
    pub state: Option<String>,
    /// A part of the host's name.
    pub q: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// Lists certificates that were issued, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/certificates",
    tag = "certificates",
    params(CertificatesQuery),
    responses((status = 200, body = Page<CertificateRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<CertificatesQuery>,
) -> Result<Json<Page<CertificateRow>>, Problem> {
    rows(&app, query).await.map(Json)
}

/// A page of certificates, for pages too.
pub async fn rows(app: &App, query: CertificatesQuery) -> Result<Page<CertificateRow>, Problem> {
    let limit = page::limit(query.limit)?;
    input::one_of(
        "state",
        query.state.as_deref(),
        &["valid", "expiring", "expired", "revoked"],
    )?;
    let before: Option<(i128, String)> = page::cursor(query.cursor.as_deref())?;
    let filter = CertificateFilter {
        host_id: query.host_id,
        state: query.state,
        host_name: query.q,
        serial: None,
        now: app.clock.now(),
    };
    let before = before.and_then(|(nanos, serial)| {
        Some((
            OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?,
            hex::decode(serial).ok()?,
        ))
    });
    let mut connection = app.pool.acquire().await?;
    let rows = agent_certs::list(&mut connection, &filter, before, limit).await?;
    let total = agent_certs::count(&mut connection, &filter).await?;
    let page = page::page(rows, total, limit, |row| {
        (row.issued_at.unix_timestamp_nanos(), row.serial.clone())
    });
    Ok(page.0)
}

/// Why a certificate is revoked.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct RevokeQuery {
    /// In words, for those who ask later; up to 200 characters.
    pub reason: Option<String>,
}

/// Revokes one certificate; every collector acts within 5 s.
#[utoipa::path(
    post,
    path = "/api/v1/certificates/{serial}/revoke",
    tag = "certificates",
    params(("serial" = String, Path), RevokeQuery),
    responses((status = 200, body = CertificateRow)),
)]
pub async fn revoke(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(serial): Path<String>,
    Query(query): Query<RevokeQuery>,
) -> Result<Json<CertificateRow>, Problem> {
    let reason = query.reason.as_deref();
    revoke_one(&app, &caller, &serial, reason).await.map(Json)
}

/// Revokes a certificate, for pages too.
pub async fn revoke_one(
    app: &App,
    caller: &Caller,
    serial: &str,
    reason: Option<&str>,
) -> Result<CertificateRow, Problem> {
    let missing = || Problem::missing("certificate", serial);
    let bytes = hex::decode(serial).map_err(|_| missing())?;
    let reason = match reason.map(str::trim).filter(|reason| !reason.is_empty()) {
        Some(reason) => input::text("/reason", reason, 1..=REASON_CHARS)?,
        None => "revoked by an operator".to_owned(),
    };
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let revoked =
        agent_certs::revoke_one(&mut transaction, &bytes, &caller.name, &reason, now).await?;
    let filter = CertificateFilter {
        host_id: None,
        state: None,
        host_name: None,
        serial: Some(bytes),
        now,
    };
    let rows = agent_certs::list(&mut transaction, &filter, None, 1).await?;
    let row = rows.into_iter().next().ok_or_else(missing)?;
    if revoked == 0 {
        return Err(Problem::conflict(
            "revoked",
            "the certificate was revoked before",
        ));
    }
    agent_certs::notify_revoked(&mut transaction).await?;
    let change = Change::new("certificate.revoke", "host", row.host_id)
        .after(json!({"serial": row.serial, "reason": reason}));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(row)
}
