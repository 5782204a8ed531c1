//! Records that can't be stored as what they are: kept whole, with the reason.

use infratrack_shared::ids::{HostId, InstanceId, StreamId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::Class;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::store::gaps::class_name;
use crate::store::{storable, timestamp};

/// One refused record.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub host: HostId,
    pub stream: StreamId,
    pub class: Class,
    pub seq: u64,
    pub kind: String,
    pub claimed_at: UnixMillis,
    pub error: String,
    /// The run of the agent that brought it.
    pub instance: InstanceId,
    /// The record's body as MessagePack.
    pub body: Vec<u8>,
}

/// Keeps one refused record.
pub async fn insert(
    connection: &mut PgConnection,
    letter: &DeadLetter,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into dead_letters (host_id, stream, class, seq, kind, claimed_at, received_at, error, body, instance)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        letter.host.0,
        letter.stream.0,
        class_name(letter.class),
        letter.seq as i64,
        storable(&letter.kind),
        timestamp(letter.claimed_at),
        now,
        storable(&letter.error),
        letter.body,
        letter.instance.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
