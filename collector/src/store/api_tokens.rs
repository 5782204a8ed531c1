//! Tokens of operators and programs. Only the hash of a secret is stored.

use sqlx::PgConnection;
use time::OffsetDateTime;

/// What a token may do, found by its id.
#[derive(Clone, Debug)]
pub struct ApiToken {
    pub name: String,
    pub secret_hash: Vec<u8>,
    pub role: String,
}

/// Stores a token.
pub async fn insert(
    connection: &mut PgConnection,
    token_id: &str,
    name: &str,
    secret_hash: &[u8],
    role: &str,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into api_tokens (token_id, name, secret_hash, role, created_at)
         values ($1, $2, $3, $4, $5)",
        token_id,
        name,
        secret_hash,
        role,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A token that is neither revoked nor expired.
pub async fn find_valid(
    connection: &mut PgConnection,
    token_id: &str,
    now: OffsetDateTime,
) -> sqlx::Result<Option<ApiToken>> {
    sqlx::query_as!(
        ApiToken,
        "select name, secret_hash, role from api_tokens
         where token_id = $1 and revoked_at is null and (expires_at is null or expires_at > $2)",
        token_id,
        now,
    )
    .fetch_optional(connection)
    .await
}
