//! Volumes made, changed and deleted. Their hosts are told at once.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use infratrack_shared::ids::{HostId, VolumeId};
use infratrack_shared::limits::BACKUP_VOLUMES;
use infratrack_shared::wire::answer::Action;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::rules::{NewVolume, VolumePatch};
use super::{etag, find};
use crate::api::commands::{self, Wanted};
use crate::api::etag as tags;
use crate::api::hosts;
use crate::api::input::{Json, Path};
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::store::volume_edits::{self as store, VolumeSettings};
use crate::store::volume_search::VolumeRow;

/// Makes a volume on a host. What its programs and hooks run stands in the host's own configuration.
#[utoipa::path(
    post,
    path = "/api/v1/volumes",
    tag = "backups",
    request_body = NewVolume,
    responses((status = 201, body = VolumeRow, headers(("ETag" = String), ("Location" = String)))),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(new): Json<NewVolume>,
) -> Result<Response, Problem> {
    let made = make(&app, &caller, new).await?;
    let headers = [
        (
            header::LOCATION,
            format!("/api/v1/volumes/{}", made.volume_id),
        ),
        (header::ETAG, etag(made.version)),
    ];
    Ok((StatusCode::CREATED, headers, Json(made)).into_response())
}

/// As the API and the page make it.
pub async fn make(app: &App, caller: &Caller, new: NewVolume) -> Result<VolumeRow, Problem> {
    let now = app.clock.now();
    let settings = new.into_settings(VolumeId::at(app.clock.unix_millis()).0)?;
    let host = hosts::find(app, HostId(settings.host_id)).await;
    let host = host.map_err(|_| Problem::field("/host_id", "is not a host's id"))?;
    if host.retired_at.is_some() {
        return Err(Problem::field("/host_id", "is a host that was retired"));
    }
    let mut transaction = app.pool.begin().await?;
    if store::insert(&mut transaction, &settings, &caller.name, now).await? == 0 {
        return Err(taken(&settings));
    }
    let most = i64::try_from(BACKUP_VOLUMES).unwrap_or(i64::MAX);
    if store::count_of_host(&mut transaction, settings.host_id).await? > most {
        let detail = format!("a host has at most {BACKUP_VOLUMES} volumes");
        return Err(Problem::conflict("too_many_volumes", detail));
    }
    let change = Change::new("volume.create", "volume", settings.volume_id);
    let change = change.after(document(&settings));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    tell(app, &mut transaction, caller, settings.host_id).await?;
    let made = find(app, &mut transaction, settings.volume_id).await?;
    transaction.commit().await?;
    Ok(made)
}

/// Edits a volume by a merge patch (RFC 7396) of the version that `If-Match` names.
#[utoipa::path(
    patch,
    path = "/api/v1/volumes/{id}",
    tag = "backups",
    params(("id" = Uuid, Path), ("If-Match" = String, Header, description = "The `ETag` of what is edited, or `*`")),
    request_body(content = VolumePatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = VolumeRow, headers(("ETag" = String)))),
)]
pub async fn update(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(patch): Json<VolumePatch>,
) -> Result<Response, Problem> {
    let check = |current: &str| tags::check(&headers, current);
    let row = change(&app, &caller, id, patch, check).await?;
    let tag = [(header::ETAG, etag(row.version))];
    Ok((tag, Json(row)).into_response())
}

/// As the API and the page change it; `check` sees the tag of what is there.
pub async fn change(
    app: &App,
    caller: &Caller,
    id: Uuid,
    patch: VolumePatch,
    check: impl FnOnce(&str) -> Result<(), Problem>,
) -> Result<VolumeRow, Problem> {
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let before = lock(&mut transaction, id).await?;
    let mut after = before.clone();
    patch.apply(&mut after)?;
    check(&etag(before.version))?;
    let (was, is) = (document(&before), document(&after));
    if was != is {
        let stored = store::update(&mut transaction, &after, now).await;
        stored.map_err(|error| of_a_name(error, &after))?;
        let change = Change::new("volume.update", "volume", id);
        let change = change.before(was).after(is);
        audit::record(&mut transaction, &caller.actor(), change, now).await?;
        tell(app, &mut transaction, caller, after.host_id).await?;
    }
    let row = find(app, &mut transaction, id).await?;
    transaction.commit().await?;
    Ok(row)
}

/// Stops protecting what a volume names. 48 hours later its snapshots are deleted, unless somebody holds them.
#[utoipa::path(
    delete,
    path = "/api/v1/volumes/{id}",
    tag = "backups",
    params(("id" = Uuid, Path)),
    responses((status = 204)),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let before = lock(&mut transaction, id).await?;
    store::delete(&mut transaction, id, &caller.name, now).await?;
    let change = Change::new("volume.delete", "volume", id);
    let change = change.before(document(&before));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    tell(&app, &mut transaction, &caller, before.host_id).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn lock(connection: &mut PgConnection, id: Uuid) -> Result<VolumeSettings, Problem> {
    let found = store::find_for_update(connection, id).await?;
    found.ok_or_else(|| Problem::missing("volume", id))
}

/// Its host asks anew what there is to protect.
async fn tell(
    app: &App,
    connection: &mut PgConnection,
    caller: &Caller,
    host: Uuid,
) -> Result<(), Problem> {
    let wanted = Wanted {
        host: HostId(host),
        action: Action::RefreshVolumes,
        target: None,
    };
    commands::insert(app, connection, &wanted, caller).await?;
    Ok(())
}

fn taken(settings: &VolumeSettings) -> Problem {
    let detail = format!("the host has a volume {:?}", settings.name);
    Problem::conflict("name_taken", detail)
}

fn of_a_name(error: sqlx::Error, settings: &VolumeSettings) -> Problem {
    let error_of = error.as_database_error();
    if error_of.is_some_and(sqlx::error::DatabaseError::is_unique_violation) {
        return taken(settings);
    }
    error.into()
}

/// What people set, for the audit log.
fn document(settings: &VolumeSettings) -> Value {
    json!({
        "host_id": settings.host_id,
        "name": settings.name,
        "source": settings.source,
        "is_database": settings.is_database,
        "schedule": settings.schedule,
        "jitter_s": settings.jitter_s,
        "rpo_s": settings.rpo_s,
        "retention": settings.retention,
        "closed_windows": settings.closed_windows,
        "bandwidth": settings.bandwidth,
        "pre_hook": settings.pre_hook,
        "post_hook": settings.post_hook,
        "is_catalog_visible": settings.is_catalog_visible,
        "is_paused": settings.is_paused,
        "owner": settings.owner,
        "drill_every_s": settings.drill_every_s,
        "drill_mode": settings.drill_mode,
        "rto_s": settings.rto_s,
    })
}
