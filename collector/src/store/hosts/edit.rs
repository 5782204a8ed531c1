//! What operators write of hosts: metadata by hand, hosts without an agent, retirement.
//!
//! Whoever edits locks the rows first, sorted by host, decides on what stands there, and writes the whole.

use infratrack_shared::ids::HostId;
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::json_text;

/// What of a host can be edited, and what decides whether it may.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EditRow {
    pub host_id: Uuid,
    pub name: String,
    pub tags: Vec<String>,
    pub owner: Option<String>,
    pub environment: Option<String>,
    pub notes: Option<String>,
    pub addresses: Vec<String>,
    /// Columns that are an operator's.
    pub edited: Vec<String>,
    pub origin: String,
    pub version: i64,
    #[serde(with = "time::serde::rfc3339::option")]
    pub retired_at: Option<OffsetDateTime>,
    pub merged_into: Option<Uuid>,
    /// Set apart from another host, and not a host of its own yet.
    pub conflict_of: Option<Uuid>,
}

/// Locks the rows of `hosts`, sorted, until the transaction ends; not against rows that only refer to them.
pub async fn lock(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<Vec<EditRow>> {
    sqlx::query_as!(
        EditRow,
        r#"select host_id, name, tags, owner, environment, notes,
             array(select host(a) from unnest(addresses) as a) as "addresses!", edited, origin, version, retired_at,
             merged_into, conflict_of
         from hosts where host_id = any($1) and deleted_at is null
         order by host_id for no key update"#,
        hosts,
    )
    .fetch_all(connection)
    .await
}

/// Makes a host that has no agent.
pub async fn insert(
    connection: &mut PgConnection,
    row: &EditRow,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with host as (
             insert into hosts (host_id, name, tags, owner, environment, notes, addresses, edited, origin, created_at)
             values ($1, $2, $3, $4, $5, $6, $7::text[]::inet[], $8, $9, $10)
             returning host_id
         )
         insert into host_liveness (host_id) select host_id from host",
        row.host_id,
        row.name,
        &row.tags,
        row.owner,
        row.environment,
        row.notes,
        &row.addresses,
        &row.edited,
        row.origin,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Keeps anybody else from making a host of this name until the transaction ends.
pub async fn lock_name(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended($1, 0))",
        format!("infratrack host {name}")
    )
    .fetch_one(connection)
    .await
    .map(drop)
}

/// The oldest host at work that has this name.
pub async fn find_by_name(connection: &mut PgConnection, name: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select host_id from hosts
         where name = $1 and retired_at is null and conflict_of is null and deleted_at is null
         order by host_id limit 1",
        name
    )
    .fetch_optional(connection)
    .await
}

/// Writes what was edited of locked rows, each as its next version.
pub async fn update(
    connection: &mut PgConnection,
    rows: &[EditRow],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    // Lists of lists are no arrays of Postgres.
    let rows = serde_json::to_value(rows).unwrap_or_default();
    let done = sqlx::query!(
        "update hosts h
         set name = i.name, tags = i.tags, owner = i.owner, environment = i.environment, notes = i.notes,
             addresses = i.addresses, edited = i.edited, retired_at = i.retired_at, merged_into = i.merged_into,
             version = h.version + 1, updated_at = $2
         from jsonb_to_recordset($1::jsonb)
             as i (host_id uuid, name text, tags text[], owner text, environment text, notes text,
                   addresses inet[], edited text[], retired_at timestamptz, merged_into uuid)
         where h.host_id = i.host_id",
        json_text(&rows) as _,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// An operator's notes on a host.
pub async fn find_notes(
    connection: &mut PgConnection,
    host: HostId,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!("select notes from hosts where host_id = $1", host.0)
        .fetch_one(connection)
        .await
}
