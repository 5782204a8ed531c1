//! The page on which people change their own password; who was given theirs by somebody else sees no other before.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;

use crate::api::password::{self, Chosen, NewPassword};
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::login::password::MIN_CHARS;
use crate::web::frame::Frame;
use crate::web::kept::{self, Kept};
use crate::web::{self, settings};

#[derive(Template)]
#[template(path = "password.html")]
struct PasswordPage {
    frame: Frame,
    complaint: Option<String>,
    /// They see no other page before.
    is_forced: bool,
    has_password: bool,
    kept: Kept,
}

/// What the form sends.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Said {
    current_password: String,
    new_password: String,
    new_password_again: String,
    #[serde(flatten)]
    kept: Kept,
}

/// `GET /password`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    show(&app, frame, &caller, StatusCode::OK, None, Kept::default()).await
}

/// The page in place of the answer to a form that was sent before a password was chosen.
pub async fn ask(
    app: &App,
    frame: Frame,
    caller: &Caller,
    kept: Kept,
) -> Result<Response, Problem> {
    show(app, frame, caller, StatusCode::FORBIDDEN, None, kept).await
}

/// `POST /password`.
pub async fn submit(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
    form: Result<Form<Said>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(said) = form?;
    let kept = said.kept;
    if said.new_password != said.new_password_again {
        let complaint = "The new password and its repetition differ.".to_owned();
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return show(&app, frame, &caller, status, Some(complaint), kept).await;
    }
    let body = NewPassword {
        password: said.current_password,
        new_password: said.new_password,
    };
    let (status, complaint) = match password::choose(&app, &caller, body).await {
        Ok(Chosen::Done) if kept.is_some() => return Ok(kept::page(frame, kept)),
        Ok(Chosen::Done) => return Ok(Redirect::to("/").into_response()),
        Ok(Chosen::Refused) => (
            StatusCode::FORBIDDEN,
            "That is not your current password.".to_owned(),
        ),
        Ok(Chosen::Later(seconds)) => (
            StatusCode::TOO_MANY_REQUESTS,
            format!("Too many attempts failed. Try again in {seconds} s."),
        ),
        Err(problem) if problem.status < 500 => {
            (problem.status_code(), settings::complaint(&problem))
        }
        Err(problem) => return Err(problem),
    };
    show(&app, frame, &caller, status, Some(complaint), kept).await
}

async fn show(
    app: &App,
    frame: Frame,
    caller: &Caller,
    status: StatusCode,
    complaint: Option<String>,
    kept: Kept,
) -> Result<Response, Problem> {
    let page = PasswordPage {
        frame,
        complaint,
        is_forced: caller.must_change_password(),
        has_password: password::has_one(app, caller).await?,
        kept,
    };
    Ok((status, web::page(&page.frame, &page)).into_response())
}
