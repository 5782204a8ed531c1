//! What a host reported: heartbeats, facts, events, and what will never come.

use std::sync::Arc;

use axum::extract::{Extension, State};
use infratrack_shared::ids::HostId;
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::hosts::find;
use crate::api::input::{Json, Path, Query};
use crate::api::page::{self, Page, PageQuery};
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::store::events::EventRow;
use crate::store::facts::FactRow;
use crate::store::gaps::GapRow;
use crate::store::heartbeats::HeartbeatRow;
use crate::store::{self, agent_certs};

/// Lists heartbeats as they were sent, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/heartbeats",
    tag = "hosts",
    params(("id" = Uuid, Path), PageQuery),
    responses((status = 200, body = Page<HeartbeatRow>)),
)]
pub async fn heartbeats(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<HeartbeatRow>>, Problem> {
    let id = HostId(id);
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

/// Lists the host's facts as they are.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/facts",
    tag = "hosts",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Page<FactRow>)),
)]
pub async fn facts(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
) -> Result<Json<Page<FactRow>>, Problem> {
    let id = HostId(id);
    find(&app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let items = store::facts::list(&mut connection, id).await?;
    Ok(Json(Page::whole(items)))
}

/// Lists what its agent noticed, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/events",
    tag = "hosts",
    params(("id" = Uuid, Path), PageQuery),
    responses((status = 200, body = Page<EventRow>)),
)]
pub async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<EventRow>>, Problem> {
    let id = HostId(id);
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

/// Lists the records that will never come, newest first; at most 500.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/gaps",
    tag = "hosts",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Page<GapRow>)),
)]
pub async fn gaps(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
) -> Result<Json<Page<GapRow>>, Problem> {
    let id = HostId(id);
    find(&app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let items = store::gaps::list(&mut connection, id, 500).await?;
    Ok(Json(Page::whole(items)))
}

/// How many certificates were revoked.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Revoked {
    pub revoked: u64,
}

/// Revokes every certificate of the host; every collector acts within 5 s.
#[utoipa::path(
    post,
    path = "/api/v1/hosts/{id}/revoke",
    tag = "hosts",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Revoked)),
)]
pub async fn revoke(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<Json<Revoked>, Problem> {
    let id = HostId(id);
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
    let change = Change::new("host.revoke", "host", id).after(json!({ "revoked": revoked }));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    agent_certs::notify_revoked(&mut transaction).await?;
    transaction.commit().await?;
    tracing::info!(host = %id, by = caller.name, revoked, "certificates revoked");
    Ok(Json(Revoked { revoked }))
}
