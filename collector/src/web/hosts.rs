//! The Hosts page: every host with its state and the reason in words.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use time::OffsetDateTime;

use crate::api::hosts::{self, Host, HostsQuery};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::web::{self, words};

#[derive(Template)]
#[template(path = "hosts.html")]
struct HostsPage {
    page: Page<Host>,
    query: HostsQuery,
    now: OffsetDateTime,
    enroll_endpoint: String,
}

impl HostsPage {
    /// A link to the same list with one filter changed.
    fn link(&self, status: &str) -> String {
        let q = self.query.q.as_deref().unwrap_or_default();
        let liveness = self.query.liveness.as_deref().unwrap_or_default();
        let pairs = [("status", status), ("q", q), ("liveness", liveness)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty());
        let text: Vec<_> = pairs
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        format!("/hosts?{}", text.join("&"))
    }

    fn is(&self, status: &str) -> bool {
        self.query.status.as_deref().unwrap_or_default() == status
    }

    fn filtered(&self) -> bool {
        self.query.status.is_some() || self.query.q.is_some() || self.query.liveness.is_some()
    }

    fn next(&self) -> Option<String> {
        let cursor = self.page.next_cursor.as_ref()?;
        let link = self.link(self.query.status.as_deref().unwrap_or_default());
        Some(format!("{link}&cursor={}", encode(cursor)))
    }
}

/// `GET /`.
pub async fn home() -> Redirect {
    Redirect::to("/hosts")
}

/// `GET /hosts`, with the same parameters as the API's list.
pub async fn page(
    state: State<Arc<App>>,
    query: Result<Query<HostsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(mut query) = query?;
    // A form sends its empty fields too.
    for field in [
        &mut query.status,
        &mut query.q,
        &mut query.liveness,
        &mut query.cursor,
    ] {
        *field = field.take().filter(|text| !text.is_empty());
    }
    let app = Arc::clone(&state.0);
    let list = hosts::list(state, Ok(Query(query.clone()))).await?;
    let page = HostsPage {
        page: list.0,
        query,
        now: app.clock.now(),
        enroll_endpoint: app.config.enroll_endpoint(),
    };
    Ok(web::page(&page).into_response())
}

/// Percent-encodes a query value (RFC 3986, section 2.1).
fn encode(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encoded = |byte: u8| {
        if unreserved(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encoded).collect()
}
