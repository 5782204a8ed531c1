//! Browsers that were sent to the provider of logins and are not back yet.

use ipnet::IpNet;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A login that begins.
#[derive(Clone, Debug)]
pub struct NewLogin<'a> {
    pub state_hash: &'a [u8],
    pub browser_hash: &'a [u8],
    pub nonce: &'a str,
    pub pkce_verifier: &'a str,
    pub next: &'a str,
    pub user_id: Option<Uuid>,
    pub session_id: Option<Uuid>,
    pub address: IpNet,
    pub created_at: OffsetDateTime,
}

/// One that the browser came back from.
#[derive(Clone)]
pub struct Login {
    pub nonce: String,
    pub pkce_verifier: String,
    pub next: String,
    pub user_id: Option<Uuid>,
    pub session_id: Option<Uuid>,
    pub created_at: OffsetDateTime,
}

/// Stores a login unless `at_most` from that address, begun after `since`, are under way; answers how many it stored.
pub async fn insert(
    connection: &mut PgConnection,
    login: &NewLogin<'_>,
    since: OffsetDateTime,
    at_most: i64,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into oidc_logins
             (state_hash, browser_hash, nonce, pkce_verifier, next, user_id, session_id, address, created_at)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9
         where (select count(*) from oidc_logins where address = $8 and created_at > $10) < $11",
        login.state_hash,
        login.browser_hash,
        login.nonce,
        login.pkce_verifier,
        login.next,
        login.user_id,
        login.session_id,
        login.address,
        login.created_at,
        since,
        at_most,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Takes a login out, so that it is used once, if it was begun in that browser and after `since`.
pub async fn take(
    connection: &mut PgConnection,
    state_hash: &[u8],
    browser_hash: &[u8],
    since: OffsetDateTime,
) -> sqlx::Result<Option<Login>> {
    sqlx::query_as!(
        Login,
        "delete from oidc_logins where state_hash = $1 and browser_hash = $2 and created_at > $3
         returning nonce, pkce_verifier, next, user_id, session_id, created_at",
        state_hash,
        browser_hash,
        since,
    )
    .fetch_optional(connection)
    .await
}

/// Deletes those that took too long.
pub async fn delete_before(
    connection: &mut PgConnection,
    before: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from oidc_logins where created_at <= $1", before)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
