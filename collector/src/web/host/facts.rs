//! Facts on the Host page, and the page of one fact: what it is, what it was, and what differed.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use infratrack_shared::ids::HostId;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::api::hosts::facts::{self as api, FactChange, HistoryQuery};
use crate::api::hosts::{self, Host};
use crate::api::input::{Path, Query};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::facts::{self, ShortFact};
use crate::web;
use crate::web::frame::Frame;
use crate::web::plain::{block, encoded, line, weight};

/// Facts that are listed, the length up to which a fact stands there whole, and what all of them may weigh.
pub const MOST: i64 = 200;
pub const WHOLE_BYTES: i32 = 2000;
const ALL: usize = 90 * 1024;
/// Characters of a fact on its own page.
const BODY: usize = 100_000;

/// A fact in the list.
#[derive(Debug)]
pub struct FactView {
    pub key: String,
    pub href: String,
    pub changed_at: OffsetDateTime,
    pub change_count: i64,
    /// Whole, where there is room for it.
    pub body: Option<String>,
    pub start: String,
}

/// Facts as they are listed: the short ones whole, as long as the page has room.
pub fn views(host: HostId, facts: Vec<ShortFact>) -> Vec<FactView> {
    let mut left = ALL;
    let view = |fact: ShortFact| {
        let pretty = fact.body.as_ref().map(pretty);
        let flat = fact.body.as_ref().map(Value::to_string);
        let start = flat.or(fact.start).unwrap_or_default();
        let whole = pretty.map(|text| block(&text, 2 * BODY));
        let whole = whole.filter(|text| weight(text) <= left);
        left -= whole.as_deref().map_or(0, weight);
        FactView {
            href: format!("/hosts/{host}/facts?key={}", encoded(&fact.key)),
            key: line(&fact.key, 120),
            changed_at: fact.changed_at,
            change_count: fact.change_count,
            body: whole,
            start: line(&start, 120),
        }
    };
    facts.into_iter().map(view).collect()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[derive(Template)]
#[template(path = "host/fact.html")]
struct FactPage {
    frame: Frame,
    host: Host,
    key: String,
    /// As JSON, or nothing where the host does not tell it any more.
    body: Option<String>,
    is_long: bool,
    changed_at: Option<OffsetDateTime>,
    history: Page<FactChange>,
    next: Option<String>,
    now: OffsetDateTime,
}

impl FactPage {
    fn name(&self) -> String {
        line(&self.host.name, 120)
    }

    fn shown_key(&self) -> String {
        line(&self.key, 120)
    }

    fn place(path: &str) -> String {
        let place = path
            .trim_start_matches('/')
            .replace("~1", "/")
            .replace("~0", "~");
        line(&place, 160)
    }

    #[expect(clippy::ref_option, reason = "templates pass fields by reference")]
    fn side(value: &Option<Value>) -> String {
        match value {
            None => "nothing".to_owned(),
            Some(Value::String(text)) => line(text, 400),
            Some(value) => line(&value.to_string(), 400),
        }
    }

    fn first(&self, change: &FactChange) -> String {
        let _ = self;
        change.is.as_ref().map_or_else(
            || "not shown: it is long".to_owned(),
            |is| block(&pretty(is), 4000),
        )
    }
}

/// Which fact, and where in its history.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FactQuery {
    pub key: String,
    pub cursor: String,
}

/// `GET /hosts/{id}/facts?key=`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<Uuid>,
    Query(query): Query<FactQuery>,
) -> Result<Response, Problem> {
    let id = HostId(id);
    let host = hosts::find(&app, id).await?;
    if query.key.is_empty() {
        return Ok(Redirect::to(&format!("/hosts/{id}#facts")).into_response());
    }
    let asked = HistoryQuery {
        key: query.key.clone(),
        limit: None,
        cursor: Some(query.cursor.clone()).filter(|cursor| !cursor.is_empty()),
    };
    let history = api::read(&app, id, &asked).await?;
    let mut connection = app.pool.acquire().await?;
    let fact = facts::find(&mut connection, id, &query.key).await?;
    drop(connection);
    if fact.is_none() && history.total == 0 {
        return Err(Problem::missing("fact", line(&query.key, 120)));
    }
    let text = fact.as_ref().map(|fact| pretty(&fact.body));
    let next = history.next_cursor.as_ref().map(|cursor| {
        let key = encoded(&query.key);
        format!("/hosts/{id}/facts?key={key}&cursor={}", encoded(cursor))
    });
    let page = FactPage {
        now: frame.now,
        frame,
        host,
        is_long: text
            .as_ref()
            .is_some_and(|text| text.chars().nth(BODY).is_some()),
        body: text.map(|text| block(&text, BODY)),
        changed_at: fact.map(|fact| fact.changed_at),
        key: query.key,
        history,
        next,
    };
    Ok(web::page(&page.frame, &page))
}
