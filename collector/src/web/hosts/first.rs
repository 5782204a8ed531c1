//! The first run: a fleet without a host. The page makes a fresh enrollment token, shows the exact lines, and waits for
//! the host to come; then it says what is next.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::HeaderMap;
use http::header::{CACHE_CONTROL, SET_COOKIE};

use crate::api::enroll_tokens::{self, Created, NewToken};
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::login::session::cookie_value;
use crate::web;
use crate::web::frame::Frame;

/// Says that the next steps were read.
const DISMISSED: &str = "steps";
/// For how long: a year.
const DISMISSED_S: u32 = 31_536_000;
/// The token lets this many hosts in, for so long.
const USES: i32 = 10;
const LIFETIME_S: i64 = 3600;

#[derive(Template)]
#[template(path = "hosts/first.html")]
struct FirstPage {
    frame: Frame,
    /// Shown once.
    token: Option<Created>,
    complaint: Option<String>,
    /// Of this collector, as browsers and programs reach it.
    base_url: String,
}

impl FirstPage {
    fn uses() -> i32 {
        USES
    }

    fn minutes() -> i64 {
        LIFETIME_S / 60
    }
}

/// The page; with a token where one was made for it.
pub fn page(app: &App, frame: Frame, token: Option<Created>, problem: Option<Problem>) -> Response {
    let page = FirstPage {
        base_url: app.config.operators.base_url(),
        frame,
        token,
        complaint: problem.map(|problem| problem.detail.unwrap_or(problem.title)),
    };
    let answer = web::page(&page.frame, &page);
    ([(CACHE_CONTROL, "no-store")], answer).into_response()
}

/// `POST /hosts/first-token`: as [`enroll_tokens::create`], for some hosts.
pub async fn token(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
) -> Response {
    let new = NewToken {
        max_uses: Some(USES),
        lifetime_s: Some(LIFETIME_S),
        ..NewToken::default()
    };
    match enroll_tokens::make(&app, &caller, new).await {
        Ok(token) => page(&app, frame, Some(token), None),
        Err(problem) => {
            let status = problem.status_code();
            (status, page(&app, frame, None, Some(problem))).into_response()
        }
    }
}

/// `POST /hosts/steps`: the next steps are not shown any more in this browser.
pub async fn dismiss() -> Response {
    let cookie =
        format!("{DISMISSED}=read; Path=/; HttpOnly; SameSite=Strict; Max-Age={DISMISSED_S}");
    ([(SET_COOKIE, cookie)], Redirect::to("/hosts")).into_response()
}

/// Whether they are not to be shown.
pub fn is_dismissed(headers: &HeaderMap) -> bool {
    cookie_value(headers, DISMISSED).is_some()
}
