//! `GET /api/v1/audit`: who changed what, newest first; in pages, or whole as NDJSON.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::api::input::Query;
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::audit_log::{self, Entry, Filter};

/// Rows of an export that are read at once.
const EXPORT_ROWS: i64 = 500;

/// Which rows, and how.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct AuditQuery {
    /// The name of who did it.
    pub actor: Option<String>,
    /// `host.revoke`.
    pub action: Option<String>,
    /// `host`.
    pub subject_kind: Option<String>,
    pub subject_id: Option<String>,
    pub request_id: Option<String>,
    /// At this time or later (RFC 3339).
    #[serde(with = "time::serde::rfc3339::option")]
    pub from: Option<OffsetDateTime>,
    /// Before this time.
    #[serde(with = "time::serde::rfc3339::option")]
    pub to: Option<OffsetDateTime>,
    /// `ndjson`: everything that matches, an object a line.
    #[param(inline)]
    pub format: Option<Format>,
    /// Rows of a page; 50 where it is not said.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// How rows are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Json,
    Ndjson,
}

/// Who changed what, newest first. `total` counts up to 100,000.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    tag = "audit",
    params(AuditQuery),
    responses((status = 200, body = Page<Entry>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<AuditQuery>,
) -> Result<Response, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<(i128, i64)> = page::cursor(query.cursor.as_deref())?;
    let after = after.and_then(|(nanos, audit_id)| {
        let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
        Some((at, audit_id))
    });
    let filter = Filter {
        actor: query.actor,
        action: query.action,
        subject_kind: query.subject_kind,
        subject_id: query.subject_id,
        request_id: query.request_id,
        from: query.from,
        to: query.to,
    };
    if query.format == Some(Format::Ndjson) {
        return Ok(export(app, filter, after));
    }
    let mut connection = app.pool.acquire().await?;
    let rows = audit_log::list(&mut connection, &filter, after, limit).await?;
    let total = audit_log::count(&mut connection, &filter).await?;
    Ok(page::page(rows, total, limit, |row| {
        (row.at.unix_timestamp_nanos(), row.audit_id)
    })
    .into_response())
}

/// An export is as long as the log: it is read a page at a time, as fast as it is taken. Where the database fails,
/// the answer breaks off.
fn export(app: Arc<App>, filter: Filter, after: Option<(OffsetDateTime, i64)>) -> Response {
    let next = async move |after: Option<Option<(OffsetDateTime, i64)>>| {
        let Some(after) = after else {
            return Ok::<_, anyhow::Error>(None);
        };
        let mut connection = app.pool.acquire().await?;
        let rows = audit_log::list(&mut connection, &filter, after, EXPORT_ROWS).await?;
        drop(connection);
        let Some(last) = rows.last() else {
            return Ok(None);
        };
        let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < EXPORT_ROWS);
        let after = (!is_last).then_some(Some((last.at, last.audit_id)));
        let mut lines = Vec::new();
        for row in &rows {
            serde_json::to_writer(&mut lines, row)?;
            lines.push(b'\n');
        }
        Ok(Some((Bytes::from(lines), after)))
    };
    let next = Arc::new(next);
    let pages = stream::try_unfold(Some(after), move |after| {
        let next = Arc::clone(&next);
        async move { next(after).await }
    });
    let body = Body::from_stream(pages);
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}
