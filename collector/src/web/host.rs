//! The Host page: state with its reasons, the latest values, facts, and the timeline of events.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{Redirect, Response};
use infratrack_shared::ids::HostId;
use infratrack_shared::wire::answer::Action;
use uuid::Uuid;

use crate::api::commands;
use crate::api::hosts::{self, Host};
use crate::api::input::Path;
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::store;
use crate::store::commands::CommandRow;
use crate::store::events::EventRow;
use crate::store::facts::FactRow;
use crate::store::gaps::GapRow;
use crate::store::heartbeats::HeartbeatRow;
use crate::store::host_conflicts::ConflictRow;
use crate::web::frame::Frame;
use crate::web::{self, words};

/// Events on the page; the API has the rest.
const EVENTS: i64 = 50;
/// Conflicts on the page, newest first.
const CONFLICTS: i64 = 10;

#[derive(Template)]
#[template(path = "host.html")]
struct HostPage {
    frame: Frame,
    host: Host,
    latest: Option<HeartbeatRow>,
    filesystems: Vec<Filesystem>,
    facts: Vec<FactRow>,
    events: Vec<EventRow>,
    gaps: Vec<GapRow>,
    commands: Vec<CommandRow>,
    conflicts: Vec<ConflictRow>,
}

/// A filesystem as the page shows it.
struct Filesystem {
    mount: String,
    used: f32,
    total: String,
    available: String,
}

impl HostPage {
    fn fact_text(fact: &FactRow) -> String {
        serde_json::to_string_pretty(&fact.body).unwrap_or_default()
    }

    fn event_text(event: &EventRow) -> String {
        serde_json::to_string(&event.body).unwrap_or_default()
    }

    fn memory(latest: &HeartbeatRow) -> String {
        let used = latest.memory_total_bytes.zip(latest.memory_available_bytes);
        words::known(&used, |(total, available)| {
            format!(
                "{} of {}",
                words::bytes(total - available),
                words::bytes(total)
            )
        })
    }

    fn swap(latest: &HeartbeatRow) -> String {
        let used = latest.swap_total_bytes.zip(latest.swap_used_bytes);
        words::known(&used, |(total, used)| {
            if total == 0 {
                "none".to_owned()
            } else {
                format!("{} of {}", words::bytes(used), words::bytes(total))
            }
        })
    }

    fn load(latest: &HeartbeatRow) -> String {
        let loads = latest.load_1.zip(latest.load_5).zip(latest.load_15);
        words::known(&loads, |((one, five), fifteen)| {
            format!("{one:.2}, {five:.2}, {fifteen:.2}")
        })
    }

    #[expect(clippy::ref_option, reason = "templates pass fields by reference")]
    fn rate(value: &Option<i64>) -> String {
        words::known(value, |bytes| format!("{}/s", words::bytes(bytes)))
    }
}

/// `GET /hosts/{id}`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let id = HostId(id);
    let host = hosts::find(&app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let latest = store::heartbeats::list(&mut connection, id, None, 1)
        .await?
        .pop();
    let filesystems = latest.as_ref().map(filesystems).unwrap_or_default();
    let page = HostPage {
        frame,
        host,
        latest,
        filesystems,
        facts: store::facts::list(&mut connection, id).await?,
        events: store::events::list(&mut connection, id, None, EVENTS).await?,
        gaps: store::gaps::list(&mut connection, id, 20).await?,
        commands: store::commands::list(&mut connection, id, 5).await?,
        conflicts: store::host_conflicts::list(&mut connection, id, None, CONFLICTS).await?,
    };
    Ok(web::page(&page.frame, &page))
}

/// `POST /hosts/{id}/refresh`: asks the agent for its facts.
pub async fn refresh(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<Redirect, Problem> {
    let id = HostId(id);
    commands::queue(&app, id, Action::RefreshFacts, &caller).await?;
    Ok(Redirect::to(&format!("/hosts/{id}")))
}

fn filesystems(latest: &HeartbeatRow) -> Vec<Filesystem> {
    let all: Vec<infratrack_shared::wire::heartbeat::FilesystemUsage> =
        serde_json::from_value(latest.filesystems.clone()).unwrap_or_default();
    let signed = store::heartbeats::signed;
    all.into_iter()
        .map(|f| Filesystem {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a ratio needs no more digits"
            )]
            used: (1.0 - f.available_bytes as f64 / (f.total_bytes.max(1)) as f64) as f32,
            total: words::bytes(signed(f.total_bytes)),
            available: words::bytes(signed(f.available_bytes)),
            mount: f.mount,
        })
        .collect()
}
