//! The Changes page: what changed the fleet, the newest first; what is listed stands in the page's URL.

pub mod act;
pub mod page;
pub mod shown;

use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use infratrack_shared::ids::HostId;
use serde::Deserialize;
use uuid::Uuid;

use crate::api::changes::{self as api, ChangesQuery, OUTCOMES};
use crate::api::hosts;
use crate::api::input::Query;
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::change_hosts;
use crate::store::changes::ChangeRow;
use crate::web::frame::Frame;
use crate::web::host::query::{instant, text};
use crate::web::plain::{encoded, line};
use crate::web::{self, given};

/// Tools, and what they are called.
const TOOLS: [(&str, &str); 3] = [
    ("terraform", "Terraform"),
    ("ansible", "Ansible"),
    ("manual", "written by hand"),
];

/// What is asked for. Empty is not asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    repository: String,
    actor: String,
    /// A host's id or name.
    host: String,
    tool: String,
    outcome: String,
    from: String,
    to: String,
    cursor: String,
}

impl Asked {
    /// The filters that are set: name, what it is called, value.
    fn set(&self) -> Vec<(&'static str, &'static str, &str)> {
        let all = [
            ("repository", "repository", &self.repository),
            ("actor", "who", &self.actor),
            ("host", "host", &self.host),
            ("tool", "tool", &self.tool),
            ("outcome", "outcome", &self.outcome),
            ("from", "from", &self.from),
            ("to", "to", &self.to),
        ];
        let all = all
            .into_iter()
            .map(|(name, called, value)| (name, called, value.trim()));
        all.filter(|(_, _, value)| !value.is_empty()).collect()
    }

    /// The page with this parameter in place of what it was; without it where it is empty.
    fn with(&self, name: &str, value: &str) -> String {
        let mut address = "/changes".to_owned();
        let mut sign = '?';
        let kept = self
            .set()
            .into_iter()
            .filter(|(other, _, _)| *other != name);
        let kept = kept.map(|(name, _, value)| (name, value));
        for (name, value) in kept.chain([(name, value)]) {
            if !value.is_empty() {
                let _ = write!(address, "{sign}{name}={}", encoded(value));
                sign = '&';
            }
        }
        address
    }
}

#[derive(Template)]
#[template(path = "changes.html")]
struct ChangesPage {
    frame: Frame,
    asked: Asked,
    page: Page<ChangeRow>,
    query: ChangesQuery,
    /// Of the host that is asked for.
    host_name: Option<String>,
}

impl ChangesPage {
    fn shown(text: &str) -> String {
        line(text, 160)
    }

    fn next(&self) -> Option<String> {
        let cursor = self.page.next_cursor.as_deref()?;
        Some(self.asked.with("cursor", cursor))
    }

    /// All that match, as CSV.
    fn csv(&self) -> String {
        let query = &self.query;
        let pairs = [
            ("repository", query.repository.clone()),
            ("actor", query.actor.clone()),
            ("host", query.host.map(|host| host.to_string())),
            ("tool", query.tool.clone()),
            ("outcome", query.outcome.clone()),
            ("from", query.from.map(text)),
            ("to", query.to.map(text)),
        ];
        let mut address = "/api/v1/changes?format=csv".to_owned();
        for (name, value) in pairs {
            if let Some(value) = value {
                let _ = write!(address, "&{name}={}", encoded(&value));
            }
        }
        address
    }

    /// What narrows the list: its words, and the page without it.
    fn chips(&self) -> Vec<(String, String)> {
        let chip = |(name, called, value): (&str, &str, &str)| {
            let host = self.host_name.as_deref().filter(|_| name == "host");
            let words = format!("{called}: {}", host.unwrap_or(value));
            (line(&words, 80), self.asked.with(name, ""))
        };
        self.asked.set().into_iter().map(chip).collect()
    }

    /// As browsers' fields take it: UTC, to the minute.
    fn field(text: &str) -> String {
        let at = instant("", text).ok().flatten();
        let utc = at.map(|at| web::words::utc(&at.to_offset(time::UtcOffset::UTC)));
        let minute = utc.as_deref().and_then(|utc| utc.get(..16));
        minute.unwrap_or_default().to_owned()
    }
}

/// `GET /changes`, with the parameters of the API's list; a host may be asked for by its name.
pub async fn list(
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let host = match given(asked.host.trim()) {
        Some(host) => Some(find_host(&app, &host).await?),
        None => None,
    };
    let (host, host_name) = host.unzip();
    let query = ChangesQuery {
        repository: given(asked.repository.trim()),
        actor: given(asked.actor.trim()),
        host,
        tool: given(&asked.tool),
        outcome: given(&asked.outcome),
        from: instant("from", &asked.from)?,
        to: instant("to", &asked.to)?,
        cursor: given(&asked.cursor),
        ..ChangesQuery::default()
    };
    let page = ChangesPage {
        page: api::rows(&app, &query).await?,
        frame,
        asked,
        query,
        host_name,
    };
    Ok(web::page(&page.frame, &page))
}

/// The host with this id or name, with what it is called.
pub async fn find_host(app: &App, said: &str) -> Result<(Uuid, String), Problem> {
    let id = match said.parse() {
        Ok(id) => id,
        Err(_) => named_hosts(app, "host", &[said.to_owned()])
            .await?
            .remove(0),
    };
    let name = hosts::find(app, HostId(id)).await.map(|host| host.name);
    Ok((id, name.unwrap_or_else(|_| said.to_owned())))
}

/// The hosts with these names, or ids, in this order.
async fn named_hosts(app: &App, field: &str, said: &[String]) -> Result<Vec<Uuid>, Problem> {
    let names: Vec<_> = said.iter().map(|name| name.to_lowercase()).collect();
    let mut connection = app.pool.acquire().await?;
    let found = change_hosts::list_named(&mut connection, &names).await?;
    let mut hosts = Vec::with_capacity(said.len());
    for (said, name) in said.iter().zip(names) {
        if let Ok(id) = said.parse() {
            hosts.push(id);
            continue;
        }
        let mut called = found.iter().filter(|host| host.name == name);
        let first = called.next().ok_or_else(|| {
            let detail = format!(
                "must be names or ids of hosts: none is called {}",
                line(said, 80)
            );
            Problem::parameter(field, detail)
        })?;
        if called.next().is_some() {
            let detail = format!(
                "must be names or ids of hosts: several are called {}, so their ids are needed",
                line(said, 80)
            );
            return Err(Problem::parameter(field, detail));
        }
        hosts.push(first.host_id);
    }
    Ok(hosts)
}
