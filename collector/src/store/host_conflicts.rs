//! Clones that were set apart from a host: who they are, where their rows are, what was decided.

use infratrack_shared::ids::{HostId, InstanceId, StreamId};
use infratrack_shared::wire::batch::Class;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::serde::rfc3339;
use uuid::Uuid;

use crate::store::gaps::class_name;
use crate::store::host_instances::InstanceRow;

/// A conflict to enter.
#[derive(Clone, Copy, Debug)]
pub struct NewConflict<'a> {
    pub conflict: Uuid,
    pub host: HostId,
    pub hidden: HostId,
    pub kept: &'a InstanceRow,
    pub clone: &'a InstanceRow,
    pub now: OffsetDateTime,
}

/// Where a clone's batches go.
#[derive(Clone, Debug)]
pub struct Route {
    pub conflict_id: Uuid,
    pub hidden_host_id: Uuid,
    pub state: String,
}

/// A conflict as it is shown.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ConflictRow {
    #[serde(rename = "id")]
    pub conflict_id: Uuid,
    pub host_id: Uuid,
    pub hidden_host_id: Uuid,
    /// `open | splitting | split | dropped`.
    pub state: String,
    #[serde(with = "rfc3339")]
    pub detected_at: OffsetDateTime,
    pub kept_instance: Uuid,
    pub kept_boot_id: Uuid,
    pub kept_address: String,
    #[serde(with = "rfc3339")]
    pub kept_first_seen_at: OffsetDateTime,
    #[serde(with = "rfc3339::option")]
    pub kept_last_seen_at: Option<OffsetDateTime>,
    pub clone_instance: Uuid,
    pub clone_boot_id: Uuid,
    pub clone_address: String,
    #[serde(with = "rfc3339")]
    pub clone_first_seen_at: OffsetDateTime,
    #[serde(with = "rfc3339::option")]
    pub clone_last_seen_at: Option<OffsetDateTime>,
    #[serde(with = "rfc3339::option")]
    pub resolved_at: Option<OffsetDateTime>,
    pub resolved_by: Option<String>,
}

/// Enters a conflict.
pub async fn insert(connection: &mut PgConnection, new: &NewConflict<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into host_conflicts (conflict_id, host_id, hidden_host_id, detected_at,
             kept_instance, kept_boot_id, kept_address, kept_first_seen_at,
             clone_instance, clone_boot_id, clone_address, clone_first_seen_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        new.conflict,
        new.host.0,
        new.hidden.0,
        new.now,
        new.kept.instance,
        new.kept.boot_id,
        new.kept.address,
        new.kept.first_seen_at,
        new.clone.instance,
        new.clone.boot_id,
        new.clone.address,
        new.clone.first_seen_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Where what comes from `instance` over `stream` with the certificate of `host` goes: to the clone that this
/// process was set apart as, or, where the clone's process is another by now, to the one that made the stream.
pub async fn find_route(
    connection: &mut PgConnection,
    host: HostId,
    instance: InstanceId,
    stream: StreamId,
) -> sqlx::Result<Option<Route>> {
    sqlx::query_as!(
        Route,
        r#"select conflict_id, hidden_host_id, state from (
             select c.*, exists (select from host_instances i
                                 where i.host_id = c.hidden_host_id and i.instance = $2) as by_instance,
                    exists (select from agent_streams s where s.host_id = c.hidden_host_id and s.stream = $3)
                    and not exists (select from agent_streams s where s.host_id = $1 and s.stream = $3) as by_stream
             from host_conflicts c where c.host_id = $1
         ) as c
         where by_instance or by_stream
         order by by_instance desc, detected_at desc, conflict_id limit 1"#,
        host.0,
        instance.0,
        stream.0,
    )
    .fetch_optional(connection)
    .await
}

/// Whether the record with this number came from a clone that was set apart from `host`, or from the host it is
/// a clone of itself.
pub async fn is_with_clone(
    connection: &mut PgConnection,
    host: HostId,
    stream: StreamId,
    class: Class,
    seq: u64,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
             select from host_conflicts c join agent_streams s on s.host_id = c.hidden_host_id
             where (c.host_id = $1 or c.host_id = (select conflict_of from hosts where host_id = $1))
               and s.host_id <> $1 and s.stream = $2
               and $4 <= case $3 when 'critical' then s.critical_seq else s.beat_seq end
         ) as "with_clone!""#,
        host.0,
        stream.0,
        class_name(class),
        seq as i64,
    )
    .fetch_one(connection)
    .await
}

/// The clone that `instance` is, if it was set apart from `host`.
pub async fn find_by_instance(
    connection: &mut PgConnection,
    host: HostId,
    instance: InstanceId,
) -> sqlx::Result<Option<Route>> {
    sqlx::query_as!(
        Route,
        "select c.conflict_id, c.hidden_host_id, c.state
         from host_conflicts c join host_instances i on i.host_id = c.hidden_host_id
         where c.host_id = $1 and i.instance = $2",
        host.0,
        instance.0,
    )
    .fetch_optional(connection)
    .await
}

/// A host's conflicts, newest first, at most `limit`; or one of them.
pub async fn list(
    connection: &mut PgConnection,
    host: HostId,
    conflict: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<ConflictRow>> {
    sqlx::query_as!(
        ConflictRow,
        r#"select c.conflict_id, c.host_id, c.hidden_host_id, c.state, c.detected_at,
             c.kept_instance, c.kept_boot_id, host(c.kept_address) as "kept_address!", c.kept_first_seen_at,
             kept.last_seen_at as kept_last_seen_at,
             c.clone_instance, c.clone_boot_id, host(c.clone_address) as "clone_address!", c.clone_first_seen_at,
             clone.last_seen_at as clone_last_seen_at, c.resolved_at, c.resolved_by
         from host_conflicts c
         join host_liveness kept on kept.host_id = c.host_id
         join host_liveness clone on clone.host_id = c.hidden_host_id
         where c.host_id = $1 and ($2::uuid is null or c.conflict_id = $2)
         order by c.detected_at desc, c.conflict_id desc limit $3"#,
        host.0,
        conflict,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Moves a conflict from one of the states `from` to `state`, and notes when that resolved it and by whom.
pub async fn update_state(
    connection: &mut PgConnection,
    conflict: Uuid,
    from: &[String],
    state: &str,
    resolved_at: Option<OffsetDateTime>,
    by: Option<&str>,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_conflicts
         set state = $3, resolved_at = $4, resolved_by = coalesce($5, resolved_by)
         where conflict_id = $1 and state = any($2)",
        conflict,
        from,
        state,
        resolved_at,
        by,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Counts a host's conflicts anew, for its reasons.
pub async fn update_counts(connection: &mut PgConnection, host: HostId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_liveness set
             clone_count = (select count(*) from host_conflicts where host_id = $1),
             open_conflict_count = (select count(*) from host_conflicts
                                    where host_id = $1 and resolved_at is null)
         where host_id = $1",
        host.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The host from which the rows of a hidden host were set apart.
pub async fn find_original(
    connection: &mut PgConnection,
    hidden: HostId,
) -> sqlx::Result<Option<Uuid>> {
    let found = sqlx::query_scalar!("select conflict_of from hosts where host_id = $1", hidden.0)
        .fetch_optional(connection)
        .await?;
    Ok(found.flatten())
}
