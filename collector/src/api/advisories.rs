//! `/api/v1/advisories/…`: what was imported of advisories, and how hosts stand to it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use infratrack_shared::ids::HostId;
use infratrack_shared::wire::packages::Manager;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::hosts::find;
use crate::api::input::{self, Json, Path, Query};
use crate::api::packages::text;
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::advisories::{self as feeds, FeedRow};
use crate::store::advisory_search::{self as store, Between, HostRow, OfHostRow, SaidRow};
use crate::store::packages::{self, manager_name, sort_key, source_key};
use crate::store::update_search::UpdateRow;

/// How a package can stand to an advisory.
pub const STATES: [&str; 5] = ["affected", "no_fix", "not_affected", "fixed", "unknown"];
/// What a page of an advisory shows of what is said.
const SAID: i64 = 500;

/// Which of a host's advisories, or of an advisory's hosts.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct StateQuery {
    /// `affected | no_fix | not_affected | fixed | unknown`; all where it is not said.
    pub state: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// Which advisories of those that are open.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct OpenQuery {
    /// `affected | no_fix | not_affected | unknown`; all where it is not said.
    pub state: Option<String>,
    /// The beginning of an advisory's or a package's name.
    pub q: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// How many there are of each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct StateCounts {
    /// There is a fix that they have not.
    pub affected: i64,
    pub no_fix: i64,
    pub not_affected: i64,
    pub fixed: i64,
    /// It can't be told: another vendor's package, an order of versions that is not known, or nobody has found out.
    pub unknown: i64,
}

impl StateCounts {
    fn add(&mut self, state: &str, count: i64) {
        match state {
            "affected" => self.affected += count,
            "no_fix" => self.no_fix += count,
            "not_affected" => self.not_affected += count,
            "fixed" => self.fixed += count,
            _ => self.unknown += count,
        }
    }

    /// Of one state, or of all.
    pub fn of(&self, state: Option<&str>) -> i64 {
        match state {
            Some("affected") => self.affected,
            Some("no_fix") => self.no_fix,
            Some("not_affected") => self.not_affected,
            Some("fixed") => self.fixed,
            Some(_) => self.unknown,
            None => self.affected + self.no_fix + self.not_affected + self.fixed + self.unknown,
        }
    }
}

/// An advisory that is open somewhere in the fleet, as it was found within the last hour.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OpenAdvisory {
    pub id: String,
    pub cves: Vec<String>,
    pub severity: Option<String>,
    pub summary: String,
    /// What packages were built from, twenty at most.
    pub packages: Vec<String>,
    /// Hosts at work that have such a package.
    pub host_counts: StateCounts,
}

/// A page of what advisories say of a host.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostAdvisories {
    pub items: Vec<OfHostRow>,
    pub total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
    /// Of all of them, whatever state was asked for.
    pub counts: StateCounts,
    /// As advisories call it: `debian:12`. Null: the host has not said.
    pub distribution: Option<String>,
    /// Whether any feed speaks of it. Where none does, an empty list says nothing.
    pub is_known: bool,
}

/// An advisory, or a vulnerability with all advisories about it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AdvisoryDetail {
    pub id: String,
    pub cves: Vec<String>,
    /// The advisories that are about it, where it is a vulnerability.
    pub advisories: Vec<String>,
    pub severity: Option<String>,
    pub summary: String,
    /// What is said, by distribution and package, 500 at most.
    pub statements: Vec<SaidRow>,
    /// Hosts at work that have such a package; one with several counts once for each state.
    pub host_counts: StateCounts,
}

/// Lists the feeds of advisories, and what came of them.
#[utoipa::path(
    get,
    path = "/api/v1/advisories/feeds",
    tag = "packages",
    responses((status = 200, body = Page<FeedRow>)),
)]
pub async fn list_feeds(State(app): State<Arc<App>>) -> Result<Json<Page<FeedRow>>, Problem> {
    feed_rows(&app).await.map(|rows| Json(Page::whole(rows)))
}

/// As the API and the pages list them.
pub async fn feed_rows(app: &App) -> Result<Vec<FeedRow>, Problem> {
    let mut connection = app.pool.acquire().await?;
    Ok(feeds::list_feeds(&mut connection).await?)
}

/// Lists imported advisories that are open anywhere in the fleet, the greatest name first.
#[utoipa::path(
    get,
    path = "/api/v1/advisories/open",
    tag = "packages",
    params(OpenQuery),
    responses((status = 200, body = Page<OpenAdvisory>)),
)]
pub async fn list_open(
    State(app): State<Arc<App>>,
    Query(query): Query<OpenQuery>,
) -> Result<Json<Page<OpenAdvisory>>, Problem> {
    open(&app, &query).await.map(Json)
}

/// As the API and the pages list them.
pub async fn open(app: &App, query: &OpenQuery) -> Result<Page<OpenAdvisory>, Problem> {
    let limit = page::limit(query.limit)?;
    let open = ["affected", "no_fix", "not_affected", "unknown"];
    input::one_of("state", query.state.as_deref(), &open)?;
    let (state, q) = (query.state.as_deref(), text("q", query.q.as_deref())?);
    let after: Option<String> = page::cursor(query.cursor.as_deref())?;
    let mut connection = app.pool.acquire().await?;
    let rows = store::list_open(&mut connection, state, q.as_deref(), after, limit).await?;
    let total = store::count_open(&mut connection, state, q.as_deref()).await?;
    let ids: Vec<_> = rows.iter().map(|row| row.advisory_id.clone()).collect();
    let mut counts: HashMap<String, StateCounts> = HashMap::new();
    for (id, state, count) in store::count_open_hosts(&mut connection, &ids).await? {
        counts.entry(id).or_default().add(&state, count);
    }
    let rows = rows.into_iter().map(|row| OpenAdvisory {
        host_counts: counts.remove(&row.advisory_id).unwrap_or_default(),
        cves: row.names.into_iter().filter(|name| is_cve(name)).collect(),
        id: row.advisory_id,
        severity: row.severity,
        summary: row.summary,
        packages: row.packages,
    });
    let Json(page) = page::page(rows.collect(), total, limit, |row: &OpenAdvisory| {
        row.id.clone()
    });
    Ok(page)
}

fn is_cve(name: &str) -> bool {
    name.starts_with("CVE-")
}

/// Gets an advisory or a vulnerability: what is said of it for which distribution, and how many hosts stand how.
#[utoipa::path(
    get,
    path = "/api/v1/advisories/{id}",
    tag = "packages",
    params(("id" = String, Path)),
    responses((status = 200, body = AdvisoryDetail)),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<AdvisoryDetail>, Problem> {
    detail(&app, &id).await.map(Json)
}

/// As the API and the pages show it.
pub async fn detail(app: &App, id: &str) -> Result<AdvisoryDetail, Problem> {
    let id = known_name(id)?;
    let mut connection = app.pool.acquire().await?;
    let named = store::list_named(&mut connection, &id).await?;
    let Some(first) = named.first() else {
        return Err(Problem::missing("advisory", &id));
    };
    let mut host_counts = StateCounts::default();
    for (state, _, hosts) in store::count_hosts(&mut connection, &id).await? {
        host_counts.add(&state, hosts);
    }
    let mut cves: Vec<_> = if is_cve(&id) {
        vec![id.clone()]
    } else {
        let of = named.iter().filter(|row| row.advisory_id == id);
        let names = of.flat_map(|row| row.names.clone());
        names.filter(|name| is_cve(name)).collect()
    };
    cves.sort();
    cves.dedup();
    let others = named.iter().map(|row| row.advisory_id.clone());
    let mut advisories: Vec<_> = others.filter(|other| *other != id).collect();
    advisories.dedup();
    Ok(AdvisoryDetail {
        cves,
        advisories,
        severity: named.iter().find_map(|row| row.severity.clone()),
        summary: first.summary.clone(),
        statements: store::list_said(&mut connection, &id, SAID).await?,
        host_counts,
        id,
    })
}

fn known_name(id: &str) -> Result<String, Problem> {
    let known = text("id", Some(id)).ok().flatten();
    known.ok_or_else(|| Problem::missing("advisory", id.escape_debug()))
}

/// Lists packages of hosts that an advisory or a vulnerability is about, by the host's name.
#[utoipa::path(
    get,
    path = "/api/v1/advisories/{id}/hosts",
    tag = "packages",
    params(("id" = String, Path), StateQuery),
    responses((status = 200, body = Page<HostRow>)),
)]
pub async fn list_hosts(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<StateQuery>,
) -> Result<Json<Page<HostRow>>, Problem> {
    hosts(&app, &id, &query).await.map(Json)
}

/// As the API and the pages list them.
pub async fn hosts(app: &App, id: &str, query: &StateQuery) -> Result<Page<HostRow>, Problem> {
    let limit = page::limit(query.limit)?;
    input::one_of("state", query.state.as_deref(), &STATES)?;
    let (id, state) = (known_name(id)?, query.state.as_deref());
    let after: Option<(String, Uuid, String)> = page::cursor(query.cursor.as_deref())?;
    let mut connection = app.pool.acquire().await?;
    if store::list_named(&mut connection, &id).await?.is_empty() {
        return Err(Problem::missing("advisory", &id));
    }
    let rows = store::list_hosts(&mut connection, &id, state, after, limit).await?;
    let mut counts = StateCounts::default();
    for (state, rows, _) in store::count_hosts(&mut connection, &id).await? {
        counts.add(&state, rows);
    }
    let Json(page) = page::page(rows, counts.of(state), limit, |row| {
        (row.host_name.clone(), row.host_id, row.package.clone())
    });
    Ok(page)
}

/// Lists what imported advisories say of a host's packages, the greatest name first.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/advisories",
    tag = "packages",
    params(("id" = Uuid, Path), StateQuery),
    responses((status = 200, body = HostAdvisories)),
)]
pub async fn of_host(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<StateQuery>,
) -> Result<Json<HostAdvisories>, Problem> {
    find(&app, HostId(id)).await?;
    on_host(&app, HostId(id), &query).await.map(Json)
}

/// As the API and the pages list them.
pub async fn on_host(app: &App, id: HostId, query: &StateQuery) -> Result<HostAdvisories, Problem> {
    let limit = page::limit(query.limit)?;
    input::one_of("state", query.state.as_deref(), &STATES)?;
    let state = query.state.as_deref();
    let after: Option<(String, String)> = page::cursor(query.cursor.as_deref())?;
    let mut connection = app.pool.acquire().await?;
    let found = store::find_distribution(&mut connection, id).await?;
    let (distribution, is_known) = found.unzip();
    let (mut counts, mut rows) = (StateCounts::default(), Vec::new());
    if is_known == Some(true) {
        rows = store::list_of_host(&mut connection, id, state, after, limit).await?;
        for (state, count) in store::count_of_host(&mut connection, id).await? {
            counts.add(&state, count);
        }
    }
    let Json(page) = page::page(rows, counts.of(state), limit, |row| {
        (row.id.clone(), row.package.clone())
    });
    Ok(HostAdvisories {
        items: page.items,
        total: page.total,
        next_cursor: page.next_cursor,
        counts,
        distribution,
        is_known: is_known.unwrap_or_default(),
    })
}

/// Names what each of these updates mends.
pub async fn name_mended(app: &App, rows: &mut [UpdateRow]) -> Result<(), Problem> {
    let names: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
    let versions: Vec<_> = rows.iter().map(|row| row.installed.clone()).collect();
    let mut connection = app.pool.acquire().await?;
    if rows.is_empty() || feeds::list_feeds(&mut connection).await?.is_empty() {
        return Ok(());
    }
    let known = packages::list_sources(&mut connection, &names, &versions).await?;
    let mut between = Vec::new();
    for (index, row) in (0..).zip(rows.iter()) {
        let same = known.iter().find(|known| {
            (
                manager_name(known.manager),
                &known.name,
                &known.version,
                &known.arch,
            ) == (&*row.manager, &row.name, &row.installed, &row.arch)
        });
        if let Some(known) = same.filter(|_| is_from_distribution(row)) {
            between.extend(asked(index, row, known));
        }
    }
    for (index, names) in store::list_mended(&mut connection, &between).await? {
        let row = usize::try_from(index)
            .ok()
            .and_then(|index| rows.get_mut(index));
        if let Some(row) = row {
            row.cves.extend(names);
            row.cves.sort();
            row.cves.dedup();
        }
    }
    Ok(())
}

/// Whether an update comes from the distribution, as far as its source says so. apt names the origin of each.
fn is_from_distribution(row: &UpdateRow) -> bool {
    let origin = row.repository.as_deref().filter(|_| row.manager == "dpkg");
    origin.is_none_or(|origin| origin.starts_with("Debian") || origin.starts_with("Ubuntu"))
}

/// An update by what it is built from, and by itself.
fn asked(index: i32, row: &UpdateRow, known: &packages::Entry) -> Vec<Between> {
    let of = known.manager;
    let one = |package: &str, is_source, keys: Option<(Vec<u8>, Vec<u8>)>| {
        let (from_key, to_key) = keys?;
        Some(Between {
            index,
            host: row.host_id,
            manager: row.manager.clone(),
            package: package.to_owned(),
            is_source,
            vendor: known.vendor.clone(),
            installed: row.installed.clone(),
            candidate: row.candidate.clone(),
            from_key,
            to_key,
        })
    };
    let own = sort_key(of, &row.installed).zip(sort_key(of, &row.candidate));
    let source = if known.source.is_empty() {
        &row.name
    } else {
        &known.source
    };
    let from = source_key(of, &row.installed, &known.source_version);
    let to = candidate_source(of, row, known).and_then(|version| sort_key(of, version));
    let all = [one(source, true, from.zip(to)), one(&row.name, false, own)];
    all.into_iter().flatten().collect()
}

/// The version of the source that a candidate is built from: its own, but for the number of a rebuild (`+b1`). None: the
/// two differ in other ways, so it is not known.
fn candidate_source<'a>(
    of: Manager,
    row: &'a UpdateRow,
    known: &packages::Entry,
) -> Option<&'a str> {
    let is_same = known.source_version.is_empty();
    let is_rebuilt = without_rebuild(&row.installed) == known.source_version;
    if of == Manager::Dpkg && (is_same || is_rebuilt) {
        Some(without_rebuild(&row.candidate))
    } else {
        is_same.then_some(row.candidate.as_str())
    }
}

fn without_rebuild(version: &str) -> &str {
    let rebuilt = version.rsplit_once("+b");
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    rebuilt
        .filter(|(_, count)| number(count))
        .map_or(version, |(version, _)| version)
}
