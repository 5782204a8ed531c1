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
    pub authenticated_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
    pub address: IpNet,
    pub user_agent: &'a str,
}

/// Whose session it is.
#[derive(Clone, Debug)]
pub struct Holder {
    pub session_id: Uuid,
    pub user_id: Option<Uuid>,
    pub token_id: Option<String>,
    pub name: String,
    pub role: String,
    pub used_at: OffsetDateTime,
    pub authenticated_at: OffsetDateTime,
    /// See [`User`](crate::store::users::User).
    pub must_change_password: bool,
}

/// Stores a session.
pub async fn insert(connection: &mut PgConnection, session: &NewSession<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into sessions
             (session_id, secret_hash, user_id, token_id, created_at, used_at, authenticated_at, expires_at, address,
              user_agent)
         values ($1, $2, $3, $4, $5, $5, $6, $7, $8, $9)",
        session.session_id,
        session.secret_hash,
        session.user_id,
        session.token_id,
        session.now,
        session.authenticated_at,
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
    from: IpNet,
    now: OffsetDateTime,
    used_after: OffsetDateTime,
) -> sqlx::Result<Option<Holder>> {
    sqlx::query_as!(
        Holder,
        r#"select s.session_id, s.user_id, s.token_id, coalesce(u.name, t.name) as "name!", coalesce(u.role, t.role, 'viewer') as "role!", s.used_at,
             s.authenticated_at, coalesce(u.must_change_password, false) as "must_change_password!"
           from sessions s
           left join users u on u.user_id = s.user_id and u.disabled_at is null
           left join api_tokens t on t.token_id = s.token_id and t.revoked_at is null
                                  and (t.expires_at is null or t.expires_at > $2)
                                  and (t.role is not null or 'backup' = any(t.scopes))
                                  and (t.cidr is null or $4::inet <<= t.cidr)
           where s.secret_hash = $1 and s.expires_at > $2 and s.used_at > $3
             and coalesce(u.name, t.name) is not null"#,
        secret_hash,
        now,
        used_after,
        from as IpNet,
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

/// Ends a session by its id.
pub async fn delete_one(connection: &mut PgConnection, session_id: Uuid) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from sessions where session_id = $1", session_id)
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

/// Ends all sessions of a user or token, by its id, but the one.
pub async fn delete_others(
    connection: &mut PgConnection,
    holder_id: &str,
    but: Option<Uuid>,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from sessions
         where coalesce(user_id::text, token_id) = $1 and session_id is distinct from $2",
        holder_id,
        but,
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

/// It was proved again who it is.
pub async fn update_authenticated(
    connection: &mut PgConnection,
    session_id: Uuid,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update sessions set authenticated_at = $2 where session_id = $1",
        session_id,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A session as it is listed.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct SessionRow {
    #[serde(rename = "id")]
    pub session_id: Uuid,
    /// Of the user or token.
    pub name: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// To the minute.
    #[serde(with = "time::serde::rfc3339")]
    pub used_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    #[schema(value_type = String)]
    pub address: IpNet,
    pub user_agent: String,
}

/// Sessions that go on, newest first, at most 500: this one, of this user's or token's id, or all.
pub async fn list(
    connection: &mut PgConnection,
    session_id: Option<Uuid>,
    holder_id: Option<&str>,
    now: OffsetDateTime,
    used_after: OffsetDateTime,
) -> sqlx::Result<Vec<SessionRow>> {
    sqlx::query_as!(
        SessionRow,
        r#"select s.session_id, coalesce(u.name, t.name) as "name!", s.created_at, s.used_at, s.expires_at,
             s.address as "address: IpNet", s.user_agent
           from sessions s
           left join users u using (user_id)
           left join api_tokens t using (token_id)
           where s.expires_at > $3 and s.used_at > $4
             and ($1::uuid is null or s.session_id = $1)
             and ($2::text is null or coalesce(s.user_id::text, s.token_id) = $2)
           order by s.created_at desc, s.session_id limit 500"#,
        session_id,
        holder_id,
        now,
        used_after,
    )
    .fetch_all(connection)
    .await
}
