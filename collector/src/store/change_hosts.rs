//! Hosts of changes: those that runs touched, which linking finds, and those that somebody says a change touched.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

/// A host that a change touched.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ChangeHost)]
pub struct ChangeHostRow {
    pub host_id: Uuid,
    pub host_name: String,
    /// How that is known: by each run that touched it, and by hand.
    #[schema(value_type = Vec<HostLink>)]
    pub links: Json<Vec<HostLink>>,
}

/// How it is known that a change touched a host.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HostLink {
    /// Null where somebody said so.
    pub run_id: Option<Uuid>,
    /// By what the host was found; `manual` where somebody said so.
    pub method: String,
    /// `certain | high | medium | low`.
    pub confidence: String,
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub until: OffsetDateTime,
}

/// A host by a name that somebody typed.
#[derive(Clone, Debug)]
pub struct NamedHost {
    pub host_id: Uuid,
    /// In lower case.
    pub name: String,
}

/// Hosts of a change by their names: those after this one.
pub async fn list(
    connection: &mut PgConnection,
    change_id: Uuid,
    after: Option<(String, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<ChangeHostRow>> {
    let (after_name, after_id) = after.unzip();
    sqlx::query_as!(
        ChangeHostRow,
        r#"with page as (
             select h.host_id, h.name from hosts h
             where h.host_id in (select host_id from change_hosts where change_id = $1) and h.deleted_at is null
               and ($2::text is null or (h.name, h.host_id) > ($2, $3::uuid))
             order by h.name, h.host_id limit $4
           )
           select p.host_id, p.name as host_name,
               jsonb_agg(jsonb_build_object('run_id', c.run_id, 'method', c.method, 'confidence', c.confidence,
                   'at', c.at, 'until', c.until) order by c.at, c.run_id) as "links!: Json<Vec<HostLink>>"
           from page p join change_hosts c on c.change_id = $1 and c.host_id = p.host_id
           group by p.host_id, p.name order by p.name, p.host_id"#,
        change_id,
        after_name,
        after_id,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many hosts those are.
pub async fn count(connection: &mut PgConnection, change_id: Uuid) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(distinct host_id) as "count!" from change_hosts where change_id = $1"#,
        change_id
    )
    .fetch_one(connection)
    .await
}

/// Hosts that somebody says a change touched.
pub async fn list_manual(
    connection: &mut PgConnection,
    change_id: Uuid,
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select host_id from change_hosts where change_id = $1 and run_id is null order by host_id",
        change_id
    )
    .fetch_all(connection)
    .await
}

/// Somebody no longer says it of hosts other than these.
pub async fn delete_manual(
    connection: &mut PgConnection,
    change_id: Uuid,
    keep: &[Uuid],
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from change_hosts where change_id = $1 and run_id is null and host_id <> all($2)",
        change_id,
        keep,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Somebody says that the change touched these hosts, for as long as it took.
pub async fn upsert_manual(
    connection: &mut PgConnection,
    change_id: Uuid,
    hosts: &[Uuid],
    (at, until): (OffsetDateTime, OffsetDateTime),
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into change_hosts (change_id, run_id, host_id, at, until, method, confidence)
         select $1, null, host_id, $3, $4, 'manual', 'certain' from unnest($2::uuid[]) as i (host_id) order by host_id
         on conflict (change_id, run_id, host_id) do update set at = excluded.at, until = excluded.until",
        change_id,
        hosts,
        at,
        until,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Counts a change's hosts anew.
pub async fn recount(connection: &mut PgConnection, change_id: Uuid) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update changes
         set host_count = (select count(distinct host_id) from change_hosts where change_id = $1)
         where change_id = $1",
        change_id
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Which of these hosts there are; none of them goes before the transaction ends.
pub async fn lock_hosts(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select host_id from hosts where host_id = any($1) and deleted_at is null and conflict_of is null
         order by host_id for key share",
        hosts
    )
    .fetch_all(connection)
    .await
}

/// Hosts with these names, in lower case, that are neither retired nor a clone's.
pub async fn list_named(
    connection: &mut PgConnection,
    names: &[String],
) -> sqlx::Result<Vec<NamedHost>> {
    sqlx::query_as!(
        NamedHost,
        r#"select host_id, lower(name) as "name!" from hosts
           where lower(name) = any($1) and retired_at is null and conflict_of is null and deleted_at is null
           order by host_id limit 10000"#,
        names
    )
    .fetch_all(connection)
    .await
}
