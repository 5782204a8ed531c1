//! Browsers that are logged in. Only the hash of what their cookie holds is stored.

use ipnet::IpNet;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A session that begins.
#[derive(Clone, Debug)]
pub struct NewSession<'a> {
    pub session_id: Uuid,
    pub secret_hash: &'a [u8],
    /// One of the two.
    pub user_id: Option<Uuid>,
    pub token_id: Option<&'a str>,
    pub now: OffsetDateTime,
    pub expires_at: OffsetDateTime,
    pub address: IpNet,
    pub user_agent: &'a str,
}

/// Whose session it is.
#[derive(Clone, Debug)]
pub struct Holder {
    pub session_id: Uuid,
    pub name: String,
    pub role: String,
    pub used_at: OffsetDateTime,
}

/// Stores a session.
pub async fn insert(connection: &mut PgConnection, session: &NewSession<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into sessions
             (session_id, secret_hash, user_id, token_id, created_at, used_at, expires_at, address, user_agent)
         values ($1, $2, $3, $4, $5, $5, $6, $7, $8)",
        session.session_id,
        session.secret_hash,
        session.user_id,
        session.token_id,
        session.now,
        session.expires_at,
        session.address,
        session.user_agent,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The holder of a session that was used after `used_after`, and who may still log in with what it began with.
pub async fn find_valid(
    connection: &mut PgConnection,
    secret_hash: &[u8],
    now: OffsetDateTime,
    used_after: OffsetDateTime,
) -> sqlx::Result<Option<Holder>> {
    sqlx::query_as!(
        Holder,
        r#"select s.session_id, coalesce(u.name, t.name) as "name!", coalesce(u.role, t.role) as "role!", s.used_at
           from sessions s
           left join users u on u.user_id = s.user_id and u.disabled_at is null
           left join api_tokens t on t.token_id = s.token_id and t.revoked_at is null
                                  and (t.expires_at is null or t.expires_at > $2)
           where s.secret_hash = $1 and s.expires_at > $2 and s.used_at > $3
             and coalesce(u.name, t.name) is not null"#,
        secret_hash,
        now,
        used_after,
    )
    .fetch_optional(connection)
    .await
}

/// It was used.
pub async fn touch(
    connection: &mut PgConnection,
    session_id: Uuid,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update sessions set used_at = $2 where session_id = $1 and used_at < $2",
        session_id,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Ends a session.
pub async fn delete(connection: &mut PgConnection, secret_hash: &[u8]) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from sessions where secret_hash = $1", secret_hash)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Ends all sessions of a user.
pub async fn delete_of_user(connection: &mut PgConnection, name: &str) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from sessions where user_id = (select user_id from users where name = $1)",
        name,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes sessions that are over.
pub async fn delete_over(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    used_after: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from sessions where expires_at <= $1 or used_at <= $2",
        now,
        used_after,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
