//! A form that was sent when its sender had to log in, to prove who they are, or to choose a password first: what was
//! typed comes along on that page, and can be sent again behind it. Nothing of it is stored here.

use std::sync::Arc;

use askama::Template;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method};
use serde::Deserialize;

use crate::api::auth::Missing;
use crate::api::requests::Answered;
use crate::api::{csrf, input};
use crate::app::App;
use crate::web::frame::Frame;
use crate::web::{self, login, password, plain, step_up};

/// A longer body is not kept: it has to fit into a form once more.
const MAX_BYTES: usize = 16 * 1024;
/// Of a field on the page.
const SHOWN_CHARS: usize = 200;
/// Never kept: a token that is void with its session, and what only its owner should type.
const LEFT_OUT: [&str; 6] = [
    "csrf",
    "password",
    "new_password",
    "new_password_again",
    "current_password",
    "token",
];

/// A form as it was sent: where to, and its fields. As hidden fields of a page: `kept_action` and `kept_body`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Kept {
    /// A path of this site; empty where nothing was kept.
    #[serde(rename = "kept_action")]
    pub action: String,
    /// `application/x-www-form-urlencoded`.
    #[serde(rename = "kept_body")]
    pub body: String,
}

impl Kept {
    /// What a form sent to `action`; nothing where nobody typed anything.
    fn of(action: &str, body: &[u8]) -> Self {
        let mut typed: Vec<(String, String)> =
            serde_html_form::from_bytes(body).unwrap_or_default();
        typed.retain(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
        if typed.is_empty() {
            return Self::default();
        }
        Self {
            action: action.to_owned(),
            body: serde_html_form::to_string(typed).unwrap_or_default(),
        }
    }

    /// Whether there is anything.
    pub fn is_some(&self) -> bool {
        !self.action.is_empty() && web::local(&self.action) == self.action
    }

    /// Its fields, by name.
    pub fn fields(&self) -> Vec<(String, String)> {
        serde_html_form::from_str(&self.body).unwrap_or_default()
    }
}

/// What is behind the login, the proof or the new password: what was typed, to be sent again.
#[derive(Template)]
#[template(path = "kept.html")]
struct KeptPage {
    frame: Frame,
    kept: Kept,
}

impl KeptPage {
    /// A field in a line.
    fn line(text: &str) -> String {
        plain::line(text, SHOWN_CHARS)
    }
}

/// Shows what was kept, with a button that sends it.
pub fn page(frame: Frame, kept: Kept) -> Response {
    web::page(&frame.clone(), &KeptPage { frame, kept })
}

/// Keeps what a form says while its sender is asked to log in, to prove who they are, or to choose a password.
pub async fn forms(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !is_short_form(request.headers()) {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let (headers, uri) = (head.headers.clone(), head.uri.clone());
    let body = match input::bytes(body, MAX_BYTES).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
    };
    let request = Request::from_parts(head, Body::from(Bytes::clone(&body)));
    let response = next.run(request).await;
    let Some(missing) = response.extensions().get::<Missing>().copied() else {
        return response;
    };
    let kept = Kept::of(uri.path(), &body);
    if !kept.is_some() {
        return response;
    }
    let answered = response.extensions().get::<Answered>();
    let caller = answered.and_then(|answered| answered.caller.clone());
    match (missing, caller) {
        (Missing::Login, _) => {
            let frame = Frame::new(&app, &headers, &uri, None);
            login::over(&app, frame, kept)
        }
        (Missing::StepUp, Some(caller)) => {
            let frame = Frame::new(&app, &headers, &uri, Some(caller.clone()));
            let asked = step_up::ask(&app, frame, &caller, kept).await;
            asked.unwrap_or_else(IntoResponse::into_response)
        }
        (Missing::Password, Some(caller)) => {
            let frame = Frame::new(&app, &headers, &uri, Some(caller.clone()));
            let asked = password::ask(&app, frame, &caller, kept).await;
            asked.unwrap_or_else(IntoResponse::into_response)
        }
        (Missing::StepUp | Missing::Password, None) => response,
    }
}

fn is_short_form(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH);
    let length: Option<usize> = length.and_then(|length| length.to_str().ok()?.parse().ok());
    csrf::is_form(headers) && length.is_some_and(|length| length <= MAX_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(body: &str) -> Kept {
        Kept::of("/tasks", body.as_bytes())
    }

    #[test]
    fn what_was_typed_is_kept_but_for_secrets() {
        let kept = kept("csrf=a&title=a%26b&password=p&note=%C3%BC&token=t&tag=1&tag=2");
        assert_eq!(kept.action, "/tasks");
        let pairs = [("title", "a&b"), ("note", "ü"), ("tag", "1"), ("tag", "2")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(kept.fields(), pairs);
        assert!(kept.is_some());
    }

    #[test]
    fn nothing_is_kept_of_a_button_nor_for_another_site() {
        assert!(!kept("csrf=a").is_some());
        let elsewhere = Kept {
            action: "//evil.example".to_owned(),
            body: "a=b".to_owned(),
        };
        assert!(!elsewhere.is_some());
    }
}
