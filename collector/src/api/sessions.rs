//! `/api/v1/session`, of whoever is calling, and `/api/v1/sessions`, all that are logged in.

use std::sync::Arc;

use axum::extract::{Extension, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::input::{Json, Path};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, ActorKind, Change};
use crate::caller::{Caller, STEP_UP};
use crate::login::session::IDLE;
use crate::login::{self, Attempt};
use crate::roles::{Role, Scope};
use crate::store::sessions::{self, SessionRow};

/// Who is calling.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub struct Whoami {
    pub name: String,
    /// `user | token | proxy`.
    #[schema(value_type = String)]
    pub kind: ActorKind,
    pub role: Option<String>,
    pub scopes: Vec<String>,
    /// What requests of a browser's session send as `X-CSRF-Token`.
    pub csrf_token: Option<String>,
    /// Until then what needs a recent proof of who it is may be done; null: no session, and so always.
    #[serde(with = "rfc3339::option")]
    pub stepped_up_until: Option<OffsetDateTime>,
}

/// The proof.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StepUp {
    /// Of the user who is logged in; of a session that began with a token, the token.
    #[schema(format = Password)]
    pub password: String,
}

/// Who the credential of this request is.
#[utoipa::path(
    get,
    path = "/api/v1/session",
    tag = "sessions",
    responses((status = 200, body = Whoami)),
)]
pub async fn whoami(Extension(caller): Extension<Caller>) -> Json<Whoami> {
    Json(Whoami {
        role: caller.role.map(|role| role.name().to_owned()),
        scopes: caller
            .scopes
            .iter()
            .copied()
            .map(Scope::name)
            .map(str::to_owned)
            .collect(),
        csrf_token: caller.session.as_ref().map(|session| session.csrf.clone()),
        stepped_up_until: caller
            .session
            .as_ref()
            .map(|session| session.authenticated_at + STEP_UP),
        kind: caller.kind,
        name: caller.name,
    })
}

/// Proves again who is logged in; for 10 minutes that opens what matters most.
#[utoipa::path(
    post,
    path = "/api/v1/session/step-up",
    tag = "sessions",
    request_body = StepUp,
    responses((status = 204)),
)]
pub async fn step_up(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<StepUp>,
) -> Result<StatusCode, Problem> {
    match prove(&app, &caller, &body.password).await? {
        Proof::Given => Ok(StatusCode::NO_CONTENT),
        Proof::Refused => {
            let detail = "that is not the password of who is logged in";
            Err(Problem::new(
                StatusCode::FORBIDDEN,
                "wrong_password",
                detail,
            ))
        }
        Proof::Later(seconds) => {
            let detail = format!("too many attempts failed; try again in {seconds} s");
            Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_attempts",
                detail,
            ))
        }
        Proof::NoSession => Err(Problem::conflict(
            "no_session",
            "only a browser's session has to prove who it is again",
        )),
    }
}

/// What came of it.
pub enum Proof {
    Given,
    Refused,
    /// In so many seconds.
    Later(u64),
    NoSession,
}

/// Checks the password, or the token that the session began with, and remembers when it was.
pub async fn prove(app: &App, caller: &Caller, secret: &str) -> Result<Proof, Problem> {
    let Some(session) = &caller.session else {
        return Ok(Proof::NoSession);
    };
    let proved = if caller.kind == ActorKind::User {
        match login::attempt(app, &caller.name, secret, caller.address).await? {
            Attempt::User(user) => user.user_id.to_string() == caller.id,
            Attempt::Refused => false,
            Attempt::Later(wait) => return Ok(Proof::Later(wait.as_secs().max(1))),
        }
    } else {
        let found = login::token::find(app, secret, caller.address).await?;
        found.is_some_and(|found| found.id == caller.id)
    };
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    if proved {
        sessions::update_authenticated(&mut transaction, session.id, now).await?;
    }
    let action = if proved {
        "session.step_up"
    } else {
        "session.step_up_refused"
    };
    let change = Change::new(action, "session", session.id);
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(if proved { Proof::Given } else { Proof::Refused })
}

/// Sessions: for an admin all, for everyone else their own; newest first, at most 500.
#[utoipa::path(
    get,
    path = "/api/v1/sessions",
    tag = "sessions",
    responses((status = 200, body = Page<SessionRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Page<SessionRow>>, Problem> {
    rows(&app, &caller).await.map(Json)
}

/// The sessions that a caller may see, for pages too.
pub async fn rows(app: &App, caller: &Caller) -> Result<Page<SessionRow>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let now = app.clock.now();
    let rows = sessions::list(&mut connection, None, whose(caller), now, now - IDLE).await?;
    Ok(Page::whole(rows))
}

/// Ends every session of the caller but the one that asks.
#[utoipa::path(
    delete,
    path = "/api/v1/sessions",
    tag = "sessions",
    responses((status = 200, body = EndedSessions)),
)]
pub async fn delete_others(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<EndedSessions>, Problem> {
    end_others(&app, &caller).await.map(Json)
}

/// How many were ended.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct EndedSessions {
    pub ended: u64,
}

/// Ends the caller's other sessions, for pages too.
pub async fn end_others(app: &App, caller: &Caller) -> Result<EndedSessions, Problem> {
    let this = caller.session.as_ref().map(|session| session.id);
    let mut transaction = app.pool.begin().await?;
    let ended = sessions::delete_others(&mut transaction, &caller.id, this).await?;
    let change = Change::new("session.delete_others", caller.kind.name(), &caller.id)
        .after(json!({ "ended": ended }));
    audit::record(&mut transaction, &caller.actor(), change, app.clock.now()).await?;
    transaction.commit().await?;
    Ok(EndedSessions { ended })
}

/// Ends a session: for an admin any, for everyone else one of their own.
#[utoipa::path(
    delete,
    path = "/api/v1/sessions/{id}",
    tag = "sessions",
    params(("id" = Uuid, Path)),
    responses((status = 204)),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    end(&app, &caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a session, for pages too.
pub async fn end(app: &App, caller: &Caller, id: Uuid) -> Result<(), Problem> {
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    let rows = sessions::list(&mut transaction, Some(id), whose(caller), now, now - IDLE).await?;
    let Some(row) = rows.into_iter().next() else {
        return Err(Problem::missing("session", id));
    };
    sessions::delete_one(&mut transaction, id).await?;
    let change = Change::new("session.delete", "session", id).before(json!(row));
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(())
}

/// Whose sessions a caller may see; `None`: all.
fn whose(caller: &Caller) -> Option<&str> {
    (caller.role < Some(Role::Admin)).then_some(caller.id.as_str())
}
