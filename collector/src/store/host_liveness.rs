//! The narrow row each heartbeat updates, and what the liveness job makes of it.

use infratrack_shared::digest::Digest;
use infratrack_shared::ids::{BootId, HostId, InstanceId};
use infratrack_shared::wire::heartbeat::Heartbeat;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::heartbeats::{memory_used_ratio, signed};
use crate::store::storable;

/// What a live heartbeat says of its host.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    pub host: HostId,
    pub received_at: OffsetDateTime,
    /// The run of the agent that says it.
    pub instance: InstanceId,
    pub boot_id: BootId,
    pub skew_ms: i64,
    pub disk_used_ratio: Option<f32>,
    pub heartbeat: &'a Heartbeat,
}

/// What the row says after the heartbeat.
#[derive(Clone, Debug)]
pub struct SeenRow {
    pub host_id: Uuid,
    pub facts_hash: Option<Vec<u8>>,
    pub inventory_hash: Option<Vec<u8>>,
}

/// Moves the rows of `seen`, sorted by host, one a host: those whose instance is in place. Like
/// [`host_instances::lock`](crate::store::host_instances::lock), it locks them until the transaction ends.
#[expect(clippy::too_many_lines, reason = "one statement, a line a column")]
pub async fn update_seen(
    connection: &mut PgConnection,
    seen: &[Seen<'_>],
) -> sqlx::Result<Vec<SeenRow>> {
    let hosts: Vec<_> = seen.iter().map(|s| s.host.0).collect();
    let received: Vec<_> = seen.iter().map(|s| s.received_at).collect();
    let streams: Vec<_> = seen.iter().map(|s| s.heartbeat.stream.0).collect();
    let numbers: Vec<_> = seen.iter().map(|s| s.heartbeat.n as i64).collect();
    let boots: Vec<_> = seen.iter().map(|s| s.boot_id.0).collect();
    let versions: Vec<_> = seen
        .iter()
        .map(|s| storable(&s.heartbeat.agent.version))
        .collect();
    let instances: Vec<_> = seen.iter().map(|s| s.instance.0).collect();
    let skews: Vec<_> = seen.iter().map(|s| s.skew_ms).collect();
    let cpu: Vec<_> = seen.iter().map(|s| s.heartbeat.cpu_ratio).collect();
    let memory: Vec<_> = seen
        .iter()
        .map(|s| memory_used_ratio(s.heartbeat))
        .collect();
    let disk: Vec<_> = seen.iter().map(|s| s.disk_used_ratio).collect();
    let units: Vec<_> = seen
        .iter()
        .map(|s| {
            s.heartbeat
                .failed_unit_count
                .map(|n| i32::try_from(n).unwrap_or(i32::MAX))
        })
        .collect();
    let reboot: Vec<_> = seen.iter().map(|s| s.heartbeat.reboot_required).collect();
    let spool: Vec<_> = seen
        .iter()
        .map(|s| {
            signed(
                s.heartbeat
                    .spool
                    .critical_records
                    .saturating_add(s.heartbeat.spool.beat_records),
            )
        })
        .collect();
    sqlx::query_as!(
        SeenRow,
        "update host_liveness l
         set last_seen_at = greatest(l.last_seen_at, i.received_at),
             stream = i.stream, n = i.n,
             boot_changed_at = case when l.boot_id is distinct from i.boot_id then i.received_at
                                    else l.boot_changed_at end,
             boot_id = i.boot_id, agent_version = i.version, skew_ms = i.skew_ms, cpu_ratio = i.cpu,
             memory_used_ratio = i.memory, disk_used_ratio = i.disk, failed_unit_count = i.units,
             reboot_required = i.reboot,
             reboot_required_since = case when not coalesce(i.reboot, false) then null
                                          else coalesce(l.reboot_required_since, i.received_at) end,
             spool_records = i.spool
         from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::int8[], $5::uuid[],
                     $6::text[], $7::int8[], $8::float4[], $9::float4[], $10::float4[], $11::int4[],
                     $12::bool[], $13::int8[], $14::uuid[])
             as i (host_id, received_at, stream, n, boot_id, version, skew_ms, cpu, memory,
                   disk, units, reboot, spool, instance)
         where l.host_id = i.host_id and l.instance = i.instance
         returning l.host_id, l.facts_hash, l.inventory_hash",
        &hosts,
        &received,
        &streams,
        &numbers,
        &boots,
        &versions,
        &skews,
        &cpu as &[Option<f32>],
        &memory as &[Option<f32>],
        &disk as &[Option<f32>],
        &units as &[Option<i32>],
        &reboot as &[Option<bool>],
        &spool,
        &instances,
    )
    .fetch_all(connection)
    .await
}

/// Stores the hash over each host's facts, sorted by host.
pub async fn update_facts_hash(
    connection: &mut PgConnection,
    hashes: &[(HostId, Digest)],
) -> sqlx::Result<u64> {
    let hosts: Vec<_> = hashes.iter().map(|(host, _)| host.0).collect();
    let digests: Vec<_> = hashes
        .iter()
        .map(|(_, digest)| digest.as_bytes().to_vec())
        .collect();
    let done = sqlx::query!(
        "update host_liveness l set facts_hash = i.hash
         from unnest($1::uuid[], $2::bytea[]) as i (host_id, hash) where l.host_id = i.host_id",
        &hosts,
        &digests,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A host whose liveness differs from what was last said of it.
#[derive(Clone, Debug)]
pub struct Changed {
    pub host_id: Uuid,
    pub was: String,
    pub is: String,
    pub was_reason: Option<String>,
    pub last_seen_at: Option<OffsetDateTime>,
    pub instance_changed_at: Option<OffsetDateTime>,
    pub boot_changed_at: Option<OffsetDateTime>,
    pub liveness_changed_at: Option<OffsetDateTime>,
    /// It has no agent; probes tell.
    pub is_probed: bool,
}

/// Hosts whose liveness changed, locked; at most 1,000, those that were silent longest first.
pub async fn list_changed(
    connection: &mut PgConnection,
    late_before: OffsetDateTime,
    offline_before: OffsetDateTime,
) -> sqlx::Result<Vec<Changed>> {
    sqlx::query_as!(
        Changed,
        r#"select host_id, liveness as was, judged as "is!", liveness_reason as was_reason, last_seen_at,
             instance_changed_at, boot_changed_at, liveness_changed_at,
             instance is null and probe_misses is not null as "is_probed!"
         from (
             select l.*, host_liveness_word(l, $1, $2) as judged from host_liveness l
         ) as j
         where liveness <> judged
         order by last_seen_at limit 1000
         for update skip locked"#,
        late_before,
        offline_before,
    )
    .fetch_all(connection)
    .await
}

/// Says what became of a host.
pub async fn update_liveness(
    connection: &mut PgConnection,
    host: HostId,
    liveness: &str,
    reason: Option<&str>,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_liveness set liveness = $2, liveness_reason = $3, liveness_changed_at = $4
         where host_id = $1",
        host.0,
        liveness,
        reason,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
