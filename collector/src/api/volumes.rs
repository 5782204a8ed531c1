//! `/api/v1/volumes`: what is protected on hosts, and how it stands.

pub mod edit;
pub mod grants;
pub mod rules;
pub mod runs;
pub mod snapshots;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use infratrack_shared::ids::VolumeId;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::export::{Export, Format, is_whole};
use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::backups::verification;
use crate::store::volume_search::{self as store, DRILL_STATUSES, Key, STATUSES, VolumeRow, Which};

const KINDS: [&str; 3] = ["files", "command", "external"];

const EXPORT: Export<VolumeRow, Key> = Export {
    name: "volumes",
    columns: &[
        "id",
        "host",
        "name",
        "kind",
        "status",
        "is_paused",
        "schedule",
        "rpo_s",
        "last_ok_at",
        "last_snapshot_at",
        "due_at",
        "last_state",
        "last_reason",
        "drill_status",
        "last_drill_at",
        "last_drill_ms",
        "rto_s",
        "owner",
        "created_at",
        "created_by",
    ],
    rows: 500,
    key: |row| (row.host.clone(), row.name.clone(), row.volume_id),
};

/// Which volumes.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct VolumesQuery {
    /// A host, by its id.
    pub host: Option<Uuid>,
    /// Part of a volume's name or its host's.
    pub q: Option<String>,
    /// `files | command | external`.
    pub kind: Option<String>,
    /// `late | failing | incomplete | never | ok`.
    pub status: Option<String>,
    /// Of its restore drills: `failed | overdue | slow | never | off | ok`.
    pub drill_status: Option<String>,
    pub owner: Option<String>,
    pub is_paused: Option<bool>,
    /// `csv` and `ndjson` have all that match.
    #[param(inline)]
    pub format: Option<Format>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// Lists volumes by their hosts' names and their own.
#[utoipa::path(
    get,
    path = "/api/v1/volumes",
    tag = "backups",
    params(VolumesQuery),
    responses((status = 200, content(
        (Page<VolumeRow> = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
    ))),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<VolumesQuery>,
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
            let now = app.clock.now();
            Ok(store::list(&mut connection, which, now, after, limit).await?)
        }
    }))
}

/// As the API and the page list them.
pub async fn rows(app: &App, query: &VolumesQuery) -> Result<Page<VolumeRow>, Problem> {
    let limit = page::limit(query.limit)?;
    let which = which(query)?;
    let after = page::cursor(query.cursor.as_deref())?;
    let now = app.clock.now();
    let mut connection = app.pool.acquire().await?;
    let rows = store::list(&mut connection, &which, now, after, limit).await?;
    let total = store::count(&mut connection, &which, now).await?;
    let Json(page) = page::page(rows, total, limit, EXPORT.key);
    Ok(page)
}

fn which(query: &VolumesQuery) -> Result<Which, Problem> {
    input::one_of("kind", query.kind.as_deref(), &KINDS)?;
    input::one_of("status", query.status.as_deref(), &STATUSES)?;
    input::one_of(
        "drill_status",
        query.drill_status.as_deref(),
        &DRILL_STATUSES,
    )?;
    let text = |name: &str, value: &Option<String>| {
        let value = value.as_deref().map(str::trim);
        let value = value.filter(|value| !value.is_empty());
        if value.is_some_and(|value| value.chars().count() > 200 || value.contains('\0')) {
            return Err(Problem::parameter(name, "must have at most 200 characters"));
        }
        Ok(value.map(str::to_owned))
    };
    Ok(Which {
        host_id: query.host,
        q: text("q", &query.q)?,
        kind: query.kind.clone(),
        status: query.status.clone(),
        drill_status: query.drill_status.clone(),
        owner: text("owner", &query.owner)?,
        is_paused: query.is_paused,
    })
}

/// A volume, and what of it was found lost in the store.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VolumeDetail {
    #[serde(flatten)]
    pub volume: VolumeRow,
    /// Chunks that are gone or damaged and that nothing stands for; counted up to 10,000. The next backup sends what its host
    /// still has of them.
    pub lost_chunks: usize,
    /// Snapshots that need one of these, of the newest 1,000: of them not everything can be restored.
    pub hit_snapshots: Vec<Uuid>,
}

/// A volume. The `ETag` is of what people set.
#[utoipa::path(
    get,
    path = "/api/v1/volumes/{id}",
    tag = "backups",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = VolumeDetail, headers(("ETag" = String)))),
)]
pub async fn get(State(app): State<Arc<App>>, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let mut connection = app.pool.acquire().await?;
    let found = find(&app, &mut connection, id).await?;
    let tag = [(header::ETAG, etag(found.version))];
    let lost = verification::find_lost(&mut connection, VolumeId(id)).await?;
    let detail = VolumeDetail {
        volume: found,
        lost_chunks: lost.chunks,
        hit_snapshots: lost.snapshots,
    };
    Ok((tag, Json(detail)).into_response())
}

/// The volume with this id, or 404.
pub async fn find(
    app: &App,
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<VolumeRow, Problem> {
    let found = store::find(connection, id, app.clock.now()).await?;
    found.ok_or_else(|| Problem::missing("volume", id))
}

/// The `ETag` of a version.
fn etag(version: i64) -> String {
    format!("\"{version}\"")
}
