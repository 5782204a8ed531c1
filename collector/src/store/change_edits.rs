//! Changes as people write them down, and what they add to those that runs make.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::changes::ChangeRow;

/// The change, for this transaction alone.
pub async fn find_for_update(
    connection: &mut PgConnection,
    change_id: Uuid,
) -> sqlx::Result<Option<ChangeRow>> {
    sqlx::query_as!(
        ChangeRow,
        "select change_id, origin, title, note, started_at, ended_at, outcome, tools, repository, commit_id, branch,
             pull_request, actor, environment, workspace, run_url, add_count, change_count, destroy_count, host_count,
             version
         from changes where change_id = $1 for update",
        change_id
    )
    .fetch_optional(connection)
    .await
}

/// Stores a change that somebody wrote down.
pub async fn insert(
    connection: &mut PgConnection,
    change: &ChangeRow,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into changes (change_id, origin, title, note, started_at, ended_at, outcome, tools, repository, commit_id,
             branch, pull_request, actor, environment, run_url, created_at, updated_at)
         values ($1, 'manual', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15)",
        change.change_id,
        change.title,
        change.note,
        change.started_at,
        change.ended_at,
        change.outcome,
        &change.tools,
        change.repository,
        change.commit_id,
        change.branch,
        change.pull_request,
        change.actor,
        change.environment,
        change.run_url,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Changes what people may say of a change.
pub async fn update(
    connection: &mut PgConnection,
    change: &ChangeRow,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update changes
         set title = $2, note = $3, started_at = $4, ended_at = $5, outcome = $6, repository = $7, commit_id = $8,
             branch = $9, pull_request = $10, actor = $11, environment = $12, run_url = $13, updated_at = $14,
             version = version + 1
         where change_id = $1",
        change.change_id,
        change.title,
        change.note,
        change.started_at,
        change.ended_at,
        change.outcome,
        change.repository,
        change.commit_id,
        change.branch,
        change.pull_request,
        change.actor,
        change.environment,
        change.run_url,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
