//! How many security updates are open in the fleet, by the day, and how long those took that were installed.

use serde::Serializer;
use sqlx::PgConnection;
use time::{Date, OffsetDateTime};
use utoipa::ToSchema;

/// A day of the fleet.
#[derive(Clone, Debug, serde::Serialize, ToSchema)]
#[schema(as = ExposureDay)]
pub struct DayRow {
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String, format = Date)]
    pub day: Date,
    /// Hosts at work.
    pub hosts: i64,
    /// Of these, it is not known what there is to install.
    pub unknown_hosts: i64,
    /// Of these, a security update is pending.
    pub exposed_hosts: i64,
    /// Security updates that are pending, host by host.
    pub security_count: i64,
    /// Hosts with one that is overdue.
    pub overdue_hosts: i64,
}

/// RFC 3339's `full-date`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn as_text<S: Serializer>(day: &Date, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(day)
}

/// How it stands now, written down for the day, where there are hosts.
pub async fn upsert_day(connection: &mut PgConnection, now: OffsetDateTime) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into exposure (day, hosts, unknown_hosts, exposed_hosts, security_count, overdue_hosts)
         select ($1::timestamptz at time zone 'UTC')::date, count(*),
             count(*) filter (where p.host_id is null or p.unknown is not null),
             count(*) filter (where p.security_count > 0), coalesce(sum(p.security_count), 0),
             count(*) filter (where p.due_at < $1)
         from hosts h left join host_patches p using (host_id)
         where h.retired_at is null and h.conflict_of is null and h.deleted_at is null
         having count(*) > 0
         on conflict (day) do update
         set hosts = excluded.hosts, unknown_hosts = excluded.unknown_hosts, exposed_hosts = excluded.exposed_hosts,
             security_count = excluded.security_count, overdue_hosts = excluded.overdue_hosts",
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The days since `since`, in order.
pub async fn list_days(connection: &mut PgConnection, since: Date) -> sqlx::Result<Vec<DayRow>> {
    sqlx::query_as!(
        DayRow,
        "select day, hosts, unknown_hosts, exposed_hosts, security_count, overdue_hosts
         from exposure where day >= $1 order by day",
        since,
    )
    .fetch_all(connection)
    .await
}

/// How long security updates took that were installed.
#[derive(Clone, Copy, Debug, serde::Serialize, ToSchema)]
pub struct TimeToPatch {
    pub installed_count: i64,
    /// Half of them took no longer, in seconds; null where there were none.
    pub median_s: Option<f64>,
    /// Nine of ten took no longer.
    pub p90_s: Option<f64>,
}

/// Of those that were installed since `since`.
pub async fn time_to_patch(
    connection: &mut PgConnection,
    since: OffsetDateTime,
) -> sqlx::Result<TimeToPatch> {
    sqlx::query_as!(
        TimeToPatch,
        r#"select count(*) as "installed_count!",
             percentile_cont(0.5) within group (order by took) as median_s,
             percentile_cont(0.9) within group (order by took) as p90_s
           from (select extract(epoch from gone_at - security_since)::float8 as took from past_updates
                 where is_security and outcome = 'installed' and security_since is not null and gone_at >= $1) as t"#,
        since,
    )
    .fetch_one(connection)
    .await
}
