//! Runs of backups: begun, kept alive by their lease, ended by their host or where the lease ran out.

use infratrack_shared::ids::{BackupRunId, HostId, SnapshotId, VolumeId};
use infratrack_shared::wire::backup::Progress;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

/// A run that begins, or one that is heard of when it is over.
#[derive(Clone, Debug)]
pub struct NewRun<'a> {
    pub run: BackupRunId,
    pub volume: VolumeId,
    pub host: HostId,
    pub state: &'a str,
    pub trigger: &'a str,
    pub started_at: OffsetDateTime,
    pub host_started_at: OffsetDateTime,
    pub lease_until: OffsetDateTime,
    pub parent: Option<SnapshotId>,
    pub key_id: Option<&'a [u8]>,
    pub agent: &'a str,
}

/// A run as it stands.
#[derive(Clone, Debug)]
pub struct RunRow {
    pub run_id: Uuid,
    pub volume_id: Uuid,
    pub host_id: Uuid,
    pub state: String,
    pub started_at: OffsetDateTime,
    pub host_started_at: OffsetDateTime,
    pub lease_until: Option<OffsetDateTime>,
    pub parent_id: Option<Uuid>,
    pub key_id: Option<Vec<u8>>,
    pub snapshot_id: Option<Uuid>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ending<'a> {
    pub run: BackupRunId,
    pub state: &'a str,
    pub reason: Option<&'a str>,
    pub detail: Option<&'a str>,
    pub ended_at: OffsetDateTime,
    pub progress: Progress,
    pub new_bytes: u64,
    pub cpu_ms: u64,
    pub errors: &'a [String],
    pub errors_total: u64,
}

/// Adds a run that is not known; one that is under way, where no other of its volume is.
pub async fn insert(connection: &mut PgConnection, new: &NewRun<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into backup_runs (run_id, volume_id, host_id, trigger, state, started_at, host_started_at, lease_until,
             parent_id, key_id, agent)
         values ($1, $2, $3, $4, $11, $5, $6, $7, $8, $9, $10)
         on conflict do nothing",
        new.run.0,
        new.volume.0,
        new.host.0,
        new.trigger,
        new.started_at,
        new.host_started_at,
        new.lease_until,
        new.parent.map(|parent| parent.0),
        new.key_id,
        new.agent,
        new.state,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A run, whose ever it is.
pub async fn find(connection: &mut PgConnection, run: BackupRunId) -> sqlx::Result<Option<RunRow>> {
    sqlx::query_as!(
        RunRow,
        "select run_id, volume_id, host_id, state, started_at, host_started_at, lease_until, parent_id, key_id, snapshot_id
         from backup_runs where run_id = $1",
        run.0,
    )
    .fetch_optional(connection)
    .await
}

/// Likewise, locked until the transaction ends.
pub async fn lock(connection: &mut PgConnection, run: BackupRunId) -> sqlx::Result<Option<RunRow>> {
    sqlx::query_as!(
        RunRow,
        "select run_id, volume_id, host_id, state, started_at, host_started_at, lease_until, parent_id, key_id, snapshot_id
         from backup_runs where run_id = $1 for update",
        run.0,
    )
    .fetch_optional(connection)
    .await
}

/// A run of this host that is under way, of a volume that is still its own.
pub async fn find_running(
    connection: &mut PgConnection,
    host: HostId,
    run: BackupRunId,
) -> sqlx::Result<Option<RunRow>> {
    sqlx::query_as!(
        RunRow,
        "select run_id, volume_id, r.host_id, state, started_at, host_started_at, lease_until, parent_id, key_id, snapshot_id
         from backup_runs r join volumes v using (volume_id)
         where run_id = $2 and r.host_id = $1 and v.host_id = $1 and v.deleted_at is null and state = 'running'",
        host.0,
        run.0,
    )
    .fetch_optional(connection)
    .await
}

/// Until when the lease of the volume's run that is under way holds.
pub async fn find_lease(
    connection: &mut PgConnection,
    volume: VolumeId,
) -> sqlx::Result<Option<OffsetDateTime>> {
    let lease = sqlx::query_scalar!(
        "select lease_until from backup_runs where volume_id = $1 and state = 'running'",
        volume.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(lease.flatten())
}

/// Keeps a run alive, and answers what somebody wants of it. `None`: this host has no such run under way.
pub async fn update_alive(
    connection: &mut PgConnection,
    host: HostId,
    run: BackupRunId,
    lease_until: OffsetDateTime,
    progress: &Progress,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "update backup_runs r set lease_until = $3, progress = $4
         from volumes v
         where r.run_id = $2 and r.host_id = $1 and r.state = 'running'
             and v.volume_id = r.volume_id and v.host_id = $1 and v.deleted_at is null
         returning r.orders",
        host.0,
        run.0,
        lease_until,
        Json(progress) as _,
    )
    .fetch_optional(connection)
    .await
}

/// Ends runs whose lease ran out; of one volume, or of all.
pub async fn update_stale(
    connection: &mut PgConnection,
    volume: Option<VolumeId>,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with ended as (
             update backup_runs set state = 'failed', reason = 'interrupted', ended_at = $2
             where state = 'running' and lease_until < $2 and (volume_id = $1 or $1 is null)
             returning volume_id
         )
         insert into volume_counts as c (volume_id, runs, failures) select volume_id, 1, 1 from ended order by volume_id
         on conflict (volume_id) do update set runs = c.runs + 1, failures = c.failures + 1",
        volume.map(|volume| volume.0) as _,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Ends the runs of a volume that its host began before this one, and that can't be alive. One whose beginning came late ends none.
pub async fn update_dead(connection: &mut PgConnection, by: &NewRun<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with ended as (
             update backup_runs set state = 'failed', reason = 'interrupted', ended_at = $5
             where state = 'running' and volume_id = $1 and host_id = $2 and run_id <> $3 and host_started_at <= $4
             returning volume_id
         )
         insert into volume_counts as c (volume_id, runs, failures) select volume_id, 1, 1 from ended order by volume_id
         on conflict (volume_id) do update set runs = c.runs + 1, failures = c.failures + 1",
        by.volume.0,
        by.host.0,
        by.run.0,
        by.host_started_at,
        by.started_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Says which snapshot a run made.
pub async fn update_snapshot(
    connection: &mut PgConnection,
    run: BackupRunId,
    snapshot: SnapshotId,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update backup_runs set snapshot_id = $2 where run_id = $1",
        run.0,
        snapshot.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Ends a run by its host's word.
pub async fn update_ended(connection: &mut PgConnection, ending: &Ending<'_>) -> sqlx::Result<u64> {
    let progress = ending.progress;
    let done = sqlx::query!(
        "with ended as (
             update backup_runs r
             set state = $2, reason = $3, detail = $4, ended_at = $5, lease_until = null, progress = $6, files = $7,
                 bytes = $8, sent_bytes = $9, new_bytes = $10, cpu_ms = $11, errors = $12, errors_total = $13
             from backup_runs was
             where r.run_id = $1 and was.run_id = $1
             returning r.volume_id, was.ended_at is null as is_news
         )
         insert into volume_counts as c (volume_id, runs, failures)
         select volume_id, is_news::int, (is_news and $2 = 'failed')::int from ended
         on conflict (volume_id) do update set runs = c.runs + excluded.runs, failures = c.failures + excluded.failures",
        ending.run.0,
        ending.state,
        ending.reason,
        ending.detail,
        ending.ended_at,
        Json(progress) as _,
        big(progress.files),
        big(progress.bytes),
        big(progress.sent_bytes),
        big(ending.new_bytes),
        big(ending.cpu_ms),
        ending.errors,
        big(ending.errors_total),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Adds to a run that ended for want of a lease what its host says of it.
pub async fn update_detail(
    connection: &mut PgConnection,
    run: BackupRunId,
    detail: Option<&str>,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update backup_runs set detail = coalesce($2, detail), lease_until = null where run_id = $1",
        run.0,
        detail,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A count as Postgres has it.
pub fn big(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
