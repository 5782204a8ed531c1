//! The login form: takes the same token as the API, keeps it in a cookie.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use http::header::SET_COOKIE;
use serde::Deserialize;

use crate::api::auth::{self, SESSION_COOKIE};
use crate::app::App;
use crate::web;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    refused: bool,
}

/// What the form sends.
#[derive(Debug, Deserialize)]
pub struct Login {
    token: String,
}

/// `GET /login`.
pub async fn page() -> Response {
    web::page(&LoginPage { refused: false })
}

/// `POST /login`.
pub async fn submit(State(app): State<Arc<App>>, Form(login): Form<Login>) -> Response {
    let token = login.token.trim();
    match auth::find(&app, token).await {
        Ok(Some(_)) => {
            let secure = if app.config.operators.tls_key_file.is_some() {
                "; Secure"
            } else {
                ""
            };
            let cookie = format!(
                "{SESSION_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200{secure}"
            );
            ([(SET_COOKIE, cookie)], Redirect::to("/hosts")).into_response()
        }
        Ok(None) => (
            StatusCode::UNAUTHORIZED,
            web::page(&LoginPage { refused: true }),
        )
            .into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// `POST /logout`.
pub async fn leave() -> Response {
    let cookie = format!("{SESSION_COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    ([(SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}
