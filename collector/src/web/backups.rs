//! The Backups page: is everything backed up? How volumes stand, which hosts have none, and the list, whose filters stand in
//! the page's URL.

pub mod act;
pub mod drill;
pub mod form;
pub mod proof;
pub mod volume;

use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use crate::api::input::Query;
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::api::volumes::{self as api, VolumesQuery};
use crate::app::App;
use crate::store::volume_search::{self, STATUSES, UnprotectedHost, VolumeRow};
use crate::web::frame::Frame;
use crate::web::plain::{encoded, line};
use crate::web::{self, given};

/// Hosts without volumes that are named.
const UNPROTECTED: i64 = 20;
const KINDS: [&str; 3] = ["files", "command", "external"];

/// What is asked for. Empty is not asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    q: String,
    host: String,
    kind: String,
    status: String,
    owner: String,
    cursor: String,
}

impl Asked {
    /// The page with this parameter in place of what it was; without it where it is empty.
    fn with(&self, name: &str, value: &str) -> String {
        let mut address = "/backups".to_owned();
        let mut sign = '?';
        let all = [
            ("q", self.q.as_str()),
            ("host", &self.host),
            ("kind", &self.kind),
            ("status", &self.status),
            ("owner", &self.owner),
        ];
        let kept = all.into_iter().filter(|(other, _)| *other != name);
        for (name, value) in kept.chain([(name, value)]) {
            if !value.trim().is_empty() {
                let _ = write!(address, "{sign}{name}={}", encoded(value.trim()));
                sign = '&';
            }
        }
        address
    }

    fn is_set(&self) -> bool {
        self.with("cursor", "") != "/backups"
    }
}

#[derive(Template)]
#[template(path = "backups.html")]
struct BackupsPage {
    frame: Frame,
    asked: Asked,
    page: Page<VolumeRow>,
    /// Each status that volumes have, with how many.
    counts: Vec<(&'static str, i64)>,
    unprotected: Vec<UnprotectedHost>,
    unprotected_total: i64,
}

impl BackupsPage {
    fn shown(text: &str) -> String {
        line(text, 160)
    }

    fn volumes(&self) -> i64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    fn of(&self, status: &str) -> i64 {
        let found = self.counts.iter().find(|(other, _)| *other == status);
        found.map_or(0, |(_, count)| *count)
    }

    /// The answer to the question that the page is for.
    fn answer(&self) -> (&'static str, String) {
        let (late, failing) = (self.of("late"), self.of("failing"));
        let named = |count: i64, one: &str, many: &str| {
            format!("{count} {}", if count == 1 { one } else { many })
        };
        if self.volumes() == 0 {
            return (
                "unknown",
                "Nothing is backed up: there are no volumes.".to_owned(),
            );
        }
        let mut words = Vec::new();
        if late > 0 {
            words.push(format!(
                "{} past its RPO",
                named(late, "volume is", "volumes are")
            ));
        }
        if failing > 0 {
            words.push(format!("{} failing", named(failing, "is", "are")));
        }
        if self.unprotected_total > 0 {
            let hosts = named(self.unprotected_total, "host has", "hosts have");
            words.push(format!("{hosts} no volume"));
        }
        if words.is_empty() {
            return (
                "good",
                "Every host has a volume, and none is late.".to_owned(),
            );
        }
        let tone = if late + failing > 0 { "bad" } else { "warn" };
        (tone, format!("No: {}.", words.join(", ")))
    }

    fn next(&self) -> Option<String> {
        let cursor = self.page.next_cursor.as_deref()?;
        Some(self.asked.with("cursor", cursor))
    }

    /// All that match, as CSV.
    fn csv(&self) -> String {
        let list = self.asked.with("format", "csv");
        list.replacen("/backups", "/api/v1/volumes", 1)
    }
}

/// The class of a badge.
pub fn tone(status: &str) -> &'static str {
    match status {
        "ok" => "good",
        "late" | "failing" | "failed" | "overdue" => "bad",
        "incomplete" | "running" | "slow" => "warn",
        "cancelled" | "skipped" | "off" => "neutral",
        _ => "unknown",
    }
}

/// A reason's word as people read it.
pub fn reason(reason: &Option<String>) -> String {
    line(&reason.as_deref().unwrap_or_default().replace('_', " "), 80)
}

/// `GET /backups`, with the parameters of the API's list.
pub async fn list(
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let host: Option<Uuid> = match given(asked.host.trim()) {
        Some(host) => {
            let id = host.parse();
            let id = id.map_err(|_| Problem::parameter("host", "must be a host's id"))?;
            Some(id)
        }
        None => None,
    };
    let query = VolumesQuery {
        host,
        q: given(asked.q.trim()),
        kind: given(&asked.kind),
        status: given(&asked.status),
        owner: given(asked.owner.trim()),
        cursor: given(&asked.cursor),
        ..VolumesQuery::default()
    };
    let page = api::rows(&app, &query).await?;
    let mut connection = app.pool.acquire().await?;
    let counted = volume_search::count_by_status(&mut connection, app.clock.now()).await?;
    let count = |status: &'static str| {
        let found = counted.iter().find(|(other, _)| other == status);
        (status, found.map_or(0, |(_, count)| *count))
    };
    let unprotected = volume_search::list_unprotected(&mut connection, UNPROTECTED).await?;
    let unprotected_total = volume_search::count_unprotected(&mut connection).await?;
    drop(connection);
    let page = BackupsPage {
        counts: STATUSES.into_iter().map(count).collect(),
        frame,
        asked,
        page,
        unprotected,
        unprotected_total,
    };
    Ok(web::page(&page.frame, &page))
}
