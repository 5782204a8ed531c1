//! Sums of heartbeats by 5 minutes and by hour.
//!
//! Buckets are summed from the raw rows; those whose raw rows are gone take late ones by addition.

use infratrack_shared::ids::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::heartbeats::{Row, disk_used_ratio, memory_used_ratio};

/// Sums the raw rows of every host between `from` and `to` (multiples of 5 minutes) anew.
pub async fn sum_5m(
    connection: &mut PgConnection,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into heartbeats_5m
         select host_id, date_bin('5 minutes', at, 'epoch'), count(*), count(cpu_ratio),
             coalesce(sum(cpu_ratio::float8), 0), max(cpu_ratio), count(load_1),
             coalesce(sum(load_1::float8), 0), max(load_1),
             count(memory_used), coalesce(sum(memory_used), 0), max(memory_used)::real, max(disk_used_ratio(filesystems)),
             max(net_received_bytes_per_s), max(net_sent_bytes_per_s), max(disk_read_bytes_per_s),
             max(disk_written_bytes_per_s)
         from (select *, 1 - memory_available_bytes::float8 / nullif(memory_total_bytes, 0) as memory_used
               from heartbeats where at >= $1 and at < $2) as h
         group by 1, 2 order by 1, 2
         on conflict (host_id, at) do update set
             samples = excluded.samples, cpu_samples = excluded.cpu_samples,
             cpu_ratio_sum = excluded.cpu_ratio_sum, cpu_ratio_max = excluded.cpu_ratio_max,
             load_samples = excluded.load_samples, load_1_sum = excluded.load_1_sum,
             load_1_max = excluded.load_1_max, memory_samples = excluded.memory_samples,
             memory_used_ratio_sum = excluded.memory_used_ratio_sum,
             memory_used_ratio_max = excluded.memory_used_ratio_max,
             disk_used_ratio_max = excluded.disk_used_ratio_max,
             net_received_bytes_per_s_max = excluded.net_received_bytes_per_s_max,
             net_sent_bytes_per_s_max = excluded.net_sent_bytes_per_s_max,
             disk_read_bytes_per_s_max = excluded.disk_read_bytes_per_s_max,
             disk_written_bytes_per_s_max = excluded.disk_written_bytes_per_s_max",
        from,
        to,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Sums the 5-minute buckets of every host between `from` and `to` (whole hours) anew.
pub async fn sum_1h(
    connection: &mut PgConnection,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into heartbeats_1h
         select host_id, date_bin('1 hour', at, 'epoch'), sum(samples), sum(cpu_samples), sum(cpu_ratio_sum),
             max(cpu_ratio_max), sum(load_samples), sum(load_1_sum), max(load_1_max), sum(memory_samples),
             sum(memory_used_ratio_sum), max(memory_used_ratio_max), max(disk_used_ratio_max),
             max(net_received_bytes_per_s_max), max(net_sent_bytes_per_s_max),
             max(disk_read_bytes_per_s_max), max(disk_written_bytes_per_s_max)
         from heartbeats_5m where at >= $1 and at < $2
         group by 1, 2 order by 1, 2
         on conflict (host_id, at) do update set
             samples = excluded.samples, cpu_samples = excluded.cpu_samples,
             cpu_ratio_sum = excluded.cpu_ratio_sum, cpu_ratio_max = excluded.cpu_ratio_max,
             load_samples = excluded.load_samples, load_1_sum = excluded.load_1_sum,
             load_1_max = excluded.load_1_max, memory_samples = excluded.memory_samples,
             memory_used_ratio_sum = excluded.memory_used_ratio_sum,
             memory_used_ratio_max = excluded.memory_used_ratio_max,
             disk_used_ratio_max = excluded.disk_used_ratio_max,
             net_received_bytes_per_s_max = excluded.net_received_bytes_per_s_max,
             net_sent_bytes_per_s_max = excluded.net_sent_bytes_per_s_max,
             disk_read_bytes_per_s_max = excluded.disk_read_bytes_per_s_max,
             disk_written_bytes_per_s_max = excluded.disk_written_bytes_per_s_max",
        from,
        to,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Marks the 5-minute buckets of rows that came after their bucket was summed. Sorted, no duplicates.
pub async fn mark_dirty(
    connection: &mut PgConnection,
    hosts: &[Uuid],
    buckets: &[OffsetDateTime],
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into heartbeats_dirty (host_id, at) select * from unnest($1::uuid[], $2::timestamptz[])
         on conflict do nothing",
        hosts,
        buckets,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Takes every mark, as the distinct buckets to sum anew.
pub async fn take_dirty(connection: &mut PgConnection) -> sqlx::Result<Vec<OffsetDateTime>> {
    sqlx::query_scalar!(
        r#"with taken as (delete from heartbeats_dirty returning at)
         select distinct at as "at!" from taken order by 1"#
    )
    .fetch_all(connection)
    .await
}

/// The newest bucket that was summed.
pub async fn find_newest_5m(connection: &mut PgConnection) -> sqlx::Result<Option<OffsetDateTime>> {
    sqlx::query_scalar!("select max(at) from heartbeats_5m")
        .fetch_one(connection)
        .await
}

/// Adds rows whose raw partition is gone to their buckets of 5 minutes and of an hour.
/// Each row counts once: the caller's cursor moves in the same transaction.
pub async fn add_late(connection: &mut PgConnection, row: &Row<'_>) -> sqlx::Result<u64> {
    let h = row.heartbeat;
    let done = sqlx::query!(
        "with late as (
             select $1::uuid as host_id, $2::timestamptz as at, $3::real as cpu, $4::real as load,
                 $5::real as memory, $6::real as disk
         ), five as (
             insert into heartbeats_5m
             select host_id, date_bin('5 minutes', at, 'epoch'), 1, num_nonnulls(cpu), coalesce(cpu, 0), cpu,
                 num_nonnulls(load), coalesce(load, 0), load, num_nonnulls(memory), coalesce(memory, 0),
                 memory, disk from late
             on conflict (host_id, at) do update set
                 samples = heartbeats_5m.samples + 1,
                 cpu_samples = heartbeats_5m.cpu_samples + excluded.cpu_samples,
                 cpu_ratio_sum = heartbeats_5m.cpu_ratio_sum + excluded.cpu_ratio_sum,
                 cpu_ratio_max = greatest(heartbeats_5m.cpu_ratio_max, excluded.cpu_ratio_max),
                 load_samples = heartbeats_5m.load_samples + excluded.load_samples,
                 load_1_sum = heartbeats_5m.load_1_sum + excluded.load_1_sum,
                 load_1_max = greatest(heartbeats_5m.load_1_max, excluded.load_1_max),
                 memory_samples = heartbeats_5m.memory_samples + excluded.memory_samples,
                 memory_used_ratio_sum = heartbeats_5m.memory_used_ratio_sum + excluded.memory_used_ratio_sum,
                 memory_used_ratio_max = greatest(heartbeats_5m.memory_used_ratio_max, excluded.memory_used_ratio_max),
                 disk_used_ratio_max = greatest(heartbeats_5m.disk_used_ratio_max, excluded.disk_used_ratio_max)
         )
         insert into heartbeats_1h
         select host_id, date_bin('1 hour', at, 'epoch'), 1, num_nonnulls(cpu), coalesce(cpu, 0), cpu,
             num_nonnulls(load), coalesce(load, 0), load, num_nonnulls(memory), coalesce(memory, 0),
             memory, disk from late
         on conflict (host_id, at) do update set
             samples = heartbeats_1h.samples + 1,
             cpu_samples = heartbeats_1h.cpu_samples + excluded.cpu_samples,
             cpu_ratio_sum = heartbeats_1h.cpu_ratio_sum + excluded.cpu_ratio_sum,
             cpu_ratio_max = greatest(heartbeats_1h.cpu_ratio_max, excluded.cpu_ratio_max),
             load_samples = heartbeats_1h.load_samples + excluded.load_samples,
             load_1_sum = heartbeats_1h.load_1_sum + excluded.load_1_sum,
             load_1_max = greatest(heartbeats_1h.load_1_max, excluded.load_1_max),
             memory_samples = heartbeats_1h.memory_samples + excluded.memory_samples,
             memory_used_ratio_sum = heartbeats_1h.memory_used_ratio_sum + excluded.memory_used_ratio_sum,
             memory_used_ratio_max = greatest(heartbeats_1h.memory_used_ratio_max, excluded.memory_used_ratio_max),
             disk_used_ratio_max = greatest(heartbeats_1h.disk_used_ratio_max, excluded.disk_used_ratio_max)",
        row.host.0,
        row.at,
        h.cpu_ratio,
        h.load_1,
        memory_used_ratio(h),
        disk_used_ratio(h),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A bucket as it is shown: averages and maxima.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BucketRow {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub samples: i32,
    pub cpu_ratio_avg: Option<f64>,
    pub cpu_ratio_max: Option<f32>,
    pub load_1_avg: Option<f64>,
    pub load_1_max: Option<f32>,
    pub memory_used_ratio_avg: Option<f64>,
    pub memory_used_ratio_max: Option<f32>,
    pub disk_used_ratio_max: Option<f32>,
}

/// A host's 5-minute buckets before `before`, newest first.
pub async fn list_5m(
    connection: &mut PgConnection,
    host: HostId,
    before: Option<OffsetDateTime>,
    limit: i64,
) -> sqlx::Result<Vec<BucketRow>> {
    sqlx::query_as!(
        BucketRow,
        "select at, samples, cpu_ratio_sum / nullif(cpu_samples, 0) as cpu_ratio_avg, cpu_ratio_max,
             load_1_sum / nullif(load_samples, 0) as load_1_avg, load_1_max,
             memory_used_ratio_sum / nullif(memory_samples, 0) as memory_used_ratio_avg,
             memory_used_ratio_max, disk_used_ratio_max
         from heartbeats_5m where host_id = $1 and ($2::timestamptz is null or at < $2)
         order by at desc limit $3",
        host.0,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Drops 5-minute buckets before `before`; hours stay.
pub async fn delete_5m(connection: &mut PgConnection, before: OffsetDateTime) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from heartbeats_5m where at < $1", before)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
