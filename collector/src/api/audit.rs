//! `GET /api/v1/audit`: who changed what, newest first; in pages, or whole as NDJSON or CSV. And whether the log is
//! what was written: `POST /api/v1/audit/verify`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::api::export::{Export, Format};
use crate::api::input::{Json, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::verify::{self, Bounds};
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::store::audit_log::{self, Entry, Filter};

/// Waited for while the log is verified for somebody else.
const TURN: Duration = Duration::from_secs(5);
/// What a person waits for.
const BOUNDS: Bounds = Bounds {
    rows: 100_000,
    time: Duration::from_secs(10),
};
/// Of the CSV.
const COLUMNS: [&str; 13] = [
    "id",
    "at",
    "actor_kind",
    "actor_name",
    "actor_id",
    "actor_address",
    "request_id",
    "action",
    "subject_kind",
    "subject_id",
    "before",
    "after",
    "seal",
];

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
    /// `ndjson`: everything that matches, an object a line. `csv`: likewise, a row a line.
    #[param(inline)]
    pub format: Option<Format>,
    /// Rows of a page; 50 where it is not said.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl AuditQuery {
    fn filter(&self) -> Filter {
        Filter {
            actor: self.actor.clone(),
            action: self.action.clone(),
            subject_kind: self.subject_kind.clone(),
            subject_id: self.subject_id.clone(),
            request_id: self.request_id.clone(),
            from: self.from,
            to: self.to,
        }
    }

    fn after(&self) -> Result<Option<(OffsetDateTime, i64)>, Problem> {
        let after: Option<(i128, i64)> = page::cursor(self.cursor.as_deref())?;
        Ok(page::by_time(after))
    }
}

/// Who changed what, newest first. `total` counts up to 100,000.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    tag = "audit",
    params(AuditQuery),
    responses((status = 200, content(
        (Page<Entry> = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
    ))),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<AuditQuery>,
) -> Result<Response, Problem> {
    match query.format {
        Some(Format::Ndjson) => Ok(export(app, query.filter(), query.after()?, Format::Ndjson)),
        Some(Format::Csv) => Ok(export(app, query.filter(), query.after()?, Format::Csv)),
        Some(Format::Json) | None => Ok(Json(rows(&app, &query).await?).into_response()),
    }
}

/// A page of the log, for pages too.
pub async fn rows(app: &App, query: &AuditQuery) -> Result<Page<Entry>, Problem> {
    let limit = page::limit(query.limit)?;
    let (filter, after) = (query.filter(), query.after()?);
    let mut connection = app.pool.acquire().await?;
    let rows = audit_log::list(&mut connection, &filter, after, limit).await?;
    let total = audit_log::count(&mut connection, &filter).await?;
    let page = page::page(rows, total, limit, |row| {
        (row.at.unix_timestamp_nanos(), row.audit_id)
    });
    Ok(page.0)
}

/// An export is as long as the log.
const EXPORT: Export<Entry, (OffsetDateTime, i64)> = Export {
    name: "audit",
    columns: &COLUMNS,
    rows: 500,
    key: |last| (last.at, last.audit_id),
};

fn export(
    app: Arc<App>,
    filter: Filter,
    after: Option<(OffsetDateTime, i64)>,
    format: Format,
) -> Response {
    let asked = Arc::new((app, filter));
    EXPORT.begin(format, after, move |after, limit| {
        let asked = Arc::clone(&asked);
        async move {
            let (app, filter) = &*asked;
            let mut connection = app.pool.acquire().await?;
            Ok(audit_log::list(&mut connection, filter, after, limit).await?)
        }
    })
}

/// What came of a verification.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Verified {
    /// Nothing that was read is other than it was written.
    pub is_whole: bool,
    /// The first that is wrong, in words.
    pub finding: Option<String>,
    /// Rows that are as they were sealed.
    pub rows: i64,
    /// The checkpoint after which the reading began: rows up to it were not read; 0: all were.
    pub after_seq: i64,
    /// There was no time to read to the end.
    pub is_cut: bool,
    /// Checkpoints that agree.
    pub checkpoints: u64,
    pub last_checkpoint_seq: Option<i64>,
    /// Rows that wait for their seal.
    pub not_sealed: i64,
}

/// Verifies the end of the log: about the last 100,000 rows, for at most 10 s. The command `audit verify` reads all.
#[utoipa::path(
    post,
    path = "/api/v1/audit/verify",
    tag = "audit",
    responses((status = 200, body = Verified)),
)]
pub async fn verify(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Verified>, Problem> {
    verified(&app, &caller).await.map(Json)
}

/// Verifies, for pages too; one at a time.
pub async fn verified(app: &App, caller: &Caller) -> Result<Verified, Problem> {
    let Ok(Ok(_turn)) = tokio::time::timeout(TURN, app.verifying.acquire()).await else {
        return Err(Problem::unavailable(
            "the log is being verified just now; try again",
        ));
    };
    let ca = app.ca.load();
    let report = verify::verify_end(&app.pool, &app.blob, &ca, BOUNDS).await;
    let report = report.map_err(|error| {
        let problem = Problem::unavailable("the log cannot be read; the collector's log says why");
        let error = anyhow::Error::from(error);
        tracing::error!(error = format!("{error:#}"), request_id = %problem.request_id, "cannot verify the audit log");
        problem
    })?;
    let verified = Verified {
        is_whole: report.finding.is_none(),
        finding: report.finding.as_ref().map(ToString::to_string),
        rows: report.rows,
        after_seq: report.after_seq,
        is_cut: report.is_cut,
        checkpoints: report.checkpoints,
        last_checkpoint_seq: report.last_checkpoint.as_ref().map(|last| last.seq),
        not_sealed: report.pending,
    };
    let change = Change::new("audit.verify", "audit_log", "end").after(json!(verified));
    let mut connection = app.pool.acquire().await?;
    audit::record(&mut connection, &caller.actor(), change, app.clock.now()).await?;
    Ok(verified)
}
