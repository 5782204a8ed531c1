//! Changes, and the keys by which runs find theirs.

use serde::Serialize;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

/// A change as it is listed.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, ToSchema)]
#[schema(as = Change)]
pub struct ChangeRow {
    #[serde(rename = "id")]
    pub change_id: Uuid,
    /// `captured` of runs, or `manual`.
    pub origin: String,
    pub title: String,
    pub note: Option<String>,
    #[serde(with = "rfc3339")]
    pub started_at: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub ended_at: OffsetDateTime,
    /// `planned | running | succeeded | failed | interrupted | unknown`.
    pub outcome: String,
    /// Of `terraform`, `ansible`; `manual` where somebody wrote it down.
    pub tools: Vec<String>,
    pub repository: Option<String>,
    #[serde(rename = "commit")]
    pub commit_id: Option<String>,
    pub branch: Option<String>,
    pub pull_request: Option<String>,
    pub actor: Option<String>,
    pub environment: Option<String>,
    pub workspace: Option<String>,
    pub run_url: Option<String>,
    /// As its newest plan counts, as are the next two.
    pub add_count: i64,
    pub change_count: i64,
    pub destroy_count: i64,
    pub host_count: i64,
    /// Of what people say of it, not of its runs; the `ETag` has it too.
    pub version: i64,
}

/// Which changes.
#[derive(Clone, Debug, Default)]
pub struct Which {
    pub repository: Option<String>,
    pub actor: Option<String>,
    pub tool: Option<String>,
    pub outcome: Option<String>,
    pub host_id: Option<Uuid>,
    pub from: Option<OffsetDateTime>,
    pub to: Option<OffsetDateTime>,
}

/// Lets nobody else look for a change by this key until the transaction ends.
pub async fn lock_key(connection: &mut PgConnection, kind: &str, key: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 8))",
        kind,
        key
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// The change that a key leads to, if it was seen since then. Not one that somebody told apart by another id than
/// `explicit`.
pub async fn find_by_key(
    connection: &mut PgConnection,
    (kind, key): (&str, &str),
    since: OffsetDateTime,
    explicit: Option<&str>,
) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select k.change_id from change_keys k
         where k.kind = $1 and k.key = $2 and k.seen_at >= $3
           and ($4::text is null or not exists (select from change_keys e where e.change_id = k.change_id
                                                    and e.kind = 'explicit' and e.key <> $4))",
        kind,
        key,
        since,
        explicit,
    )
    .fetch_optional(connection)
    .await
}

/// From here on these keys lead to the change.
pub async fn upsert_keys(
    connection: &mut PgConnection,
    change_id: Uuid,
    keys: &[(String, String)],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let (kinds, keys): (Vec<_>, Vec<_>) = keys.iter().cloned().unzip();
    let done = sqlx::query!(
        "insert into change_keys (kind, key, change_id, seen_at)
         select kind, key, $1, $4 from unnest($2::text[], $3::text[]) as i (kind, key) order by kind, key
         on conflict (kind, key) do update set change_id = excluded.change_id, seen_at = excluded.seen_at",
        change_id,
        &kinds,
        &keys,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A change of which nothing is known yet; [`refresh`] fills it from its runs.
pub async fn insert(
    connection: &mut PgConnection,
    change_id: Uuid,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into changes (change_id, origin, title, started_at, ended_at, outcome, tools, created_at, updated_at)
         values ($1, 'captured', '', $2, $2, 'unknown', '{}', $2, $2)",
        change_id,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Sums up a change's runs. What several claim, the newest that says it is believed.
pub async fn refresh(
    connection: &mut PgConnection,
    change_id: Uuid,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with runs as (
             select * from change_runs where change_id = $1
         ), said as (
             select distinct on (name) name, value
             from runs, jsonb_each_text(claims) as c (name, value)
             order by name, started_at desc, received_at desc
         ), claimed as (
             select jsonb_object_agg(name, value) as all from said
         ), plan as (
             select summary from runs where tool = 'terraform' and kind = 'plan'
             order by started_at desc, received_at desc limit 1
         ), last as (
             -- What was done says more than what was planned.
             select tool, kind, outcome, claims from runs where kind <> 'state'
             order by kind = 'plan', started_at desc, received_at desc limit 1
         )
         update changes c
         set title = coalesce(case when (select tool from last) is null then 'Terraform state'
                     else initcap((select tool from last)) || ' ' || (select kind from last) end, '')
                 || coalesce(' of ' || coalesce((select claimed.all->>'workspace' from claimed),
                                                (select claimed.all->>'repository' from claimed)), ''),
             started_at = r.started_at, ended_at = r.ended_at, tools = r.tools,
             outcome = coalesce((select outcome from last), 'unknown'),
             repository = (select claimed.all->>'repository' from claimed),
             commit_id = (select coalesce(claimed.all->>'merge_commit', claimed.all->>'commit') from claimed),
             branch = (select claimed.all->>'branch' from claimed),
             pull_request = (select claimed.all->>'pull_request' from claimed),
             actor = (select claimed.all->>'actor' from claimed),
             environment = (select claimed.all->>'environment' from claimed),
             workspace = (select claimed.all->>'workspace' from claimed),
             run_url = (select claimed.all->>'run_url' from claimed),
             add_count = coalesce((select (summary->>'add')::bigint from plan), 0),
             change_count = coalesce((select (summary->>'change')::bigint from plan), 0),
             destroy_count = coalesce((select (summary->>'destroy')::bigint from plan), 0),
             updated_at = $2
         from (select min(started_at) as started_at, max(ended_at) as ended_at,
                   array_agg(distinct tool order by tool) as tools from runs) as r
         where c.change_id = $1 and r.started_at is not null",
        change_id,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A change.
pub async fn find(
    connection: &mut PgConnection,
    change_id: Uuid,
) -> sqlx::Result<Option<ChangeRow>> {
    let mut sql = QueryBuilder::new("select * from changes where change_id = ");
    sql.push_bind(change_id);
    sql.build_query_as().fetch_optional(connection).await
}

/// A change that is past its retention.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub change_id: Uuid,
    /// Somebody wrote it down.
    pub is_manual: bool,
}

/// Changes that ended before then, the oldest first.
pub async fn list_ended_before(
    connection: &mut PgConnection,
    before: OffsetDateTime,
    limit: i64,
) -> sqlx::Result<Vec<Ended>> {
    sqlx::query_as!(
        Ended,
        r#"select change_id, origin = 'manual' as "is_manual!" from changes where ended_at < $1
           order by ended_at, change_id limit $2"#,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Deletes a change with its runs and all they say.
pub async fn delete(connection: &mut PgConnection, change_id: Uuid) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from changes where change_id = $1", change_id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Changes, newest first: those from before `before`.
pub async fn list(
    connection: &mut PgConnection,
    which: &Which,
    before: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<ChangeRow>> {
    let mut sql = QueryBuilder::new("select * from changes where true");
    push(&mut sql, which);
    if let Some((at, id)) = before {
        sql.push(" and (started_at, change_id) < (")
            .push_bind(at)
            .push(", ")
            .push_bind(id)
            .push(")");
    }
    sql.push(" order by started_at desc, change_id desc limit ")
        .push_bind(limit);
    sql.build_query_as().fetch_all(connection).await
}

/// How many match.
pub async fn count(connection: &mut PgConnection, which: &Which) -> sqlx::Result<i64> {
    let mut sql = QueryBuilder::new("select count(*) from changes where true");
    push(&mut sql, which);
    sql.build_query_scalar().fetch_one(connection).await
}

fn push(sql: &mut QueryBuilder<Postgres>, which: &Which) {
    for (column, value) in [
        ("repository", &which.repository),
        ("actor", &which.actor),
        ("outcome", &which.outcome),
    ] {
        if let Some(value) = value {
            sql.push(format!(" and {column} = "))
                .push_bind(value.clone());
        }
    }
    if let Some(tool) = &which.tool {
        sql.push(" and tools @> array[")
            .push_bind(tool.clone())
            .push("]");
    }
    if let Some(host_id) = which.host_id {
        sql.push(" and change_id in (select change_id from change_hosts where host_id = ")
            .push_bind(host_id)
            .push(")");
    }
    if let Some(from) = which.from {
        sql.push(" and started_at >= ").push_bind(from);
    }
    if let Some(to) = which.to {
        sql.push(" and started_at < ").push_bind(to);
    }
}
