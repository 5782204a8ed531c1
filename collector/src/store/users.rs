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
    /// `None`: they log in by a provider.
    pub password_hash: Option<String>,
    pub created_at: OffsetDateTime,
    pub disabled_at: Option<OffsetDateTime>,
    /// Somebody else gave them their password: the first thing they do is to choose another.
    pub must_change_password: bool,
}

/// Stores a user; answers 0 where the name is taken.
pub async fn insert(
    connection: &mut PgConnection,
    user: &User,
    created_by: &str,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into users (user_id, name, role, password_hash, created_at, created_by, must_change_password)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (name) do nothing",
        user.user_id,
        user.name,
        user.role,
        user.password_hash,
        user.created_at,
        created_by,
        user.must_change_password,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The user of that name.
pub async fn find(connection: &mut PgConnection, name: &str) -> sqlx::Result<Option<User>> {
    sqlx::query_as!(
        User,
        "select user_id, name, role, password_hash, created_at, disabled_at, must_change_password
         from users where name = $1",
        name,
    )
    .fetch_optional(connection)
    .await
}

/// All users, by name.
pub async fn list(connection: &mut PgConnection) -> sqlx::Result<Vec<User>> {
    sqlx::query_as!(
        User,
        "select user_id, name, role, password_hash, created_at, disabled_at, must_change_password
         from users order by name",
    )
    .fetch_all(connection)
    .await
}

/// Changes the password; answers 0 where there is no such user, or they have none.
pub async fn update_password(
    connection: &mut PgConnection,
    name: &str,
    password_hash: &str,
    must_change: bool,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update users set password_hash = $2, must_change_password = $3
         where name = $1 and password_hash is not null",
        name,
        password_hash,
        must_change,
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

/// Changes the role by id, likewise.
pub async fn update_role_of(
    connection: &mut PgConnection,
    user_id: Uuid,
    role: &str,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update users set role = $2 where user_id = $1",
        user_id,
        role
    )
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

/// Lets nobody else change users until the transaction ends.
pub async fn lock(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("lock table users in share row exclusive mode")
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes a user, their sessions with them; answers 0 where there is no such user.
pub async fn delete(connection: &mut PgConnection, name: &str) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from users where name = $1", name)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// How many may log in and do everything.
pub async fn count_admins(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from users where role = 'admin' and disabled_at is null"#
    )
    .fetch_one(connection)
    .await
}

/// How many there are.
pub async fn count(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from users"#)
        .fetch_one(connection)
        .await
}
