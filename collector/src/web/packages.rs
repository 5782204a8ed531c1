//! Packages: of the fleet with who has them, and of one host, with what there is to install on it.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use infratrack_shared::ids::HostId;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::api::advisories::{self, HostAdvisories, StateQuery};
use crate::api::hosts::{self, Host};
use crate::api::input::{Json, Path, Query};
use crate::api::packages::{
    self as api, HostPackages, HostPackagesQuery, PackageHosts, PackageHostsQuery, PackagesQuery,
};
use crate::api::page::{Page, PageQuery};
use crate::api::problem::Problem;
use crate::api::updates::{self, HostUpdates};
use crate::app::App;
use crate::store::facts;
use crate::store::package_search::PackageRow;
use crate::web::frame::Frame;
use crate::web::plain::{encoded, line};
use crate::web::words;
use crate::web::{self, given};

/// What is asked of the fleet. Empty is not asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    q: String,
    name: String,
    version: String,
    cursor: String,
}

#[derive(Template)]
#[template(path = "packages.html")]
struct PackagesPage {
    frame: Frame,
    asked: Asked,
    /// Packages by the beginning of their names.
    page: Option<Page<PackageRow>>,
    /// Hosts that have the one that is asked for.
    on_hosts: Option<PackageHosts>,
}

impl PackagesPage {
    fn shown(text: &str) -> String {
        line(text, 120)
    }

    fn of(name: &str, version: &str) -> String {
        let (name, version) = (encoded(name), encoded(version));
        format!("/packages?name={name}&version={version}")
    }

    fn next(&self) -> Option<String> {
        let cursor = match (&self.page, &self.on_hosts) {
            (Some(page), _) => page.next_cursor.as_ref(),
            (None, Some(hosts)) => hosts.next_cursor.as_ref(),
            (None, None) => None,
        }?;
        let Asked {
            q, name, version, ..
        } = &self.asked;
        let [q, name, version] = [q, name, version].map(|text| encoded(text));
        Some(format!(
            "/packages?q={q}&name={name}&version={version}&cursor={cursor}"
        ))
    }
}

/// `GET /packages`.
pub async fn fleet(
    State(app): State<Arc<App>>,
    frame: Frame,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let (mut page, mut on_hosts) = (None, None);
    if asked.name.is_empty() {
        let query = PackagesQuery {
            q: given(&asked.q),
            version: given(&asked.version),
            cursor: given(&asked.cursor),
            ..PackagesQuery::default()
        };
        let Json(found) = api::packages(&app, &query).await?;
        page = Some(found);
    } else {
        let query = PackageHostsQuery {
            name: asked.name.clone(),
            version: given(&asked.version),
            cursor: given(&asked.cursor),
            ..PackageHostsQuery::default()
        };
        on_hosts = Some(api::on_hosts(&app, &query).await?);
    }
    let page = PackagesPage {
        frame,
        asked,
        page,
        on_hosts,
    };
    Ok(web::page(&page.frame, &page))
}

#[derive(Template)]
#[template(path = "host/packages.html")]
struct HostPackagesPage {
    frame: Frame,
    host: Host,
    asked: HostAsked,
    packages: HostPackages,
}

/// What is asked of a host.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostAsked {
    q: String,
    cursor: String,
}

impl HostPackagesPage {
    fn shown(text: &str) -> String {
        line(text, 120)
    }

    fn next(&self) -> Option<String> {
        let cursor = self.packages.next_cursor.as_ref()?;
        let q = encoded(&self.asked.q);
        Some(format!(
            "/hosts/{}/packages?q={q}&cursor={cursor}",
            self.host.id
        ))
    }

    /// What could not be read, database by database.
    fn unknown(&self) -> Vec<String> {
        unknown(self.packages.databases.as_ref(), "manager")
    }
}

/// `GET /hosts/{id}/packages`.
pub async fn of_host(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<Uuid>,
    Query(asked): Query<HostAsked>,
) -> Result<Response, Problem> {
    let host = hosts::find(&app, HostId(id)).await?;
    let query = HostPackagesQuery {
        q: given(&asked.q),
        cursor: given(&asked.cursor),
        limit: Some(200),
    };
    let page = HostPackagesPage {
        frame,
        host,
        asked,
        packages: api::on_host(&app, HostId(id), &query).await?,
    };
    Ok(web::page(&page.frame, &page))
}

#[derive(Template)]
#[template(path = "host/updates.html")]
struct HostUpdatesPage {
    frame: Frame,
    host: Host,
    cursor: String,
    updates: HostUpdates,
    /// Vulnerabilities without a fix, the first of them.
    no_fix: HostAdvisories,
    reboot: Option<Reboot>,
}

impl HostUpdatesPage {
    fn shown(text: &str) -> String {
        line(text, 120)
    }

    #[expect(clippy::ref_option, reason = "templates pass fields by reference")]
    fn due(&self, due_at: &Option<OffsetDateTime>) -> (&'static str, String) {
        words::due(due_at, &self.frame.now)
    }

    fn next(&self) -> Option<String> {
        let cursor = self.updates.next_cursor.as_ref()?;
        Some(format!("/hosts/{}/updates?cursor={cursor}", self.host.id))
    }

    /// Why it is not known what there is to install.
    fn unknown(&self) -> Vec<String> {
        unknown(self.updates.checks.as_ref(), "tool")
    }

    /// What makes the answer doubtful.
    fn warnings(&self) -> Vec<String> {
        let checks = self.updates.checks.as_ref().and_then(Value::as_array);
        let checks = checks.into_iter().flatten();
        let warnings = checks.filter_map(|check| check.get("warnings")?.as_array());
        let warnings = warnings.flatten().filter_map(Value::as_str);
        warnings.map(|warning| line(warning, 200)).collect()
    }
}

/// `GET /hosts/{id}/updates`.
pub async fn updates_of_host(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<Uuid>,
    Query(asked): Query<HostAsked>,
) -> Result<Response, Problem> {
    let host = hosts::find(&app, HostId(id)).await?;
    let query = PageQuery {
        cursor: given(&asked.cursor),
        limit: Some(200),
    };
    let without_fix = StateQuery {
        state: Some("no_fix".to_owned()),
        limit: Some(20),
        cursor: None,
    };
    let reboot = {
        let mut connection = app.pool.acquire().await?;
        facts::find(&mut connection, HostId(id), "facts.reboot").await?
    };
    let page = HostUpdatesPage {
        frame,
        host,
        cursor: asked.cursor,
        updates: updates::on_host(&app, HostId(id), query).await?,
        no_fix: advisories::on_host(&app, HostId(id), &without_fix).await?,
        reboot: reboot.map(|fact| Reboot::of(&fact.body)),
    };
    Ok(web::page(&page.frame, &page))
}

/// What `facts.reboot` says, for people. docs/reboot.md has its fields.
#[derive(Debug)]
struct Reboot {
    /// Whether it is required, in a word, and the class of a badge that says so.
    verdict: (&'static str, &'static str),
    why_unknown: Option<String>,
    /// What asks for it.
    reasons: Vec<String>,
    hints: Vec<String>,
    /// Services to restart, each with why.
    services: Vec<String>,
    services_unknown: Option<String>,
    /// What was looked at, and what it said.
    checked: Vec<String>,
}

impl Reboot {
    fn of(body: &Value) -> Self {
        let text = |field: &str| Some(line(body.get(field)?.as_str()?, 300));
        let list = |field: &str, of: fn(&Value) -> Option<String>| -> Vec<String> {
            let all = body.get(field).and_then(Value::as_array);
            all.into_iter().flatten().filter_map(of).collect()
        };
        let detail: fn(&Value) -> Option<String> = |one| {
            let detail = one.get("detail")?.as_str()?;
            let packages = one.get("packages").and_then(Value::as_array);
            let packages = packages.into_iter().flatten().filter_map(Value::as_str);
            let packages: Vec<_> = packages.take(20).collect();
            Some(if packages.is_empty() {
                line(detail, 300)
            } else {
                line(&format!("{detail}: {}", packages.join(", ")), 300)
            })
        };
        Self {
            verdict: match body.get("required").and_then(Value::as_bool) {
                Some(true) => ("required", "degraded"),
                Some(false) => ("not required", "healthy"),
                None => ("unknown", "unknown"),
            },
            why_unknown: text("unknown"),
            reasons: list("reasons", detail),
            hints: list("hints", detail),
            services: list("services", |one| {
                let name = one.get("unit").or_else(|| one.get("process"))?.as_str()?;
                Some(line(&format!("{name}: {}", one.get("why")?.as_str()?), 300))
            }),
            services_unknown: text("services_unknown"),
            checked: list("checked", |one| {
                let (what, result) = (one.get("what")?.as_str()?, one.get("result")?.as_str()?);
                Some(line(&format!("{}: {result}", what.replace('_', " ")), 300))
            }),
        }
    }
}

/// The reasons that are among what was read or asked, each with what it was.
fn unknown(all: Option<&Value>, name: &str) -> Vec<String> {
    let all = all.and_then(Value::as_array).into_iter().flatten();
    let reasons = all.filter_map(|one| {
        let reason = one.get("unknown")?.as_str()?;
        let name = one.get(name).and_then(Value::as_str).unwrap_or_default();
        Some(line(&format!("{name}: {reason}"), 300))
    });
    reasons.collect()
}
