//! `/api/v1/hosts/{id}/commands`: what agents are asked to do, and what came of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use http::StatusCode;
use infratrack_shared::ids::{CommandId, HostId};
use infratrack_shared::wire::answer::Action;
use serde::{Deserialize, Serialize};
use time::Duration;
use uuid::Uuid;

use crate::agents::commands::{action, action_name};
use crate::api::auth::Caller;
use crate::api::hosts;
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::commands::{self, CommandRow, NewCommand as StoredCommand};

/// A command nobody could deliver within this is given up.
pub(super) const LIFETIME: Duration = Duration::hours(1);

/// What to do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCommand {
    /// `refresh_facts` or `renew`.
    pub action: String,
}

/// The id of what was queued.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Created {
    pub id: CommandId,
}

/// `GET`: newest first, at most 100.
pub async fn list(
    State(app): State<Arc<App>>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Json<Page<CommandRow>>, Problem> {
    let id = HostId(id?.0);
    hosts::find(&app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let items = commands::list(&mut connection, id, 100).await?;
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(Json(Page {
        items,
        total,
        next_cursor: None,
    }))
}

/// `POST`: 201 once it is queued.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<Uuid>, PathRejection>,
    body: Result<Json<NewCommand>, JsonRejection>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    let (id, Json(body)) = (HostId(id?.0), body?);
    let action = match action(&body.action) {
        action @ (Action::RefreshFacts | Action::Renew) => action,
        Action::RunBackup | Action::RunDrill | Action::Verify | Action::Unsupported => {
            return Err(Problem::invalid(
                "action must be one of refresh_facts, renew",
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
    let now = app.clock.now();
    let command = StoredCommand {
        id: CommandId::at(app.clock.unix_millis()),
        host,
        action: action_name(action),
        target: None,
        created_at: now,
        created_by: &caller.name,
        expires_at: now + LIFETIME,
    };
    let mut transaction = app.pool.begin().await?;
    commands::insert(&mut transaction, &command).await?;
    commands::notify(&mut transaction, host).await?;
    transaction.commit().await?;
    Ok(command.id)
}
