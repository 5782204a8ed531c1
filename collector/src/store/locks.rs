//! Advisory locks, by name.

use sqlx::PgConnection;

/// Takes the lock until the transaction ends; `false`: another transaction has it.
pub async fn try_lock(connection: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock(hashtextextended($1, 0)) as "taken!""#,
        name
    )
    .fetch_one(connection)
    .await
}

/// Takes the lock until the connection ends; `false`: another connection has it. Asked once a connection: whoever
/// has it gets it again.
pub async fn try_session_lock(connection: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select pg_try_advisory_lock(hashtextextended($1, 0)) as "taken!""#,
        name
    )
    .fetch_one(connection)
    .await
}
