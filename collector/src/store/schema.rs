//! Migrations, and whether the database is where this release needs it.

use sqlx::migrate::Migrator;
use sqlx::{PgConnection, PgPool};

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
