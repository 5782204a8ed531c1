//! Volumes as operators see them: with how they stand, by the last run that ended and the time they promise.

use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::backups::retention::Rules;

/// A volume as it is listed.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, ToSchema)]
#[schema(as = Volume)]
pub struct VolumeRow {
    #[serde(rename = "id")]
    pub volume_id: Uuid,
    pub host_id: Uuid,
    /// The host's name.
    pub host: String,
    /// Of this host's volumes.
    pub name: String,
    /// `files | command | external`.
    pub kind: String,
    /// What is protected: the member of this name says it.
    #[schema(value_type = Object)]
    pub source: Json<Value>,
    /// Cut into smaller chunks, since it changes a little in many places.
    pub is_database: bool,
    /// Cron of five fields, in UTC; null: on command only.
    pub schedule: Option<String>,
    /// A run begins up to this later.
    pub jitter_s: i32,
    /// The oldest that its newest whole snapshot may be; null: nothing is promised.
    pub rpo_s: Option<i32>,
    #[schema(value_type = Rules)]
    pub retention: Json<Rules>,
    /// Minutes of the day in UTC, from and until: no run begins, and one that is under way waits.
    #[schema(value_type = Vec<Vec<u16>>)]
    pub closed_windows: Json<Vec<(u16, u16)>>,
    /// Bytes a second; null: as fast as it goes.
    pub bandwidth: Option<i64>,
    pub pre_hook: Option<String>,
    pub post_hook: Option<String>,
    /// Whether the names of its files may be known here.
    pub is_catalog_visible: bool,
    /// Nothing runs by schedule.
    pub is_paused: bool,
    pub owner: Option<String>,
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    pub created_by: String,
    /// `late`: past its RPO; `failing`: the last run failed; `incomplete`: something was not read by it; `never`: there is no
    /// snapshot yet; else `ok`.
    pub status: String,
    #[serde(with = "rfc3339::option")]
    pub last_snapshot_at: Option<OffsetDateTime>,
    /// Of the newest snapshot that has everything.
    #[serde(with = "rfc3339::option")]
    pub last_ok_at: Option<OffsetDateTime>,
    /// Past this it is late.
    #[serde(with = "rfc3339::option")]
    pub due_at: Option<OffsetDateTime>,
    /// Of the last run that ended.
    pub last_state: Option<String>,
    pub last_reason: Option<String>,
    /// The run that is under way.
    pub running: Option<Uuid>,
    /// From one restore drill to the next; null: none.
    pub drill_every_s: Option<i32>,
    /// `full | database | validation`.
    pub drill_mode: String,
    /// How long a restore may take; null: nothing is promised.
    pub rto_s: Option<i32>,
    /// Whether it is proven that it can be restored. `failed`: the last drill did; `overdue`: the last good one is too long ago;
    /// `slow`: it took longer than promised; `never`: there was none yet; `off`: none is made; else `ok`.
    pub drill_status: String,
    /// The last that ended `ok` or `failed`.
    pub last_drill_id: Option<Uuid>,
    #[serde(with = "rfc3339::option")]
    pub last_drill_at: Option<OffsetDateTime>,
    pub last_drill_reason: Option<String>,
    /// Until it could be used again; an estimate where the drill was of a sample.
    pub last_drill_ms: Option<i64>,
    pub is_last_drill_sampled: Option<bool>,
    #[serde(with = "rfc3339::option")]
    pub next_drill_at: Option<OffsetDateTime>,
    /// Of what is set here; the `ETag` has it too.
    pub version: i64,
}

/// How volumes can stand.
pub const STATUSES: [&str; 5] = ["late", "failing", "incomplete", "never", "ok"];

/// How their drills can stand.
pub const DRILL_STATUSES: [&str; 6] = ["failed", "overdue", "slow", "never", "off", "ok"];

/// Which volumes.
#[derive(Clone, Debug, Default)]
pub struct Which {
    pub host_id: Option<Uuid>,
    /// Part of its name or its host's.
    pub q: Option<String>,
    pub kind: Option<String>,
    pub status: Option<String>,
    pub drill_status: Option<String>,
    pub owner: Option<String>,
    pub is_paused: Option<bool>,
}

/// Where a list goes on: the host's name, the volume's, its id.
pub type Key = (String, String, Uuid);

const COLUMNS: &str = "v.volume_id, v.host_id, v.host, v.name, v.kind, v.source, v.is_database, v.schedule, v.jitter_s,
    v.rpo_s, v.retention, v.closed_windows, v.bandwidth, v.pre_hook, v.post_hook, v.is_catalog_visible, v.is_paused, v.owner,
    v.created_at, v.created_by, v.status, v.last_snapshot_at, v.last_ok_at, v.due_at, v.last_state, v.last_reason, v.running,
    v.drill_every_s, v.drill_mode, v.rto_s, v.drill_status, v.last_drill_id, v.last_drill_at, v.last_drill_reason,
    v.last_drill_ms, v.is_last_drill_sampled, v.next_drill_at, v.version";

/// All that are there, as of `now`.
fn all(now: OffsetDateTime) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(format!("select {COLUMNS} "));
    push_from(&mut sql, now);
    sql
}

fn push_from(sql: &mut QueryBuilder<Postgres>, now: OffsetDateTime) {
    sql.push(
        "from (select v.*, h.name as host, last.state as last_state, last.reason as last_reason, r.run_id as running,
                   case when d.due_at <= ",
    );
    sql.push_bind(now).push(
        " then 'late' when last.state = 'failed' then 'failing' when last.state = 'incomplete' then 'incomplete'
                   when v.last_snapshot_at is null then 'never' else 'ok' end as status,
                   d.due_at, p.started_at as last_drill_at, p.reason as last_drill_reason, p.restore_ms as last_drill_ms,
                   p.is_sampled as is_last_drill_sampled, p.due_at as next_drill_at,
                   case when v.kind = 'external' or v.drill_every_s is null then 'off' when p.state = 'failed' then 'failed'
                   when p.overdue_at <= ",
    );
    sql.push_bind(now).push(
        " then 'overdue' when p.drill_id is null then 'never'
                   when p.restore_ms > p.rto_s * 1000::bigint then 'slow' else 'ok' end as drill_status
               from volumes v
               join hosts h using (host_id)
               join volume_drills p using (volume_id)
               cross join lateral (select coalesce(v.last_ok_at, v.created_at) + make_interval(secs => v.rpo_s) as due_at) d
               left join backup_runs r on r.volume_id = v.volume_id and r.state = 'running'
               left join lateral (select state, reason from backup_runs b
                                  where b.volume_id = v.volume_id and b.state in ('ok', 'incomplete', 'failed')
                                  order by b.started_at desc, b.run_id desc limit 1) last on true
               where v.deleted_at is null and h.deleted_at is null) v where true",
    );
}

/// A volume that was not deleted.
pub async fn find(
    connection: &mut PgConnection,
    volume: Uuid,
    now: OffsetDateTime,
) -> sqlx::Result<Option<VolumeRow>> {
    let mut sql = all(now);
    sql.push(" and v.volume_id = ").push_bind(volume);
    sql.build_query_as().fetch_optional(connection).await
}

/// Volumes by their hosts' names and their own, after `after`.
pub async fn list(
    connection: &mut PgConnection,
    which: &Which,
    now: OffsetDateTime,
    after: Option<Key>,
    limit: i64,
) -> sqlx::Result<Vec<VolumeRow>> {
    let mut sql = all(now);
    push(&mut sql, which);
    if let Some((host, name, id)) = after {
        sql.push(" and (v.host, v.name, v.volume_id) > (")
            .push_bind(host)
            .push(", ")
            .push_bind(name)
            .push(", ")
            .push_bind(id)
            .push(")");
    }
    sql.push(" order by v.host, v.name, v.volume_id limit ")
        .push_bind(limit);
    sql.build_query_as().fetch_all(connection).await
}

/// How many match.
pub async fn count(
    connection: &mut PgConnection,
    which: &Which,
    now: OffsetDateTime,
) -> sqlx::Result<i64> {
    let mut sql = QueryBuilder::new("select count(*) ");
    if which.status.is_some() || which.drill_status.is_some() {
        push_from(&mut sql, now);
    } else {
        // The last run of each volume is looked up only for how it stands.
        sql.push(
            "from (select v.*, h.name as host from volumes v join hosts h using (host_id)
                   where v.deleted_at is null and h.deleted_at is null) v where true",
        );
    }
    push(&mut sql, which);
    sql.build_query_scalar().fetch_one(connection).await
}

/// How many stand how.
pub async fn count_by_status(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> sqlx::Result<Vec<(String, i64)>> {
    let mut sql = QueryBuilder::new("select v.status, count(*) ");
    push_from(&mut sql, now);
    sql.push(" group by v.status");
    sql.build_query_as().fetch_all(connection).await
}

/// How many stand how, with how their drills do.
pub async fn count_by_drill(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> sqlx::Result<Vec<(String, String, i64)>> {
    let mut sql = QueryBuilder::new("select v.status, v.drill_status, count(*) ");
    push_from(&mut sql, now);
    sql.push(" group by v.status, v.drill_status");
    sql.build_query_as().fetch_all(connection).await
}

fn push(sql: &mut QueryBuilder<Postgres>, which: &Which) {
    for (column, value) in [
        ("kind", &which.kind),
        ("status", &which.status),
        ("drill_status", &which.drill_status),
        ("owner", &which.owner),
    ] {
        if let Some(value) = value {
            sql.push(format!(" and v.{column} = "))
                .push_bind(value.clone());
        }
    }
    if let Some(host_id) = which.host_id {
        sql.push(" and v.host_id = ").push_bind(host_id);
    }
    if let Some(is_paused) = which.is_paused {
        sql.push(" and v.is_paused = ").push_bind(is_paused);
    }
    if let Some(q) = &which.q {
        sql.push(" and (strpos(lower(v.name), ")
            .push_bind(q.to_lowercase())
            .push(") > 0 or strpos(lower(v.host), ")
            .push_bind(q.to_lowercase())
            .push(") > 0)");
    }
}

/// A host without volumes.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct UnprotectedHost {
    pub host_id: Uuid,
    pub name: String,
}

const UNPROTECTED: &str = "from hosts h
    where h.deleted_at is null and h.retired_at is null and h.conflict_of is null
      and not exists (select from volumes v where v.host_id = h.host_id and v.deleted_at is null)";

/// The first hosts that have no volume, by name.
pub async fn list_unprotected(
    connection: &mut PgConnection,
    limit: i64,
) -> sqlx::Result<Vec<UnprotectedHost>> {
    let mut sql = QueryBuilder::new(format!("select h.host_id, h.name {UNPROTECTED}"));
    sql.push(" order by h.name, h.host_id limit ")
        .push_bind(limit);
    sql.build_query_as().fetch_all(connection).await
}

/// How many hosts have no volume.
pub async fn count_unprotected(connection: &mut PgConnection) -> sqlx::Result<i64> {
    QueryBuilder::<Postgres>::new(format!("select count(*) {UNPROTECTED}"))
        .build_query_scalar()
        .fetch_one(connection)
        .await
}
