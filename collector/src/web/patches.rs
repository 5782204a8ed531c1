//! The Patches page: what there is to install, by host, by package and by advisory, what is due first first; and how
//! exposed the fleet was.

use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::api::advisories::{self, OpenAdvisory, OpenQuery};
use crate::api::input::Query;
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::api::updates::{self as api, PatchHostsQuery, UpdatesQuery, UpdatesSummary};
use crate::app::App;
use crate::store::advisories::FeedRow;
use crate::store::exposure::TimeToPatch;
use crate::store::update_search::{AdvisoryRow, HostRow, PackageRow, UpdateRow};
use crate::web::frame::Frame;
use crate::web::plain::{encoded, line};
use crate::web::words;
use crate::web::{self, given};

/// By what it is listed, and what that is called.
const VIEWS: [(&str, &str); 5] = [
    ("hosts", "By host"),
    ("packages", "By package"),
    ("advisories", "By advisory"),
    ("vulnerabilities", "By vulnerability"),
    ("updates", "Every update"),
];
/// Which hosts, and what they are called.
const STATES: [(&str, &str); 6] = [
    ("", "all"),
    ("overdue", "overdue"),
    ("security", "security updates"),
    ("updates", "any updates"),
    ("reboot", "reboot required"),
    ("unknown", "unknown"),
];
/// How packages stand to imported advisories, and what that is called.
const STANDINGS: [(&str, &str); 4] = [
    ("affected", "fix to install"),
    ("no_fix", "no fix yet"),
    ("not_affected", "not affected"),
    ("unknown", "unknown"),
];
/// A chart's width and height in its own units.
const CHART: (f64, f64) = (600.0, 100.0);

/// What is asked for. Empty is not asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    view: String,
    state: String,
    q: String,
    name: String,
    severity: String,
    advisory: String,
    tag: String,
    security: String,
    overdue: String,
    blocked: String,
    cursor: String,
}

impl Asked {
    /// What is asked for, but for where to go on, with the names of the parameters.
    fn set(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("view", &self.view),
            ("state", &self.state),
            ("q", &self.q),
            ("name", &self.name),
            ("severity", &self.severity),
            ("advisory", &self.advisory),
            ("tag", &self.tag),
            ("security", &self.security),
            ("overdue", &self.overdue),
            ("blocked", &self.blocked),
        ];
        let set = all.into_iter().filter(|(_, value)| !value.is_empty());
        set.map(|(name, value)| (name, value.as_str())).collect()
    }

    /// The page with these parameters in place of what they were.
    fn with(&self, changed: &[(&str, &str)]) -> String {
        let kept = self.set();
        let kept = kept
            .iter()
            .filter(|(name, _)| !changed.iter().any(|(other, _)| other == name));
        let all = kept.chain(changed.iter());
        let mut address = "/patches".to_owned();
        let mut sign = '?';
        for (name, value) in all.filter(|(_, value)| !value.is_empty()) {
            let _ = write!(address, "{sign}{name}={}", encoded(value));
            sign = '&';
        }
        address
    }
}

/// One of the lists.
enum List {
    Hosts(Page<HostRow>),
    Packages(Page<PackageRow>),
    Advisories(Page<AdvisoryRow>),
    Vulnerabilities(Page<OpenAdvisory>, Vec<FeedRow>),
    Updates(Page<UpdateRow>),
}

#[derive(Template)]
#[template(path = "patches.html")]
struct PatchesPage {
    frame: Frame,
    asked: Asked,
    list: List,
    summary: UpdatesSummary,
}

impl PatchesPage {
    fn total(&self) -> i64 {
        match &self.list {
            List::Hosts(page) => page.total,
            List::Packages(page) => page.total,
            List::Advisories(page) => page.total,
            List::Vulnerabilities(page, _) => page.total,
            List::Updates(page) => page.total,
        }
    }

    fn next(&self) -> Option<String> {
        let cursor = match &self.list {
            List::Hosts(page) => &page.next_cursor,
            List::Packages(page) => &page.next_cursor,
            List::Advisories(page) => &page.next_cursor,
            List::Vulnerabilities(page, _) => &page.next_cursor,
            List::Updates(page) => &page.next_cursor,
        };
        Some(self.asked.with(&[("cursor", cursor.as_ref()?)]))
    }

    fn view(&self) -> &'static str {
        match self.list {
            List::Hosts(_) => "hosts",
            List::Packages(_) => "packages",
            List::Advisories(_) => "advisories",
            List::Vulnerabilities(..) => "vulnerabilities",
            List::Updates(_) => "updates",
        }
    }

    /// All that match as CSV, where there is such a list.
    fn csv(&self) -> Option<String> {
        let list = match self.list {
            List::Hosts(_) => "updates/hosts",
            List::Packages(_) => "updates/packages",
            List::Advisories(_) => "advisories",
            List::Vulnerabilities(..) => return None,
            List::Updates(_) => "updates",
        };
        let mut address = format!("/api/v1/{list}?format=csv");
        for (name, value) in self.asked.set() {
            if name != "view" {
                let _ = write!(address, "&{name}={}", encoded(value));
            }
        }
        Some(address)
    }

    /// The lists: where, what they are called, and whether it is this one.
    fn views(&self) -> Vec<(String, &'static str, bool)> {
        let views = VIEWS.into_iter();
        let view = views.map(|(view, called)| {
            let kept = if view == "hosts" {
                [("view", ""), ("tag", self.asked.tag.as_str())]
            } else {
                [("view", view), ("tag", self.asked.tag.as_str())]
            };
            let address = Asked::default().with(&kept);
            (address, called, view == self.view())
        });
        view.collect()
    }

    /// Which hosts: where, what they are called, and whether it is these.
    fn states(&self) -> Vec<(String, &'static str, bool)> {
        let (states, current): (&[_], _) = match self.list {
            List::Vulnerabilities(..) if self.asked.state.is_empty() => (&STANDINGS, "affected"),
            List::Vulnerabilities(..) => (&STANDINGS, self.asked.state.as_str()),
            List::Hosts(_) | List::Packages(_) | List::Advisories(_) | List::Updates(_) => {
                (&STATES, self.asked.state.as_str())
            }
        };
        let state = states.iter().map(|(state, called)| {
            let address = self.asked.with(&[("state", state)]);
            (address, *called, *state == current)
        });
        state.collect()
    }

    /// What narrows the list: its words, and the page without it.
    fn chips(&self) -> Vec<(String, String)> {
        let set = self.asked.set();
        let set = set
            .iter()
            .filter(|(name, _)| !["view", "state"].contains(name));
        set.map(|(name, value)| {
            let words = match (*name, *value) {
                ("security", "true") => "for security".to_owned(),
                ("security", _) => "not for security".to_owned(),
                ("overdue", _) => "overdue".to_owned(),
                ("blocked", "true") => "kept from being installed".to_owned(),
                ("blocked", _) => "nothing keeps it".to_owned(),
                ("q", value) => format!("begins with {value}"),
                (name, value) => format!("{name}: {value}"),
            };
            (line(&words, 80), self.asked.with(&[(name, "")]))
        })
        .collect()
    }

    /// When it is due, as seen from now, and how grave that is.
    #[expect(clippy::ref_option, reason = "templates pass fields by reference")]
    fn due(&self, due_at: &Option<OffsetDateTime>) -> (&'static str, String) {
        words::due(due_at, &self.frame.now)
    }

    fn shown(text: &str) -> String {
        line(text, 120)
    }

    fn of_package(&self, name: &str) -> String {
        Asked::default().with(&[
            ("view", "updates"),
            ("name", name),
            ("tag", &self.asked.tag),
        ])
    }

    fn of_advisory(&self, id: &str) -> String {
        let tag = self.asked.tag.as_str();
        Asked::default().with(&[("view", "updates"), ("advisory", id), ("tag", tag)])
    }

    /// How long half of the installed security updates took at most, and nine of ten.
    fn took(&self) -> Option<(String, String)> {
        let TimeToPatch {
            median_s, p90_s, ..
        } = self.summary.time_to_patch;
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds are enough")]
        let words = |seconds: f64| words::duration(seconds as i64);
        Some((words(median_s?), words(p90_s?)))
    }

    fn exposed_today(&self) -> Option<i64> {
        self.summary.days.last().map(|day| day.security_count)
    }

    /// The outline of open security updates, as a path of SVG.
    fn path(&self) -> String {
        let days = &self.summary.days;
        let most = days.iter().map(|day| day.security_count).max().unwrap_or(0);
        let step = CHART.0 / (days.len().max(2) - 1) as f64;
        let mut path = format!("M0 {}", CHART.1);
        for (index, day) in days.iter().enumerate() {
            let height = day.security_count as f64 / most.max(1) as f64 * (CHART.1 - 5.0);
            let _ = write!(path, " L{:.1} {:.1}", step * index as f64, CHART.1 - height);
        }
        let _ = write!(
            path,
            " L{:.1} {} Z",
            step * (days.len().max(1) - 1) as f64,
            CHART.1
        );
        path
    }
}

/// `GET /patches`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let list = match asked.view.as_str() {
        "packages" => List::Packages(api::by_package(&app, &updates(&asked)?).await?),
        "advisories" => List::Advisories(api::by_advisory(&app, &updates(&asked)?).await?),
        "vulnerabilities" => {
            let state = given(&asked.state).unwrap_or_else(|| "affected".to_owned());
            let query = OpenQuery {
                state: Some(state),
                q: given(&asked.q),
                cursor: given(&asked.cursor),
                limit: None,
            };
            let feeds = advisories::feed_rows(&app).await?;
            List::Vulnerabilities(advisories::open(&app, &query).await?, feeds)
        }
        "updates" => List::Updates(api::pending(&app, &updates(&asked)?).await?),
        "" | "hosts" => {
            let query = PatchHostsQuery {
                state: given(&asked.state),
                tag: given(&asked.tag),
                cursor: given(&asked.cursor),
                ..PatchHostsQuery::default()
            };
            List::Hosts(api::by_host(&app, &query).await?)
        }
        _ => {
            let views = VIEWS.map(|(view, _)| view).join(", ");
            return Err(Problem::parameter(
                "view",
                format!("must be one of {views}"),
            ));
        }
    };
    let page = PatchesPage {
        frame,
        asked,
        list,
        summary: api::trend(&app).await?,
    };
    Ok(web::page(&page.frame, &page))
}

fn updates(asked: &Asked) -> Result<UpdatesQuery, Problem> {
    Ok(UpdatesQuery {
        q: given(&asked.q),
        name: given(&asked.name),
        security: flag("security", &asked.security)?,
        severity: given(&asked.severity),
        advisory: given(&asked.advisory),
        blocked: flag("blocked", &asked.blocked)?,
        overdue: flag("overdue", &asked.overdue)?.unwrap_or_default(),
        tag: given(&asked.tag),
        cursor: given(&asked.cursor),
        ..UpdatesQuery::default()
    })
}

fn flag(name: &str, text: &str) -> Result<Option<bool>, Problem> {
    match text {
        "" => Ok(None),
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        _ => Err(Problem::parameter(name, "must be true or false")),
    }
}
