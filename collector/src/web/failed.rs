//! The page that a person sees where a program would read a problem: what went wrong, what to do, and the request's id.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use crate::api::problem::Problem;
use crate::api::requests::Answered;
use crate::app::App;
use crate::web;
use crate::web::frame::Frame;

#[derive(Template)]
#[template(path = "failed.html")]
struct FailedPage {
    frame: Frame,
    problem: Problem,
}

impl FailedPage {
    /// What a person can do about it.
    fn advice(&self) -> &'static str {
        match self.problem.status {
            403 => "Ask somebody with a higher role, or log in as another user.",
            404 | 410 => "It may have been removed, or the address was typed wrong.",
            429 => "Wait a moment, then load the page again.",
            500..=599 => {
                "Nothing was changed by this request unless the page says so. Try again; if it stays, the collector's \
                          log has more under the request id."
            }
            _ => "Go back, correct it, and send it again.",
        }
    }
}

/// Puts a page in place of a problem where a person asked.
pub async fn pages(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if !is_for_a_person(&request) {
        return next.run(request).await;
    }
    let (headers, uri) = (request.headers().clone(), request.uri().clone());
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    let answered = response.extensions().get::<Answered>();
    let caller = answered.and_then(|answered| answered.caller.clone());
    let frame = Frame::new(&app, &headers, &uri, caller);
    let status = response.status();
    let shown = web::page(&frame.clone(), &FailedPage { frame, problem });
    if shown.status() != StatusCode::OK {
        return response;
    }
    let (mut head, _) = response.into_parts();
    let (shown, body) = shown.into_parts();
    head.status = status;
    head.headers.remove(http::header::CONTENT_LENGTH);
    for name in [CONTENT_TYPE, CONTENT_SECURITY_POLICY] {
        if let Some(value) = shown.headers.get(&name) {
            head.headers.insert(name, value.clone());
        }
    }
    Response::from_parts(head, body)
}

fn is_for_a_person(request: &Request) -> bool {
    let path = request.uri().path();
    !path.starts_with("/api/v1") && !path.starts_with("/ingest") && takes_html(request.headers())
}

/// Browsers name it when they go somewhere.
fn takes_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}
