//! The Inventory page: which hosts should report and which do, and a button for each configured source.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, Form, State};
use axum::response::Response;
use serde::Deserialize;

use crate::api::input::Query;
use crate::api::inventory::{self, ExpectedQuery, SyncQuery};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::inventory::report::SyncReport;
use crate::store::expected_hosts::ExpectedRow;
use crate::store::inventories::{self, InventoryRow};
use crate::web;
use crate::web::frame::Frame;

/// The ledger's lists, with what they are called.
const STATES: [(&str, &str); 6] = [
    ("", "all"),
    ("absent", "no agent reports"),
    ("unexpected", "no source knows"),
    ("destroyed_reporting", "destroyed, still reporting"),
    ("gone", "left the source"),
    ("ok", "in order"),
];

#[derive(Template)]
#[template(path = "inventory.html")]
struct InventoryPage {
    frame: Frame,
    page: Page<ExpectedRow>,
    state: String,
    /// With where their documents are.
    configured: Vec<(String, String)>,
    known: Vec<InventoryRow>,
    /// Of the button that was pressed.
    report: Option<SyncReport>,
    refused: Option<String>,
}

impl InventoryPage {
    fn next(&self) -> Option<String> {
        let cursor = self.page.next_cursor.as_ref()?;
        let state = match self.state.as_str() {
            "" => String::new(),
            state => format!("state={state}&"),
        };
        Some(format!("/inventory?{state}cursor={cursor}"))
    }

    fn called(state: &str) -> &str {
        let found = STATES.iter().find(|(name, _)| *name == state);
        found.map_or(state, |(_, called)| called)
    }
}

/// `GET /inventory`, with the same parameters as the API's ledger.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(query): Query<ExpectedQuery>,
) -> Result<Response, Problem> {
    show(&app, frame, query, None, None).await
}

/// The form of a configured source.
#[derive(Debug, Deserialize)]
pub struct SyncForm {
    from: String,
    #[serde(default)]
    dry_run: bool,
}

/// `POST /inventory/sync`: as the API's sync of a configured source; the page shows what came of it.
pub async fn sync(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
    Form(form): Form<SyncForm>,
) -> Result<Response, Problem> {
    let query = SyncQuery {
        from: Some(form.from),
        dry_run: form.dry_run,
        ..SyncQuery::default()
    };
    let (report, refused) = match inventory::run(&app, &caller, &query, None).await {
        Ok(report) => (Some(report), None),
        Err(problem) => (None, Some(problem.detail.unwrap_or(problem.title))),
    };
    show(&app, frame, ExpectedQuery::default(), report, refused).await
}

async fn show(
    app: &App,
    frame: Frame,
    mut query: ExpectedQuery,
    report: Option<SyncReport>,
    refused: Option<String>,
) -> Result<Response, Problem> {
    query.state = query.state.filter(|state| !state.is_empty());
    let page = inventory::ledger(app, &query).await?;
    let mut connection = app.pool.acquire().await?;
    let page = InventoryPage {
        frame,
        page,
        state: query.state.unwrap_or_default(),
        configured: app
            .config
            .inventory
            .sources
            .iter()
            .filter_map(|source| Some((source.name.clone(), source.place().ok()?.to_string())))
            .collect(),
        known: inventories::list(&mut connection).await?,
        report,
        refused,
    };
    Ok(web::page(&page.frame, &page))
}
