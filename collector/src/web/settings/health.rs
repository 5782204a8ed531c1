//! System health: how collectors, their jobs, the database and the fleet's agents are; the API's `system` and `jobs`.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::api::jobs::{self, Job};
use crate::api::problem::Problem;
use crate::api::system::{self, System};
use crate::app::App;
use crate::doctor::Status;
use crate::store::collectors::CollectorRow;
use crate::store::system::TableSize;
use crate::web::frame::Frame;
use crate::web::{self, settings, words};

/// A collector that was silent for longer is not alive; it speaks every 2 s.
const SILENT: time::Duration = time::Duration::seconds(15);

#[derive(Template)]
#[template(path = "settings/health.html")]
struct HealthPage {
    frame: Frame,
    system: System,
    jobs: Vec<Job>,
}

/// A line of the checks.
struct Line<'a> {
    name: &'static str,
    badge: &'static str,
    state: &'static str,
    detail: &'a str,
    /// Empty where there is none.
    advice: &'a str,
}

/// A line of the clocks' table.
struct Skew {
    name: &'static str,
    hosts: i64,
    badge: &'static str,
}

impl HealthPage {
    /// What `/health` looks at, and what `doctor` finds of the database.
    fn lines(&self) -> Vec<Line<'_>> {
        // Of what both look at, `doctor` says more.
        let said = |name| self.system.database.iter().any(|said| said.name == name);
        let checks = self.system.checks.iter();
        let checks = checks.filter(|check| !said(check.name)).map(|check| {
            let (badge, state) = if check.ok {
                ("good", "ok")
            } else {
                ("bad", "failing")
            };
            Line {
                name: check.name,
                badge,
                state,
                detail: &check.detail,
                advice: "",
            }
        });
        let findings = self.system.database.iter().map(|finding| {
            let (badge, state) = match finding.status {
                Status::Ok => ("good", "ok"),
                Status::Warn => ("warn", "warning"),
                Status::Fail => ("bad", "failing"),
            };
            Line {
                name: finding.name,
                badge,
                state,
                detail: &finding.detail,
                advice: finding.advice.as_deref().unwrap_or_default(),
            }
        });
        checks.chain(findings).collect()
    }

    fn size(&self) -> String {
        words::bytes(self.system.database_size_bytes)
    }

    fn size_of(table: &TableSize) -> String {
        words::bytes(table.size_bytes)
    }

    fn collector(row: &CollectorRow, now: &OffsetDateTime) -> (&'static str, &'static str) {
        if row.stopped_at.is_some() {
            ("neutral", "stopped")
        } else if *now - row.alive_at <= SILENT {
            ("good", "alive")
        } else {
            ("bad", "silent")
        }
    }

    fn job(job: &Job) -> &'static str {
        match job.row.last_outcome.as_str() {
            "ok" => "good",
            "interrupted" => "warn",
            _ => "bad",
        }
    }

    /// How often, in words.
    fn every(job: &Job) -> String {
        let millis = job.row.interval_ms;
        if millis < 1000 {
            format!("{millis} ms")
        } else {
            words::duration(millis / 1000)
        }
    }

    fn is_leader(&self, id: &Uuid) -> bool {
        self.system.leader_id == Some(*id)
    }

    /// A collector by its host's name.
    fn collector_name(&self, id: &Uuid) -> String {
        let mut collectors = self.system.collectors.iter();
        let row = collectors.find(|row| row.collector_id == *id);
        row.map_or_else(|| id.to_string(), |row| row.hostname.clone())
    }

    fn failing(&self) -> usize {
        let jobs = self.jobs.iter();
        jobs.filter(|job| job.row.last_outcome != "ok").count()
    }

    fn skews(&self) -> [Skew; 6] {
        let skew = &self.system.skew;
        [
            ("within 1 s", skew.right, "good"),
            ("1 s to 5 s off", skew.slightly_off, "good"),
            ("5 s to 30 s off", skew.off, "warn"),
            ("over 30 s behind", skew.behind, "bad"),
            ("over 30 s ahead", skew.ahead, "bad"),
            ("unknown", skew.unknown, "unknown"),
        ]
        .map(|(name, hosts, badge)| Skew { name, hosts, badge })
    }

    fn fleet(&self) -> i64 {
        self.skews().iter().map(|skew| skew.hosts).sum()
    }

    fn full(&self) -> String {
        format!("{:.0} %", self.system.queues.ingest_ratio * 100.0)
    }
}

/// `GET /settings/health`.
pub async fn page(State(app): State<Arc<App>>, frame: Frame) -> Result<Response, Problem> {
    let page = HealthPage {
        frame,
        system: system::look(&app).await?,
        jobs: jobs::rows(&app).await?.items,
    };
    Ok(web::page(&page.frame, &page))
}
