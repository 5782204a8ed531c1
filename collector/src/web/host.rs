//! The Host page: one scroll of who it is and how it is, its timeline, charts, backups, facts, and what was written down; with what
//! an operator can do about it.

pub mod act;
pub mod charts;
pub mod facts;
pub mod latest;
pub mod query;
pub mod timeline;
pub mod what_changed;

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use infratrack_shared::ids::HostId;
use uuid::Uuid;

use crate::api::hosts::{metrics, timeline as asking};
use crate::api::input::{Path, Query};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::agent_certs::{self, CertificateFilter, CertificateRow};
use crate::store::commands::{self, CommandRow};
use crate::store::host_conflicts::{self, ConflictRow};
use crate::store::tasks::{self, TaskRow};
use crate::store::volume_search::{self, VolumeRow, Which};
use crate::web::frame::Frame;
use crate::web::host::charts::Charts;
use crate::web::host::facts::FactView;
use crate::web::host::latest::{Latest, State as HostState};
use crate::web::host::query::HostPageQuery;
use crate::web::host::timeline::TimelineView;
use crate::web::{self, backups, plain, words};

/// Rows of each list on the page, newest first; the timeline and the API have the rest.
const ROWS: i64 = 10;

#[derive(Template)]
#[template(path = "host.html")]
struct HostPage {
    frame: Frame,
    state: HostState,
    query: HostPageQuery,
    notes: Option<String>,
    /// The host whose clone's rows these are.
    clone_of: Option<Uuid>,
    timeline: TimelineView,
    charts: Charts,
    volumes: Vec<VolumeRow>,
    facts: Vec<FactView>,
    tasks: Vec<TaskRow>,
    certificates: Vec<CertificateRow>,
    commands: Vec<CommandRow>,
    conflicts: Vec<ConflictRow>,
    /// Why what a button asked for was not done.
    refused: Option<String>,
}

impl HostPage {
    fn id(&self) -> HostId {
        HostId(self.state.host.id)
    }

    fn name(&self) -> String {
        shown_name(&self.state.host.name)
    }

    fn base(&self) -> String {
        format!("/hosts/{}", self.state.host.id)
    }

    fn has_agent(&self) -> bool {
        let host = &self.state.host;
        host.retired_at.is_none() && (host.origin == "agent" || host.agent_version.is_some())
    }

    fn never_reported(&self) -> bool {
        self.state.host.last_seen_at.is_none() && self.state.host.retired_at.is_none()
    }

    /// What a form keeps of the page's URL, but its own part.
    fn kept(&self) -> Vec<(&'static str, String)> {
        let query = &self.query;
        some([
            ("kinds", query.kinds().join(",")),
            ("range", query.range.clone()),
            ("from", query.from.clone()),
            ("to", query.to.clone()),
            ("q", query.q.clone()),
        ])
    }

    fn kept_for_facts(&self) -> Vec<(&'static str, String)> {
        let query = &self.query;
        some([
            ("kinds", query.kinds().join(",")),
            ("range", query.range.clone()),
            ("from", query.from.clone()),
            ("to", query.to.clone()),
        ])
    }

    /// The time that was jumped to, as its field takes it.
    fn around(&self) -> String {
        let at = query::instant("around", &self.query.around).ok().flatten();
        let text = at.map(query::text).unwrap_or_default();
        text.chars().take("2026-01-31T12:00".len()).collect()
    }

    fn all_facts(&self) -> String {
        self.query.link(self.id(), "facts", |query| query.q.clear())
    }

    fn task_tone(status: &str) -> &'static str {
        match status {
            "done" => "good",
            "failed" => "bad",
            "in_progress" => "warn",
            _ => "neutral",
        }
    }

    fn command_name(command: &CommandRow) -> String {
        plain::line(&command.action.replace('_', " "), 80)
    }

    fn command_state(&self, command: &CommandRow) -> String {
        let detail = command.detail.as_deref().unwrap_or_default();
        let told = if let Some(outcome) = &command.outcome {
            format!("{} {detail}", outcome.replace('_', " "))
        } else if command.confirmed_at.is_some() {
            "the agent has it".to_owned()
        } else if command.expires_at < self.frame.now {
            "expired before the agent took it".to_owned()
        } else {
            "waits for the agent".to_owned()
        };
        plain::line(told.trim(), 300)
    }
}

/// A host's name on its page.
fn shown_name(name: &str) -> String {
    plain::line(name, 120)
}

fn some<const N: usize>(pairs: [(&'static str, String); N]) -> Vec<(&'static str, String)> {
    let pairs = pairs.into_iter();
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

/// `GET /hosts/{id}`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<Uuid>,
    Query(query): Query<HostPageQuery>,
) -> Result<Response, Problem> {
    show(&app, frame, HostId(id), query, None).await
}

/// The page; after a button that was refused, with why.
async fn show(
    app: &App,
    frame: Frame,
    id: HostId,
    query: HostPageQuery,
    refused: Option<&Problem>,
) -> Result<Response, Problem> {
    let now = frame.now;
    let asked = asking::asked(&query.timeline()?, frame.may("GET", "/api/v1/audit"))?;
    let (range, range_name) = query.metrics(now)?;
    let state = HostState::read(app, id).await?;
    let numbers = metrics::read(app, id, &range).await?;
    let mut connection = app.pool.acquire().await?;
    let found = crate::timeline::read(&mut connection, id, &asked, now).await?;
    let text = query.q.trim();
    let facts = crate::store::facts::search(
        &mut connection,
        id,
        Some(text).filter(|text| !text.is_empty()),
        facts::WHOLE_BYTES,
        facts::MOST,
    )
    .await?;
    let of_host = CertificateFilter {
        host_id: Some(id.0),
        host_name: None,
        state: None,
        serial: None,
        now,
    };
    let volumes_of_host = Which {
        host_id: Some(id.0),
        ..Which::default()
    };
    let tasks_of_host = tasks::Filter {
        host_id: Some(id.0),
        ..tasks::Filter::default()
    };
    let page = HostPage {
        timeline: TimelineView::of(id, &query, &asked, found, now),
        charts: Charts::of(id, &query, range_name, &numbers, now),
        volumes: volume_search::list(&mut connection, &volumes_of_host, now, None, ROWS).await?,
        facts: facts::views(id, facts),
        notes: crate::store::hosts::edit::find_notes(&mut connection, id).await?,
        clone_of: host_conflicts::find_original(&mut connection, id).await?,
        tasks: tasks::list(&mut connection, &tasks_of_host, None, ROWS).await?,
        certificates: agent_certs::list(&mut connection, &of_host, None, ROWS).await?,
        commands: commands::list(&mut connection, id, ROWS).await?,
        conflicts: host_conflicts::list(&mut connection, id, None, ROWS).await?,
        refused: refused.map(|problem| {
            let detail = problem.detail.clone();
            detail.unwrap_or_else(|| problem.title.clone())
        }),
        frame,
        state,
        query,
    };
    let status = refused.map(Problem::status_code);
    let shown = web::page(&page.frame, &page);
    Ok((status.unwrap_or(shown.status()), shown).into_response())
}

#[derive(Template)]
#[template(path = "host/part.html")]
struct StatePart {
    frame: Frame,
    state: HostState,
}

/// `GET /hosts/{id}/state`: the part of the page that changes with every heartbeat, for its script.
pub async fn state(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let state = HostState::read(&app, HostId(id)).await?;
    let part = StatePart { frame, state };
    Ok(web::page(&part.frame, &part))
}
