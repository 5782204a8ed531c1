//! Pages of imported advisories: one advisory with the hosts that it is about, and what they say of one host.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use infratrack_shared::ids::HostId;
use serde::Deserialize;
use uuid::Uuid;

use crate::api::advisories::{
    self as api, AdvisoryDetail, HostAdvisories, StateCounts, StateQuery,
};
use crate::api::hosts::{self, Host};
use crate::api::input::{Path, Query};
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::advisory_search::HostRow;
use crate::web::frame::Frame;
use crate::web::plain::{encoded, line};
use crate::web::{self, given};

/// How packages stand, and what that is called; those first that somebody can do something about.
const STATES: [(&str, &str); 5] = [
    ("affected", "Fix to install"),
    ("no_fix", "No fix yet"),
    ("not_affected", "Not affected"),
    ("fixed", "Fixed"),
    ("unknown", "Unknown"),
];

/// What is asked for. Empty is what somebody can do something about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    state: String,
    cursor: String,
}

impl Asked {
    fn state(&self) -> &str {
        if self.state.is_empty() {
            "affected"
        } else {
            &self.state
        }
    }

    fn query(&self) -> StateQuery {
        StateQuery {
            state: Some(self.state().to_owned()),
            cursor: given(&self.cursor),
            limit: None,
        }
    }
}

/// The class of a badge, and the words on it.
pub fn standing(state: &str) -> (&'static str, &'static str) {
    match state {
        "affected" => ("degraded", "fix to install"),
        "no_fix" => ("unhealthy", "no fix yet"),
        "not_affected" => ("healthy", "not affected"),
        "fixed" => ("healthy", "fixed"),
        _ => ("unknown", "unknown"),
    }
}

/// A state's address, name and count, and whether it is this one.
type Tab = (String, &'static str, i64, bool);

fn tabs(asked: &Asked, counts: StateCounts, address: impl Fn(&str) -> String) -> Vec<Tab> {
    let tab = |(state, called): (&str, _)| {
        let count = counts.of(Some(state));
        (address(state), called, count, state == asked.state())
    };
    STATES.into_iter().map(tab).collect()
}

#[derive(Template)]
#[template(path = "advisories/page.html")]
struct AdvisoryPage {
    frame: Frame,
    asked: Asked,
    detail: AdvisoryDetail,
    hosts: Page<HostRow>,
}

impl AdvisoryPage {
    fn shown(text: &str) -> String {
        line(text, 300)
    }

    fn with(&self, state: &str) -> String {
        format!("/advisories/{}?state={state}", encoded(&self.detail.id))
    }

    fn states(&self) -> Vec<Tab> {
        tabs(&self.asked, self.detail.host_counts, |state| {
            self.with(state)
        })
    }

    /// Vulnerabilities that it is about, or advisories about it.
    fn others(&self) -> Vec<&String> {
        let all = self.detail.cves.iter().chain(&self.detail.advisories);
        all.filter(|name| **name != self.detail.id)
            .take(50)
            .collect()
    }
}

/// `GET /advisories/{id}`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let page = AdvisoryPage {
        frame,
        detail: api::detail(&app, &id).await?,
        hosts: api::hosts(&app, &id, &asked.query()).await?,
        asked,
    };
    Ok(web::page(&page.frame, &page))
}

#[derive(Template)]
#[template(path = "host/advisories.html")]
struct HostAdvisoriesPage {
    frame: Frame,
    host: Host,
    asked: Asked,
    found: HostAdvisories,
}

impl HostAdvisoriesPage {
    fn shown(text: &str) -> String {
        line(text, 200)
    }

    fn state(&self) -> &str {
        self.asked.state()
    }

    fn states(&self) -> Vec<Tab> {
        let address = |state: &str| format!("/hosts/{}/advisories?state={state}", self.host.id);
        tabs(&self.asked, self.found.counts, address)
    }
}

/// `GET /hosts/{id}/advisories`.
pub async fn of_host(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<Uuid>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let page = HostAdvisoriesPage {
        frame,
        host: hosts::find(&app, HostId(id)).await?,
        found: api::on_host(&app, HostId(id), &asked.query()).await?,
        asked,
    };
    Ok(web::page(&page.frame, &page))
}
