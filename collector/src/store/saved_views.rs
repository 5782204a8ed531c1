//! Lists of hosts that somebody keeps under a name, for themselves or for all.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A view.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ViewRow {
    pub view_id: Uuid,
    pub name: String,
    /// What stands after the page's `?`.
    pub query: String,
    /// Kind and id of who keeps it.
    pub owner: String,
    pub owner_name: String,
    pub is_shared: bool,
    pub is_default: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// The views of `owner` and those that are for all, by name; at most 500.
pub async fn list(connection: &mut PgConnection, owner: &str) -> sqlx::Result<Vec<ViewRow>> {
    sqlx::query_as!(
        ViewRow,
        "select view_id, name, query, owner, owner_name, is_shared, is_default, created_at, updated_at
         from saved_views where owner = $1 or is_shared order by name, view_id limit 500",
        owner,
    )
    .fetch_all(connection)
    .await
}

/// A view, locked.
pub async fn find_for_update(
    connection: &mut PgConnection,
    view_id: Uuid,
) -> sqlx::Result<Option<ViewRow>> {
    sqlx::query_as!(
        ViewRow,
        "select view_id, name, query, owner, owner_name, is_shared, is_default, created_at, updated_at
         from saved_views where view_id = $1 for update",
        view_id,
    )
    .fetch_optional(connection)
    .await
}

/// What `owner` sees who asks for nothing.
pub async fn find_default(
    connection: &mut PgConnection,
    owner: &str,
) -> sqlx::Result<Option<ViewRow>> {
    sqlx::query_as!(
        ViewRow,
        "select view_id, name, query, owner, owner_name, is_shared, is_default, created_at, updated_at
         from saved_views where owner = $1 and is_default",
        owner,
    )
    .fetch_optional(connection)
    .await
}

/// How many `owner` keeps beside the one of this name.
pub async fn count_others(
    connection: &mut PgConnection,
    owner: &str,
    name: &str,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from saved_views where owner = $1 and name <> $2"#,
        owner,
        name,
    )
    .fetch_one(connection)
    .await
}

/// Has none of the views of `owner` be their default, but for the one of this name.
pub async fn clear_default(
    connection: &mut PgConnection,
    owner: &str,
    but_for: &str,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update saved_views set is_default = false where owner = $1 and name <> $2 and is_default",
        owner,
        but_for,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Stores a view in place of the one that its owner has of this name; answers its id.
pub async fn upsert(connection: &mut PgConnection, view: &ViewRow) -> sqlx::Result<Uuid> {
    sqlx::query_scalar!(
        "insert into saved_views
             (view_id, name, query, owner, owner_name, is_shared, is_default, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (owner, name) do update
         set query = excluded.query, owner_name = excluded.owner_name, is_shared = excluded.is_shared,
             is_default = excluded.is_default, updated_at = excluded.updated_at
         returning view_id",
        view.view_id,
        view.name,
        view.query,
        view.owner,
        view.owner_name,
        view.is_shared,
        view.is_default,
        view.created_at,
        view.updated_at,
    )
    .fetch_one(connection)
    .await
}

/// Deletes a view.
pub async fn delete(connection: &mut PgConnection, view_id: Uuid) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from saved_views where view_id = $1", view_id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Deletes what users kept for themselves who are no more.
pub async fn delete_orphans(connection: &mut PgConnection) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from saved_views v
         where not is_shared and owner like 'user:%'
           and not exists (select from users u where 'user:' || u.user_id::text = v.owner)"
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
