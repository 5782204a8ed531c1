//! Heartbeats and their sums as series over time, by buckets of a width that the caller chooses.
//!
//! Every statement answers [`BucketRow`]s of the same order of values, [`NAMES`]; what a table does not hold is null.

use infratrack_shared::ids::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::store::collectors::Downtime;

/// What the values of a bucket are, in their order.
pub const NAMES: [&str; 15] = [
    "cpu_ratio",
    "cpu_pressure_some_ratio",
    "load_1",
    "memory_used_ratio",
    "swap_used_ratio",
    "memory_pressure_some_ratio",
    "memory_pressure_full_ratio",
    "disk_used_ratio",
    "io_pressure_some_ratio",
    "io_pressure_full_ratio",
    "disk_read_bytes_per_s",
    "disk_written_bytes_per_s",
    "net_received_bytes_per_s",
    "net_sent_bytes_per_s",
    "temperature_max_celsius",
];

/// Of which of them the sums keep the average, and of which the highest.
pub const SUMMED_AVG: [&str; 3] = ["cpu_ratio", "load_1", "memory_used_ratio"];
pub const SUMMED_MAX: [&str; 8] = [
    "cpu_ratio",
    "load_1",
    "memory_used_ratio",
    "disk_used_ratio",
    "disk_read_bytes_per_s",
    "disk_written_bytes_per_s",
    "net_received_bytes_per_s",
    "net_sent_bytes_per_s",
];

/// What heartbeats said in a bucket.
#[derive(Clone, Debug)]
pub struct BucketRow {
    /// Its start.
    pub at: OffsetDateTime,
    /// Heartbeats in it.
    pub samples: i64,
    pub avg: Vec<Option<f64>>,
    pub max: Vec<Option<f64>>,
}

/// Raw heartbeats from `from` on and before `to`, in buckets of `step_s` counted from `origin`.
pub async fn raw(
    connection: &mut PgConnection,
    host: HostId,
    from: OffsetDateTime,
    to: OffsetDateTime,
    origin: OffsetDateTime,
    step_s: f64,
) -> sqlx::Result<Vec<BucketRow>> {
    sqlx::query_as!(
        BucketRow,
        r#"select date_bin(make_interval(secs => $5), at, $4) as "at!", count(*) as "samples!",
             array[avg(cpu_ratio), avg(cpu_pressure_some_ratio), avg(load_1), avg(memory_used), avg(swap_used),
                   avg(memory_pressure_some_ratio), avg(memory_pressure_full_ratio), avg(disk_used),
                   avg(io_pressure_some_ratio), avg(io_pressure_full_ratio),
                   avg(disk_read_bytes_per_s)::float8, avg(disk_written_bytes_per_s)::float8,
                   avg(net_received_bytes_per_s)::float8, avg(net_sent_bytes_per_s)::float8,
                   avg(temperature_max_celsius)] as "avg!: Vec<Option<f64>>",
             array[max(cpu_ratio), max(cpu_pressure_some_ratio), max(load_1), max(memory_used), max(swap_used),
                   max(memory_pressure_some_ratio), max(memory_pressure_full_ratio), max(disk_used),
                   max(io_pressure_some_ratio), max(io_pressure_full_ratio),
                   max(disk_read_bytes_per_s)::float8, max(disk_written_bytes_per_s)::float8,
                   max(net_received_bytes_per_s)::float8, max(net_sent_bytes_per_s)::float8,
                   max(temperature_max_celsius)] as "max!: Vec<Option<f64>>"
         from (select *, 1 - memory_available_bytes::float8 / nullif(memory_total_bytes, 0) as memory_used,
                   swap_used_bytes::float8 / nullif(swap_total_bytes, 0) as swap_used,
                   disk_used_ratio(filesystems) as disk_used
               from heartbeats where host_id = $1 and at >= $2 and at < $3) as h
         group by 1 order by 1"#,
        host.0,
        from,
        to,
        origin,
        step_s,
    )
    .fetch_all(connection)
    .await
}

/// Likewise of the sums of 5 minutes.
pub async fn of_5m(
    connection: &mut PgConnection,
    host: HostId,
    from: OffsetDateTime,
    to: OffsetDateTime,
    origin: OffsetDateTime,
    step_s: f64,
) -> sqlx::Result<Vec<BucketRow>> {
    sqlx::query_as!(
        BucketRow,
        r#"select date_bin(make_interval(secs => $5), at, $4) as "at!", sum(samples) as "samples!",
             array[sum(cpu_ratio_sum) / nullif(sum(cpu_samples), 0), null,
                   sum(load_1_sum) / nullif(sum(load_samples), 0),
                   sum(memory_used_ratio_sum) / nullif(sum(memory_samples), 0), null, null, null, null, null, null,
                   null, null, null, null, null]::float8[] as "avg!: Vec<Option<f64>>",
             array[max(cpu_ratio_max), null, max(load_1_max), max(memory_used_ratio_max), null, null, null,
                   max(disk_used_ratio_max), null, null, max(disk_read_bytes_per_s_max),
                   max(disk_written_bytes_per_s_max), max(net_received_bytes_per_s_max),
                   max(net_sent_bytes_per_s_max), null]::float8[] as "max!: Vec<Option<f64>>"
         from heartbeats_5m where host_id = $1 and at >= $2 and at < $3
         group by 1 order by 1"#,
        host.0,
        from,
        to,
        origin,
        step_s,
    )
    .fetch_all(connection)
    .await
}

/// Likewise of the sums of an hour.
pub async fn of_1h(
    connection: &mut PgConnection,
    host: HostId,
    from: OffsetDateTime,
    to: OffsetDateTime,
    origin: OffsetDateTime,
    step_s: f64,
) -> sqlx::Result<Vec<BucketRow>> {
    sqlx::query_as!(
        BucketRow,
        r#"select date_bin(make_interval(secs => $5), at, $4) as "at!", sum(samples) as "samples!",
             array[sum(cpu_ratio_sum) / nullif(sum(cpu_samples), 0), null,
                   sum(load_1_sum) / nullif(sum(load_samples), 0),
                   sum(memory_used_ratio_sum) / nullif(sum(memory_samples), 0), null, null, null, null, null, null,
                   null, null, null, null, null]::float8[] as "avg!: Vec<Option<f64>>",
             array[max(cpu_ratio_max), null, max(load_1_max), max(memory_used_ratio_max), null, null, null,
                   max(disk_used_ratio_max), null, null, max(disk_read_bytes_per_s_max),
                   max(disk_written_bytes_per_s_max), max(net_received_bytes_per_s_max),
                   max(net_sent_bytes_per_s_max), null]::float8[] as "max!: Vec<Option<f64>>"
         from heartbeats_1h where host_id = $1 and at >= $2 and at < $3
         group by 1 order by 1"#,
        host.0,
        from,
        to,
        origin,
        step_s,
    )
    .fetch_all(connection)
    .await
}

/// Times between two instants in which no collector ran, oldest first.
pub async fn list_downtimes(
    connection: &mut PgConnection,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> sqlx::Result<Vec<Downtime>> {
    sqlx::query_as!(
        Downtime,
        "select from_at, to_at from collector_downtimes where to_at > $1 and from_at < $2
         order by to_at limit 200",
        from,
        to,
    )
    .fetch_all(connection)
    .await
}
