//! Grants: another host may read a volume's packs and snapshots for a while. They are sealed; who restores needs a key too.

use std::sync::Arc;

use axum::extract::{Extension, State};
use http::StatusCode;
use infratrack_shared::ids::HostId;
use serde::Deserialize;
use serde_json::json;
use time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

use super::find;
use crate::api::hosts;
use crate::api::input::{self, Json, Path};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, Change};
use crate::caller::Caller;
use crate::store::backup_grants::{self as store, GrantRow};

const REASON_CHARS: usize = 500;
/// A day; at most a week.
const LIFETIME_S: i64 = 24 * 3600;
const MAX_LIFETIME_S: i64 = 7 * LIFETIME_S;

/// A grant to be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGrant {
    /// The host that may read, by its id.
    pub host_id: Uuid,
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
    /// A day where it is not said.
    #[schema(minimum = 60, maximum = 604_800)]
    pub lifetime_s: Option<i64>,
}

/// Lists who may read a volume beside its own host, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/volumes/{id}/grants",
    tag = "backups",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Page<GrantRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
) -> Result<Json<Page<GrantRow>>, Problem> {
    let mut connection = app.pool.acquire().await?;
    find(&app, &mut connection, id).await?;
    let rows = store::list(&mut connection, id).await?;
    Ok(Json(Page::whole(rows)))
}

/// Lets another host read a volume, sealed as it is, for a while.
#[utoipa::path(
    post,
    path = "/api/v1/volumes/{id}/grants",
    tag = "backups",
    params(("id" = Uuid, Path)),
    request_body = NewGrant,
    responses((status = 201, body = GrantRow)),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Json(new): Json<NewGrant>,
) -> Result<(StatusCode, Json<GrantRow>), Problem> {
    let now = app.clock.now();
    let reason = input::text("/reason", &new.reason, 1..=REASON_CHARS)?;
    let lifetime_s = new.lifetime_s.unwrap_or(LIFETIME_S);
    if !(60..=MAX_LIFETIME_S).contains(&lifetime_s) {
        let detail = format!("must be from 60 to {MAX_LIFETIME_S}");
        return Err(Problem::field("/lifetime_s", detail));
    }
    let host = hosts::find(&app, HostId(new.host_id)).await;
    host.map_err(|_| Problem::field("/host_id", "is not a host's id"))?;
    let mut transaction = app.pool.begin().await?;
    let volume = find(&app, &mut transaction, id).await?;
    if volume.host_id == new.host_id {
        return Err(Problem::field("/host_id", "is the volume's own host"));
    }
    let grant = GrantRow {
        grant_id: Uuid::new_v4(),
        volume_id: id,
        host_id: new.host_id,
        reason,
        created_at: now,
        created_by: caller.name.clone(),
        expires_at: now + Duration::seconds(lifetime_s),
        revoked_at: None,
    };
    store::insert(&mut transaction, &grant).await?;
    let change = Change::new("backup_grant.create", "backup_grant", grant.grant_id);
    audit::record(
        &mut transaction,
        &caller.actor(),
        change.after(json!(grant)),
        now,
    )
    .await?;
    transaction.commit().await?;
    Ok((StatusCode::CREATED, Json(grant)))
}

/// Ends a grant at once.
#[utoipa::path(
    delete,
    path = "/api/v1/volumes/{id}/grants/{grant}",
    tag = "backups",
    params(("id" = Uuid, Path), ("grant" = Uuid, Path)),
    responses((status = 204)),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((id, grant)): Path<(Uuid, Uuid)>,
) -> Result<StatusCode, Problem> {
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    if store::revoke(&mut transaction, (id, grant), now).await? == 0 {
        return Err(Problem::missing("grant", grant));
    }
    let change = Change::new("backup_grant.revoke", "backup_grant", grant);
    let change = change.before(json!({"volume_id": id}));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
