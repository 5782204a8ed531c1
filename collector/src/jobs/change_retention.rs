//! Deletes changes past their retention with what can be downloaded of them, those that somebody wrote down too.

use std::sync::Arc;

use serde_json::json;
use time::Duration;

use crate::app::App;
use crate::audit::{self, Actor, Change};
use crate::blob::Key;
use crate::store::{change_runs, changes};

/// Changes that are deleted in one run.
const MOST: i64 = 500;

/// Deletes the oldest of them.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let now = app.clock.now();
    let before = now - Duration::try_from(app.config.changes.kept)?;
    let mut connection = app.pool.acquire().await?;
    let ended = changes::list_ended_before(&mut connection, before, MOST).await?;
    let mut artifacts = 0;
    for change in &ended {
        // Before the rows, which are all that knows of them: what is interrupted goes on with the next run.
        for key in change_runs::list_artifacts(&mut connection, change.change_id).await? {
            app.blob.delete(&Key::new(key)?).await?;
            artifacts += 1;
        }
    }
    drop(connection);
    let mut transaction = app.pool.begin().await?;
    let (mut deleted, mut by_hand) = (0, 0);
    for change in &ended {
        if changes::delete(&mut transaction, change.change_id).await? > 0 {
            deleted += 1;
            by_hand += i64::from(change.is_manual);
        }
    }
    if deleted == 0 {
        return Ok(());
    }
    let counts = json!({"changes": deleted, "by_hand": by_hand, "artifacts": artifacts});
    let change = Change::new("change.expire", "changes", "retention").before(counts);
    audit::record(
        &mut transaction,
        &Actor::job("change_retention"),
        change,
        now,
    )
    .await?;
    transaction.commit().await?;
    tracing::info!(
        deleted,
        by_hand,
        artifacts,
        "deleted changes past retention"
    );
    Ok(())
}
