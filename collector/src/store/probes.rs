//! Probes of hosts without an agent: whom to probe, what they found.

use ipnet::IpNet;
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// Probes of a host that are kept.
pub const KEPT: i64 = 100;

/// A host to probe, and where.
#[derive(Clone, Debug)]
pub struct Due {
    pub host_id: Uuid,
    pub address: String,
}

/// Hosts without an agent that were last probed before `due_before`, longest ago first, each with its first address
/// in `networks`.
pub async fn list_due(
    connection: &mut PgConnection,
    networks: &[IpNet],
    due_before: OffsetDateTime,
    limit: i64,
) -> sqlx::Result<Vec<Due>> {
    sqlx::query_as!(
        Due,
        r#"select h.host_id, a.address as "address!"
         from hosts h join host_liveness l using (host_id)
         cross join lateral (
             select host(address) as address from unnest(h.addresses) with ordinality as t (address, nth)
             where address <<= any($1::inet[]) order by nth limit 1
         ) a
         where h.retired_at is null and h.conflict_of is null and h.deleted_at is null and l.instance is null
           and (l.probed_at is null or l.probed_at <= $2)
           and not exists (select from agent_certs c where c.host_id = h.host_id)
         order by l.probed_at nulls first, h.host_id limit $3"#,
        networks,
        due_before,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// What a probe found.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProbeRow {
    #[serde(skip)]
    pub host_id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub ok: bool,
    /// What answered: `icmp`, `tcp/22`.
    pub via: Option<String>,
    pub rtt_ms: Option<f32>,
    pub error: Option<String>,
}

/// The probes of a host, newest first.
pub async fn list(connection: &mut PgConnection, host: Uuid) -> sqlx::Result<Vec<ProbeRow>> {
    sqlx::query_as!(
        ProbeRow,
        "select host_id, at, ok, via, rtt_ms, error from probes where host_id = $1 order by at desc limit $2",
        host,
        KEPT,
    )
    .fetch_all(connection)
    .await
}

/// Keeps what probes found, sorted by host.
pub async fn insert(connection: &mut PgConnection, rows: &[ProbeRow]) -> sqlx::Result<u64> {
    let hosts: Vec<_> = rows.iter().map(|row| row.host_id).collect();
    let at: Vec<_> = rows.iter().map(|row| row.at).collect();
    let ok: Vec<_> = rows.iter().map(|row| row.ok).collect();
    let via: Vec<_> = rows.iter().map(|row| row.via.clone()).collect();
    let rtt: Vec<_> = rows.iter().map(|row| row.rtt_ms).collect();
    let errors: Vec<_> = rows.iter().map(|row| row.error.clone()).collect();
    let done = sqlx::query!(
        "insert into probes (host_id, at, ok, via, rtt_ms, error)
         select * from unnest($1::uuid[], $2::timestamptz[], $3::bool[], $4::text[], $5::float4[], $6::text[])
         on conflict do nothing",
        &hosts,
        &at,
        &ok,
        &via as &[Option<String>],
        &rtt as &[Option<f32>],
        &errors as &[Option<String>],
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Moves what is known of the hosts' liveness, sorted by host; not of one that got an agent meanwhile.
pub async fn update_liveness(
    connection: &mut PgConnection,
    rows: &[ProbeRow],
    believed: time::Duration,
) -> sqlx::Result<u64> {
    let hosts: Vec<_> = rows.iter().map(|row| row.host_id).collect();
    let at: Vec<_> = rows.iter().map(|row| row.at).collect();
    let until: Vec<_> = rows.iter().map(|row| row.at + believed).collect();
    let ok: Vec<_> = rows.iter().map(|row| row.ok).collect();
    let done = sqlx::query!(
        "update host_liveness l
         set probed_at = i.at, probed_until = i.until,
             last_seen_at = case when i.ok then i.at else l.last_seen_at end,
             probe_misses = case when i.ok then 0 else least(coalesce(l.probe_misses, 0) + 1, 1000000) end
         from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::bool[]) as i (host_id, at, until, ok)
         where l.host_id = i.host_id and l.instance is null",
        &hosts,
        &at,
        &until,
        &ok,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes all but the last probes of `hosts`.
pub async fn delete_old(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from probes p using (
             select host_id, at, row_number() over (partition by host_id order by at desc) as nth
             from probes where host_id = any($1)
         ) o where o.nth > $2 and p.host_id = o.host_id and p.at = o.at",
        hosts,
        KEPT,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
