//! What there is to install in the fleet: update by update, and summed up by package, by advisory and by host.

use infratrack_shared::ids::HostId;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::hosts::AT_WORK;

/// Which updates.
#[derive(Clone, Debug, Default)]
pub struct Which {
    pub host: Option<HostId>,
    /// Names that begin so.
    pub prefix: Option<String>,
    /// This name.
    pub name: Option<String>,
    pub is_security: Option<bool>,
    /// `critical`, …; `unrated` for none.
    pub severity: Option<String>,
    pub advisory: Option<String>,
    pub is_blocked: Option<bool>,
    /// Due before then.
    pub overdue_at: Option<OffsetDateTime>,
    /// On hosts with this tag.
    pub tag: Option<String>,
}

/// An update that is pending on a host.
#[derive(Clone, Debug, sqlx::FromRow, serde::Serialize, ToSchema)]
#[schema(as = PendingUpdate)]
pub struct UpdateRow {
    pub host_id: Uuid,
    pub host_name: String,
    /// `dpkg | rpm | apk | snap | flatpak | other`.
    pub manager: String,
    pub name: String,
    pub arch: String,
    pub installed: String,
    pub candidate: String,
    /// What the candidate is built from, where that has another name.
    pub source: Option<String>,
    /// Where it comes from, as the package manager calls it.
    pub repository: Option<String>,
    /// Whether it mends a vulnerability; null where nothing says so.
    pub is_security: Option<bool>,
    /// In the words of who published it.
    pub severity: Option<String>,
    pub advisories: Vec<String>,
    /// Vulnerabilities that the candidate mends and what is installed does not, as imported advisories have it.
    #[sqlx(skip)]
    pub cves: Vec<String>,
    /// `held | pinned | phased | dependencies | subscription | other`; null where an upgrade would install it now.
    pub blocked_why: Option<String>,
    pub blocked_detail: Option<String>,
    #[serde(with = "rfc3339")]
    pub first_seen_at: OffsetDateTime,
    /// Since when a security update of this package is pending.
    #[serde(with = "rfc3339::option")]
    pub security_since: Option<OffsetDateTime>,
    /// By when it is to be installed, as the policy has it.
    #[serde(with = "rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
}

/// A package that is to be updated somewhere.
#[derive(Clone, Debug, sqlx::FromRow, serde::Serialize, ToSchema)]
#[schema(as = PackageToUpdate)]
pub struct PackageRow {
    pub manager: String,
    pub name: String,
    pub host_count: i64,
    /// Hosts where it is for security.
    pub security_host_count: i64,
    /// Hosts where it is overdue.
    pub overdue_host_count: i64,
    /// Hosts where something keeps it.
    pub blocked_host_count: i64,
    /// Those that come with it on some of the hosts, twenty at most; `/api/v1/advisories?name=…` has all.
    pub advisories: Vec<String>,
    #[serde(with = "rfc3339::option")]
    pub security_since: Option<OffsetDateTime>,
    #[serde(with = "rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
}

/// An advisory of which an update is pending.
#[derive(Clone, Debug, sqlx::FromRow, serde::Serialize, ToSchema)]
#[schema(as = PendingAdvisory)]
pub struct AdvisoryRow {
    pub id: String,
    pub severity: Option<String>,
    pub host_count: i64,
    pub overdue_host_count: i64,
    /// Names of packages, twenty at most.
    pub packages: Vec<String>,
    #[serde(with = "rfc3339::option")]
    pub security_since: Option<OffsetDateTime>,
    #[serde(with = "rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
}

/// How a host stands.
#[derive(Clone, Debug, sqlx::FromRow, serde::Serialize, ToSchema)]
#[schema(as = HostPatches)]
pub struct HostRow {
    pub host_id: Uuid,
    pub host_name: String,
    /// Why it is not known what there is to install; the counts are those that were known last, null where none were.
    pub unknown: Option<String>,
    #[serde(with = "rfc3339::option")]
    pub metadata_at: Option<OffsetDateTime>,
    #[serde(with = "rfc3339::option")]
    pub checked_at: Option<OffsetDateTime>,
    pub update_count: Option<i32>,
    pub security_count: Option<i32>,
    pub blocked_count: Option<i32>,
    #[serde(with = "rfc3339::option")]
    pub security_since: Option<OffsetDateTime>,
    #[serde(with = "rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
    pub reboot_required: Option<bool>,
    #[serde(with = "rfc3339::option")]
    pub reboot_required_since: Option<OffsetDateTime>,
}

/// Where a page begins: after this due date, name, and what tells rows with both apart.
pub type Place = (Option<OffsetDateTime>, String, String);

/// Never due comes last.
const DUE: &str = "coalesce(due_at, 'infinity')";
/// So many hosts' updates of a package are looked at for the advisories that are named with it.
const ADVISORY_HOSTS: i64 = 200;

/// Updates, those first that are due first.
pub async fn list(
    connection: &mut PgConnection,
    which: &Which,
    after: Option<Place>,
    limit: i64,
) -> sqlx::Result<Vec<UpdateRow>> {
    let mut sql = QueryBuilder::new("");
    push_list(&mut sql, which, after, limit);
    sql.build_query_as().fetch_all(connection).await
}

/// How Postgres would read a page, for tests.
pub async fn explain(
    connection: &mut PgConnection,
    which: &Which,
    after: Option<Place>,
) -> sqlx::Result<String> {
    let mut sql = QueryBuilder::new("explain ");
    push_list(&mut sql, which, after, 50);
    let lines: Vec<String> = sql.build_query_scalar().fetch_all(connection).await?;
    Ok(lines.join("\n"))
}

fn push_list(sql: &mut QueryBuilder<Postgres>, which: &Which, after: Option<Place>, limit: i64) {
    sql.push(
        "select * from (select u.*, h.name as host_name, u.host_id || u.manager || ':' || u.arch as id
         from pending_updates u join hosts h using (host_id) where ",
    );
    push(sql, which);
    sql.push(") as u where true");
    sorted(sql, "name", after, limit);
}

/// How many updates match.
pub async fn count(connection: &mut PgConnection, which: &Which) -> sqlx::Result<i64> {
    let mut sql = QueryBuilder::new(
        "select count(*) from pending_updates u join hosts h using (host_id) where ",
    );
    push(&mut sql, which);
    sql.build_query_scalar().fetch_one(connection).await
}

/// A page of sums, and how many there are in all; none where nothing comes after the cursor.
pub type Summed<T> = (Vec<T>, Option<i64>);

/// A row and how many there are.
#[derive(sqlx::FromRow)]
struct Counted<T> {
    #[sqlx(flatten)]
    row: T,
    total: i64,
}

fn summed<T>(rows: Vec<Counted<T>>) -> Summed<T> {
    let total = rows.first().map(|first| first.total);
    (rows.into_iter().map(|counted| counted.row).collect(), total)
}

/// Packages, those first that are due first on any host.
pub async fn list_packages(
    connection: &mut PgConnection,
    which: &Which,
    now: OffsetDateTime,
    after: Option<Place>,
    limit: i64,
) -> sqlx::Result<Summed<PackageRow>> {
    let from = " from pending_updates u join hosts h using (host_id) where ";
    let mut sql = QueryBuilder::new(format!(
        "select *, array(select distinct a
                         from (select advisories from pending_updates u where u.name = g.name and u.manager = g.manager
                                   and u.advisories <> '{{}}' limit {ADVISORY_HOSTS}) as u, unnest(u.advisories) a
                         order by a limit 20) as advisories
         from (select manager, name, manager as id, count(*) as host_count, count(*) over () as total,
             count(*) filter (where is_security) as security_host_count, count(*) filter (where due_at < "
    ));
    sql.push_bind(now);
    sql.push(
        ") as overdue_host_count, count(*) filter (where is_blocked) as blocked_host_count,
             min(security_since) as security_since, min(due_at) as due_at
         from (select u.manager, u.name, u.is_security, u.due_at, u.blocked_why is not null as is_blocked,
                   u.security_since",
    );
    sql.push(from);
    push(&mut sql, which);
    sql.push(
        " and not u.is_multiarch union all
          select u.manager, u.name, bool_or(u.is_security), min(u.due_at), bool_or(u.blocked_why is not null),
                   min(u.security_since)",
    );
    sql.push(from);
    push(&mut sql, which);
    sql.push(" and u.is_multiarch group by u.host_id, u.manager, u.name) as u group by manager, name) as g where true");
    sorted(&mut sql, "name", after, limit);
    let rows = sql.build_query_as().fetch_all(connection).await?;
    Ok(summed(rows))
}

/// How many packages match.
pub async fn count_packages(connection: &mut PgConnection, which: &Which) -> sqlx::Result<i64> {
    let mut sql = QueryBuilder::new(
        "select count(distinct (manager, u.name)) from pending_updates u join hosts h using (host_id) where ",
    );
    push(&mut sql, which);
    sql.build_query_scalar().fetch_one(connection).await
}

/// Advisories, those first that are due first on any host.
pub async fn list_advisories(
    connection: &mut PgConnection,
    which: &Which,
    now: OffsetDateTime,
    after: Option<Place>,
    limit: i64,
) -> sqlx::Result<Summed<AdvisoryRow>> {
    let mut sql = QueryBuilder::new(
        "select *, array[]::text[] as packages
         from (select a as id, a as name, max(severity) as severity, count(*) as host_count, count(*) over () as total,
             count(*) filter (where due_at < ",
    );
    sql.push_bind(now);
    sql.push(
        ") as overdue_host_count, min(security_since) as security_since, min(due_at) as due_at
         from (select a, max(u.severity) as severity, min(u.security_since) as security_since, min(u.due_at) as due_at
               from pending_updates u join hosts h using (host_id) cross join unnest(u.advisories) a where ",
    );
    push(&mut sql, which);
    sql.push(" group by u.host_id, a) as u group by a) as g where true");
    sorted(&mut sql, "name collate \"C\"", after, limit);
    let (mut rows, total) =
        summed::<AdvisoryRow>(sql.build_query_as().fetch_all(&mut *connection).await?);
    let ids: Vec<_> = rows.iter().map(|row| row.id.clone()).collect();
    for (id, packages) in packages_of(connection, &ids).await? {
        if let Some(row) = rows.iter_mut().find(|row| row.id == id) {
            row.packages = packages;
        }
    }
    Ok((rows, total))
}

/// The packages that come with each of these advisories, twenty of each at most.
async fn packages_of(
    connection: &mut PgConnection,
    ids: &[String],
) -> sqlx::Result<Vec<(String, Vec<String>)>> {
    let rows = sqlx::query!(
        r#"select id as "id!", (array_agg(name order by name))[1:20] as "packages!"
           from (select distinct a as id, name from pending_updates u cross join unnest(u.advisories) a
                 where a = any($1)) as u
           group by id"#,
        ids
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.packages)).collect())
}

/// How many advisories match.
pub async fn count_advisories(connection: &mut PgConnection, which: &Which) -> sqlx::Result<i64> {
    let mut sql = QueryBuilder::new(
        "select count(distinct a) from pending_updates u join hosts h using (host_id)
         cross join unnest(u.advisories) a where ",
    );
    push(&mut sql, which);
    sql.build_query_scalar().fetch_one(connection).await
}

/// Which hosts.
#[derive(Clone, Debug, Default)]
pub struct WhichHosts {
    pub tag: Option<String>,
    /// `security`, `overdue`, `updates`, `reboot`, `unknown`; all where it is not said.
    pub state: Option<String>,
}

/// Hosts at work, those first that are due first, then those of which nothing is known.
pub async fn list_hosts(
    connection: &mut PgConnection,
    which: &WhichHosts,
    now: OffsetDateTime,
    after: Option<Place>,
    limit: i64,
) -> sqlx::Result<Vec<HostRow>> {
    let mut sql = QueryBuilder::new(
        "select * from (select h.host_id, h.name as host_name, h.name, h.host_id::text as id,
             coalesce(p.unknown, case when p.host_id is null then 'nothing was reported yet' end) as unknown,
             p.metadata_at, p.checked_at, p.update_count, p.security_count, p.blocked_count, p.security_since, p.due_at,
             l.reboot_required, l.reboot_required_since
         from hosts h join host_liveness l using (host_id) left join host_patches p using (host_id) where ",
    );
    push_hosts(&mut sql, which, now);
    sql.push(") as g where true");
    sorted(&mut sql, "name collate \"C\"", after, limit);
    sql.build_query_as().fetch_all(connection).await
}

/// How many hosts match.
pub async fn count_hosts(
    connection: &mut PgConnection,
    which: &WhichHosts,
    now: OffsetDateTime,
) -> sqlx::Result<i64> {
    let mut sql = QueryBuilder::new(
        "select count(*) from hosts h join host_liveness l using (host_id) left join host_patches p using (host_id)
         where ",
    );
    push_hosts(&mut sql, which, now);
    sql.build_query_scalar().fetch_one(connection).await
}

fn push_hosts(sql: &mut QueryBuilder<Postgres>, which: &WhichHosts, now: OffsetDateTime) {
    sql.push(AT_WORK);
    if let Some(tag) = &which.tag {
        sql.push(" and h.tags @> array[")
            .push_bind(tag.clone())
            .push("]");
    }
    match which.state.as_deref() {
        Some("security") => sql.push(" and p.security_count > 0"),
        Some("updates") => sql.push(" and p.update_count > 0"),
        Some("overdue") => sql.push(" and p.due_at < ").push_bind(now),
        Some("reboot") => sql.push(" and l.reboot_required"),
        Some("unknown") => sql.push(" and (p.host_id is null or p.unknown is not null)"),
        _ => sql,
    };
}

fn push(sql: &mut QueryBuilder<Postgres>, which: &Which) {
    sql.push(AT_WORK);
    if let Some(host) = which.host {
        sql.push(" and u.host_id = ").push_bind(host.0);
    }
    if let Some(name) = &which.name {
        sql.push(" and u.name = ").push_bind(name.clone());
    }
    if let Some(prefix) = &which.prefix {
        sql.push(" and starts_with(u.name, ")
            .push_bind(prefix.clone())
            .push(")");
    }
    if let Some(is_security) = which.is_security {
        sql.push(" and coalesce(u.is_security, false) = ")
            .push_bind(is_security);
    }
    match which.severity.as_deref() {
        Some("unrated") => {
            sql.push(" and u.is_security and u.severity is null");
        }
        Some(severity) => {
            sql.push(" and lower(u.severity) = ")
                .push_bind(severity.to_owned());
        }
        None => {}
    }
    if let Some(advisory) = &which.advisory {
        sql.push(" and ")
            .push_bind(advisory.clone())
            .push(" = any(u.advisories)");
    }
    if let Some(is_blocked) = which.is_blocked {
        sql.push(" and (u.blocked_why is not null) = ")
            .push_bind(is_blocked);
    }
    if let Some(now) = which.overdue_at {
        sql.push(" and u.due_at < ").push_bind(now);
    }
    if let Some(tag) = &which.tag {
        sql.push(" and h.tags @> array[")
            .push_bind(tag.clone())
            .push("]");
    }
}

/// The end of a statement whose rows have `due_at`, `name` and `id`.
fn sorted(sql: &mut QueryBuilder<Postgres>, name: &str, after: Option<Place>, limit: i64) {
    if let Some((due_at, after_name, id)) = after {
        // The index has the first two, and the planner takes them from no comparison of three.
        sql.push(format!(" and ({DUE}, {name}) >= (coalesce("))
            .push_bind(due_at)
            .push("::timestamptz, 'infinity'), ")
            .push_bind(after_name.clone())
            .push(format!(
                ") and ({DUE}, {name}, id collate \"C\") > (coalesce("
            ))
            .push_bind(due_at)
            .push("::timestamptz, 'infinity'), ")
            .push_bind(after_name)
            .push(", ")
            .push_bind(id)
            .push(")");
    }
    sql.push(format!(" order by {DUE}, {name}, id collate \"C\" limit "))
        .push_bind(limit);
}
