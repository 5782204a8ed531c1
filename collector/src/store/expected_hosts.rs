//! The ledger of hosts that sources expect: what they are linked to, and whether that reports.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::inventory::documents::Entry;
use crate::store::json_text;

/// An entry as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRow {
    pub key: String,
    pub entry: Entry,
    pub host_id: Option<Uuid>,
    pub linked_by: Option<String>,
    pub duplicate_id: Option<Uuid>,
    #[serde(with = "rfc3339")]
    pub first_seen_at: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub last_seen_at: OffsetDateTime,
    #[serde(with = "rfc3339::option")]
    pub gone_at: Option<OffsetDateTime>,
    #[serde(with = "rfc3339::option")]
    pub destroyed_at: Option<OffsetDateTime>,
}

/// Every entry that a source has or had.
pub async fn list_of_source(
    connection: &mut PgConnection,
    source: &str,
) -> sqlx::Result<Vec<LedgerRow>> {
    let rows = sqlx::query!(
        r#"select key, entry as "entry: sqlx::types::Json<Entry>", host_id, linked_by, duplicate_id, first_seen_at,
             last_seen_at, gone_at, destroyed_at
         from expected_hosts where source = $1 order by key"#,
        source
    )
    .fetch_all(connection)
    .await?;
    let row = rows.into_iter().map(|row| LedgerRow {
        key: row.key,
        entry: row.entry.0,
        host_id: row.host_id,
        linked_by: row.linked_by,
        duplicate_id: row.duplicate_id,
        first_seen_at: row.first_seen_at,
        last_seen_at: row.last_seen_at,
        gone_at: row.gone_at,
        destroyed_at: row.destroyed_at,
    });
    Ok(row.collect())
}

/// Writes rows of a source.
pub async fn upsert(
    connection: &mut PgConnection,
    source: &str,
    rows: &[LedgerRow],
) -> sqlx::Result<u64> {
    let rows = serde_json::to_value(rows).unwrap_or_default();
    let done = sqlx::query!(
        "insert into expected_hosts (source, key, entry, name, instance_id, addresses, host_id, linked_by, duplicate_id,
             first_seen_at, last_seen_at, gone_at, destroyed_at)
         select $1, i.key, i.entry, i.entry ->> 'name', i.entry ->> 'instance_id',
             array(select a::inet from jsonb_array_elements_text(i.entry -> 'addresses') as a), i.host_id, i.linked_by,
             i.duplicate_id, i.first_seen_at, i.last_seen_at, i.gone_at, i.destroyed_at
         from jsonb_to_recordset($2::jsonb)
             as i (key text, entry jsonb, host_id uuid, linked_by text, duplicate_id uuid, first_seen_at timestamptz,
                   last_seen_at timestamptz, gone_at timestamptz, destroyed_at timestamptz)
         order by i.key
         on conflict (source, key) do update
         set entry = excluded.entry, name = excluded.name, instance_id = excluded.instance_id,
             addresses = excluded.addresses, host_id = excluded.host_id, linked_by = excluded.linked_by,
             duplicate_id = excluded.duplicate_id, last_seen_at = excluded.last_seen_at, gone_at = excluded.gone_at,
             destroyed_at = excluded.destroyed_at",
        source,
        json_text(&rows) as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes rows of a source.
pub async fn delete(
    connection: &mut PgConnection,
    source: &str,
    keys: &[String],
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from expected_hosts where source = $1 and key = any($2)",
        source,
        keys,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Where hosts stand that a run of Terraform destroyed and no source lists. No source can be called so.
const DESTROYED: &str = "(changes)";

/// Says that a host was destroyed: in each source that lists it, else in a ledger of their own.
pub async fn mark_destroyed(
    connection: &mut PgConnection,
    host: Uuid,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update expected_hosts set destroyed_at = coalesce(destroyed_at, $2) where host_id = $1",
        host,
        now,
    )
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() > 0 {
        return Ok(done.rows_affected());
    }
    sqlx::query!(
        "insert into inventories (source, kind, synced_at, synced_by, entry_count)
         values ($1, 'terraform', $2, 'changes', 0) on conflict do nothing",
        DESTROYED,
        now,
    )
    .execute(&mut *connection)
    .await?;
    let done = sqlx::query!(
        "insert into expected_hosts (source, key, entry, name, instance_id, addresses, host_id, first_seen_at,
             last_seen_at, gone_at, destroyed_at)
         select $1, host_id::text, jsonb_build_object('key', host_id::text, 'name', name, 'instance_id', instance_id,
                 'addresses', array(select host(a) from unnest(addresses) as a), 'tags', '{}'::text[],
                 'environment', environment, 'owner', owner, 'destroyed', true),
             name, instance_id, addresses, host_id, $3, $3, $3, $3
         from hosts where host_id = $2
         on conflict do nothing",
        DESTROYED,
        host,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Those of `hosts` that another source lists.
pub async fn list_listed_elsewhere(
    connection: &mut PgConnection,
    source: &str,
    hosts: &[Uuid],
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"select distinct host_id as "host_id!" from expected_hosts
         where source <> $1 and host_id = any($2) and gone_at is null"#,
        source,
        hosts,
    )
    .fetch_all(connection)
    .await
}

/// What was linked to a host that was merged is linked to the one it was merged into.
pub async fn update_merged(
    connection: &mut PgConnection,
    from: Uuid,
    to: Uuid,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update expected_hosts
         set host_id = case when host_id = $1 then $2 else host_id end,
             duplicate_id = case when duplicate_id = $1 then null else duplicate_id end
         where host_id = $1 or duplicate_id = $1",
        from,
        to,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A host with an agent that an entry may mean, whose own host has none.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub source: String,
    pub key: String,
    /// What the entry is linked to.
    pub host_id: Option<Uuid>,
    pub agent_host_id: Uuid,
    /// 1 instance id, 2 address, 3 name: the less the surer.
    pub rank: i32,
}

/// Hosts with an agent that entries without one may mean; at most `limit`, by entry, the surest first.
pub async fn list_candidates(
    connection: &mut PgConnection,
    limit: i64,
) -> sqlx::Result<Vec<Candidate>> {
    sqlx::query_as!(
        Candidate,
        r#"with absent as (
             select e.* from expected_hosts e left join host_liveness l using (host_id)
             where e.gone_at is null and l.instance is null
         ), agent as (
             select h.* from hosts h join host_liveness l using (host_id)
             where l.instance is not null and h.retired_at is null and h.conflict_of is null and h.deleted_at is null
         )
         select e.source as "source!", e.key as "key!", e.host_id, a.host_id as "agent_host_id!", 1 as "rank!"
         from absent e join agent a on a.instance_id = e.instance_id
         union
         select e.source, e.key, e.host_id, a.host_id, 2
         from (select absent.*, unnest(addresses) as address from absent) e
         join (select agent.*, unnest(addresses) as address from agent) a using (address)
         where a.instance_id is null or e.instance_id is null or a.instance_id = e.instance_id
         union
         select e.source, e.key, e.host_id, a.host_id, 3
         from absent e join agent a using (name)
         where a.instance_id is null or e.instance_id is null or a.instance_id = e.instance_id
         order by 1, 2, 5, 4 limit $1"#,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Links an entry to the host of its agent; `before` is to be merged into it.
pub async fn update_link(
    connection: &mut PgConnection,
    found: &Candidate,
    linked_by: &str,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update expected_hosts set host_id = $4, linked_by = $5, duplicate_id = $3
         where source = $1 and key = $2 and host_id is not distinct from $3",
        found.source,
        found.key,
        found.host_id,
        found.agent_host_id,
        linked_by,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Whether anything was ever said of a host but by its inventory.
pub async fn has_history(connection: &mut PgConnection, host: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select origin <> 'inventory' or cardinality(edited) > 0 or notes is not null or retired_at is not null
             or exists (select from tasks t where t.host_id = h.host_id)
             or exists (select from events e where e.host_id = h.host_id and e.kind not like 'host\_%')
             or exists (select from agent_certs c where c.host_id = h.host_id)
             or exists (select from enroll_tokens k where k.host_id = h.host_id) as "has_history!"
         from hosts h where host_id = $1"#,
        host
    )
    .fetch_optional(connection)
    .await
    .map(|found| found.unwrap_or(true))
}

/// A line of the ledger.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExpectedRow {
    /// `ok | absent | gone | destroyed_reporting | unexpected`.
    pub state: String,
    /// Empty for a host that no source knows.
    pub source: String,
    /// What names it in its source.
    pub key: String,
    pub name: String,
    pub instance_id: Option<String>,
    pub addresses: Vec<String>,
    pub host_id: Option<Uuid>,
    /// By what its host was found: `instance_id | address | name`.
    pub linked_by: Option<String>,
    /// Another row for the same host, made before its agent enrolled: to be merged into it.
    pub duplicate_id: Option<Uuid>,
    #[serde(with = "rfc3339::option")]
    pub first_seen_at: Option<OffsetDateTime>,
    /// When the source last listed it.
    #[serde(with = "rfc3339::option")]
    pub last_seen_in_source_at: Option<OffsetDateTime>,
    #[serde(with = "rfc3339::option")]
    pub gone_at: Option<OffsetDateTime>,
    #[serde(with = "rfc3339::option")]
    pub destroyed_at: Option<OffsetDateTime>,
    /// When its agent last reported, or a probe was answered.
    #[serde(with = "rfc3339::option")]
    pub last_seen_at: Option<OffsetDateTime>,
}

/// Where a page of the ledger begins: after this name, source and key.
pub type After = (String, String, String);

/// A page of the ledger, by name. An agent reports if it was last seen after `offline_before`.
pub async fn list(
    connection: &mut PgConnection,
    state: Option<&str>,
    source: Option<&str>,
    offline_before: OffsetDateTime,
    after: Option<&After>,
    limit: i64,
) -> sqlx::Result<Vec<ExpectedRow>> {
    let (name, of, key) = after.map_or((None, None, None), |(name, source, key)| {
        (
            Some(name.as_str()),
            Some(source.as_str()),
            Some(key.as_str()),
        )
    });
    sqlx::query_as!(
        ExpectedRow,
        r#"select state as "state!", source as "source!", key as "key!", name as "name!", instance_id,
             array(select host(a) from unnest(addresses) as a) as "addresses!", host_id, linked_by, duplicate_id,
             first_seen_at, last_seen_in_source_at, gone_at, destroyed_at, last_seen_at
         from expected_ledger($1)
         where ($2::text is null or state = $2) and ($3::text is null or source = $3)
           and ($4::text is null or (name, source, key) > ($4, $5, $6))
         order by name, source, key limit $7"#,
        offline_before,
        state,
        source,
        name,
        of,
        key,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many lines of the ledger there are in each state.
pub async fn count(
    connection: &mut PgConnection,
    source: Option<&str>,
    offline_before: OffsetDateTime,
) -> sqlx::Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"select state as "state!", count(*) as "count!" from expected_ledger($1)
         where $2::text is null or source = $2 group by 1 order by 1"#,
        offline_before,
        source,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.state, row.count)).collect())
}
