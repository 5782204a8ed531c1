//! Tokens of operators and programs. Only the hash of a secret is stored.

use ipnet::IpNet;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A token to be stored.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    pub token_id: &'a str,
    pub name: &'a str,
    pub secret_hash: &'a [u8],
    /// This or a scope.
    pub role: Option<&'a str>,
    pub scopes: &'a [String],
    pub cidr: Option<IpNet>,
    pub repository: Option<&'a str>,
    pub created_at: OffsetDateTime,
    pub created_by: &'a str,
    pub expires_at: OffsetDateTime,
}

/// What a token may do, found by its id.
#[derive(Clone, Debug)]
pub struct ApiToken {
    pub name: String,
    pub secret_hash: Vec<u8>,
    pub role: Option<String>,
    pub scopes: Vec<String>,
    pub repository: Option<String>,
    pub last_used_at: Option<OffsetDateTime>,
}

/// A token as it is listed: all but its secret.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = ApiToken)]
pub struct ApiTokenRow {
    #[serde(rename = "id")]
    pub token_id: String,
    pub name: String,
    /// `viewer | operator | lead | admin`.
    pub role: Option<String>,
    /// Of `backup`, `ingest`.
    pub scopes: Vec<String>,
    /// From where it is taken.
    #[schema(value_type = Option<String>)]
    pub cidr: Option<IpNet>,
    /// The one whose runs it may post.
    pub repository: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    pub created_by: String,
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// To the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
    #[schema(value_type = Option<String>)]
    pub last_used_from: Option<IpNet>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    pub revoked_by: Option<String>,
}

/// Stores a token.
pub async fn insert(connection: &mut PgConnection, token: &NewToken<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into api_tokens
             (token_id, name, secret_hash, role, scopes, cidr, created_at, created_by, expires_at, repository)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        token.token_id,
        token.name,
        token.secret_hash,
        token.role,
        token.scopes,
        token.cidr as Option<IpNet>,
        token.created_at,
        token.created_by,
        token.expires_at,
        token.repository,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A token that is neither revoked nor expired, and may come from there.
pub async fn find_valid(
    connection: &mut PgConnection,
    token_id: &str,
    from: IpNet,
    now: OffsetDateTime,
) -> sqlx::Result<Option<ApiToken>> {
    sqlx::query_as!(
        ApiToken,
        "select name, secret_hash, role, scopes, repository, last_used_at from api_tokens
         where token_id = $1 and revoked_at is null and (expires_at is null or expires_at > $2)
           and (cidr is null or $3::inet <<= cidr)",
        token_id,
        now,
        from as IpNet,
    )
    .fetch_optional(connection)
    .await
}

/// It was used.
pub async fn touch(
    connection: &mut PgConnection,
    token_id: &str,
    from: IpNet,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update api_tokens set last_used_at = $2, last_used_from = $3
         where token_id = $1 and (last_used_at is null or last_used_at < $2)",
        token_id,
        now,
        from as IpNet,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Tokens, newest first: those from before `before`, or this one.
pub async fn list(
    connection: &mut PgConnection,
    token_id: Option<&str>,
    before: Option<(OffsetDateTime, String)>,
    limit: i64,
) -> sqlx::Result<Vec<ApiTokenRow>> {
    let (before_at, before_id) = before.unzip();
    sqlx::query_as!(
        ApiTokenRow,
        r#"select token_id, name, role, scopes, cidr as "cidr: IpNet", repository, created_at, created_by, expires_at,
             last_used_at, last_used_from as "last_used_from: IpNet", revoked_at, revoked_by
         from api_tokens
         where ($1::text is null or token_id = $1)
           and ($2::timestamptz is null or (created_at, token_id) < ($2, $3))
         order by created_at desc, token_id desc limit $4"#,
        token_id,
        before_at,
        before_id,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many there are.
pub async fn count(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from api_tokens"#)
        .fetch_one(connection)
        .await
}

/// From here on it is refused; answers 0 where it was already, or never was.
pub async fn revoke(
    connection: &mut PgConnection,
    token_id: &str,
    by: &str,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update api_tokens set revoked_at = $2, revoked_by = $3 where token_id = $1 and revoked_at is null",
        token_id,
        now,
        by,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
