//! Links that make the first user. Only the hash of what they hold is stored.

use sqlx::PgConnection;
use time::OffsetDateTime;

/// Stores a link.
pub async fn insert(
    connection: &mut PgConnection,
    secret_hash: &[u8],
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into setup_links (secret_hash, created_at, expires_at) values ($1, $2, $3)",
        secret_hash,
        now,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Whether there is such a link that has not expired.
pub async fn is_valid(
    connection: &mut PgConnection,
    secret_hash: &[u8],
    now: OffsetDateTime,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists(select from setup_links where secret_hash = $1 and expires_at > $2) as "valid!""#,
        secret_hash,
        now,
    )
    .fetch_one(connection)
    .await
}

/// Deletes links that have expired.
pub async fn delete_expired(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from setup_links where expires_at <= $1", now)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Deletes all links.
pub async fn delete_all(connection: &mut PgConnection) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from setup_links")
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
