//! Moves what an instance brought from the host it was taken for to the hidden host it is set apart as.
//!
//! All of it in one transaction under the lock of the host: see [`crate::agents::writer`]'s clones. Rows
//! older than the raw ones, which are only sums, can't be told apart and stay.

use infratrack_shared::ids::{HostId, InstanceId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Whose rows, from where, to where.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub from: HostId,
    pub to: HostId,
    pub instance: InstanceId,
    /// Partitions before this have none of them: older claims are moved up to it when they arrive.
    pub since: OffsetDateTime,
}

/// Makes the hidden host of a clone of `host`, whose rows are with `from` so far.
pub async fn insert_hidden(
    connection: &mut PgConnection,
    host: HostId,
    moved: &Move,
    received_at: OffsetDateTime,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with hidden as (
             insert into hosts (host_id, name, machine_id, tags, created_at, conflict_of)
             select $3, name, machine_id, tags, $6, $1 from hosts where host_id = $2
             returning host_id
         )
         insert into host_liveness (host_id, instance, instance_changed_at)
         select host_id, $4, $5 from hidden",
        host.0,
        moved.from.0,
        moved.to.0,
        moved.instance.0,
        received_at,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Moves raw heartbeats; the buckets they were summed in are to be summed anew, on both sides.
pub async fn heartbeats(connection: &mut PgConnection, moved: &Move) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with moved as (
             update heartbeats set host_id = $2
             where host_id = $1 and instance = $3 and at >= $4
             returning at
         )
         insert into heartbeats_dirty (host_id, at)
         select distinct side, date_bin('5 minutes', at, 'epoch') from moved, unnest(array[$1, $2]) as side
         order by 1, 2
         on conflict do nothing",
        moved.from.0,
        moved.to.0,
        moved.instance.0,
        moved.since,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes the 5-minute sums of `host` that have nothing left to be summed anew from.
pub async fn delete_empty_5m(connection: &mut PgConnection, host: HostId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from heartbeats_5m b using heartbeats_dirty d
         where b.host_id = $1 and d.host_id = $1 and b.at = d.at
           and not exists (select from heartbeats h where h.host_id = $1
                           and h.at >= b.at and h.at < b.at + interval '5 minutes')",
        host.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Likewise the sums of an hour.
pub async fn delete_empty_1h(connection: &mut PgConnection, host: HostId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from heartbeats_1h b using heartbeats_dirty d
         where b.host_id = $1 and d.host_id = $1 and b.at = date_bin('1 hour', d.at, 'epoch')
           and not exists (select from heartbeats_5m h where h.host_id = $1
                           and h.at >= b.at and h.at < b.at + interval '1 hour')",
        host.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Says when the hidden host was last heard of: what the moved heartbeats say.
pub async fn update_last_seen(connection: &mut PgConnection, moved: &Move) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_liveness set last_seen_at =
             (select max(received_at) from heartbeats where host_id = $1 and at >= $2)
         where host_id = $1",
        moved.to.0,
        moved.since,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Moves events.
pub async fn events(connection: &mut PgConnection, moved: &Move) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update events set host_id = $2 where host_id = $1 and instance = $3 and at >= $4",
        moved.from.0,
        moved.to.0,
        moved.instance.0,
        moved.since,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Moves gaps.
pub async fn gaps(connection: &mut PgConnection, moved: &Move) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update gaps set host_id = $2 where host_id = $1 and instance = $3",
        moved.from.0,
        moved.to.0,
        moved.instance.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Moves refused records.
pub async fn dead_letters(connection: &mut PgConnection, moved: &Move) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update dead_letters set host_id = $2 where host_id = $1 and instance = $3",
        moved.from.0,
        moved.to.0,
        moved.instance.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Gives the hidden host the facts that the instance said last.
pub async fn copy_facts(connection: &mut PgConnection, moved: &Move) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into facts (host_id, key, stream_ordinal, version, hash, body, changed_at, instance)
         select $2, key, stream_ordinal, version, hash, body, changed_at, instance
         from facts where host_id = $1 and instance = $3",
        moved.from.0,
        moved.to.0,
        moved.instance.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes the facts of `host` that it never had itself.
pub async fn delete_foreign_facts(
    connection: &mut PgConnection,
    host: HostId,
    clones: &[Uuid],
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from facts f
         where f.host_id = $1 and f.instance = any($2)
           and exists (select from fact_changes c where c.host_id = $1 and c.key = f.key
                       and c.instance = any($2) and c.old_body is null)",
        host.0,
        clones,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Puts back what the facts of `host` said before `clones` changed them. Whatever it says itself is newer,
/// and of what was put back the hash is not known, so that it is asked for.
pub async fn restore_facts(
    connection: &mut PgConnection,
    host: HostId,
    clones: &[Uuid],
    kept: InstanceId,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update facts f set instance = $3, stream_ordinal = 0, version = 0,
             hash = case when first.old_body is null then f.hash else decode(repeat('00', 16), 'hex') end,
             body = coalesce(first.old_body, f.body)
         from facts g
         left join lateral (
             select c.old_body from fact_changes c
             where c.host_id = $1 and c.key = g.key and c.instance = any($2)
             order by c.changed_at limit 1
         ) first on true
         where f.host_id = $1 and f.instance = any($2) and g.host_id = $1 and g.key = f.key",
        host.0,
        clones,
        kept.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Moves the history of facts.
pub async fn fact_changes(connection: &mut PgConnection, moved: &Move) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update fact_changes set host_id = $2 where host_id = $1 and instance = $3",
        moved.from.0,
        moved.to.0,
        moved.instance.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets the hashes over the facts and packages of `host`: it is asked for all of them.
pub async fn forget_hashes(connection: &mut PgConnection, host: HostId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_liveness set facts_hash = null, inventory_hash = null where host_id = $1",
        host.0
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Notes where every cursor of the host stands when `instance` takes over.
pub async fn mark_streams(
    connection: &mut PgConnection,
    host: HostId,
    instance: InstanceId,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into agent_stream_marks
             (host_id, instance, stream, mover, critical_seq, critical_hash, beat_seq, beat_hash)
         select host_id, $2, stream, instance, critical_seq, critical_hash, beat_seq, beat_hash
         from agent_streams where host_id = $1",
        host.0,
        instance.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Gives the hidden host the cursors that the instance moved, as they stood when `next` took over from it, or
/// as they stand.
pub async fn copy_streams(
    connection: &mut PgConnection,
    moved: &Move,
    next: Option<InstanceId>,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into agent_streams
             (host_id, stream, instance, critical_seq, critical_hash, beat_seq, beat_hash, created_at)
         select $2, e.stream, $3, e.critical_seq, e.critical_hash, e.beat_seq, e.beat_hash, $5
         from (
             select stream, critical_seq, critical_hash, beat_seq, beat_hash
             from agent_streams where host_id = $1 and $4::uuid is null
             union all
             select stream, critical_seq, critical_hash, beat_seq, beat_hash
             from agent_stream_marks where host_id = $1 and instance = $4
         ) as e
         left join agent_stream_marks b on b.host_id = $1 and b.instance = $3 and b.stream = e.stream
         where b.stream is null or (b.critical_seq, b.beat_seq) <> (e.critical_seq, e.beat_seq)
         order by e.stream",
        moved.from.0,
        moved.to.0,
        moved.instance.0,
        next.map(|next| next.0),
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Puts every cursor of the host back to where it stood when `instance` took over.
pub async fn restore_streams(
    connection: &mut PgConnection,
    host: HostId,
    instance: InstanceId,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update agent_streams s
         set instance = m.mover, critical_seq = m.critical_seq, critical_hash = m.critical_hash,
             beat_seq = m.beat_seq, beat_hash = m.beat_hash
         from agent_stream_marks m
         where s.host_id = $1 and m.host_id = $1 and m.instance = $2 and m.stream = s.stream",
        host.0,
        instance.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes the streams that were not there when `instance` took over.
pub async fn delete_foreign_streams(
    connection: &mut PgConnection,
    host: HostId,
    instance: InstanceId,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from agent_streams s where s.host_id = $1
           and not exists (select from agent_stream_marks m
                           where m.host_id = $1 and m.instance = $2 and m.stream = s.stream)",
        host.0,
        instance.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
