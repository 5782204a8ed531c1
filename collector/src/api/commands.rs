//! `/api/v1/hosts/{id}/commands`: what agents are asked to do, and what came of it.

use std::sync::Arc;

use axum::extract::{Extension, State};
use http::StatusCode;
use infratrack_shared::ids::{CommandId, HostId};
use infratrack_shared::wire::answer::Action;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::agents::commands::{action, action_name};
use crate::api::hosts;
use crate::api::input::{Json, Path};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{Change, record};
use crate::caller::Caller;
use crate::store::commands::{self, CommandRow, NewCommand as StoredCommand};
use crate::store::unix_millis;

/// A command nobody could deliver within this is given up.
pub(super) const LIFETIME: Duration = Duration::hours(1);

/// What to do.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCommand {
    /// `refresh_facts` or `renew`.
    pub action: String,
}

/// The id of what was queued.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = CreatedCommand)]
pub struct Created {
    #[schema(value_type = Uuid)]
    pub id: CommandId,
}

/// Lists what its agent was asked to do, newest first, at most 100.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/commands",
    tag = "commands",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Page<CommandRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
) -> Result<Json<Page<CommandRow>>, Problem> {
    let id = HostId(id);
    hosts::find(&app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let items = commands::list(&mut connection, id, 100).await?;
    Ok(Json(Page::whole(items)))
}

/// Asks its agent to do something; 201 once it is queued.
#[utoipa::path(
    post,
    path = "/api/v1/hosts/{id}/commands",
    tag = "commands",
    params(("id" = Uuid, Path)),
    request_body = NewCommand,
    responses((status = 201, body = Created)),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Json(body): Json<NewCommand>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    let id = HostId(id);
    let action = match action(&body.action) {
        action @ (Action::RefreshFacts | Action::Renew) => action,
        Action::RefreshVolumes
        | Action::RunBackup
        | Action::RunDrill
        | Action::Verify
        | Action::Unsupported => {
            return Err(Problem::field(
                "/action",
                "must be one of refresh_facts, renew",
            ));
        }
    };
    queue(&app, id, action, &caller)
        .await
        .map(|id| (StatusCode::CREATED, Json(Created { id })))
}

/// Queues a command and tells every collector.
pub async fn queue(
    app: &App,
    host: HostId,
    action: Action,
    caller: &Caller,
) -> Result<CommandId, Problem> {
    hosts::find(app, host).await?;
    let wanted = Wanted {
        host,
        action,
        target: None,
    };
    let mut transaction = app.pool.begin().await?;
    let id = insert(app, &mut transaction, &wanted, caller).await?;
    transaction.commit().await?;
    Ok(id)
}

/// What an agent is asked to do.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub host: HostId,
    pub action: Action,
    /// What it is about, where the action needs that.
    pub target: Option<String>,
}

/// Queues a command; collectors are told when the transaction commits.
pub async fn insert(
    app: &App,
    transaction: &mut PgConnection,
    wanted: &Wanted,
    caller: &Caller,
) -> Result<CommandId, Problem> {
    let now = app.clock.now();
    let command = StoredCommand {
        id: CommandId::at(app.clock.unix_millis()),
        host: wanted.host,
        action: action_name(wanted.action),
        target: wanted.target.as_deref(),
        created_at: now,
        created_by: &caller.name,
        expires_at: now + LIFETIME,
    };
    commands::insert(transaction, &command).await?;
    let mut said = json!({
        "host": command.host, "action": command.action, "expires_at": unix_millis(command.expires_at),
    });
    if let Some(target) = command.target {
        said["target"] = json!(target);
    }
    let change = Change::new("command.create", "command", command.id).after(said);
    record(transaction, &caller.actor(), change, now).await?;
    commands::notify(transaction, command.host).await?;
    Ok(command.id)
}
