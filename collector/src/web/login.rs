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

use crate::api::input::Query;
use crate::api::problem::Problem;
use crate::app::App;
use crate::login::oidc::local_path;
use crate::login::oidc::provider::Provider;
use crate::login::session::{self, Client, Credential};
use crate::login::{Attempt, attempt, token};
use crate::store::users;
use crate::web;
use crate::web::frame::Frame;
use crate::web::kept::{self, Kept};

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
    /// Where to go afterwards; empty where that is up to us.
    next: String,
    /// What was sent while nobody was logged in.
    kept: Kept,
    /// What went wrong, in words.
    complaint: Option<String>,
    /// The form that was sent.
    by_token: bool,
    name: String,
    /// Who else logs people in.
    provider: Option<Arc<Provider>>,
}

impl LoginPage {
    fn new(app: &App, frame: Frame, next: &str, kept: Kept) -> Self {
        Self {
            frame,
            next: local_path(next).unwrap_or_default().to_owned(),
            kept,
            complaint: None,
            by_token: false,
            name: String::new(),
            provider: app.oidc.clone(),
        }
    }

    fn show(&self, status: StatusCode) -> Response {
        (status, web::page(&self.frame, self)).into_response()
    }
}

/// What the form sends: a name and a password, or a token; where to go, and what was typed before.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Login {
    name: String,
    password: String,
    token: String,
    next: String,
    #[serde(flatten)]
    kept: Kept,
}

/// Where to go afterwards.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wish {
    next: String,
}

/// `GET /login`.
pub async fn page(State(app): State<Arc<App>>, frame: Frame, Query(wish): Query<Wish>) -> Response {
    LoginPage::new(&app, frame, &wish.next, Kept::default()).show(StatusCode::OK)
}

/// The login of somebody whose session was over when they sent a form.
pub fn over(app: &App, frame: Frame, kept: Kept) -> Response {
    let mut page = LoginPage::new(app, frame, "", kept);
    page.complaint = Some("Your session is over. Log in, and go on with what you sent.".to_owned());
    page.show(StatusCode::UNAUTHORIZED)
}

/// `POST /login`.
pub async fn submit(State(app): State<Arc<App>>, frame: Frame, request: Request) -> Response {
    let (client, headers) = (Client::of(&app, &request), request.headers().clone());
    let form: Result<Form<Login>, FormRejection> = Form::from_request(request, &()).await;
    let login = match form {
        Ok(Form(login)) => login,
        Err(rejection) => return Problem::from(rejection).into_response(),
    };
    let page = LoginPage::new(&app, frame, &login.next, login.kept.clone());
    let done = if login.token.is_empty() {
        by_name(&app, login, page, &client, &headers).await
    } else {
        by_token(&app, &login.token, page, &client, &headers).await
    };
    done.unwrap_or_else(IntoResponse::into_response)
}

async fn by_name(
    app: &App,
    login: Login,
    mut page: LoginPage,
    client: &Client,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    match attempt(app, &login.name, &login.password, client.address).await? {
        Attempt::User(user) => {
            let credential = Credential::User(user.user_id);
            begin(app, &credential, &user.name, page, client, headers).await
        }
        Attempt::Refused => {
            page.name = login.name;
            page.complaint = Some("That name and password do not go together.".to_owned());
            Ok(page.show(StatusCode::UNAUTHORIZED))
        }
        Attempt::Later(wait) => {
            let seconds = wait.as_secs().max(1);
            page.name = login.name;
            page.complaint = Some(format!(
                "Too many attempts failed. Try again in {seconds} s."
            ));
            let mut response = page.show(StatusCode::TOO_MANY_REQUESTS);
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            Ok(response)
        }
    }
}

async fn by_token(
    app: &App,
    token: &str,
    mut page: LoginPage,
    client: &Client,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    if let Some(caller) = token::find(app, token, client.address).await?
        && caller.role.is_some()
    {
        let credential = Credential::Token(caller.id.clone());
        return begin(app, &credential, &caller.name, page, client, headers).await;
    }
    if let Some((token_id, _)) = token::parse(token) {
        session::refused(app, token_id, client).await?;
    }
    let complaint = "That token is not valid. Copy it whole, from it_ to its last character.";
    page.complaint = Some(complaint.to_owned());
    page.by_token = true;
    Ok(page.show(StatusCode::UNAUTHORIZED))
}

/// Logs a user in that was made just now.
pub(super) async fn as_user(
    app: &App,
    frame: Frame,
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
            let page = LoginPage::new(app, frame, "", Kept::default());
            begin(app, &credential, &user.name, page, client, headers).await
        }
        None => Ok(Redirect::to("/login").into_response()),
    }
}

async fn begin(
    app: &App,
    credential: &Credential,
    name: &str,
    page: LoginPage,
    client: &Client,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let cookie = session::begin(app, credential, name, client, headers).await?;
    let to_go_on = if page.kept.is_some() {
        let mut frame = page.frame;
        frame.csrf = session::csrf_of(app, &cookie);
        kept::page(frame, page.kept)
    } else {
        Redirect::to(web::local(&page.next)).into_response()
    };
    Ok(([(SET_COOKIE, cookie)], to_go_on).into_response())
}

/// `POST /logout`.
pub async fn leave(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let client = Client::of(&app, &request);
    let cookie = session::end(&app, &client, request.headers()).await?;
    Ok(([(SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}
