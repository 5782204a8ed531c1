//! Deletes snapshots that no rule keeps, and removes those that were deleted long enough ago.

use std::sync::Arc;

use uuid::Uuid;

use crate::app::App;
use crate::backups::expiry;
use crate::store::garbage;

/// Volumes that are listed at once.
const PAGE: i64 = 500;
/// Snapshots that are removed between two looks at the list.
const REMOVED: i64 = 500;

/// Of one volume after another: what fails at one keeps no other from it.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let (mut after, mut failed) = (Uuid::nil(), None);
    loop {
        let mut connection = app.pool.acquire().await?;
        let page = garbage::list_with_snapshots(&mut connection, after, PAGE).await?;
        drop(connection);
        let Some(last) = page.last() else { break };
        after = *last;
        for volume in page {
            if let Err(error) = expire(&app, volume).await {
                failed = Some(error.context(format!("volume {volume}")));
            }
        }
    }
    while expiry::remove(&app, REMOVED).await? > 0 {}
    failed.map_or(Ok(()), Err)
}

async fn expire(app: &App, volume: Uuid) -> anyhow::Result<()> {
    while expiry::expire(app, volume).await?.1 {}
    Ok(())
}
