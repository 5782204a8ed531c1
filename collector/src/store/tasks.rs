//! What operators did on hosts, in their own words.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A task.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Task)]
pub struct TaskRow {
    #[serde(rename = "id")]
    pub task_id: Uuid,
    pub host_id: Uuid,
    /// `patch | reboot | installation | other`.
    pub kind: String,
    /// `planned | in_progress | done | failed`.
    pub status: String,
    pub title: String,
    pub notes: String,
    /// When it was, or is to be.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    pub created_by: String,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    pub updated_by: String,
}

/// Which tasks; what is not said is any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub host_id: Option<Uuid>,
    pub kind: Option<String>,
    pub status: Option<String>,
    pub from: Option<OffsetDateTime>,
    pub to: Option<OffsetDateTime>,
}

/// Stores a task; answers 0 where there is no such host.
pub async fn insert(connection: &mut PgConnection, task: &TaskRow) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into tasks (task_id, host_id, kind, status, title, notes, at, created_at, created_by, updated_at,
             updated_by)
         select $1, h.host_id, $3, $4, $5, $6, $7, $8, $9, $10, $11 from hosts h where h.host_id = $2",
        task.task_id,
        task.host_id,
        task.kind,
        task.status,
        task.title,
        task.notes,
        task.at,
        task.created_at,
        task.created_by,
        task.updated_at,
        task.updated_by,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The task, for this transaction alone.
pub async fn find_for_update(
    connection: &mut PgConnection,
    task_id: Uuid,
) -> sqlx::Result<Option<TaskRow>> {
    sqlx::query_as!(
        TaskRow,
        "select task_id, host_id, kind, status, title, notes, at, created_at, created_by, updated_at, updated_by
         from tasks where task_id = $1 for update",
        task_id,
    )
    .fetch_optional(connection)
    .await
}

/// The task.
pub async fn find(connection: &mut PgConnection, task_id: Uuid) -> sqlx::Result<Option<TaskRow>> {
    sqlx::query_as!(
        TaskRow,
        "select task_id, host_id, kind, status, title, notes, at, created_at, created_by, updated_at, updated_by
         from tasks where task_id = $1",
        task_id,
    )
    .fetch_optional(connection)
    .await
}

/// Tasks, the latest first, from before the time and id.
pub async fn list(
    connection: &mut PgConnection,
    filter: &Filter,
    before: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<TaskRow>> {
    let (before_at, before_id) = before.unzip();
    sqlx::query_as!(
        TaskRow,
        "select task_id, host_id, kind, status, title, notes, at, created_at, created_by, updated_at, updated_by
         from tasks
         where ($1::uuid is null or host_id = $1) and ($2::text is null or kind = $2)
           and ($3::text is null or status = $3) and ($4::timestamptz is null or at >= $4)
           and ($5::timestamptz is null or at < $5)
           and ($6::timestamptz is null or (at, task_id) < ($6, $7))
         order by at desc, task_id desc limit $8",
        filter.host_id,
        filter.kind,
        filter.status,
        filter.from,
        filter.to,
        before_at,
        before_id,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many match.
pub async fn count(connection: &mut PgConnection, filter: &Filter) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from tasks
           where ($1::uuid is null or host_id = $1) and ($2::text is null or kind = $2)
             and ($3::text is null or status = $3) and ($4::timestamptz is null or at >= $4)
             and ($5::timestamptz is null or at < $5)"#,
        filter.host_id,
        filter.kind,
        filter.status,
        filter.from,
        filter.to,
    )
    .fetch_one(connection)
    .await
}

/// Changes what an operator may.
pub async fn update(connection: &mut PgConnection, task: &TaskRow) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update tasks set kind = $2, status = $3, title = $4, notes = $5, at = $6, updated_at = $7, updated_by = $8
         where task_id = $1",
        task.task_id,
        task.kind,
        task.status,
        task.title,
        task.notes,
        task.at,
        task.updated_at,
        task.updated_by,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes a task.
pub async fn delete(connection: &mut PgConnection, task_id: Uuid) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from tasks where task_id = $1", task_id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
