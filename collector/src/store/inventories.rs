//! Inventories, and the hosts that a sync reads and writes: in bulk, for an inventory has many.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::json_text;

/// What was last read from a source.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct InventoryRow {
    pub source: String,
    /// `ansible | terraform | csv`.
    pub kind: String,
    #[serde(with = "time::serde::rfc3339")]
    pub synced_at: OffsetDateTime,
    pub synced_by: String,
    pub entry_count: i32,
}

/// Every source that was read.
pub async fn list(connection: &mut PgConnection) -> sqlx::Result<Vec<InventoryRow>> {
    sqlx::query_as!(
        InventoryRow,
        "select source, kind, synced_at, synced_by, entry_count from inventories order by source"
    )
    .fetch_all(connection)
    .await
}

/// Notes that a source was read.
pub async fn upsert(connection: &mut PgConnection, row: &InventoryRow) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into inventories (source, kind, synced_at, synced_by, entry_count) values ($1, $2, $3, $4, $5)
         on conflict (source) do update
         set kind = excluded.kind, synced_at = excluded.synced_at, synced_by = excluded.synced_by,
             entry_count = excluded.entry_count",
        row.source,
        row.kind,
        row.synced_at,
        row.synced_by,
        row.entry_count,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// What of a host a sync looks at, and changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KnownHost {
    pub host_id: Uuid,
    pub name: String,
    pub instance_id: Option<String>,
    pub addresses: Vec<String>,
    pub tags: Vec<String>,
    pub owner: Option<String>,
    pub environment: Option<String>,
    pub edited: Vec<String>,
    pub origin: String,
    /// An agent has reported as it.
    pub has_agent: bool,
    pub is_retired: bool,
    pub merged_into: Option<Uuid>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub missing_since: Option<OffsetDateTime>,
}

/// Every host that an entry may mean, retired ones too; of some, where `hosts` is given.
pub async fn list_known(
    connection: &mut PgConnection,
    hosts: Option<&[Uuid]>,
) -> sqlx::Result<Vec<KnownHost>> {
    sqlx::query_as!(
        KnownHost,
        r#"select h.host_id, h.name, h.instance_id,
             array(select host(a) from unnest(h.addresses) as a) as "addresses!", h.tags, h.owner, h.environment,
             h.edited, h.origin, l.instance is not null as "has_agent!", h.retired_at is not null as "is_retired!",
             h.merged_into, h.missing_since
         from hosts h join host_liveness l using (host_id)
         where h.deleted_at is null and h.conflict_of is null and ($1::uuid[] is null or h.host_id = any($1))
         order by h.host_id"#,
        hosts,
    )
    .fetch_all(connection)
    .await
}

/// Makes hosts of entries.
pub async fn insert_hosts(
    connection: &mut PgConnection,
    hosts: &[&KnownHost],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let hosts = serde_json::to_value(hosts).unwrap_or_default();
    let done = sqlx::query!(
        "with host as (
             insert into hosts (host_id, name, instance_id, addresses, tags, owner, environment, origin, created_at)
             select host_id, name, instance_id, addresses, tags, owner, environment, 'inventory', $2
             from jsonb_to_recordset($1::jsonb)
                 as i (host_id uuid, name text, instance_id text, addresses inet[], tags text[], owner text,
                       environment text)
             returning host_id
         )
         insert into host_liveness (host_id) select host_id from host",
        json_text(&hosts) as _,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Writes what an inventory says of locked hosts, each as its next version.
pub async fn update_hosts(
    connection: &mut PgConnection,
    hosts: &[&KnownHost],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let hosts = serde_json::to_value(hosts).unwrap_or_default();
    let done = sqlx::query!(
        "update hosts h
         set name = i.name, instance_id = i.instance_id, addresses = i.addresses, tags = i.tags, owner = i.owner,
             environment = i.environment, missing_since = i.missing_since, version = h.version + 1, updated_at = $2
         from jsonb_to_recordset($1::jsonb)
             as i (host_id uuid, name text, instance_id text, addresses inet[], tags text[], owner text,
                   environment text, missing_since timestamptz)
         where h.host_id = i.host_id",
        json_text(&hosts) as _,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Waits until no other sync is under way: two sources that both know a host are to find one, not to make two.
pub async fn lock(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('infratrack inventory', 0))")
        .fetch_one(connection)
        .await
        .map(drop)
}
