//! How far each stream is stored. The row's lock orders the transactions that move it.

use infratrack_shared::digest::Digest;
use infratrack_shared::ids::{HostId, InstanceId, StreamId};
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A class's cursor: the last sequence number stored or known lost, and the hash of the record there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCursor {
    pub seq: u64,
    pub hash: Option<Digest>,
}

/// A stream's row.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    pub host: HostId,
    pub stream: StreamId,
    pub ordinal: i64,
    pub critical: ClassCursor,
    pub beat: ClassCursor,
}

/// Locks the rows of `streams` until the transaction ends, making those that are not there.
/// Sorted by (host, stream), without duplicates.
pub async fn lock(
    connection: &mut PgConnection,
    streams: &[(HostId, StreamId, InstanceId)],
    now: OffsetDateTime,
) -> sqlx::Result<Vec<Stream>> {
    let hosts: Vec<_> = streams.iter().map(|(host, _, _)| host.0).collect();
    let ids: Vec<_> = streams.iter().map(|(_, stream, _)| stream.0).collect();
    let instances: Vec<_> = streams.iter().map(|(_, _, instance)| instance.0).collect();
    let rows = sqlx::query!(
        "insert into agent_streams (host_id, stream, instance, created_at)
         select host_id, stream, instance, $4
         from unnest($1::uuid[], $2::uuid[], $3::uuid[]) as i (host_id, stream, instance)
         on conflict (host_id, stream) do update set instance = excluded.instance
         returning host_id, stream, ordinal, critical_seq, critical_hash, beat_seq, beat_hash",
        &hosts,
        &ids,
        &instances,
        now,
    )
    .fetch_all(connection)
    .await?;
    let cursor = |seq: i64, hash: Option<Vec<u8>>| ClassCursor {
        seq: seq.unsigned_abs(),
        hash: hash.and_then(|hash| Digest::from_slice(&hash)),
    };
    Ok(rows
        .into_iter()
        .map(|row| Stream {
            host: HostId(row.host_id),
            stream: StreamId(row.stream),
            ordinal: row.ordinal,
            critical: cursor(row.critical_seq, row.critical_hash),
            beat: cursor(row.beat_seq, row.beat_hash),
        })
        .collect())
}

/// Moves the cursors of `streams`, whose rows are locked.
pub async fn update(connection: &mut PgConnection, streams: &[Stream]) -> sqlx::Result<u64> {
    let hosts: Vec<_> = streams.iter().map(|row| row.host.0).collect();
    let ids: Vec<_> = streams.iter().map(|row| row.stream.0).collect();
    let critical: Vec<_> = streams.iter().map(|row| row.critical.seq as i64).collect();
    let critical_hash: Vec<_> = streams.iter().map(|row| hash(row.critical)).collect();
    let beat: Vec<_> = streams.iter().map(|row| row.beat.seq as i64).collect();
    let beat_hash: Vec<_> = streams.iter().map(|row| hash(row.beat)).collect();
    let done = sqlx::query!(
        "update agent_streams s
         set critical_seq = i.critical_seq, critical_hash = i.critical_hash,
             beat_seq = i.beat_seq, beat_hash = i.beat_hash
         from unnest($1::uuid[], $2::uuid[], $3::int8[], $4::bytea[], $5::int8[], $6::bytea[])
             as i (host_id, stream, critical_seq, critical_hash, beat_seq, beat_hash)
         where s.host_id = i.host_id and s.stream = i.stream",
        &hosts,
        &ids,
        &critical,
        &critical_hash as &[Option<Vec<u8>>],
        &beat,
        &beat_hash as &[Option<Vec<u8>>],
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

fn hash(cursor: ClassCursor) -> Option<Vec<u8>> {
    cursor.hash.map(|hash| hash.as_bytes().to_vec())
}
