//! What advisories say of hosts, and which hosts an advisory is about.
//!
//! Both ways go by indexes from what is asked for: the packages of the host, or the statements of the advisory.

use infratrack_shared::ids::HostId;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

/// What an advisory says of a package of a host.
#[derive(Clone, Debug, serde::Serialize, ToSchema)]
#[schema(as = HostAdvisory)]
pub struct OfHostRow {
    /// As its publisher calls it: `CVE-2024-6387`, `RHSA-2024:4312`.
    pub id: String,
    /// The vulnerabilities that it is about, by their names of CVE.
    pub cves: Vec<String>,
    /// In the publisher's words.
    pub severity: Option<String>,
    pub summary: String,
    /// What the package was built from.
    pub package: String,
    /// One of the packages that were built from it, and its version here.
    pub name: String,
    pub installed: String,
    /// `affected`: there is a fix that it has not; `no_fix`; `fixed`; `not_affected`; `unknown`.
    pub state: String,
    /// The distribution's version that has the fix.
    pub fixed_version: Option<String>,
    /// It is for subscribers.
    pub is_extra: bool,
    pub note: Option<String>,
    /// Which of the configured feeds says so.
    pub feed: String,
}

/// A package of a host that an advisory is about.
#[derive(Clone, Debug, serde::Serialize, ToSchema)]
#[schema(as = AdvisoryHost)]
pub struct HostRow {
    pub host_id: Uuid,
    pub host_name: String,
    pub distribution: String,
    /// What the package was built from.
    pub package: String,
    pub name: String,
    pub installed: String,
    /// As of a host's advisories.
    pub state: String,
    pub fixed_version: Option<String>,
}

/// What an advisory says of a package in a distribution.
#[derive(Clone, Debug, serde::Serialize, ToSchema)]
#[schema(as = AdvisoryStatement)]
pub struct SaidRow {
    pub advisory_id: String,
    pub distribution: String,
    pub package: String,
    /// `fixed | no_fix | not_affected | unknown`.
    pub state: String,
    pub fixed_version: Option<String>,
    pub is_extra: bool,
    pub note: Option<String>,
    pub feed: String,
}

/// An advisory, as one of the feeds has it.
#[derive(Clone, Debug)]
pub struct NamedRow {
    pub advisory_id: String,
    pub names: Vec<String>,
    pub severity: Option<String>,
    pub summary: String,
}

/// An advisory that is open somewhere.
#[derive(Clone, Debug)]
pub struct OpenRow {
    pub advisory_id: String,
    pub names: Vec<String>,
    pub severity: Option<String>,
    pub summary: String,
    pub packages: Vec<String>,
}

/// What advisories say of a host, the greatest name first, from after the place on. `state`: only what stands so.
pub async fn list_of_host(
    connection: &mut PgConnection,
    host: HostId,
    state: Option<&str>,
    after: Option<(String, String)>,
    limit: i64,
) -> sqlx::Result<Vec<OfHostRow>> {
    let (after_id, after_package) = after.unzip();
    sqlx::query_as!(
        OfHostRow,
        r#"with judged as (
               select distinct on (v.advisory_id, v.source) v.*
               from facts f join host_packages p on p.host_id = f.host_id
               join advisory_verdicts v on v.package_id = p.package_id and v.distribution = host_distribution(f.body)
               where f.host_id = $1 and f.key = 'facts.os'
               order by v.advisory_id, v.source, verdict_rank(v.verdict, v.is_extra), v.name, v.version, v.fixed_version
           )
           select j.advisory_id as "id!", array_remove(a.names, case when a.advisory_id like 'CVE-%' then null
                   else a.advisory_id::text end) as "cves!", a.severity, a.summary, j.source as "package!", j.name as "name!",
               j.version as "installed!", j.verdict as "state!", j.fixed_version, j.is_extra as "is_extra!", j.note,
               w.name as "feed"
           from judged j join advisories a on a.advisory_id = j.advisory_id and a.feed_id = j.feed_id
           join advisory_feeds w on w.feed_id = j.feed_id
           where ($2::text is null or j.verdict = $2)
             and ($3::text is null or j.advisory_id < $3 or j.advisory_id = $3 and j.source > $4)
           order by j.advisory_id desc, j.source limit $5"#,
        host.0,
        state,
        after_id,
        after_package,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many rows [`list_of_host`] has for each state.
pub async fn count_of_host(
    connection: &mut PgConnection,
    host: HostId,
) -> sqlx::Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"select verdict as "state!", count(*) as "count!" from (
               select distinct on (v.advisory_id, v.source) v.verdict
               from facts f join host_packages p on p.host_id = f.host_id
               join advisory_verdicts v on v.package_id = p.package_id and v.distribution = host_distribution(f.body)
               where f.host_id = $1 and f.key = 'facts.os'
               order by v.advisory_id, v.source, verdict_rank(v.verdict, v.is_extra)
           ) as judged group by verdict"#,
        host.0,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.state, row.count)).collect())
}

/// The distribution of a host, as advisories call it, and whether any feed speaks of it.
pub async fn find_distribution(
    connection: &mut PgConnection,
    host: HostId,
) -> sqlx::Result<Option<(String, bool)>> {
    let row = sqlx::query!(
        r#"select host_distribution(body) as distribution,
               exists (select from advisory_statements s where s.distribution = host_distribution(body)) as "is_known!"
           from facts where host_id = $1 and key = 'facts.os'"#,
        host.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(|row| Some((row.distribution?, row.is_known))))
}

/// Every advisory of this name, or about the vulnerability of this name.
pub async fn list_named(connection: &mut PgConnection, name: &str) -> sqlx::Result<Vec<NamedRow>> {
    sqlx::query_as!(
        NamedRow,
        "select advisory_id, names, severity, summary from advisories where names @> array[$1]
         order by advisory_id <> $1, advisory_id, feed_id limit 500",
        name,
    )
    .fetch_all(connection)
    .await
}

/// What they say, by distribution and package.
pub async fn list_said(
    connection: &mut PgConnection,
    name: &str,
    limit: i64,
) -> sqlx::Result<Vec<SaidRow>> {
    sqlx::query_as!(
        SaidRow,
        r#"select s.advisory_id, s.distribution, s.package, s.state, s.fixed_version, s.is_extra, s.note, w.name as feed
           from advisories a join advisory_statements s on s.advisory_id = a.advisory_id and s.feed_id = a.feed_id
           join advisory_feeds w on w.feed_id = s.feed_id
           where a.names @> array[$1]
           order by s.distribution, s.package, s.advisory_id, s.statement_id limit $2"#,
        name,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Packages of hosts at work that they are about, by the host's name, from after the place on.
pub async fn list_hosts(
    connection: &mut PgConnection,
    name: &str,
    state: Option<&str>,
    after: Option<(String, Uuid, String)>,
    limit: i64,
) -> sqlx::Result<Vec<HostRow>> {
    let (after_name, after_id, after_package) = match after {
        Some((name, id, package)) => (Some(name), Some(id), Some(package)),
        None => (None, None, None),
    };
    sqlx::query_as!(
        HostRow,
        r#"select host_id as "host_id!", host_name as "host_name!", distribution as "distribution!",
               source as "package!", name as "name!", version as "installed!", verdict as "state!", fixed_version
           from (
               select distinct on (h.name, h.host_id, v.source) h.host_id, h.name as host_name, v.distribution, v.source,
                   v.name, v.version, v.verdict, v.fixed_version
               from advisories a
               join advisory_verdicts v on v.advisory_id = a.advisory_id and v.feed_id = a.feed_id
               join host_packages p on p.package_id = v.package_id
               join facts f on f.host_id = p.host_id and f.key = 'facts.os'
                    and host_distribution(f.body) = v.distribution
               join hosts h on h.host_id = p.host_id
               where a.names @> array[$1]
                 and h.retired_at is null and h.conflict_of is null and h.deleted_at is null
               order by h.name, h.host_id, v.source, verdict_rank(v.verdict, v.is_extra), v.name, v.version
           ) as judged
           where ($2::text is null or verdict = $2)
             and ($3::text is null or (host_name, host_id, source) > ($3, $4, $5))
           order by host_name, host_id, source limit $6"#,
        name,
        state,
        after_name,
        after_id,
        after_package,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Of each state, how many rows [`list_hosts`] has, and of how many hosts.
pub async fn count_hosts(
    connection: &mut PgConnection,
    name: &str,
) -> sqlx::Result<Vec<(String, i64, i64)>> {
    let rows = sqlx::query!(
        r#"select verdict as "state!", count(*) as "count!", count(distinct host_id) as "hosts!"
           from (
               select distinct on (h.host_id, v.source) h.host_id, v.verdict
               from advisories a
               join advisory_verdicts v on v.advisory_id = a.advisory_id and v.feed_id = a.feed_id
               join host_packages p on p.package_id = v.package_id
               join facts f on f.host_id = p.host_id and f.key = 'facts.os'
                    and host_distribution(f.body) = v.distribution
               join hosts h on h.host_id = p.host_id
               where a.names @> array[$1]
                 and h.retired_at is null and h.conflict_of is null and h.deleted_at is null
               order by h.host_id, v.source, verdict_rank(v.verdict, v.is_extra)
           ) as judged group by verdict"#,
        name,
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (row.state, row.count, row.hosts)).collect())
}

/// Advisories that are open somewhere, the greatest name first, from after the place on.
pub async fn list_open(
    connection: &mut PgConnection,
    state: Option<&str>,
    prefix: Option<&str>,
    after: Option<String>,
    limit: i64,
) -> sqlx::Result<Vec<OpenRow>> {
    sqlx::query_as!(
        OpenRow,
        r#"select g.advisory_id as "advisory_id!", coalesce(a.names, '{}') as "names!", a.severity as "severity?",
               coalesce(a.summary, '') as "summary!", g.packages as "packages!"
           from (
               select f.advisory_id,
                   (array_agg(distinct (case when p.source = '' then p.name else p.source end)::text))[1:20] as packages
               from advisory_findings f join packages p on p.package_id = f.package_id
               where ($1::text is null or f.state = $1)
                 and ($2::text is null or starts_with(f.advisory_id, $2) or starts_with(p.source, $2)
                      or starts_with(p.name, $2))
                 and ($3::text is null or f.advisory_id < $3)
               group by f.advisory_id order by f.advisory_id desc limit $4
           ) as g
           left join lateral (
               select names, severity, summary from advisories a where a.advisory_id = g.advisory_id
               order by severity is null, feed_id limit 1
           ) as a on true
           order by g.advisory_id desc"#,
        state,
        prefix,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many of them there are.
pub async fn count_open(
    connection: &mut PgConnection,
    state: Option<&str>,
    prefix: Option<&str>,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(distinct f.advisory_id) as "count!"
           from advisory_findings f join packages p on p.package_id = f.package_id
           where ($1::text is null or f.state = $1)
             and ($2::text is null or starts_with(f.advisory_id, $2) or starts_with(p.source, $2)
                  or starts_with(p.name, $2))"#,
        state,
        prefix,
    )
    .fetch_one(connection)
    .await
}

/// Of each of these, how many hosts at work stand how.
pub async fn count_open_hosts(
    connection: &mut PgConnection,
    ids: &[String],
) -> sqlx::Result<Vec<(String, String, i64)>> {
    let rows = sqlx::query!(
        r#"select o.advisory_id, o.state, count(distinct h.host_id) as "count!"
           from advisory_findings o join host_packages p on p.package_id = o.package_id
           join facts f on f.host_id = p.host_id and f.key = 'facts.os' and host_distribution(f.body) = o.distribution
           join hosts h on h.host_id = p.host_id
           where o.advisory_id = any($1)
             and h.retired_at is null and h.conflict_of is null and h.deleted_at is null
           group by o.advisory_id, o.state"#,
        ids,
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (row.advisory_id, row.state, row.count))
        .collect())
}

/// An update, as its advisories are looked for: after which version, and up to which.
#[derive(Clone, Debug)]
pub struct Between {
    pub index: i32,
    pub host: Uuid,
    pub manager: String,
    pub package: String,
    pub is_source: bool,
    /// Who made what is installed.
    pub vendor: String,
    pub installed: String,
    pub candidate: String,
    pub from_key: Vec<u8>,
    pub to_key: Vec<u8>,
}

/// The names of what each of these updates mends, by its index.
pub async fn list_mended(
    connection: &mut PgConnection,
    between: &[Between],
) -> sqlx::Result<Vec<(i32, Vec<String>)>> {
    let indexes: Vec<_> = between.iter().map(|one| one.index).collect();
    let hosts: Vec<_> = between.iter().map(|one| one.host).collect();
    let managers: Vec<_> = between.iter().map(|one| one.manager.clone()).collect();
    let packages: Vec<_> = between.iter().map(|one| one.package.clone()).collect();
    let sources: Vec<_> = between.iter().map(|one| one.is_source).collect();
    let from: Vec<_> = between.iter().map(|one| one.from_key.clone()).collect();
    let to: Vec<_> = between.iter().map(|one| one.to_key.clone()).collect();
    let vendors: Vec<_> = between.iter().map(|one| one.vendor.clone()).collect();
    let installed: Vec<_> = between.iter().map(|one| one.installed.clone()).collect();
    let candidates: Vec<_> = between.iter().map(|one| one.candidate.clone()).collect();
    let rows = sqlx::query!(
        r#"select i.index as "index!", array_agg(distinct n.name) as "names!"
           from unnest($1::int4[], $2::uuid[], $3::text[], $4::text[], $5::bool[], $6::bytea[], $7::bytea[],
                       $8::text[], $9::text[], $10::text[])
               as i (index, host_id, manager, package, is_source, from_key, to_key, vendor, installed, candidate)
           join facts f on f.host_id = i.host_id and f.key = 'facts.os'
           join advisory_statements s on s.distribution = host_distribution(f.body) and s.package = i.package
               and s.manager = i.manager and s.state = 'fixed' and not s.is_module
               and s.before_key > i.from_key and s.before_key <= i.to_key
               and (s.from_key is null or s.from_key <= i.from_key)
               and case when i.is_source then s.applies <> 'binary' else s.applies <> 'source' end
               and is_of_distribution(i.manager, i.vendor, i.installed, s.distribution)
               and is_of_distribution(i.manager, i.vendor, i.candidate, s.distribution)
           join advisories a on a.advisory_id = s.advisory_id and a.feed_id = s.feed_id
           cross join lateral (
               select name from unnest(a.names) as n (name)
               where name like 'CVE-%' or cardinality(a.names) = 1
           ) as n
           group by i.index"#,
        &indexes,
        &hosts,
        &managers,
        &packages,
        &sources,
        &from,
        &to,
        &vendors,
        &installed,
        &candidates,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.index, row.names)).collect())
}
