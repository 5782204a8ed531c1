//! How far each stream is stored. The row's lock orders the transactions that move it.

use infratrack_shared::digest::Digest;
use infratrack_shared::ids::{HostId, InstanceId, StreamId};
use infratrack_shared::wire::batch::Class;
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
    /// The run of the agent that moved its cursors last.
    pub instance: InstanceId,
    pub ordinal: i64,
    pub critical: ClassCursor,
    pub beat: ClassCursor,
}

impl Stream {
    /// The cursor of that class.
    pub fn of(&self, class: Class) -> ClassCursor {
        match class {
            Class::Critical => self.critical,
            Class::Beat => self.beat,
        }
    }
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
         on conflict (host_id, stream) do update set instance = agent_streams.instance
         returning host_id, stream, instance, ordinal, critical_seq, critical_hash, beat_seq, beat_hash",
        &hosts,
        &ids,
        &instances,
        now,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Stream {
            host: HostId(row.host_id),
            stream: StreamId(row.stream),
            instance: InstanceId(row.instance),
            ordinal: row.ordinal,
            critical: cursor(row.critical_seq, row.critical_hash),
            beat: cursor(row.beat_seq, row.beat_hash),
        })
        .collect())
}

/// A stream's row, not locked.
pub async fn find(
    connection: &mut PgConnection,
    host: HostId,
    stream: StreamId,
) -> sqlx::Result<Option<Stream>> {
    let row = sqlx::query!(
        "select instance, ordinal, critical_seq, critical_hash, beat_seq, beat_hash
         from agent_streams where host_id = $1 and stream = $2",
        host.0,
        stream.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Stream {
        host,
        stream,
        instance: InstanceId(row.instance),
        ordinal: row.ordinal,
        critical: cursor(row.critical_seq, row.critical_hash),
        beat: cursor(row.beat_seq, row.beat_hash),
    }))
}

/// Moves the cursors of `streams`, whose rows are locked.
pub async fn update(connection: &mut PgConnection, streams: &[Stream]) -> sqlx::Result<u64> {
    let hosts: Vec<_> = streams.iter().map(|row| row.host.0).collect();
    let ids: Vec<_> = streams.iter().map(|row| row.stream.0).collect();
    let critical: Vec<_> = streams.iter().map(|row| row.critical.seq as i64).collect();
    let critical_hash: Vec<_> = streams.iter().map(|row| hash(row.critical)).collect();
    let beat: Vec<_> = streams.iter().map(|row| row.beat.seq as i64).collect();
    let beat_hash: Vec<_> = streams.iter().map(|row| hash(row.beat)).collect();
    let instances: Vec<_> = streams.iter().map(|row| row.instance.0).collect();
    let done = sqlx::query!(
        "update agent_streams s
         set instance = i.instance, critical_seq = i.critical_seq, critical_hash = i.critical_hash,
             beat_seq = i.beat_seq, beat_hash = i.beat_hash
         from unnest($1::uuid[], $2::uuid[], $3::int8[], $4::bytea[], $5::int8[], $6::bytea[],
                     $7::uuid[])
             as i (host_id, stream, critical_seq, critical_hash, beat_seq, beat_hash, instance)
         where s.host_id = i.host_id and s.stream = i.stream",
        &hosts,
        &ids,
        &critical,
        &critical_hash as &[Option<Vec<u8>>],
        &beat,
        &beat_hash as &[Option<Vec<u8>>],
        &instances,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

fn cursor(seq: i64, hash: Option<Vec<u8>>) -> ClassCursor {
    ClassCursor {
        seq: seq.unsigned_abs(),
        hash: hash.and_then(|hash| Digest::from_slice(&hash)),
    }
}

fn hash(cursor: ClassCursor) -> Option<Vec<u8>> {
    cursor.hash.map(|hash| hash.as_bytes().to_vec())
}
