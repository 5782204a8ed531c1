//! Partitions by day and month: made ahead, dropped by retention.
//!
//! Names and bounds are computed here from dates, never from outside text.

use sqlx::{AssertSqlSafe, PgConnection};
use time::{Date, Duration, Month};

/// Makes the partition of `heartbeats` for a day (UTC), where it is not there.
pub async fn create_heartbeats(connection: &mut PgConnection, day: Date) -> sqlx::Result<()> {
    create(
        connection,
        "heartbeats",
        &heartbeats_name(day),
        day,
        day + Duration::DAY,
    )
    .await
}

/// Makes the partition of `events` for a month (UTC), where it is not there.
pub async fn create_events(
    connection: &mut PgConnection,
    year: i32,
    month: Month,
) -> sqlx::Result<()> {
    let first = |year, month| Date::from_calendar_date(year, month, 1);
    let from = first(year, month).map_err(|error| sqlx::Error::Configuration(error.into()))?;
    let next_year = if month == Month::December {
        year + 1
    } else {
        year
    };
    let to =
        first(next_year, month.next()).map_err(|error| sqlx::Error::Configuration(error.into()))?;
    let name = format!("events_{:04}{:02}", year, u8::from(month));
    create(connection, "events", &name, from, to).await
}

/// The name of a day's partition.
pub fn heartbeats_name(day: Date) -> String {
    format!(
        "heartbeats_{:04}{:02}{:02}",
        day.year(),
        u8::from(day.month()),
        day.day()
    )
}

/// The partitions of `heartbeats`, by name, that is by day.
pub async fn list_heartbeats(connection: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'heartbeats'::regclass order by 1",
    )
    .fetch_all(connection)
    .await
    .map(|names| names.into_iter().flatten().collect())
}

/// Drops a partition that [`list_heartbeats`] named.
pub async fn drop_heartbeats(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let sql = format!("drop table if exists \"{}\"", name.replace('"', "\"\""));
    sqlx::query(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(drop)
}

async fn create(
    connection: &mut PgConnection,
    table: &str,
    name: &str,
    from: Date,
    to: Date,
) -> sqlx::Result<()> {
    let sql = format!(
        "create table if not exists {name} partition of {table}
         for values from ('{from} 00:00:00+00') to ('{to} 00:00:00+00')"
    );
    sqlx::query(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(drop)
}
