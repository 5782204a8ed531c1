//! Raw heartbeats, by day.

use infratrack_shared::ids::{HostId, InstanceId};
use infratrack_shared::wire::heartbeat::Heartbeat;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::JsonText;

/// One heartbeat to store.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    pub host: HostId,
    /// Effective time.
    pub at: OffsetDateTime,
    /// The same heartbeat may be there under another `at`.
    pub may_move: bool,
    pub claimed_at: OffsetDateTime,
    pub received_at: OffsetDateTime,
    /// The run of the agent that brought it.
    pub instance: InstanceId,
    pub heartbeat: &'a Heartbeat,
}

/// A count or size as Postgres takes it; beyond its range, the largest.
pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Used share of memory, 0 to 1.
pub fn memory_used_ratio(heartbeat: &Heartbeat) -> Option<f32> {
    let total = heartbeat.memory_total_bytes.filter(|total| *total > 0)?;
    let used = total.saturating_sub(heartbeat.memory_available_bytes?);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a ratio needs no more digits"
    )]
    Some((used as f64 / total as f64) as f32)
}

/// The fullest filesystem, by bytes or inodes, 0 to 1.
pub fn disk_used_ratio(heartbeat: &Heartbeat) -> Option<f32> {
    let used = |total: u64, free: u64| {
        (total > 0).then(|| total.saturating_sub(free) as f64 / total as f64)
    };
    let ratios = heartbeat.filesystems.iter().flat_map(|f| {
        [
            used(f.total_bytes, f.available_bytes),
            used(f.inodes_total, f.inodes_free),
        ]
    });
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a ratio needs no more digits"
    )]
    ratios.flatten().reduce(f64::max).map(|ratio| ratio as f32)
}

/// What tells a heartbeat that may be there under another time.
pub type Key = (Uuid, Uuid, i64, OffsetDateTime);

impl Row<'_> {
    /// See [`list_known`].
    pub fn key(&self) -> Key {
        let beat = self.heartbeat;
        (self.host.0, beat.stream.0, beat.n as i64, self.claimed_at)
    }
}

/// Those of `keys` that are there, whatever time they are filed under.
pub async fn list_known(connection: &mut PgConnection, keys: &[Key]) -> sqlx::Result<Vec<Key>> {
    let rows = sqlx::query!(
        "select h.host_id, h.stream, h.n, h.claimed_at
         from unnest($1::uuid[], $2::uuid[], $3::int8[], $4::timestamptz[])
             as i (host_id, stream, n, claimed_at)
         join heartbeats h on h.host_id = i.host_id and h.stream = i.stream and h.n = i.n
             and h.claimed_at = i.claimed_at",
        &keys.iter().map(|key| key.0).collect::<Vec<_>>(),
        &keys.iter().map(|key| key.1).collect::<Vec<_>>(),
        &keys.iter().map(|key| key.2).collect::<Vec<_>>(),
        &keys.iter().map(|key| key.3).collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.host_id, row.stream, row.n, row.claimed_at))
        .collect())
}

/// Inserts `rows`, sorted by (host, time); those already there under that time are left as they are.
pub async fn insert(connection: &mut PgConnection, rows: &[&Row<'_>]) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into heartbeats
         select host_id, at, stream, n, claimed_at, received_at, cpu_ratio, load_1, load_5, load_15,
             memory_total_bytes, memory_available_bytes, swap_total_bytes, swap_used_bytes,
             disk_read, disk_written, net_received, net_sent, uptime_s, process_count, failed_unit_count,
             reboot_required, spool_critical, spool_beat, spool_size, agent_rss, agent_cpu, filesystems, unknown,
             instance, cpu_pressure_some, memory_pressure_some, memory_pressure_full, io_pressure_some,
             io_pressure_full, temperature_max
         from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::int8[], $5::timestamptz[],
                     $6::timestamptz[], $7::float4[], $8::float4[], $9::float4[], $10::float4[], $11::int8[],
                     $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::int8[], $17::int8[],
                     $18::int8[], $19::int8[], $20::int4[], $21::int4[], $22::bool[], $23::int8[],
                     $24::int8[], $25::int8[], $26::int8[], $27::int8[], $28::jsonb[], $29::jsonb[],
                     $30::uuid[], $31::float4[], $32::float4[], $33::float4[], $34::float4[], $35::float4[],
                     $36::float4[])
             as i (host_id, at, stream, n, claimed_at, received_at, cpu_ratio, load_1, load_5, load_15,
                   memory_total_bytes, memory_available_bytes, swap_total_bytes, swap_used_bytes, disk_read,
                   disk_written, net_received, net_sent, uptime_s, process_count, failed_unit_count,
                   reboot_required, spool_critical, spool_beat, spool_size, agent_rss, agent_cpu,
                   filesystems, unknown, instance, cpu_pressure_some, memory_pressure_some,
                   memory_pressure_full, io_pressure_some, io_pressure_full, temperature_max)
         on conflict do nothing",
        &rows.iter().map(|row| row.host.0).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.heartbeat.stream.0).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.heartbeat.n as i64).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.claimed_at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.received_at).collect::<Vec<_>>(),
        &floats(rows, |h| h.cpu_ratio) as &[Option<f32>],
        &floats(rows, |h| h.load_1) as &[Option<f32>],
        &floats(rows, |h| h.load_5) as &[Option<f32>],
        &floats(rows, |h| h.load_15) as &[Option<f32>],
        &sizes(rows, |h| h.memory_total_bytes) as &[Option<i64>],
        &sizes(rows, |h| h.memory_available_bytes) as &[Option<i64>],
        &sizes(rows, |h| h.swap_total_bytes) as &[Option<i64>],
        &sizes(rows, |h| h.swap_used_bytes) as &[Option<i64>],
        &sizes(rows, |h| h.disk_read_bytes_per_s) as &[Option<i64>],
        &sizes(rows, |h| h.disk_written_bytes_per_s) as &[Option<i64>],
        &sizes(rows, |h| h.net_received_bytes_per_s) as &[Option<i64>],
        &sizes(rows, |h| h.net_sent_bytes_per_s) as &[Option<i64>],
        &sizes(rows, |h| h.uptime_s) as &[Option<i64>],
        &counts(rows, |h| h.process_count) as &[Option<i32>],
        &counts(rows, |h| h.failed_unit_count) as &[Option<i32>],
        &rows.iter().map(|row| row.heartbeat.reboot_required).collect::<Vec<_>>() as &[Option<bool>],
        &sizes(rows, |h| Some(h.spool.critical_records)) as &[Option<i64>],
        &sizes(rows, |h| Some(h.spool.beat_records)) as &[Option<i64>],
        &sizes(rows, |h| Some(h.spool.size_bytes)) as &[Option<i64>],
        &sizes(rows, |h| h.agent.rss_bytes) as &[Option<i64>],
        &sizes(rows, |h| h.agent.cpu_ms) as &[Option<i64>],
        &rows.iter().map(|row| json(&row.heartbeat.filesystems)).collect::<Vec<_>>() as &[JsonText],
        &rows.iter().map(|row| {
            (!row.heartbeat.unknown.is_empty()).then(|| json(&row.heartbeat.unknown))
        }).collect::<Vec<_>>() as &[Option<JsonText>],
        &rows.iter().map(|row| row.instance.0).collect::<Vec<_>>(),
        &floats(rows, |h| h.cpu_pressure_some_ratio) as &[Option<f32>],
        &floats(rows, |h| h.memory_pressure_some_ratio) as &[Option<f32>],
        &floats(rows, |h| h.memory_pressure_full_ratio) as &[Option<f32>],
        &floats(rows, |h| h.io_pressure_some_ratio) as &[Option<f32>],
        &floats(rows, |h| h.io_pressure_full_ratio) as &[Option<f32>],
        &floats(rows, |h| h.temperature_max_celsius) as &[Option<f32>],
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A size of each heartbeat.
fn sizes(rows: &[&Row<'_>], value: fn(&Heartbeat) -> Option<u64>) -> Vec<Option<i64>> {
    let values = rows.iter().map(|row| value(row.heartbeat));
    values.map(|value| value.map(signed)).collect()
}

/// A ratio, load or temperature of each heartbeat.
fn floats(rows: &[&Row<'_>], value: fn(&Heartbeat) -> Option<f32>) -> Vec<Option<f32>> {
    rows.iter().map(|row| value(row.heartbeat)).collect()
}

/// A count of each heartbeat.
fn counts(rows: &[&Row<'_>], value: fn(&Heartbeat) -> Option<u32>) -> Vec<Option<i32>> {
    let signed = |count| i32::try_from(count).unwrap_or(i32::MAX);
    let values = rows.iter().map(|row| value(row.heartbeat));
    values.map(|value| value.map(signed)).collect()
}

/// JSON as Postgres takes it.
fn json<T: serde::Serialize>(value: &T) -> JsonText {
    let text = serde_json::value::to_raw_value(value).unwrap_or_default();
    if !text.get().contains("\\u0000") {
        return Json(text);
    }
    // Numbers, names and paths: a backslash-u sequence of NUL stands for nothing else in there.
    let text = text.get().replace("\\u0000", "\\ufffd");
    Json(RawValue::from_string(text).unwrap_or_default())
}

/// A heartbeat as it is shown.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct HeartbeatRow {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub claimed_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    pub n: i64,
    pub cpu_ratio: Option<f32>,
    pub load_1: Option<f32>,
    pub load_5: Option<f32>,
    pub load_15: Option<f32>,
    pub memory_total_bytes: Option<i64>,
    pub memory_available_bytes: Option<i64>,
    pub swap_total_bytes: Option<i64>,
    pub swap_used_bytes: Option<i64>,
    pub cpu_pressure_some_ratio: Option<f32>,
    pub memory_pressure_some_ratio: Option<f32>,
    pub memory_pressure_full_ratio: Option<f32>,
    pub io_pressure_some_ratio: Option<f32>,
    pub io_pressure_full_ratio: Option<f32>,
    pub temperature_max_celsius: Option<f32>,
    pub disk_read_bytes_per_s: Option<i64>,
    pub disk_written_bytes_per_s: Option<i64>,
    pub net_received_bytes_per_s: Option<i64>,
    pub net_sent_bytes_per_s: Option<i64>,
    pub uptime_s: Option<i64>,
    pub process_count: Option<i32>,
    pub failed_unit_count: Option<i32>,
    pub reboot_required: Option<bool>,
    pub spool_critical_records: Option<i64>,
    pub spool_beat_records: Option<i64>,
    pub spool_size_bytes: Option<i64>,
    pub agent_rss_bytes: Option<i64>,
    pub agent_cpu_ms: Option<i64>,
    pub filesystems: serde_json::Value,
    pub unknown: Option<serde_json::Value>,
}

/// A host's heartbeats before `before`, newest first.
pub async fn list(
    connection: &mut PgConnection,
    host: HostId,
    before: Option<OffsetDateTime>,
    limit: i64,
) -> sqlx::Result<Vec<HeartbeatRow>> {
    sqlx::query_as!(
        HeartbeatRow,
        "select at, claimed_at, received_at, n, cpu_ratio, load_1, load_5, load_15, memory_total_bytes,
             memory_available_bytes, swap_total_bytes, swap_used_bytes, disk_read_bytes_per_s,
             disk_written_bytes_per_s, net_received_bytes_per_s, net_sent_bytes_per_s, uptime_s,
             process_count, failed_unit_count, reboot_required, spool_critical_records,
             spool_beat_records, spool_size_bytes, agent_rss_bytes, agent_cpu_ms, filesystems, unknown,
             cpu_pressure_some_ratio, memory_pressure_some_ratio, memory_pressure_full_ratio,
             io_pressure_some_ratio, io_pressure_full_ratio, temperature_max_celsius
         from heartbeats where host_id = $1 and ($2::timestamptz is null or at < $2)
         order by at desc limit $3",
        host.0,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Whether another heartbeat than that of `claimed_at` has this number.
pub async fn is_another(
    connection: &mut PgConnection,
    host: HostId,
    heartbeat: &Heartbeat,
    claimed_at: OffsetDateTime,
    since: OffsetDateTime,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select coalesce(bool_and(claimed_at <> $4), false) as "another!" from heartbeats
           where host_id = $1 and stream = $2 and n = $3 and at >= $5"#,
        host.0,
        heartbeat.stream.0,
        heartbeat.n as i64,
        claimed_at,
        since,
    )
    .fetch_one(connection)
    .await
}

/// How many raw heartbeats a host has.
pub async fn count(connection: &mut PgConnection, host: HostId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from heartbeats where host_id = $1"#,
        host.0
    )
    .fetch_one(connection)
    .await
}
