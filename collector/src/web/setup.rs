//! The page behind the one-time link: the name and password of the first user.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::api::input::Query;
use crate::api::problem::Problem;
use crate::api::requests;
use crate::app::App;
use crate::audit::{Actor, ActorKind};
use crate::login::session::Client;
use crate::login::{setup, user};
use crate::web::frame::Frame;
use crate::web::{self, login};

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage {
    frame: Frame,
    complaint: Option<String>,
    /// Empty: the link works no more.
    token: String,
    name: String,
}

/// What the link has.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    token: String,
}

/// What the form sends.
#[derive(Default, Deserialize)]
#[serde(default)]
struct FirstUser {
    token: String,
    name: String,
    password: String,
}

/// `GET /setup`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(link): Query<Link>,
) -> Result<Response, Problem> {
    if setup::is_open(&app, &link.token).await? {
        return Ok(show(frame, StatusCode::OK, None, link.token, String::new()));
    }
    Ok(over(frame))
}

/// `POST /setup`: makes the user and logs them in.
pub async fn submit(State(app): State<Arc<App>>, frame: Frame, request: Request) -> Response {
    let (client, headers) = (Client::of(&app, &request), request.headers().clone());
    let form: Result<Form<FirstUser>, FormRejection> = Form::from_request(request, &()).await;
    let done = match form {
        Ok(Form(form)) => make(&app, frame, form, &client, &headers).await,
        Err(rejection) => Err(Problem::from(rejection)),
    };
    done.unwrap_or_else(IntoResponse::into_response)
}

async fn make(
    app: &App,
    frame: Frame,
    form: FirstUser,
    client: &Client,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    if !setup::is_open(app, &form.token).await? {
        return Ok(over(frame));
    }
    let again = |complaint: String| {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        show(
            frame.clone(),
            status,
            Some(complaint),
            form.token.clone(),
            form.name.clone(),
        )
    };
    let name = match user::name(&form.name) {
        Ok(name) => name,
        Err(error) => return Ok(again(error.to_string())),
    };
    let hash = match app.password_turns.hash(form.password.clone()).await {
        Some(Ok(hash)) => hash,
        Some(Err(error)) => return Ok(again(error.to_string())),
        None => return Err(Problem::unavailable("try again in some seconds")),
    };
    let actor = Actor {
        kind: ActorKind::User,
        name: name.clone(),
        id: None,
        address: Some(client.address),
        request_id: Some(requests::current_id()),
        claim: None,
    };
    if !setup::first_user(app, &form.token, &name, hash, &actor).await? {
        return Ok(over(frame));
    }
    login::as_user(app, frame, &name, client, headers).await
}

fn over(frame: Frame) -> Response {
    let complaint =
        "This link works no more: it was used, it is over an hour old, or there is a user already.";
    show(
        frame,
        StatusCode::GONE,
        Some(complaint.to_owned()),
        String::new(),
        String::new(),
    )
}

fn show(
    frame: Frame,
    status: StatusCode,
    complaint: Option<String>,
    token: String,
    name: String,
) -> Response {
    let page = web::page(
        &frame.clone(),
        &SetupPage {
            frame,
            complaint,
            token,
            name,
        },
    );
    (status, page).into_response()
}
