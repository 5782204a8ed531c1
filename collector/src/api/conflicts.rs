//! `/api/v1/hosts/{id}/conflicts`: machines that were set apart from a host, and what is to become of them.
//!
//! What a clone reported is under `hidden_host_id`, with every route of a host.

use std::sync::Arc;

use axum::extract::{Extension, State};
use http::StatusCode;
use infratrack_shared::ids::{CommandId, HostId};
use infratrack_shared::wire::answer::Action;
use serde_json::json;
use uuid::Uuid;

use crate::agents::commands::action_name;
use crate::api::commands::LIFETIME;
use crate::api::hosts;
use crate::api::input::{Json, Path};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{Change, record};
use crate::caller::Caller;
use crate::store::commands::{self, NewCommand};
use crate::store::host_conflicts::{self, ConflictRow};
use crate::store::host_instances;

/// Conflicts of one host that are shown.
const MOST: i64 = 500;

/// Lists the machines that reported as this host, newest first, at most 500.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/conflicts",
    tag = "conflicts",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Page<ConflictRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
) -> Result<Json<Page<ConflictRow>>, Problem> {
    let id = HostId(id);
    hosts::find(&app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let items = host_conflicts::list(&mut connection, id, None, MOST).await?;
    Ok(Json(Page::whole(items)))
}

/// Refuses the clone's batches from here on; the certificate it shares is not.
#[utoipa::path(
    post,
    path = "/api/v1/hosts/{id}/conflicts/{conflict}/drop",
    tag = "conflicts",
    params(("id" = Uuid, Path), ("conflict" = Uuid, Path)),
    responses((status = 200, body = ConflictRow)),
)]
pub async fn drop_clone(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(ids): Path<(Uuid, Uuid)>,
) -> Result<Json<ConflictRow>, Problem> {
    resolve(&app, &caller, ids, Decision::Drop).await
}

/// Asks the clone to get a key and a certificate as a host of its own, which it becomes when it is given one. Asking
/// again sends the command again.
#[utoipa::path(
    post,
    path = "/api/v1/hosts/{id}/conflicts/{conflict}/split",
    tag = "conflicts",
    params(("id" = Uuid, Path), ("conflict" = Uuid, Path)),
    responses((status = 200, body = ConflictRow)),
)]
pub async fn split(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(ids): Path<(Uuid, Uuid)>,
) -> Result<Json<ConflictRow>, Problem> {
    resolve(&app, &caller, ids, Decision::Split).await
}

/// What an operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Drop,
    Split,
}

async fn resolve(
    app: &App,
    caller: &Caller,
    (host, conflict): (Uuid, Uuid),
    decision: Decision,
) -> Result<Json<ConflictRow>, Problem> {
    let (host, now) = (HostId(host), app.clock.now());
    hosts::find(app, host).await?;
    let mut transaction = app.pool.begin().await?;
    // The host's batches wait: none of the clone's is taken after a drop.
    host_instances::lock(&mut transaction, &[host.0]).await?;
    let found = find(&mut transaction, host, conflict).await?;
    let from = ["open".to_owned(), "splitting".to_owned()];
    let by = Some(caller.name.as_str());
    let changed = match decision {
        Decision::Drop => {
            let state = "dropped";
            host_conflicts::update_state(&mut transaction, conflict, &from, state, Some(now), by)
                .await?
        }
        Decision::Split => {
            let hidden = HostId(found.hidden_host_id);
            let command = NewCommand {
                id: CommandId::at(app.clock.unix_millis()),
                host: hidden,
                action: action_name(Action::Renew),
                target: Some(&conflict.to_string()),
                created_at: now,
                created_by: &caller.name,
                expires_at: now + LIFETIME,
            };
            commands::insert(&mut transaction, &command).await?;
            commands::notify(&mut transaction, hidden).await?;
            let state = "splitting";
            host_conflicts::update_state(&mut transaction, conflict, &from, state, None, by).await?
        }
    };
    if changed == 0 {
        let detail = format!("the conflict is {} already", found.state);
        return Err(Problem::new(StatusCode::CONFLICT, "resolved", detail));
    }
    host_conflicts::update_counts(&mut transaction, host).await?;
    let row = find(&mut transaction, host, conflict).await?;
    let action = match decision {
        Decision::Drop => "conflict.drop",
        Decision::Split => "conflict.split",
    };
    let change = Change::new(action, "conflict", conflict)
        .before(json!({ "state": found.state }))
        .after(json!({ "state": row.state, "host": host, "hidden_host": row.hidden_host_id }));
    record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    tracing::info!(%host, %conflict, by = caller.name, state = row.state, "a conflict was decided");
    Ok(Json(row))
}

async fn find(
    connection: &mut sqlx::PgConnection,
    host: HostId,
    conflict: Uuid,
) -> Result<ConflictRow, Problem> {
    let mut rows = host_conflicts::list(connection, host, Some(conflict), 1).await?;
    rows.pop()
        .ok_or_else(|| Problem::missing("conflict", conflict))
}
