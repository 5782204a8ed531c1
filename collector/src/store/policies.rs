//! What the fleet's operators want of agents; the newest version is in force.

use sqlx::PgConnection;

/// The policy in force: version and body; `None` before the first.
pub async fn find_newest(
    connection: &mut PgConnection,
) -> sqlx::Result<Option<(i64, serde_json::Value)>> {
    let row = sqlx::query!("select version, body from policies order by version desc limit 1")
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| (row.version, row.body)))
}
