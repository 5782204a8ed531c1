//! Restore drills: begun when they are due or asked for, kept alive by their lease, ended by their host or where the lease ran out.

use infratrack_shared::ids::{DrillId, HostId, VolumeId};
use infratrack_shared::wire::backup::Progress;
use infratrack_shared::wire::drill::{DrillCheck, DrillReport};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::backup_runs::big;

/// A drill that begins.
#[derive(Clone, Debug)]
pub struct NewDrill<'a> {
    pub drill: DrillId,
    pub volume: VolumeId,
    pub host: HostId,
    pub trigger: &'a str,
    /// What its host wants; `None`: what was asked for here, or what is set.
    pub mode: Option<&'a str>,
    pub started_at: OffsetDateTime,
    pub lease_until: OffsetDateTime,
    pub agent: &'a str,
}

/// A drill as it stands.
#[derive(Clone, Debug)]
pub struct DrillRow {
    pub volume_id: Uuid,
    pub host_id: Uuid,
    pub state: String,
    pub mode: String,
    pub started_at: OffsetDateTime,
    pub lease_until: Option<OffsetDateTime>,
}

/// How a drill ended, by its host's word.
#[derive(Clone, Debug)]
pub struct Ending<'a> {
    pub drill: DrillId,
    pub state: &'a str,
    pub reason: Option<&'a str>,
    pub detail: Option<&'a str>,
    pub ended_at: OffsetDateTime,
    pub report: &'a DrillReport,
    pub differing: &'a [String],
    pub checks: &'a [DrillCheck],
    pub tools: &'a [(String, String)],
    /// Of all, where a sample was restored.
    pub restore_ms: u64,
}

/// The volume of this host whose drill is next: one that was asked for, else the one that has waited the longest. `None` while
/// one is under way.
pub async fn find_due(
    connection: &mut PgConnection,
    host: HostId,
    now: OffsetDateTime,
) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select v.volume_id
         from volumes v join volume_drills d using (volume_id)
         where v.host_id = $1 and v.kind <> 'external' and v.last_ok_at is not null
             and (v.drill_asked_at is not null or (d.due_at <= $2 and not v.is_paused))
             and not exists (select from drills r where r.host_id = $1 and r.state = 'running' and r.lease_until >= $2)
         order by v.drill_asked_at nulls last, d.due_at, v.volume_id limit 1",
        host.0,
        now,
    )
    .fetch_optional(connection)
    .await
}

/// Says that somebody wants a drill of a volume that was not deleted; 0: there is none.
pub async fn update_asked(
    connection: &mut PgConnection,
    volume: Uuid,
    (mode, by): (Option<&str>, &str),
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update volumes set drill_asked_at = $2, drill_asked_by = $3, drill_asked_mode = $4
         where volume_id = $1 and deleted_at is null",
        volume,
        now,
        by,
        mode,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Adds a drill, where its host has no other under way. It is the one that was asked for, if one was.
pub async fn insert(connection: &mut PgConnection, new: &NewDrill<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into drills (drill_id, volume_id, host_id, trigger, asked_by, mode, state, started_at, lease_until, rto_s, agent)
         select $1, volume_id, $3, $4, drill_asked_by, coalesce($5, drill_asked_mode, drill_mode), 'running', $6, $7, rto_s, $8
         from volumes where volume_id = $2
         on conflict do nothing",
        new.drill.0,
        new.volume.0,
        new.host.0,
        new.trigger,
        new.mode,
        new.started_at,
        new.lease_until,
        new.agent,
    )
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 1 {
        sqlx::query!(
            "update volumes set drill_asked_at = null, drill_asked_by = null, drill_asked_mode = null where volume_id = $1",
            new.volume.0,
        )
        .execute(connection)
        .await?;
    }
    Ok(done.rows_affected())
}

/// A drill, whose ever it is, for this transaction alone.
pub async fn lock(connection: &mut PgConnection, drill: DrillId) -> sqlx::Result<Option<DrillRow>> {
    sqlx::query_as!(
        DrillRow,
        "select volume_id, host_id, state, mode, started_at, lease_until from drills where drill_id = $1 for update",
        drill.0,
    )
    .fetch_optional(connection)
    .await
}

/// Until when the lease of the host's drill that is under way holds.
pub async fn find_lease(
    connection: &mut PgConnection,
    host: HostId,
) -> sqlx::Result<Option<OffsetDateTime>> {
    let lease = sqlx::query_scalar!(
        "select lease_until from drills where host_id = $1 and state = 'running'",
        host.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(lease.flatten())
}

/// Keeps a drill alive, and answers what somebody wants of it. `None`: this host has no such drill under way.
pub async fn update_alive(
    connection: &mut PgConnection,
    host: HostId,
    drill: DrillId,
    lease_until: OffsetDateTime,
    progress: &Progress,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "update drills d set lease_until = $3, progress = $4
         from volumes v
         where d.drill_id = $2 and d.host_id = $1 and d.state = 'running'
             and v.volume_id = d.volume_id and v.host_id = $1 and v.deleted_at is null
         returning d.orders",
        host.0,
        drill.0,
        lease_until,
        Json(progress) as _,
    )
    .fetch_optional(connection)
    .await
}

/// Ends drills whose lease ran out; of one host, or of all. Answers how many.
pub async fn update_stale(
    connection: &mut PgConnection,
    host: Option<HostId>,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let stale = sqlx::query!(
        "with stale as (
             update drills set state = 'failed', reason = 'interrupted', ended_at = $2
             where state = 'running' and lease_until < $2 and (host_id = $1 or $1 is null)
             returning drill_id, volume_id)
         update volumes v set last_drill_id = s.drill_id from stale s where v.volume_id = s.volume_id",
        host.map(|host| host.0) as _,
        now,
    )
    .execute(connection)
    .await?;
    Ok(stale.rows_affected())
}

/// Says that somebody wants no more of it; 0 where it has ended.
pub async fn update_cancelled(connection: &mut PgConnection, drill: Uuid) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update drills set orders = 'cancel' where drill_id = $1 and state = 'running'",
        drill,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Ends a drill by its host's word.
pub async fn update_ended(connection: &mut PgConnection, ending: &Ending<'_>) -> sqlx::Result<u64> {
    let report = ending.report;
    let done = sqlx::query!(
        "update drills set state = $2, reason = $3, detail = $4, ended_at = $5, lease_until = null, snapshot_id = $6,
             is_sampled = $7, files = $8, bytes = $9, files_total = $10, bytes_total = $11, read_bytes = $12, mismatches = $13,
             differing = $14, restore_ms = $15, checks = $16, tools = $17
         where drill_id = $1",
        ending.drill.0,
        ending.state,
        ending.reason,
        ending.detail,
        ending.ended_at,
        report.snapshot.map(|snapshot| snapshot.0),
        report.is_sampled,
        big(report.files),
        big(report.bytes),
        big(report.files_total),
        big(report.bytes_total),
        big(report.read_bytes),
        big(report.mismatches),
        ending.differing,
        big(ending.restore_ms),
        Json(ending.checks) as _,
        Json(ending.tools) as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Says of a volume that this drill of it, which was good or not, was the last.
pub async fn update_last(
    connection: &mut PgConnection,
    volume: Uuid,
    drill: DrillId,
    good_at: Option<OffsetDateTime>,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update volumes set last_drill_id = $2, last_good_drill_at = coalesce($3, last_good_drill_at) where volume_id = $1",
        volume,
        drill.0,
        good_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// How many volumes are overdue.
pub async fn count_overdue(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from volume_drills where overdue_at <= $1"#,
        now,
    )
    .fetch_one(connection)
    .await
}
