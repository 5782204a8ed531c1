//! Search over hosts, packages, pages and actions: a page, of which `static/palette.js` takes the list. A further kind of thing
//! is one more group here.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::api::hosts::list;
use crate::api::hosts::query::HostsQuery;
use crate::api::input::Query;
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::package_search;
use crate::web::frame::Frame;
use crate::web::plain::encoded;
use crate::web::{self, settings};

/// Hosts that are listed.
const HOSTS: i64 = 10;
/// Names of packages that are listed.
const PACKAGES: i64 = 5;
/// A longer text is cut: as much as the list of hosts takes.
const Q_CHARS: usize = 256;

/// Pages and actions: which of both, where, what it is called, and by which other words it is found.
const ENTRIES: [(&str, &str, &str, &str); 25] = [
    ("page", "/", "Overview", "home start"),
    ("page", "/hosts", "Hosts", "fleet servers machines"),
    (
        "page",
        "/patches",
        "Patches",
        "updates security advisories reboot overdue exposure",
    ),
    (
        "page",
        "/packages",
        "Packages",
        "installed software versions",
    ),
    (
        "page",
        "/changes",
        "Changes",
        "terraform ansible plans plays applies drift",
    ),
    (
        "action",
        "/changes/new",
        "Write down a change",
        "manual note",
    ),
    (
        "page",
        "/inventory",
        "Inventory",
        "expected absent terraform ansible sources",
    ),
    ("page", "/audit", "Audit log", "who changed what history"),
    (
        "page",
        "/settings/account",
        "Your account",
        "theme dark light password",
    ),
    (
        "page",
        "/settings/sessions",
        "Sessions",
        "browsers logged in",
    ),
    ("page", "/settings/users", "Users", "people accounts"),
    (
        "page",
        "/settings/roles",
        "Roles",
        "permissions rights access who may",
    ),
    ("page", "/settings/tokens", "API tokens", "keys secrets"),
    (
        "page",
        "/settings/enrollment",
        "Enrollment",
        "tokens install agents approve",
    ),
    (
        "page",
        "/settings/certificates",
        "Certificates",
        "expiry revoke tls",
    ),
    ("page", "/settings/views", "Saved views", "filters"),
    (
        "page",
        "/settings/health",
        "System health",
        "jobs queues versions skew status doctor",
    ),
    ("page", "/api/docs", "API documentation", "openapi rest"),
    (
        "action",
        "/settings/enrollment/new",
        "Enroll a host",
        "add install agent token new",
    ),
    (
        "action",
        "/settings/users/_new",
        "Add a user",
        "new person account",
    ),
    (
        "action",
        "/settings/tokens/new",
        "Make an API token",
        "new key secret",
    ),
    ("action", "/password", "Change your password", "account"),
    (
        "action",
        "/audit#verify",
        "Verify the audit log",
        "chain checkpoint tampered",
    ),
    (
        "action",
        "/settings/certificates?state=expiring",
        "Certificates that end soon",
        "expiry",
    ),
    (
        "action",
        "/settings/sessions#others",
        "End your other sessions",
        "log out everywhere",
    ),
];

#[derive(Template)]
#[template(path = "search.html")]
struct SearchPage {
    frame: Frame,
    q: String,
    found: Vec<Found>,
    /// Why hosts could not be searched.
    refused: Option<String>,
    /// Hosts beyond those that are listed.
    more: i64,
}

/// One thing that was found.
struct Found {
    kind: &'static str,
    name: String,
    address: String,
    /// Its state, in a word.
    badge: Option<String>,
    detail: String,
}

/// What is searched for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    q: String,
}

/// `GET /search`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let q: String = asked.q.trim().chars().take(Q_CHARS).collect();
    let (mut found, mut refused, mut more) = (Vec::new(), None, 0);
    if !q.is_empty() {
        match hosts(&app, &q).await {
            Ok((hosts, total)) => {
                more = total - i64::try_from(hosts.len()).unwrap_or(total);
                found = hosts;
            }
            Err(problem) if problem.status < 500 => refused = Some(settings::complaint(&problem)),
            Err(problem) => return Err(problem),
        }
    }
    found.extend(packages(&app, &q).await?);
    found.extend(entries(&frame, &q));
    let page = SearchPage {
        frame,
        q,
        found,
        refused,
        more,
    };
    Ok(web::page(&page.frame, &page))
}

async fn hosts(app: &App, q: &str) -> Result<(Vec<Found>, i64), Problem> {
    let query = HostsQuery {
        q: Some(q.to_owned()),
        limit: Some(HOSTS),
        ..HostsQuery::default()
    };
    let page = list::page(app, &query).await?;
    let found = page.items.into_iter().map(|host| Found {
        kind: "host",
        address: format!("/hosts/{}", host.id),
        detail: host
            .addresses
            .into_iter()
            .take(2)
            .collect::<Vec<_>>()
            .join(" "),
        name: host.name,
        badge: Some(host.status),
    });
    Ok((found.collect(), page.total))
}

/// Packages by the beginning of a name, and of a version after a space.
async fn packages(app: &App, q: &str) -> Result<Vec<Found>, Problem> {
    let (name, version) = q.split_once(char::is_whitespace).unwrap_or((q, ""));
    let version = version.trim();
    let is_text = !q.contains(char::is_control);
    if name.chars().count() < 2 || !is_text {
        return Ok(Vec::new());
    }
    let mut connection = app.pool.acquire().await?;
    let names = package_search::list_names(&mut connection, name, version, PACKAGES).await?;
    let found = names.into_iter().map(|(name, versions)| Found {
        kind: "package",
        address: format!("/packages?q={}", encoded(&name)),
        detail: match versions {
            1 => "one version".to_owned(),
            count => format!("{count} versions"),
        },
        name,
        badge: None,
    });
    Ok(found.collect())
}

/// The pages and actions with all words of `q`, as far as the reader may use them.
fn entries(frame: &Frame, q: &str) -> Vec<Found> {
    let q = q.to_lowercase();
    let mut found = Vec::new();
    for (kind, address, name, words) in ENTRIES {
        let text = format!("{name} {words}").to_lowercase();
        let has_all = q.split_whitespace().all(|word| text.contains(word));
        let path = address.split(['?', '#']).next().unwrap_or(address);
        if has_all && frame.may("GET", path) {
            found.push(Found {
                kind,
                name: name.to_owned(),
                address: address.to_owned(),
                badge: None,
                detail: String::new(),
            });
        }
    }
    found
}
