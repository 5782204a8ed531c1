//! The login form: a name with its password, or a token of the API's. Either begins a session.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Form, http};
use http::header::{RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use crate::api::problem::Problem;
use crate::app::App;
use crate::login::oidc::provider::Provider;
use crate::login::session::{self, Client, Credential};
use crate::login::{Attempt, attempt, token};
use crate::store::users;
use crate::web;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    /// What went wrong, in words.
    complaint: Option<String>,
    /// The form that was sent.
    by_token: bool,
    name: String,
    /// Who else logs people in.
    provider: Option<Arc<Provider>>,
}

/// What the form sends: a name and a password, or a token.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Login {
    name: String,
    password: String,
    token: String,
}

/// `GET /login`.
pub async fn page(State(app): State<Arc<App>>) -> Response {
    web::page(&LoginPage {
        provider: app.oidc.clone(),
        complaint: None,
        by_token: false,
        name: String::new(),
    })
}

/// `POST /login`.
pub async fn submit(State(app): State<Arc<App>>, request: Request) -> Response {
    let (client, headers) = (Client::of(&app, &request), request.headers().clone());
    let form: Result<Form<Login>, FormRejection> = Form::from_request(request, &()).await;
    let login = match form {
        Ok(Form(login)) => login,
        Err(rejection) => return Problem::from(rejection).into_response(),
    };
    let done = if login.token.is_empty() {
        by_name(&app, login, &client, &headers).await
    } else {
        by_token(&app, &login.token, &client, &headers).await
    };
    done.unwrap_or_else(IntoResponse::into_response)
}

async fn by_name(
    app: &App,
    login: Login,
    client: &Client,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let again = |status, complaint: String| {
        let page = web::page(&LoginPage {
            provider: app.oidc.clone(),
            complaint: Some(complaint),
            by_token: false,
            name: login.name.clone(),
        });
        (status, page).into_response()
    };
    match attempt(app, &login.name, &login.password, client.address).await? {
        Attempt::User(user) => {
            let credential = Credential::User(user.user_id);
            begin(app, &credential, &user.name, client, headers).await
        }
        Attempt::Refused => {
            let complaint = "That name and password do not go together.".to_owned();
            Ok(again(StatusCode::UNAUTHORIZED, complaint))
        }
        Attempt::Later(wait) => {
            let seconds = wait.as_secs().max(1);
            let complaint = format!("Too many attempts failed. Try again in {seconds} s.");
            let mut response = again(StatusCode::TOO_MANY_REQUESTS, complaint);
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            Ok(response)
        }
    }
}

async fn by_token(
    app: &App,
    token: &str,
    client: &Client,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    if let Some(caller) = token::find(app, token, client.address).await?
        && caller.role.is_some()
    {
        let credential = Credential::Token(caller.id.clone());
        return begin(app, &credential, &caller.name, client, headers).await;
    }
    if let Some((token_id, _)) = token::parse(token) {
        session::refused(app, token_id, client).await?;
    }
    let complaint = "That token is not valid. Copy it whole, from it_ to its last character.";
    let page = web::page(&LoginPage {
        provider: app.oidc.clone(),
        complaint: Some(complaint.to_owned()),
        by_token: true,
        name: String::new(),
    });
    Ok((StatusCode::UNAUTHORIZED, page).into_response())
}

/// Logs a user in that was made just now.
pub(super) async fn as_user(
    app: &App,
    name: &str,
    client: &Client,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let mut connection = app.pool.acquire().await?;
    let user = users::find(&mut connection, name).await?;
    drop(connection);
    match user {
        Some(user) => {
            let credential = Credential::User(user.user_id);
            begin(app, &credential, &user.name, client, headers).await
        }
        None => Ok(Redirect::to("/login").into_response()),
    }
}

async fn begin(
    app: &App,
    credential: &Credential,
    name: &str,
    client: &Client,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let cookie = session::begin(app, credential, name, client, headers).await?;
    Ok(([(SET_COOKIE, cookie)], Redirect::to("/hosts")).into_response())
}

/// `POST /logout`.
pub async fn leave(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let client = Client::of(&app, &request);
    let cookie = session::end(&app, &client, request.headers()).await?;
    Ok(([(SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}
