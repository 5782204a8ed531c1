//! Migrations, and whether the database is where this release needs it.

use sqlx::migrate::Migrator;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;

/// Every migration of this release, forward only.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// Brings the database to this release's head; nothing where it is there or past it.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    let mut migrator = sqlx::migrate!();
    // A database that a newer release has migrated is one this release can use.
    migrator.set_ignore_missing(true);
    migrator.run(pool).await
}

/// The newest migration this release brings.
pub fn head() -> i64 {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// The newest migration the database has.
pub async fn version(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar::<_, Option<i64>>("select max(version) from _sqlx_migrations where success")
        .fetch_one(connection)
        .await
        .map(Option::unwrap_or_default)
}

/// The migrations the database has, with their checksums.
pub async fn list_applied(connection: &mut PgConnection) -> sqlx::Result<Vec<(i64, Vec<u8>)>> {
    sqlx::query_as("select version, checksum from _sqlx_migrations where success order by version")
        .fetch_all(connection)
        .await
}

/// What the server says of itself.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// 150004 is 15.4.
    pub version: i32,
    pub now: OffsetDateTime,
    pub is_standby: bool,
    pub fsync: String,
    pub full_page_writes: String,
    pub synchronous_commit: String,
    pub max_connections: i32,
}

/// Asks the server what it is.
pub async fn find_server_facts(connection: &mut PgConnection) -> sqlx::Result<ServerFacts> {
    sqlx::query_as!(
        ServerFacts,
        r#"select current_setting('server_version_num')::int as "version!", clock_timestamp() as "now!",
             pg_is_in_recovery() as "is_standby!", current_setting('fsync') as "fsync!",
             current_setting('full_page_writes') as "full_page_writes!",
             current_setting('synchronous_commit') as "synchronous_commit!",
             current_setting('max_connections')::int as "max_connections!""#
    )
    .fetch_one(connection)
    .await
}
