//! The Hosts page: every host with its state and the reason in words; what is listed, how, and what can be done with
//! all of it stands in the page's URL.

pub mod asked;
pub mod bulk;
pub mod columns;
pub mod first;
pub mod row;
pub mod views;

use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, StatusCode};

use crate::api::hosts::{Host, REASONS, list};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::api::views::{self as kept, View};
use crate::app::App;
use crate::caller::Caller;
use crate::store::hosts::facets::{self, Value};
use crate::store::{sample_hosts, saved_views};
use crate::web;
use crate::web::frame::Frame;
use asked::Asked;
use columns::{COLUMNS, Column, NAME};
use row::Row;

/// Views that have a place of their own above the list.
const VIEWS: usize = 6;
/// Statuses in the order in which they are looked at.
const STATUSES: [&str; 4] = ["unhealthy", "degraded", "unknown", "healthy"];
const LIVENESS: [&str; 4] = ["online", "late", "offline", "never"];
/// Filters that are a text: parameter, what it is called, and how it is written.
const FIELDS: [(&str, &str, &str); 12] = [
    ("tag", "Tags", "All of these, with commas."),
    ("not_tag", "Not these tags", ""),
    ("owner", "Owner", ""),
    ("environment", "Environment", ""),
    ("os", "System", "As in os-release: debian."),
    ("agent_version", "Agent", ""),
    ("address", "Address", "Or a network, 10.3.0.0/16."),
    (
        "certificate_days",
        "Certificate: days left",
        "So many or less.",
    ),
    (
        "last_seen_before",
        "Last seen before",
        "2026-01-31T12:00:00Z",
    ),
    ("last_seen_after", "Last seen after", ""),
    ("created_before", "Here since before", ""),
    ("created_after", "Here since after", ""),
];

#[derive(Template)]
#[template(path = "hosts.html")]
struct HostsPage {
    frame: Frame,
    asked: Asked,
    page: Page<Host>,
    /// Of the hosts that match but for their status, how many are in each.
    counts: Vec<(String, i64)>,
    values: Arc<[Value]>,
    views: Vec<View>,
    /// Some of these hosts are made up.
    has_sample: bool,
    /// There is hardly a host yet.
    has_steps: bool,
    may_share: bool,
    /// Why nothing is listed.
    complaint: Option<String>,
}

impl HostsPage {
    fn row(&self, host: &Host) -> String {
        let (shown, now) = (self.asked.shown, self.frame.now);
        Row { host, shown, now }.html()
    }

    /// How many there would be with this status; `None`: it is not known.
    fn count(&self, status: &str) -> Option<i64> {
        if self.complaint.is_some() {
            return None;
        }
        let of = |status: &str| {
            let found = self.counts.iter().find(|(known, _)| known == status);
            found.map_or(0, |(_, count)| *count)
        };
        Some(match status {
            "" => self.counts.iter().map(|(_, count)| count).sum(),
            status => of(status),
        })
    }

    /// What the live stream is asked for.
    fn stream(&self) -> String {
        let ids: Vec<_> = self
            .page
            .items
            .iter()
            .map(|host| host.id.to_string())
            .collect();
        let select = if self.asked.shown.selects() {
            "&select=1"
        } else {
            ""
        };
        format!(
            "/live/hosts?columns={}{select}&ids={}",
            self.asked.shown.text(),
            ids.join(",")
        )
    }

    fn values(&self, field: &str) -> impl Iterator<Item = &Value> {
        self.values.iter().filter(move |value| value.field == field)
    }

    fn view_link(view: &View) -> String {
        asked::link(&view.query)
    }

    fn is_view(&self, view: &View) -> bool {
        asked::is_same(&view.query, &self.asked.list())
    }

    fn first_views(&self) -> impl Iterator<Item = &View> {
        self.views.iter().take(VIEWS)
    }

    fn is_first_run(&self) -> bool {
        self.complaint.is_none()
            && self.page.total == 0
            && !self.asked.is_filtered()
            && !self.asked.is_later()
    }

    /// What the filters' form leaves as it is.
    fn kept_by_filters(&self) -> Vec<(String, String)> {
        let hidden = self.asked.hidden(&[]);
        let kept = hidden.into_iter();
        kept.filter(|(name, _)| !asked::is_filter(name) || name == "id")
            .collect()
    }

    fn by_name(&self) -> String {
        self.asked.sorted(&NAME)
    }

    /// A reason's code in words.
    fn reason(code: &str) -> String {
        code.replace('_', " ")
    }

    fn sorted(&self) -> impl Iterator<Item = &'static Column> {
        self.asked.shown.columns()
    }
}

/// `GET /hosts`, with the parameters of the API's list, `columns`, and nothing that a form left empty.
pub async fn page(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut asked = match Asked::parse(query.as_deref()) {
        Ok(asked) => asked,
        Err(problem) => return refused(&app, &caller, frame, problem).await,
    };
    if !asked.is_canonical {
        return Ok(Redirect::to(&asked.canonical()).into_response());
    }
    if asked.is_bare() {
        let mut connection = app.pool.acquire().await?;
        let usual = saved_views::find_default(&mut connection, &kept::owner(&caller)).await?;
        if let Some(view) = usual.filter(|view| !view.query.is_empty()) {
            return Ok(Redirect::to(&asked::link(&view.query)).into_response());
        }
    }
    asked.shown = asked.shown.selecting(frame.may("POST", "/hosts/bulk"));
    let page = match list::page(&app, &asked.query).await {
        Ok(page) => page,
        // A cursor of another list, say.
        Err(problem) if problem.status == StatusCode::BAD_REQUEST.as_u16() => {
            return refused(&app, &caller, frame, problem).await;
        }
        Err(problem) => return Err(problem),
    };
    let page = look(&app, &caller, frame, &headers, asked, page).await?;
    if page.is_first_run() && page.frame.may("POST", "/hosts/first-token") {
        return Ok(first::page(&app, page.frame, None, None));
    }
    Ok(web::page(&page.frame, &page))
}

/// All that stands around the list.
async fn look(
    app: &App,
    caller: &Caller,
    frame: Frame,
    headers: &HeaderMap,
    asked: Asked,
    page: Page<Host>,
) -> Result<HostsPage, Problem> {
    let filter = asked.query.filter()?;
    let views = kept::all(app, caller).await?;
    let ids: Vec<_> = page.items.iter().map(|host| host.id).collect();
    let cutoffs = app.silence.cutoffs(app.clock.now());
    let mut connection = app.pool.acquire().await?;
    let counts = facets::count_by_status(&mut connection, &filter, cutoffs).await?;
    let values = app.offered.values(&mut connection, app.clock.now()).await?;
    let has_sample = sample_hosts::is_any(&mut connection, &ids).await?;
    let has_steps = !first::is_dismissed(headers) && {
        let (real, _) = sample_hosts::count_real(&mut connection, &[]).await?;
        real == 1
    };
    Ok(HostsPage {
        may_share: kept::may_share(caller),
        frame,
        asked,
        page,
        counts,
        values,
        views,
        has_sample,
        has_steps,
        complaint: None,
    })
}

/// The page for an address that asks for what there is not.
async fn refused(
    app: &App,
    caller: &Caller,
    frame: Frame,
    problem: Problem,
) -> Result<Response, Problem> {
    let page = HostsPage {
        may_share: false,
        asked: Asked::default(),
        page: Page::whole(Vec::new()),
        counts: Vec::new(),
        values: Arc::default(),
        views: kept::all(app, caller).await?,
        has_sample: false,
        has_steps: false,
        complaint: Some(problem.detail.unwrap_or(problem.title)),
        frame,
    };
    let answer = web::page(&page.frame, &page);
    Ok((StatusCode::BAD_REQUEST, answer).into_response())
}
