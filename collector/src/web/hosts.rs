//! The Hosts page: every host with its state and the reason in words.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{Redirect, Response};

use crate::api::hosts::Host;
use crate::api::hosts::list;
use crate::api::hosts::query::HostsQuery;
use crate::api::input::Query;
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::sample_hosts;
use crate::web::frame::Frame;
use crate::web::{self, words};

#[derive(Template)]
#[template(path = "hosts.html")]
struct HostsPage {
    frame: Frame,
    page: Page<Host>,
    query: HostsQuery,
    enroll_endpoint: String,
    /// Some of these hosts are made up.
    has_sample: bool,
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
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(mut query): Query<HostsQuery>,
) -> Result<Response, Problem> {
    // A form sends its empty fields too.
    for field in [
        &mut query.status,
        &mut query.q,
        &mut query.liveness,
        &mut query.cursor,
    ] {
        *field = field.take().filter(|text| !text.is_empty());
    }
    let page = list::page(&app, &query).await?;
    let ids: Vec<_> = page.items.iter().map(|host| host.id).collect();
    let has_sample = {
        let mut connection = app.pool.acquire().await?;
        sample_hosts::is_any(&mut connection, &ids).await?
    };
    let page = HostsPage {
        frame,
        page,
        has_sample,
        query,
        enroll_endpoint: app.config.enroll_endpoint(),
    };
    Ok(web::page(&page.frame, &page))
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
