//! What happened, as agents reported it or the collector saw it.

use infratrack_shared::ids::{BootId, HostId, InstanceId, StreamId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::store::JsonText;

/// One event to store.
#[derive(Clone, Debug)]
pub struct Event {
    pub host: HostId,
    /// Effective time.
    pub at: OffsetDateTime,
    pub claimed_at: OffsetDateTime,
    /// Where the agent said it: stream, sequence number, boot, milliseconds since that boot.
    pub origin: Option<(StreamId, u64, BootId, u64)>,
    /// The run of the agent that brought it.
    pub instance: Option<InstanceId>,
    pub kind: String,
    pub body: JsonText,
}

/// An event as it is shown.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct EventRow {
    pub event_id: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub claimed_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    pub kind: String,
    pub body: serde_json::Value,
}

/// Inserts `events`, sorted by host.
pub async fn insert(
    connection: &mut PgConnection,
    events: &[&Event],
    received_at: OffsetDateTime,
) -> sqlx::Result<u64> {
    let hosts: Vec<_> = events.iter().map(|event| event.host.0).collect();
    let at: Vec<_> = events.iter().map(|event| event.at).collect();
    let claimed: Vec<_> = events.iter().map(|event| event.claimed_at).collect();
    let streams: Vec<_> = events
        .iter()
        .map(|event| event.origin.map(|origin| origin.0.0))
        .collect();
    let seqs: Vec<_> = events
        .iter()
        .map(|event| event.origin.map(|origin| origin.1 as i64))
        .collect();
    let boots: Vec<_> = events
        .iter()
        .map(|event| event.origin.map(|origin| origin.2.0))
        .collect();
    let monos: Vec<_> = events
        .iter()
        .map(|event| event.origin.map(|origin| origin.3 as i64))
        .collect();
    let instances: Vec<_> = events
        .iter()
        .map(|event| event.instance.map(|instance| instance.0))
        .collect();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    let bodies: Vec<_> = events.iter().map(|event| &event.body).collect();
    let done = sqlx::query!(
        "insert into events (host_id, at, claimed_at, received_at, stream, seq, boot_id, mono_ms, kind, body,
                             instance)
         select host_id, at, claimed_at, $10, stream, seq, boot_id, mono_ms, kind, body, instance
         from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::uuid[], $5::int8[],
                     $6::uuid[], $7::int8[], $8::text[], $9::jsonb[], $11::uuid[])
             as i (host_id, at, claimed_at, stream, seq, boot_id, mono_ms, kind, body, instance)",
        &hosts,
        &at,
        &claimed,
        &streams as &[Option<uuid::Uuid>],
        &seqs as &[Option<i64>],
        &boots as &[Option<uuid::Uuid>],
        &monos as &[Option<i64>],
        &kinds as &[&str],
        &bodies as &[&JsonText],
        received_at,
        &instances as &[Option<uuid::Uuid>],
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A host's events before `before` (time and id of the last one seen), newest first.
pub async fn list(
    connection: &mut PgConnection,
    host: HostId,
    before: Option<(OffsetDateTime, i64)>,
    limit: i64,
) -> sqlx::Result<Vec<EventRow>> {
    let (at, id) = before.unzip();
    sqlx::query_as!(
        EventRow,
        "select event_id, at, claimed_at, received_at, kind, body from events
         where host_id = $1 and ($2::timestamptz is null or (at, event_id) < ($2, $3))
         order by at desc, event_id desc limit $4",
        host.0,
        at,
        id,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many events a host has.
pub async fn count(connection: &mut PgConnection, host: HostId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from events where host_id = $1"#,
        host.0
    )
    .fetch_one(connection)
    .await
}

/// The event with this number: when its agent said it had happened, its kind, its body.
pub async fn find_origin(
    connection: &mut PgConnection,
    host: HostId,
    stream: StreamId,
    seq: u64,
    since: OffsetDateTime,
) -> sqlx::Result<Option<(OffsetDateTime, String, serde_json::Value)>> {
    let row = sqlx::query!(
        "select claimed_at, kind, body from events
         where host_id = $1 and stream = $2 and seq = $3 and at >= $4 limit 1",
        host.0,
        stream.0,
        seq as i64,
        since,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| (row.claimed_at, row.kind, row.body)))
}

/// The last event of `kind` since `since`.
pub async fn find_last(
    connection: &mut PgConnection,
    host: HostId,
    kind: &str,
    since: OffsetDateTime,
) -> sqlx::Result<Option<EventRow>> {
    sqlx::query_as!(
        EventRow,
        "select event_id, at, claimed_at, received_at, kind, body from events
         where host_id = $1 and kind = $2 and at >= $3 order by at desc, event_id desc limit 1",
        host.0,
        kind,
        since,
    )
    .fetch_optional(connection)
    .await
}
