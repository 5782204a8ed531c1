//! Who users are to the provider that they log in by.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A user who logs in by a provider.
#[derive(Clone, Debug)]
pub struct Known {
    pub user_id: Uuid,
    pub name: String,
    pub role: String,
    pub disabled_at: Option<OffsetDateTime>,
}

/// The user whom the provider calls `subject`.
pub async fn find(
    connection: &mut PgConnection,
    issuer: &str,
    subject: &str,
) -> sqlx::Result<Option<Known>> {
    sqlx::query_as!(
        Known,
        "select u.user_id, u.name, u.role, u.disabled_at from user_identities i join users u using (user_id)
         where i.issuer = $1 and i.subject = $2
         for no key update of u",
        issuer,
        subject,
    )
    .fetch_optional(connection)
    .await
}

/// Says who a new user is to the provider; answers 0 where another login said it at the same time.
pub async fn insert(
    connection: &mut PgConnection,
    issuer: &str,
    subject: &str,
    user_id: Uuid,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into user_identities (issuer, subject, user_id, created_at, logged_in_at)
         values ($1, $2, $3, $4, $4) on conflict (issuer, subject) do nothing",
        issuer,
        subject,
        user_id,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// They logged in.
pub async fn touch(
    connection: &mut PgConnection,
    user_id: Uuid,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update user_identities set logged_in_at = $2 where user_id = $1",
        user_id,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Whether a user logs in by a provider.
pub async fn exists(connection: &mut PgConnection, user_id: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from user_identities where user_id = $1) as "exists!""#,
        user_id,
    )
    .fetch_one(connection)
    .await
}
