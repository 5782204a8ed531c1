//! `/api/v1/inventory`: documents that name hosts, taken over or previewed, and the ledger of those that should report.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use uuid::Uuid;

use crate::api::hosts;
use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::config::inventory::is_source_name;
use crate::inventory::documents::{DOCUMENT_BYTES, Kind};
use crate::inventory::report::SyncReport;
use crate::inventory::sources;
use crate::inventory::sync::{Options, SyncError, sync as carry_out};
use crate::store::expected_hosts::{self, After, ExpectedRow};
use crate::store::inventories::{self, InventoryRow};
use crate::store::probes::{self, ProbeRow};
use infratrack_shared::ids::HostId;

const KINDS: [&str; 3] = ["ansible", "terraform", "csv"];
const STATES: [&str; 5] = ["ok", "absent", "gone", "destroyed_reporting", "unexpected"];

/// Where the document is, and how it is taken: `from`, or `source` and `kind` with the document as the body.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a parameter of its own"
)]
pub struct SyncQuery {
    /// A source that the collector's configuration names; the body is empty.
    pub from: Option<String>,
    /// What the body's source is called.
    pub source: Option<String>,
    /// `ansible | terraform | csv`.
    pub kind: Option<String>,
    /// Only says what it would do.
    pub dry_run: bool,
    /// Also where nothing is left of a source that had hosts.
    pub allow_empty: bool,
    /// Also where more than half of a source's hosts are gone.
    pub allow_shrink: bool,
    /// Also looks up names that `ansible_host` has in place of addresses.
    pub resolve_names: bool,
}

/// Makes and changes hosts as a document says, or says what it would do.
#[utoipa::path(
    post,
    path = "/api/v1/inventory/sync",
    tag = "inventory",
    params(SyncQuery),
    request_body(
        description = "As `terraform show -json` or `ansible-inventory --list` write it, or CSV; at most 16 MiB",
        content((String = "application/json"), (String = "text/csv")),
    ),
    responses(
        (status = 200, body = SyncReport),
        (status = 409, body = Problem, description = "`inventory_empty`, `inventory_shrunk`, `inventory_kind`"),
        (status = 422, body = Problem, description = "The document is refused, and where"),
    ),
)]
pub async fn sync(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<SyncQuery>,
    request: Request,
) -> Result<Json<SyncReport>, Problem> {
    if query.from.is_some() {
        return run(&app, &caller, &query, None).await.map(Json);
    }
    let content_type = request.headers().get(CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    // A form is what browsers send for other sites.
    if !content_type.starts_with("application/json") && !content_type.starts_with("text/csv") {
        let detail = "send the body as Content-Type: application/json or text/csv";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "unsupported_media_type", detail));
    }
    let body = input::bytes(request.into_body(), DOCUMENT_BYTES).await?;
    run(&app, &caller, &query, Some(body)).await.map(Json)
}

/// Syncs what was asked for. For pages, too.
pub async fn run(
    app: &App,
    caller: &Caller,
    query: &SyncQuery,
    body: Option<Bytes>,
) -> Result<SyncReport, Problem> {
    let (options, document) = match (&query.from, body) {
        (Some(from), _) => {
            if query.source.is_some() || query.kind.is_some() {
                return Err(Problem::parameter("from", "goes without source and kind"));
            }
            let sources = &app.config.inventory.sources;
            let found = sources.iter().find(|source| source.name == *from);
            let source = found.ok_or_else(|| {
                Problem::parameter("from", "names no source of inventory.sources")
            })?;
            let read = sources::read(&app.config, source).await.map_err(|error| {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "an inventory could not be read"
                );
                Problem::unavailable("the source cannot be read; the collector's log says why")
            })?;
            (sources::options(source), Bytes::from(read))
        }
        (None, body) => (posted(query)?, body.unwrap_or_default()),
    };
    let options = Options {
        dry_run: query.dry_run,
        allow_empty: query.allow_empty,
        allow_shrink: query.allow_shrink,
        resolve_names: query.resolve_names || options.resolve_names,
        ..options
    };
    carry_out(app, &caller.actor(), options, document)
        .await
        .map_err(problem)
}

/// What the parameters say of the body.
fn posted(query: &SyncQuery) -> Result<Options, Problem> {
    let source = query.source.clone().unwrap_or_default();
    if !is_source_name(&source) {
        let detail = "must have 1 to 128 letters, digits and - _ . : /";
        return Err(Problem::parameter("source", detail));
    }
    let kind = query.kind.as_deref().unwrap_or_default();
    let kind = Kind::parse(kind).ok_or_else(|| {
        Problem::parameter("kind", format!("must be one of {}", KINDS.join(", ")))
    })?;
    Ok(Options {
        source,
        kind,
        dry_run: false,
        allow_empty: false,
        allow_shrink: false,
        resolve_names: false,
    })
}

fn problem(error: SyncError) -> Problem {
    match error {
        SyncError::Refused(refused) if refused.place.starts_with('/') => {
            Problem::field(refused.place, refused.detail)
        }
        SyncError::Refused(refused) => Problem::field("", refused),
        SyncError::OtherKind { .. } => Problem::conflict("inventory_kind", error),
        SyncError::Empty { .. } => Problem::conflict("inventory_empty", error),
        SyncError::Shrunk { .. } => Problem::conflict("inventory_shrunk", error),
        SyncError::Database(error) => error.into(),
    }
}

/// Lists every source that was ever read, and when.
#[utoipa::path(
    get,
    path = "/api/v1/inventory/sources",
    tag = "inventory",
    responses((status = 200, body = Page<InventoryRow>)),
)]
pub async fn sources(State(app): State<Arc<App>>) -> Result<Json<Page<InventoryRow>>, Problem> {
    let mut connection = app.pool.acquire().await?;
    Ok(Json(Page::whole(inventories::list(&mut connection).await?)))
}

/// The parameters of the ledger.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectedQuery {
    /// `ok | absent | gone | destroyed_reporting | unexpected`: listed and reporting, listed and no agent reports, no
    /// longer listed, destroyed and still reporting, reporting and listed nowhere.
    pub state: Option<String>,
    pub source: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// Lists the hosts that sources know beside those that report, by name.
#[utoipa::path(
    get,
    path = "/api/v1/inventory/expected",
    tag = "inventory",
    params(ExpectedQuery),
    responses((status = 200, body = Page<ExpectedRow>)),
)]
pub async fn expected(
    State(app): State<Arc<App>>,
    Query(query): Query<ExpectedQuery>,
) -> Result<Json<Page<ExpectedRow>>, Problem> {
    ledger(&app, &query).await.map(Json)
}

/// A page of the ledger.
pub async fn ledger(app: &App, query: &ExpectedQuery) -> Result<Page<ExpectedRow>, Problem> {
    let limit = page::limit(query.limit)?;
    let (state, source) = (query.state.as_deref(), query.source.as_deref());
    input::one_of("state", state, &STATES)?;
    if source.is_some_and(|source| !is_source_name(source)) {
        return Err(Problem::parameter("source", "is the name of no source"));
    }
    let after: Option<After> = page::cursor(query.cursor.as_deref())?;
    let before = app.silence.cutoffs(app.clock.now()).offline_before;
    let mut connection = app.pool.acquire().await?;
    let rows = expected_hosts::list(
        &mut connection,
        state,
        source,
        before,
        after.as_ref(),
        limit,
    )
    .await?;
    let counts = expected_hosts::count(&mut connection, source, before).await?;
    let asked = counts
        .iter()
        .filter(|(name, _)| state.is_none_or(|state| state == name));
    let total = asked.map(|(_, count)| count).sum();
    let page = page::page(rows, total, limit, |row| {
        (row.name.clone(), row.source.clone(), row.key.clone())
    });
    Ok(page.0)
}

/// Lists what probes of a host without an agent found, newest first; the last 100.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/probes",
    tag = "hosts",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Page<ProbeRow>)),
)]
pub async fn probes(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
) -> Result<Json<Page<ProbeRow>>, Problem> {
    hosts::find(&app, HostId(id)).await?;
    let mut connection = app.pool.acquire().await?;
    Ok(Json(Page::whole(probes::list(&mut connection, id).await?)))
}
