//! Logging in by a provider: the way there, and the way back.

use std::sync::Arc;

use askama::Template;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use http::HeaderMap;
use http::header::SET_COOKIE;
use serde::Deserialize;
use std::time::Duration;

use crate::api::input;
use crate::app::App;
use crate::login::oidc::{self, OidcError, Return};
use crate::login::session::{self, Client, Credential};
use crate::store::sessions;
use crate::web;
use crate::web::frame::Frame;

/// Navigates on by itself. The session's cookie is `SameSite=Strict`: on a way that another site began, which a redirect
/// would only go on with, the browser keeps it back.
#[derive(Template)]
#[template(path = "oidc_done.html")]
struct DonePage {
    frame: Frame,
    next: String,
}

#[derive(Template)]
#[template(path = "oidc_failed.html")]
struct FailedPage {
    frame: Frame,
    complaint: String,
}

/// What the way there may be asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wish {
    /// `1`: whoever is logged in proves once more who they are.
    again: String,
    /// Where to go on afterwards.
    next: Option<String>,
}

/// What the provider sends along.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Back {
    state: String,
    code: String,
    error: String,
    iss: Option<String>,
}

/// `GET /login/oidc`.
pub async fn begin(
    State(app): State<Arc<App>>,
    frame: Frame,
    input::Query(wish): input::Query<Wish>,
    request: Request,
) -> Response {
    let client = Client::of(&app, &request);
    let (again, next) = (wish.again == "1", wish.next.as_deref());
    match oidc::begin(&app, &client, request.headers(), again, next).await {
        Ok(begun) => {
            let cookie = [(SET_COOKIE, begun.cookie)];
            (cookie, Redirect::to(begun.url.as_str())).into_response()
        }
        Err(error) => failed(frame, &error),
    }
}

/// `GET /login/oidc/callback`.
pub async fn callback(State(app): State<Arc<App>>, frame: Frame, request: Request) -> Response {
    let client = Client::of(&app, &request);
    let (mut parts, _) = request.into_parts();
    let back = match Query::<Back>::from_request_parts(&mut parts, &()).await {
        Ok(Query(back)) => Return {
            state: back.state,
            code: back.code,
            error: back.error,
            iss: back.iss,
        },
        // Twice the same parameter, say.
        Err(_) => return failed(frame, &OidcError::State),
    };
    match finish(&app, frame.clone(), &client, &parts.headers, &back).await {
        Ok(response) => response,
        Err(error) => failed(frame, &error),
    }
}

async fn finish(
    app: &App,
    frame: Frame,
    client: &Client,
    headers: &HeaderMap,
    back: &Return,
) -> Result<Response, OidcError> {
    let finished = oidc::finish(app, client, headers, back).await?;
    let credential = Credential::Vouched(finished.user_id, finished.authenticated_at);
    let begun = session::begin(app, &credential, &finished.name, client, headers).await?;
    if let Some(before) = finished.session_id {
        let mut connection = app.pool.acquire().await?;
        sessions::delete_one(&mut connection, before).await?;
    }
    let used = oidc::cookie(app, "", Duration::ZERO);
    let cookies = AppendHeaders([(SET_COOKIE, begun), (SET_COOKIE, used)]);
    let page = web::page(
        &frame.clone(),
        &DonePage {
            frame,
            next: finished.next,
        },
    );
    Ok((cookies, page).into_response())
}

fn failed(frame: Frame, error: &OidcError) -> Response {
    if let OidcError::Database(error) = error {
        tracing::error!(%error, "a login by the provider failed in the database");
    } else {
        tracing::warn!(reason = %error, "a login by the provider failed");
    }
    let page = web::page(
        &frame.clone(),
        &FailedPage {
            frame,
            complaint: error.to_string(),
        },
    );
    (error.status(), page).into_response()
}
