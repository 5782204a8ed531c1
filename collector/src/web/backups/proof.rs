//! Is everything backed up, and proven restorable? The whole fleet on one page: how volumes stand and how their drills went, and
//! the hosts that have none.

use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::api::input::Query;
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::api::volumes::{self as api, VolumesQuery};
use crate::app::App;
use crate::store::volume_search::{self, DRILL_STATUSES, STATUSES, UnprotectedHost, VolumeRow};
use crate::web::backups::{reason, tone};
use crate::web::frame::Frame;
use crate::web::plain::{encoded, line};
use crate::web::{self, given, words};

/// Hosts without volumes that are named.
const UNPROTECTED: i64 = 200;
const PATH: &str = "/backups/proof";

/// What is asked for. Empty is not asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    q: String,
    status: String,
    drill: String,
    cursor: String,
}

impl Asked {
    /// The page with this parameter in place of what it was; without it where it is empty.
    fn with(&self, name: &str, value: &str) -> String {
        let mut address = PATH.to_owned();
        let mut sign = '?';
        let all = [
            ("q", self.q.as_str()),
            ("status", &self.status),
            ("drill", &self.drill),
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
        self.with("cursor", "") != PATH
    }
}

#[derive(Template)]
#[template(path = "backups/proof.html")]
struct ProofPage {
    frame: Frame,
    asked: Asked,
    page: Page<VolumeRow>,
    /// Status, status of the drills, how many.
    counts: Vec<(String, String, i64)>,
    unprotected: Vec<UnprotectedHost>,
    unprotected_total: i64,
}

impl ProofPage {
    fn shown(text: &str) -> String {
        line(text, 160)
    }

    fn count(&self, is_it: impl Fn(&str, &str) -> bool) -> i64 {
        let counts = self.counts.iter();
        let found = counts.filter(|(status, drill, _)| is_it(status, drill));
        found.map(|(_, _, count)| count).sum()
    }

    fn volumes(&self) -> i64 {
        self.count(|_, _| true)
    }

    /// Statuses that volumes have, with how many.
    fn statuses(&self) -> Vec<(&'static str, i64)> {
        let all = STATUSES.into_iter();
        let counted = all.map(|status| (status, self.count(|other, _| other == status)));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    fn drills(&self) -> Vec<(&'static str, i64)> {
        let all = DRILL_STATUSES.into_iter();
        let counted = all.map(|status| (status, self.count(|_, other| other == status)));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// The answer to the question that the page is for.
    fn answer(&self) -> (&'static str, String) {
        let volumes = self.volumes();
        if volumes == 0 {
            let nothing = "No: nothing is backed up, since there are no volumes.";
            return ("unknown", nothing.to_owned());
        }
        let is_bad = |status: &str| matches!(status, "late" | "failing" | "incomplete");
        let bad = self.count(|status, _| is_bad(status) || status == "never");
        let broken = self.count(|_, drill| matches!(drill, "failed" | "overdue"));
        let slow = self.count(|_, drill| drill == "slow");
        let unproven = self.count(|_, drill| matches!(drill, "never" | "off"));
        let mut said = Vec::new();
        for (count, what) in [
            (bad, "not backed up as promised"),
            (broken, "with a drill that failed or is overdue"),
            (slow, "not restored within the RTO"),
            (unproven, "not restored as a drill yet"),
        ] {
            if count > 0 {
                said.push(format!("{count} of {volumes} volumes {what}"));
            }
        }
        if self.unprotected_total > 0 {
            let hosts = self.unprotected_total;
            let named = if hosts == 1 { "host" } else { "hosts" };
            said.push(format!("{hosts} {named} without a volume"));
        }
        if said.is_empty() {
            let yes = "Yes: every host has a volume, and each was restored in time.";
            return ("good", yes.to_owned());
        }
        let tone = if bad + broken > 0 { "bad" } else { "warn" };
        (tone, format!("No: {}.", said.join(", ")))
    }

    /// How long the last drill took, against what was promised.
    fn took(row: &VolumeRow) -> String {
        let Some(ms) = row.last_drill_ms else {
            return String::new();
        };
        let about = if row.is_last_drill_sampled == Some(true) {
            "about "
        } else {
            ""
        };
        let took = format!("{about}{}", seconds(ms));
        match row.rto_s {
            Some(rto_s) => format!("{took} of {}", words::duration(rto_s.into())),
            None => took,
        }
    }

    fn next(&self) -> Option<String> {
        let cursor = self.page.next_cursor.as_deref()?;
        Some(self.asked.with("cursor", cursor))
    }
}

/// Milliseconds as people read them.
pub fn seconds(ms: i64) -> String {
    if ms < 10_000 {
        let ms = ms.max(0);
        return format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    }
    words::duration(ms / 1000)
}

/// `GET /backups/proof`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let query = VolumesQuery {
        q: given(asked.q.trim()),
        status: given(&asked.status),
        drill_status: given(&asked.drill),
        cursor: given(&asked.cursor),
        ..VolumesQuery::default()
    };
    let page = api::rows(&app, &query).await?;
    let mut connection = app.pool.acquire().await?;
    let counts = volume_search::count_by_drill(&mut connection, app.clock.now()).await?;
    let unprotected = volume_search::list_unprotected(&mut connection, UNPROTECTED).await?;
    let unprotected_total = volume_search::count_unprotected(&mut connection).await?;
    drop(connection);
    let page = ProofPage {
        frame,
        asked,
        page,
        counts,
        unprotected,
        unprotected_total,
    };
    Ok(web::page(&page.frame, &page))
}
