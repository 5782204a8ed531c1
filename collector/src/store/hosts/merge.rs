//! Two rows that are one host: what the one reported moves under the other.
//!
//! Heartbeats, their sums, commands and cursors stay where they are, and are read under the merged host's id: they
//! are many, and say nothing without the agent that numbered them.

use infratrack_shared::ids::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// What decides whether two hosts can be one.
#[derive(Clone, Copy, Debug)]
pub struct Reporting {
    pub last_seen_at: Option<OffsetDateTime>,
    pub open_conflict_count: i32,
}

/// When a host last reported, and whether somebody else reports as it.
pub async fn find_reporting(
    connection: &mut PgConnection,
    host: HostId,
) -> sqlx::Result<Option<Reporting>> {
    sqlx::query_as!(
        Reporting,
        "select last_seen_at, open_conflict_count from host_liveness where host_id = $1",
        host.0
    )
    .fetch_optional(connection)
    .await
}

/// How many events a host has, counted up to `most`.
pub async fn count_events(
    connection: &mut PgConnection,
    host: HostId,
    most: i64,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from (select from events where host_id = $1 limit $2) as counted"#,
        host.0,
        most,
    )
    .fetch_one(connection)
    .await
}

/// Moves events.
pub async fn events(connection: &mut PgConnection, from: HostId, to: HostId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update events set host_id = $2 where host_id = $1",
        from.0,
        to.0
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Moves gaps; one that both have is there once.
pub async fn gaps(connection: &mut PgConnection, from: HostId, to: HostId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with moved as (delete from gaps where host_id = $1 returning *)
         insert into gaps (host_id, stream, class, from_seq, to_seq, reason, received_at, instance)
         select $2, stream, class, from_seq, to_seq, reason, received_at, instance from moved
         on conflict do nothing",
        from.0,
        to.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Moves refused records; one that both have is there once.
pub async fn dead_letters(
    connection: &mut PgConnection,
    from: HostId,
    to: HostId,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with moved as (delete from dead_letters where host_id = $1 returning *)
         insert into dead_letters (host_id, stream, class, seq, kind, claimed_at, received_at, error, body, instance)
         select $2, stream, class, seq, kind, claimed_at, received_at, error, body, instance from moved
         on conflict do nothing",
        from.0,
        to.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Moves what operators wrote down.
pub async fn tasks(connection: &mut PgConnection, from: HostId, to: HostId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update tasks set host_id = $2 where host_id = $1",
        from.0,
        to.0
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Moves the history of facts.
pub async fn fact_changes(
    connection: &mut PgConnection,
    from: HostId,
    to: HostId,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with moved as (delete from fact_changes where host_id = $1 returning *)
         insert into fact_changes (host_id, changed_at, key, old_body, new_body, instance)
         select $2, changed_at, key, old_body, new_body, instance from moved
         on conflict do nothing",
        from.0,
        to.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Copies facts to a host that never said any. Whatever its own agent ever says is newer.
pub async fn facts(connection: &mut PgConnection, from: HostId, to: HostId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into facts (host_id, key, stream_ordinal, version, hash, body, changed_at)
         select $2, key, 0, 0, hash, body, changed_at from facts where host_id = $1
         on conflict do nothing",
        from.0,
        to.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Whatever was merged into `from` is merged into `to`.
pub async fn update_merged(
    connection: &mut PgConnection,
    from: HostId,
    to: HostId,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update hosts set merged_into = $2 where merged_into = $1",
        from.0,
        to.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Lets a statement of this transaction take as long as an operator waits for an answer.
pub async fn allow_time(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("select set_config('statement_timeout', '25s', true)")
        .fetch_one(connection)
        .await
        .map(drop)
}
