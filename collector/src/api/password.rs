//! `PUT /api/v1/session/password`: whoever is logged in by name chooses a password of their own.

use std::sync::Arc;

use axum::extract::{Extension, State};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::input::Json;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::{self, ActorKind, Change};
use crate::caller::Caller;
use crate::login::{self, Attempt};
use crate::store::{sessions, users};

/// The password there is and the one to be.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    #[schema(format = Password)]
    pub password: String,
    /// 12 characters at least.
    #[schema(format = Password)]
    pub new_password: String,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    Done,
    /// That is not the password there is.
    Refused,
    /// In so many seconds.
    Later(u64),
}

/// Changes the caller's own password. Their other sessions end.
#[utoipa::path(
    put,
    path = "/api/v1/session/password",
    tag = "sessions",
    request_body = NewPassword,
    responses((status = 204)),
)]
pub async fn change(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<NewPassword>,
) -> Result<StatusCode, Problem> {
    match choose(&app, &caller, body).await? {
        Chosen::Done => Ok(StatusCode::NO_CONTENT),
        Chosen::Refused => {
            let detail = "that is not the password of who is logged in";
            let status = StatusCode::FORBIDDEN;
            Err(Problem::new(status, "wrong_password", detail))
        }
        Chosen::Later(seconds) => {
            let detail = format!("too many attempts failed; try again in {seconds} s");
            let status = StatusCode::TOO_MANY_REQUESTS;
            Err(Problem::new(status, "too_many_attempts", detail))
        }
    }
}

/// Whether the caller has a password here.
pub async fn has_one(app: &App, caller: &Caller) -> Result<bool, Problem> {
    if caller.kind != ActorKind::User || caller.session.is_none() {
        return Ok(false);
    }
    let mut connection = app.pool.acquire().await?;
    let user = users::find(&mut connection, &caller.name).await?;
    Ok(user.is_some_and(|user| user.password_hash.is_some()))
}

/// Changes the caller's password, for pages too.
pub async fn choose(app: &App, caller: &Caller, body: NewPassword) -> Result<Chosen, Problem> {
    let Some(session) = caller.session.as_ref() else {
        return Err(none());
    };
    if !has_one(app, caller).await? {
        return Err(none());
    }
    if body.new_password == body.password {
        return Err(Problem::field("/new_password", "must be another one"));
    }
    match login::attempt(app, &caller.name, &body.password, caller.address).await? {
        Attempt::User(user) if user.user_id.to_string() == caller.id => {}
        Attempt::User(_) | Attempt::Refused => return Ok(Chosen::Refused),
        Attempt::Later(wait) => return Ok(Chosen::Later(wait.as_secs().max(1))),
    }
    let Some(hash) = app.password_turns.hash(body.new_password).await else {
        let detail = "too many passwords are being checked; try again";
        return Err(Problem::unavailable(detail));
    };
    let hash = hash.map_err(|error| Problem::field("/new_password", error))?;
    let now = app.clock.now();
    let mut transaction = app.pool.begin().await?;
    if users::update_password(&mut transaction, &caller.name, &hash, false).await? == 0 {
        return Err(none());
    }
    sessions::delete_others(&mut transaction, &caller.id, Some(session.id)).await?;
    sessions::update_authenticated(&mut transaction, session.id, now).await?;
    let change = Change::new("user.change_password", "user", &caller.name);
    audit::record(&mut transaction, &caller.actor(), change, now).await?;
    transaction.commit().await?;
    Ok(Chosen::Done)
}

fn none() -> Problem {
    let detail = "only who is logged in by name and password has a password here";
    Problem::conflict("no_password", detail)
}
