//! Packages over the fleet: what is installed anywhere, and which hosts have it.

use infratrack_shared::ids::HostId;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::hosts::AT_WORK;

/// Which packages.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Names that begin so.
    pub prefix: Option<String>,
    /// This name.
    pub name: Option<String>,
    pub manager: Option<String>,
    /// Versions within these; each is of one manager.
    pub ranges: Vec<Range>,
}

/// A range of versions of one manager, by their sort keys.
#[derive(Clone, Debug)]
pub struct Range {
    pub manager: &'static str,
    /// From this on.
    pub from: Option<Vec<u8>>,
    /// Before this.
    pub before: Option<Vec<u8>>,
}

/// A package of which at least one host has it.
#[derive(Clone, Debug, sqlx::FromRow, serde::Serialize, ToSchema)]
#[schema(as = FleetPackage)]
pub struct PackageRow {
    #[serde(rename = "id")]
    pub package_id: i64,
    /// `dpkg | rpm | apk | snap | flatpak | other`.
    pub manager: String,
    pub name: String,
    pub version: String,
    pub arch: String,
    /// What it was built from; empty where that has its name.
    pub source: String,
    pub source_version: String,
    pub vendor: String,
    #[serde(skip)]
    pub sort_key: Vec<u8>,
    /// Hosts at work that have it.
    #[sqlx(default)]
    pub host_count: i64,
}

/// A package on a host.
#[derive(Clone, Debug, sqlx::FromRow, serde::Serialize, ToSchema)]
#[schema(as = PackageOnHost)]
pub struct OnHostRow {
    pub host_id: Uuid,
    pub host_name: String,
    pub manager: String,
    pub name: String,
    pub version: String,
    pub arch: String,
    #[serde(with = "time::serde::rfc3339::option")]
    pub installed_at: Option<OffsetDateTime>,
    pub held: bool,
    /// Not wholly installed: how it is instead.
    pub broken: Option<String>,
    #[serde(skip)]
    pub package_id: i64,
}

/// Packages by name and version, from after the place on; without their counts.
pub async fn list(
    connection: &mut PgConnection,
    which: &Which,
    after: Option<(String, Vec<u8>, i64)>,
    limit: i64,
) -> sqlx::Result<Vec<PackageRow>> {
    let mut sql = QueryBuilder::new(
        "select package_id, manager, name, version, arch, source, source_version, vendor,
             coalesce(sort_key, '') as sort_key
         from packages p where exists (select from host_packages o where o.package_id = p.package_id)",
    );
    push(&mut sql, which);
    if let Some((name, key, id)) = after {
        sql.push(" and (name, coalesce(sort_key, ''), package_id) > (")
            .push_bind(name)
            .push(", ")
            .push_bind(key)
            .push(", ")
            .push_bind(id)
            .push(")");
    }
    sql.push(" order by name, coalesce(sort_key, ''), package_id limit ")
        .push_bind(limit);
    sql.build_query_as().fetch_all(connection).await
}

/// How many packages match.
pub async fn count(connection: &mut PgConnection, which: &Which) -> sqlx::Result<i64> {
    let mut sql = QueryBuilder::new(
        "select count(*) from packages p
         where exists (select from host_packages o where o.package_id = p.package_id)",
    );
    push(&mut sql, which);
    sql.build_query_scalar().fetch_one(connection).await
}

/// How many hosts at work have each of these packages.
pub async fn count_hosts(
    connection: &mut PgConnection,
    ids: &[i64],
) -> sqlx::Result<Vec<(i64, i64)>> {
    let rows = sqlx::query!(
        r#"select package_id, count(*) as "count!" from host_packages join hosts h using (host_id)
           where package_id = any($1) and h.retired_at is null and h.conflict_of is null and h.deleted_at is null
           group by package_id"#,
        ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.package_id, row.count))
        .collect())
}

/// Hosts at work that have such packages, by the host's name.
pub async fn list_hosts(
    connection: &mut PgConnection,
    which: &Which,
    after: Option<(String, Uuid, i64)>,
    limit: i64,
) -> sqlx::Result<Vec<OnHostRow>> {
    let mut sql = hosts(
        "",
        "h.host_id, h.name as host_name, p.manager, p.name, p.version, p.arch, installed_at, held, broken, package_id",
        which,
    );
    if let Some((name, host, id)) = after {
        sql.push(" and (h.name, h.host_id, package_id) > (")
            .push_bind(name)
            .push(", ")
            .push_bind(host)
            .push(", ")
            .push_bind(id)
            .push(")");
    }
    sql.push(" order by h.name, h.host_id, package_id limit ")
        .push_bind(limit);
    sql.build_query_as().fetch_all(connection).await
}

/// How many such packages there are on hosts at work, and on how many hosts.
pub async fn count_on_hosts(
    connection: &mut PgConnection,
    which: &Which,
) -> sqlx::Result<(i64, i64)> {
    let mut sql = hosts("", "count(*), count(distinct h.host_id)", which);
    sql.build_query_as().fetch_one(connection).await
}

/// How Postgres reads [`list_hosts`] and its count, as text.
pub async fn explain(connection: &mut PgConnection, which: &Which) -> sqlx::Result<String> {
    let mut sql = hosts("explain (costs off) ", "count(*)", which);
    let lines: Vec<String> = sql.build_query_scalar().fetch_all(connection).await?;
    Ok(lines.join("\n"))
}

fn hosts(before: &str, columns: &str, which: &Which) -> QueryBuilder<Postgres> {
    let select = format!(
        "{before}select {columns} from packages p join host_packages using (package_id)
         join hosts h using (host_id) where {AT_WORK}"
    );
    let mut sql = QueryBuilder::new(select);
    push(&mut sql, which);
    sql
}

fn push(sql: &mut QueryBuilder<Postgres>, which: &Which) {
    if let Some(name) = &which.name {
        sql.push(" and p.name = ").push_bind(name.clone());
    }
    if let Some(prefix) = &which.prefix {
        sql.push(" and p.name >= ").push_bind(prefix.clone());
        if let Some(end) = after_all(prefix) {
            sql.push(" and p.name < ").push_bind(end);
        }
    }
    if let Some(manager) = &which.manager {
        sql.push(" and p.manager = ").push_bind(manager.clone());
    }
    for (index, range) in which.ranges.iter().enumerate() {
        sql.push(if index == 0 { " and (" } else { " or " });
        sql.push("(p.manager = ").push_bind(range.manager);
        if let Some(from) = &range.from {
            sql.push(" and p.sort_key >= ").push_bind(from.clone());
        }
        if let Some(before) = &range.before {
            sql.push(" and p.sort_key < ").push_bind(before.clone());
        }
        sql.push(")");
    }
    if !which.ranges.is_empty() {
        sql.push(")");
    }
}

/// The first text, by its bytes, after all that begin with `prefix`.
fn after_all(prefix: &str) -> Option<String> {
    let (last_at, last) = prefix.char_indices().last()?;
    let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32)?;
    Some(format!("{}{next}", &prefix[..last_at]))
}

/// Names of packages that any host has, with how many versions, by name: those that begin so, where a version does.
pub async fn list_names(
    connection: &mut PgConnection,
    prefix: &str,
    version: &str,
    limit: i64,
) -> sqlx::Result<Vec<(String, i64)>> {
    let mut sql = QueryBuilder::new(
        "select p.name, count(distinct p.version) from packages p
         where exists (select from host_packages o where o.package_id = p.package_id) and starts_with(p.version, ",
    );
    sql.push_bind(version.to_owned()).push(")");
    let which = Which {
        prefix: Some(prefix.to_owned()),
        ..Which::default()
    };
    push(&mut sql, &which);
    sql.push(" group by p.name order by p.name limit ")
        .push_bind(limit);
    sql.build_query_as().fetch_all(connection).await
}

/// Packages of a host, by name, from after the place on; those with `text` in name or source.
pub async fn list_of_host(
    connection: &mut PgConnection,
    host: HostId,
    text: Option<&str>,
    after: Option<(String, i64)>,
    limit: i64,
) -> sqlx::Result<Vec<OfHostRow>> {
    let (after_name, after_id) = after.unzip();
    sqlx::query_as!(
        OfHostRow,
        "select manager, name, version, arch, source, source_version, vendor, installed_at, held, broken, package_id
         from host_packages join packages p using (package_id)
         where host_id = $1 and ($2::text is null or strpos(lower(name), lower($2)) > 0 or strpos(source, $2) > 0)
           and ($3::text is null or (name, package_id) > ($3, $4))
         order by name, package_id limit $5",
        host.0,
        text,
        after_name,
        after_id,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many packages of a host match.
pub async fn count_of_host(
    connection: &mut PgConnection,
    host: HostId,
    text: Option<&str>,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from host_packages join packages p using (package_id)
           where host_id = $1 and ($2::text is null or strpos(lower(name), lower($2)) > 0 or strpos(source, $2) > 0)"#,
        host.0,
        text,
    )
    .fetch_one(connection)
    .await
}

/// A package of a host.
#[derive(Clone, Debug, serde::Serialize, ToSchema)]
#[schema(as = HostPackage)]
pub struct OfHostRow {
    /// `dpkg | rpm | apk | snap | flatpak | other`.
    pub manager: String,
    pub name: String,
    pub version: String,
    pub arch: String,
    /// What it was built from; empty where that has its name.
    pub source: String,
    pub source_version: String,
    pub vendor: String,
    #[serde(with = "time::serde::rfc3339::option")]
    pub installed_at: Option<OffsetDateTime>,
    /// It stays as it is until somebody says otherwise.
    pub held: bool,
    /// Not wholly installed: how it is instead.
    pub broken: Option<String>,
    #[serde(skip)]
    pub package_id: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(after_all("lib").as_deref(), Some("lic"));
        assert_eq!(after_all("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(after_all("\u{10ffff}"), None);
        assert_eq!(after_all(""), None);
    }
}
