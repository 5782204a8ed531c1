//! The fleet as a whole: what needs a human, counted in one pass over all hosts at work, and how it was by the hour.

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::store::hosts::Cutoffs;

/// How many hosts are how. Each count is that of the list with the filter that is named beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: i64,
    pub healthy: i64,
    pub degraded: i64,
    pub unhealthy: i64,
    /// `status=unknown`
    pub unknown: i64,
    /// `liveness=offline`
    pub offline: i64,
    /// `liveness=late`
    pub late: i64,
    /// `certificate_days=` as asked
    pub certificates: i64,
    /// `reason=clock_skew`
    pub skewed: i64,
    /// `reason=disk_critical,disk_warning`
    pub full: i64,
    /// `reason=identity_conflict`
    pub conflicts: i64,
    /// `reason=failed_units`
    pub failed_units: i64,
    /// `reason=reboot_required`
    pub reboots: i64,
    /// `reason=security_overdue`
    pub overdue: i64,
    /// `state=missing`
    pub missing: i64,
    /// When the newest of them was made.
    pub newest_at: Option<OffsetDateTime>,
}

/// Counts all hosts at work.
pub async fn count(
    connection: &mut PgConnection,
    cutoffs: Cutoffs,
    certificate_days: i32,
) -> sqlx::Result<Counts> {
    sqlx::query_as!(
        Counts,
        r#"with judged as (
               select h.created_at, h.missing_since, c.not_after, why.reasons, why.liveness,
                   host_status(l.last_seen_at, why.reasons) as status
               from hosts h
               join host_liveness l using (host_id)
               left join (
                   select host_id, max(not_after) as not_after from agent_certs where revoked_at is null group by host_id
               ) c using (host_id)
               cross join lateral (
                   select host_reasons(l, c.not_after, $1, $2, $3) as reasons,
                       host_liveness_word(l, $2, $3) as liveness
                   offset 0
               ) as why
               where h.retired_at is null and h.conflict_of is null and h.deleted_at is null
           )
           select count(*) as "total!",
               count(*) filter (where status = 'healthy') as "healthy!",
               count(*) filter (where status = 'degraded') as "degraded!",
               count(*) filter (where status = 'unhealthy') as "unhealthy!",
               count(*) filter (where status = 'unknown') as "unknown!",
               count(*) filter (where liveness = 'offline') as "offline!",
               count(*) filter (where liveness = 'late') as "late!",
               count(*) filter (where not_after < $1 + make_interval(days => $4)) as "certificates!",
               count(*) filter (where 'clock_skew' = any(reasons)) as "skewed!",
               count(*) filter (where reasons && array['disk_critical', 'disk_warning']) as "full!",
               count(*) filter (where 'identity_conflict' = any(reasons)) as "conflicts!",
               count(*) filter (where 'failed_units' = any(reasons)) as "failed_units!",
               count(*) filter (where 'reboot_required' = any(reasons)) as "reboots!",
               count(*) filter (where 'security_overdue' = any(reasons)) as "overdue!",
               count(*) filter (where missing_since is not null) as "missing!",
               max(created_at) as newest_at
           from judged"#,
        cutoffs.now,
        cutoffs.late_before,
        cutoffs.offline_before,
        certificate_days,
    )
    .fetch_one(connection)
    .await
}

/// How the fleet was in an hour.
#[derive(Clone, Copy, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = FleetHour)]
pub struct HourRow {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub healthy: i64,
    pub degraded: i64,
    pub unhealthy: i64,
    pub unknown: i64,
}

/// Writes how it is in the hour of `hour.at`.
pub async fn upsert_hour(connection: &mut PgConnection, hour: &HourRow) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into fleet_counts (at, healthy, degraded, unhealthy, unknown)
         values (date_trunc('hour', $1::timestamptz, 'UTC'), $2, $3, $4, $5)
         on conflict (at) do update
         set healthy = excluded.healthy, degraded = excluded.degraded, unhealthy = excluded.unhealthy,
             unknown = excluded.unknown",
        hour.at,
        hour.healthy,
        hour.degraded,
        hour.unhealthy,
        hour.unknown,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets hours before `before`.
pub async fn delete_hours(
    connection: &mut PgConnection,
    before: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from fleet_counts where at < $1", before)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// The hours since `since`, in order.
pub async fn list_hours(
    connection: &mut PgConnection,
    since: OffsetDateTime,
) -> sqlx::Result<Vec<HourRow>> {
    sqlx::query_as!(
        HourRow,
        "select at, healthy, degraded, unhealthy, unknown from fleet_counts where at >= $1 order by at",
        since,
    )
    .fetch_all(connection)
    .await
}
