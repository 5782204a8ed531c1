//! Volumes as figures: how many stand how, and what became of each.

use sqlx::PgConnection;
use time::OffsetDateTime;

/// What became of a volume, or of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Of the volume; `None`: of all.
    pub volume: Option<String>,
    /// Its host's name.
    pub host: Option<String>,
    /// Runs that ended, since there are counts.
    pub runs: i64,
    /// Of these, the failed ones.
    pub failures: i64,
    /// When its newest whole snapshot was made; of all: the one that is the oldest of these. `None`: one has none.
    pub last_ok_at: Option<OffsetDateTime>,
    /// How many are past their RPO.
    pub late: i64,
}

/// Each volume by itself; those of hosts of the same name, where they have the same name too, together.
pub async fn list(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> sqlx::Result<Vec<Figures>> {
    sqlx::query_as!(
        Figures,
        r#"select v.name as "volume?", h.name as "host?", coalesce(sum(c.runs), 0)::bigint as "runs!",
             coalesce(sum(c.failures), 0)::bigint as "failures!",
             case when bool_and(v.last_ok_at is not null) then min(v.last_ok_at) end as last_ok_at,
             count(*) filter (where coalesce(v.last_ok_at, v.created_at) + make_interval(secs => v.rpo_s) <= $1) as "late!"
         from volumes v join hosts h using (host_id) left join volume_counts c using (volume_id)
         where v.deleted_at is null and h.deleted_at is null
         group by h.name, v.name order by h.name, v.name"#,
        now,
    )
    .fetch_all(connection)
    .await
}

/// All of them together.
pub async fn sum(connection: &mut PgConnection, now: OffsetDateTime) -> sqlx::Result<Figures> {
    sqlx::query_as!(
        Figures,
        r#"select null::text as volume, null::text as host, coalesce(sum(c.runs), 0)::bigint as "runs!",
             coalesce(sum(c.failures), 0)::bigint as "failures!",
             case when bool_and(v.last_ok_at is not null) then min(v.last_ok_at) end as last_ok_at,
             count(*) filter (where coalesce(v.last_ok_at, v.created_at) + make_interval(secs => v.rpo_s) <= $1) as "late!"
         from volumes v join hosts h using (host_id) left join volume_counts c using (volume_id)
         where v.deleted_at is null and h.deleted_at is null"#,
        now,
    )
    .fetch_one(connection)
    .await
}
