//! Records that will never come, as ranges with their reason.

use infratrack_shared::ids::{HostId, InstanceId, StreamId};
use infratrack_shared::wire::batch::Class;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A range of lost sequence numbers, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub host: HostId,
    pub stream: StreamId,
    pub class: Class,
    pub from_seq: u64,
    pub to_seq: u64,
    pub reason: String,
    /// The run of the agent that said so.
    pub instance: InstanceId,
}

/// The name of a class in the tables.
pub fn class_name(class: Class) -> &'static str {
    match class {
        Class::Critical => "critical",
        Class::Beat => "beat",
    }
}

/// Inserts `gaps`, sorted by key.
pub async fn insert(
    connection: &mut PgConnection,
    gaps: &[Gap],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let hosts: Vec<_> = gaps.iter().map(|gap| gap.host.0).collect();
    let streams: Vec<_> = gaps.iter().map(|gap| gap.stream.0).collect();
    let classes: Vec<_> = gaps
        .iter()
        .map(|gap| class_name(gap.class).to_owned())
        .collect();
    let from: Vec<_> = gaps.iter().map(|gap| gap.from_seq as i64).collect();
    let to: Vec<_> = gaps.iter().map(|gap| gap.to_seq as i64).collect();
    let reasons: Vec<_> = gaps.iter().map(|gap| gap.reason.clone()).collect();
    let instances: Vec<_> = gaps.iter().map(|gap| gap.instance.0).collect();
    let done = sqlx::query!(
        "insert into gaps (host_id, stream, class, from_seq, to_seq, reason, instance, received_at)
         select *, $7::timestamptz
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::int8[], $5::int8[], $6::text[], $8::uuid[])",
        &hosts,
        &streams,
        &classes,
        &from,
        &to,
        &reasons,
        now,
        &instances,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A host's gaps, newest first, at most `limit`.
pub async fn list(
    connection: &mut PgConnection,
    host: HostId,
    limit: i64,
) -> sqlx::Result<Vec<GapRow>> {
    sqlx::query_as!(
        GapRow,
        "select stream, class, from_seq, to_seq, reason, received_at
         from gaps where host_id = $1 order by received_at desc, from_seq desc limit $2",
        host.0,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// A gap as it is shown.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct GapRow {
    pub stream: uuid::Uuid,
    pub class: String,
    pub from_seq: i64,
    pub to_seq: i64,
    pub reason: String,
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
}
