//! Which collectors are alive, and when none was.

use infratrack_shared::ids::CollectorId;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A time in which no collector was alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downtime {
    pub from_at: OffsetDateTime,
    pub to_at: OffsetDateTime,
}

/// Says that `collector` is alive, and since when.
pub async fn upsert_alive(
    connection: &mut PgConnection,
    collector: CollectorId,
    hostname: &str,
    started_at: OffsetDateTime,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into collectors (collector_id, hostname, version, started_at, alive_at)
         values ($1, $2, $3, $4, $5)
         on conflict (collector_id) do update set alive_at = excluded.alive_at",
        collector.0,
        hostname,
        env!("CARGO_PKG_VERSION"),
        started_at,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Says that `collector` stopped in order.
pub async fn update_stopped(
    connection: &mut PgConnection,
    collector: CollectorId,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update collectors set alive_at = $2, stopped_at = $2 where collector_id = $1",
        collector.0,
        now
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// When any collector was last alive.
pub async fn find_last_alive(
    connection: &mut PgConnection,
) -> sqlx::Result<Option<OffsetDateTime>> {
    sqlx::query_scalar!("select max(alive_at) from collectors")
        .fetch_one(connection)
        .await
}

/// Records that no collector was alive between two instants.
pub async fn insert_downtime(
    connection: &mut PgConnection,
    downtime: Downtime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into collector_downtimes (from_at, to_at) values ($1, $2)
         on conflict (from_at) do update set to_at = greatest(collector_downtimes.to_at, excluded.to_at)",
        downtime.from_at,
        downtime.to_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The downtimes that ended since `since`, newest first.
pub async fn list_downtimes(
    connection: &mut PgConnection,
    since: OffsetDateTime,
) -> sqlx::Result<Vec<Downtime>> {
    sqlx::query_as!(
        Downtime,
        "select from_at, to_at from collector_downtimes where to_at >= $1 order by to_at desc limit 100",
        since,
    )
    .fetch_all(connection)
    .await
}

/// A collector as it is listed.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Collector)]
pub struct CollectorRow {
    #[serde(rename = "id")]
    pub collector_id: uuid::Uuid,
    pub hostname: String,
    pub version: String,
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// It said so every 2 s.
    #[serde(with = "time::serde::rfc3339")]
    pub alive_at: OffsetDateTime,
    /// It stopped in order.
    #[serde(with = "time::serde::rfc3339::option")]
    pub stopped_at: Option<OffsetDateTime>,
}

/// The collectors that were alive since then, the last first, at most 50.
pub async fn list(
    connection: &mut PgConnection,
    since: OffsetDateTime,
) -> sqlx::Result<Vec<CollectorRow>> {
    sqlx::query_as!(
        CollectorRow,
        "select collector_id, hostname, version, started_at, alive_at, stopped_at from collectors
         where alive_at >= $1 order by alive_at desc, collector_id limit 50",
        since,
    )
    .fetch_all(connection)
    .await
}
