//! `/api/v1/packages`: what is installed in the fleet, and which hosts have which version of what.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use infratrack_shared::ids::HostId;
use infratrack_shared::wire::packages::Manager;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::hosts::find;
use crate::api::input::{self, Json, Path, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::host_states;
use crate::store::package_search::{self as store, OfHostRow, OnHostRow, PackageRow, Range, Which};
use crate::store::packages::{manager_name, sort_key};

const MANAGERS: [&str; 6] = ["dpkg", "rpm", "apk", "snap", "flatpak", "other"];
/// As long as a name or version can be.
const TEXT_CHARS: usize = 255;

/// Which packages of the fleet.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct PackagesQuery {
    /// The beginning of a name.
    pub q: Option<String>,
    /// The whole name.
    pub name: Option<String>,
    /// `dpkg | rpm | apk | snap | flatpak | other`.
    pub manager: Option<String>,
    /// A version, or a bound: `<3.0.13-1~deb12u1`, `<=…`, `>…`, `>=…`. In the order that dpkg and rpm define, each for its own
    /// packages; those of other managers have no order here and are left out.
    pub version: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// Which hosts have which packages.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct PackageHostsQuery {
    /// The package's whole name.
    pub name: String,
    /// As of the list of packages.
    pub manager: Option<String>,
    /// As of the list of packages.
    pub version: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// A page of packages on hosts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PackageHosts {
    pub items: Vec<OnHostRow>,
    /// Packages on hosts: a host that has two versions counts twice.
    pub total: i64,
    /// Hosts, each once.
    pub host_count: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// Which packages of a host.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct HostPackagesQuery {
    /// A part of a name, or of the source's.
    pub q: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    pub cursor: Option<String>,
}

/// A page of a host's packages.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostPackages {
    pub items: Vec<OfHostRow>,
    pub total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
    /// Every database that the host has: `manager`, `unknown` with the reason where it could not be read and what is
    /// listed is what was known before, `skipped` entries that make no sense, `has_log`. Null: nothing was reported yet.
    #[schema(value_type = Option<Vec<Object>>)]
    pub databases: Option<Value>,
    /// When the list was last said to be so by a report of it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub reported_at: Option<OffsetDateTime>,
}

/// Lists packages that any host has, by name and version.
#[utoipa::path(
    get,
    path = "/api/v1/packages",
    tag = "packages",
    params(PackagesQuery),
    responses((status = 200, body = Page<PackageRow>)),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<PackagesQuery>,
) -> Result<Json<Page<PackageRow>>, Problem> {
    packages(&app, &query).await
}

/// As the API and the pages list them.
pub async fn packages(app: &App, query: &PackagesQuery) -> Result<Json<Page<PackageRow>>, Problem> {
    let limit = page::limit(query.limit)?;
    let which = Which {
        prefix: text("q", query.q.as_deref())?,
        name: text("name", query.name.as_deref())?,
        ..which(query.manager.as_deref(), query.version.as_deref())?
    };
    let after: Option<(String, Vec<u8>, i64)> = page::cursor(query.cursor.as_deref())?;
    let mut connection = app.pool.acquire().await?;
    let mut rows = store::list(&mut connection, &which, after, limit).await?;
    let total = store::count(&mut connection, &which).await?;
    let ids: Vec<_> = rows.iter().map(|row| row.package_id).collect();
    let counts = store::count_hosts(&mut connection, &ids).await?;
    let counts: HashMap<_, _> = counts.into_iter().collect();
    for row in &mut rows {
        row.host_count = counts.get(&row.package_id).copied().unwrap_or_default();
    }
    Ok(page::page(rows, total, limit, |row| {
        (row.name.clone(), row.sort_key.clone(), row.package_id)
    }))
}

/// Lists the hosts that have a package, by their names.
#[utoipa::path(
    get,
    path = "/api/v1/packages/hosts",
    tag = "packages",
    params(PackageHostsQuery),
    responses((status = 200, body = PackageHosts)),
)]
pub async fn hosts(
    State(app): State<Arc<App>>,
    Query(query): Query<PackageHostsQuery>,
) -> Result<Json<PackageHosts>, Problem> {
    on_hosts(&app, &query).await.map(Json)
}

/// As the API and the pages list them.
pub async fn on_hosts(app: &App, query: &PackageHostsQuery) -> Result<PackageHosts, Problem> {
    let limit = page::limit(query.limit)?;
    let which = Which {
        name: Some(required("name", &query.name)?),
        ..which(query.manager.as_deref(), query.version.as_deref())?
    };
    let after: Option<(String, Uuid, i64)> = page::cursor(query.cursor.as_deref())?;
    let mut connection = app.pool.acquire().await?;
    let rows = store::list_hosts(&mut connection, &which, after, limit).await?;
    let (total, host_count) = store::count_on_hosts(&mut connection, &which).await?;
    let Json(page) = page::page(rows, total, limit, |row| {
        (row.host_name.clone(), row.host_id, row.package_id)
    });
    Ok(PackageHosts {
        items: page.items,
        total: page.total,
        host_count,
        next_cursor: page.next_cursor,
    })
}

/// Lists what is installed on a host, by name.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/packages",
    tag = "packages",
    params(("id" = Uuid, Path), HostPackagesQuery),
    responses((status = 200, body = HostPackages)),
)]
pub async fn of_host(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<HostPackagesQuery>,
) -> Result<Json<HostPackages>, Problem> {
    find(&app, HostId(id)).await?;
    on_host(&app, HostId(id), &query).await.map(Json)
}

/// As the API and the pages list them.
pub async fn on_host(
    app: &App,
    id: HostId,
    query: &HostPackagesQuery,
) -> Result<HostPackages, Problem> {
    let limit = page::limit(query.limit)?;
    let q = text("q", query.q.as_deref())?;
    let after: Option<(String, i64)> = page::cursor(query.cursor.as_deref())?;
    let mut connection = app.pool.acquire().await?;
    let rows = store::list_of_host(&mut connection, id, q.as_deref(), after, limit).await?;
    let total = store::count_of_host(&mut connection, id, q.as_deref()).await?;
    let state = host_states::find(&mut connection, id, "packages").await?;
    let Json(page) = page::page(rows, total, limit, |row| (row.name.clone(), row.package_id));
    let (body, reported_at) = state.unzip();
    Ok(HostPackages {
        items: page.items,
        total: page.total,
        next_cursor: page.next_cursor,
        databases: body.and_then(|mut body: Value| Some(body.get_mut("databases")?.take())),
        reported_at,
    })
}

fn which(manager: Option<&str>, version: Option<&str>) -> Result<Which, Problem> {
    input::one_of("manager", manager, &MANAGERS)?;
    let version = text("version", version)?;
    Ok(Which {
        manager: manager.map(str::to_owned),
        ranges: version.map_or_else(Vec::new, |version| ranges(&version)),
        ..Which::default()
    })
}

/// The versions that a text means, for each manager whose order is known here.
fn ranges(version: &str) -> Vec<Range> {
    let end = version.find(|c| !['<', '>', '='].contains(&c));
    let (sign, version) = version.split_at(end.unwrap_or(version.len()));
    let managers = [Manager::Dpkg, Manager::Rpm].into_iter();
    let range = |manager| {
        let key = sort_key(manager, version.trim())?;
        // The first key after this one.
        let after = [key.as_slice(), &[0]].concat();
        let (from, before) = match sign {
            "<" => (None, Some(key)),
            "<=" => (None, Some(after)),
            ">" => (Some(after), None),
            ">=" => (Some(key), None),
            _ => (Some(key), Some(after)),
        };
        Some(Range {
            manager: manager_name(manager),
            from,
            before,
        })
    };
    managers.filter_map(range).collect()
}

fn required(name: &str, value: &str) -> Result<String, Problem> {
    let value = text(name, Some(value))?;
    value.ok_or_else(|| Problem::parameter(name, "is missing"))
}

/// A text that is searched for; nothing where it is empty.
pub(super) fn text(name: &str, value: Option<&str>) -> Result<Option<String>, Problem> {
    let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    if value.chars().count() > TEXT_CHARS || value.chars().any(char::is_control) {
        let detail = format!("must have at most {TEXT_CHARS} characters, none of them a control");
        return Err(Problem::parameter(name, detail));
    }
    Ok(Some(value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_takes_in_what_its_sign_says() {
        let includes = |bound: &str, version: &str| {
            let key = sort_key(Manager::Dpkg, version).unwrap();
            let ranges = ranges(bound);
            let range = ranges.iter().find(|range| range.manager == "dpkg").unwrap();
            range.from.as_ref().is_none_or(|from| *from <= key)
                && range.before.as_ref().is_none_or(|before| key < *before)
        };
        let versions = ["3.0.13-1~deb12u1", "3.0.13-1", "3.0.13-1+b1"];
        let told = |bound: &str| versions.map(|version| includes(bound, version));
        assert_eq!(told("<3.0.13-1"), [true, false, false]);
        assert_eq!(told("<= 3.0.13-1"), [true, true, false]);
        assert_eq!(told(">3.0.13-1"), [false, false, true]);
        assert_eq!(told(">=3.0.13-1"), [false, true, true]);
        assert_eq!(told("3.0.13-1"), [false, true, false]);
        assert_eq!(told("=0:3.0.13-1"), [false, true, false]);
    }
}
