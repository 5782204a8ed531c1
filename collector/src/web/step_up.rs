//! The page that asks who is logged in to prove it again, before what matters most.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
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
use crate::web::frame::Frame;
use crate::web::kept::{self, Kept};

#[derive(Template)]
#[template(path = "step_up.html")]
struct StepUpPage {
    frame: Frame,
    kept: Kept,
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
    #[serde(flatten)]
    kept: Kept,
}

/// `GET /step-up`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
    Query(next): Query<Next>,
) -> Result<Response, Problem> {
    let page = StepUpPage::new(&app, frame, &caller, &next.next, Kept::default()).await?;
    Ok(page.show(StatusCode::OK))
}

/// The page in place of the answer to a form that needs a proof first.
pub async fn ask(
    app: &App,
    frame: Frame,
    caller: &Caller,
    kept: Kept,
) -> Result<Response, Problem> {
    let page = StepUpPage::new(app, frame, caller, "", kept).await?;
    Ok(page.show(StatusCode::FORBIDDEN))
}

/// `POST /step-up`.
pub async fn submit(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
    form: Result<Form<Said>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(said) = form?;
    let kept = said.kept;
    let (status, complaint) = match sessions::prove(&app, &caller, &said.password).await? {
        Proof::Given | Proof::NoSession if kept.is_some() => return Ok(kept::page(frame, kept)),
        Proof::Given | Proof::NoSession => {
            return Ok(Redirect::to(web::local(&said.next)).into_response());
        }
        Proof::Refused => (StatusCode::FORBIDDEN, "That is not it.".to_owned()),
        Proof::Later(seconds) => (
            StatusCode::TOO_MANY_REQUESTS,
            format!("Too many attempts failed. Try again in {seconds} s."),
        ),
    };
    let mut page = StepUpPage::new(&app, frame, &caller, &said.next, kept).await?;
    page.complaint = Some(complaint);
    Ok(page.show(status))
}

impl StepUpPage {
    async fn new(
        app: &App,
        frame: Frame,
        caller: &Caller,
        next: &str,
        kept: Kept,
    ) -> Result<Self, Problem> {
        let mut by_provider = false;
        if let (ActorKind::User, Ok(user_id)) = (caller.kind, caller.id.parse()) {
            let mut connection = app.pool.acquire().await?;
            by_provider = user_identities::exists(&mut connection, user_id).await?;
        }
        Ok(Self {
            frame,
            kept,
            complaint: None,
            name: caller.name.clone(),
            by_token: caller.kind == ActorKind::Token,
            by_provider,
            next: web::local(next).to_owned(),
        })
    }

    fn show(&self, status: StatusCode) -> Response {
        (status, web::page(&self.frame, self)).into_response()
    }
}
