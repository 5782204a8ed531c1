//! The page that asks who is logged in to prove it again, before what matters most.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;

use crate::api::input::Query;
use crate::api::problem::Problem;
use crate::api::sessions::{self, Proof};
use crate::app::App;
use crate::audit::ActorKind;
use crate::caller::Caller;
use crate::store::user_identities;
use crate::web;

#[derive(Template)]
#[template(path = "step_up.html")]
struct StepUpPage {
    csrf: String,
    complaint: Option<String>,
    name: String,
    by_token: bool,
    /// Whoever logged in by the provider has no password, and proves it there.
    by_provider: bool,
    next: String,
}

/// Where to go on.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Next {
    next: String,
}

/// What the form sends.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Said {
    password: String,
    next: String,
}

/// `GET /step-up`.
pub async fn page(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Query(next): Query<Next>,
) -> Result<Response, Problem> {
    show(&app, &caller, StatusCode::OK, None, &next.next).await
}

/// `POST /step-up`.
pub async fn submit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    form: Result<Form<Said>, axum::extract::rejection::FormRejection>,
) -> Result<Response, Problem> {
    let Form(said) = form?;
    let (status, complaint) = match sessions::prove(&app, &caller, &said.password).await? {
        Proof::Given | Proof::NoSession => {
            return Ok(Redirect::to(web::local(&said.next)).into_response());
        }
        Proof::Refused => (StatusCode::FORBIDDEN, "That is not it.".to_owned()),
        Proof::Later(seconds) => (
            StatusCode::TOO_MANY_REQUESTS,
            format!("Too many attempts failed. Try again in {seconds} s."),
        ),
    };
    show(&app, &caller, status, Some(complaint), &said.next).await
}

async fn show(
    app: &App,
    caller: &Caller,
    status: StatusCode,
    complaint: Option<String>,
    next: &str,
) -> Result<Response, Problem> {
    let mut by_provider = false;
    if let (ActorKind::User, Ok(user_id)) = (caller.kind, caller.id.parse()) {
        let mut connection = app.pool.acquire().await?;
        by_provider = user_identities::exists(&mut connection, user_id).await?;
    }
    let page = web::page(&StepUpPage {
        csrf: caller.csrf().to_owned(),
        complaint,
        name: caller.name.clone(),
        by_token: caller.kind == ActorKind::Token,
        by_provider,
        next: web::local(next).to_owned(),
    });
    Ok((status, page).into_response())
}
