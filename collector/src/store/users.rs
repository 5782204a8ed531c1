//! People who log in by name.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A user, with what their password is checked against.
#[derive(Clone, Debug)]
pub struct User {
    pub user_id: Uuid,
    pub name: String,
    pub role: String,
    pub password_hash: String,
    pub created_at: OffsetDateTime,
    pub disabled_at: Option<OffsetDateTime>,
}

/// Stores a user; answers 0 where the name is taken.
pub async fn insert(
    connection: &mut PgConnection,
    user: &User,
    created_by: &str,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into users (user_id, name, role, password_hash, created_at, created_by)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (name) do nothing",
        user.user_id,
        user.name,
        user.role,
        user.password_hash,
        user.created_at,
        created_by,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The user of that name.
pub async fn find(connection: &mut PgConnection, name: &str) -> sqlx::Result<Option<User>> {
    sqlx::query_as!(
        User,
        "select user_id, name, role, password_hash, created_at, disabled_at from users where name = $1",
        name,
    )
    .fetch_optional(connection)
    .await
}

/// All users, by name.
pub async fn list(connection: &mut PgConnection) -> sqlx::Result<Vec<User>> {
    sqlx::query_as!(
        User,
        "select user_id, name, role, password_hash, created_at, disabled_at from users order by name",
    )
    .fetch_all(connection)
    .await
}

/// Changes the password; answers 0 where there is no such user.
pub async fn update_password(
    connection: &mut PgConnection,
    name: &str,
    password_hash: &str,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update users set password_hash = $2 where name = $1",
        name,
        password_hash,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Changes the role, likewise.
pub async fn update_role(
    connection: &mut PgConnection,
    name: &str,
    role: &str,
) -> sqlx::Result<u64> {
    let done = sqlx::query!("update users set role = $2 where name = $1", name, role)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Lets the user log in no more, or again; likewise.
pub async fn update_disabled(
    connection: &mut PgConnection,
    name: &str,
    disabled_at: Option<OffsetDateTime>,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update users set disabled_at = $2 where name = $1",
        name,
        disabled_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
