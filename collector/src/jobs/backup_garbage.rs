//! Removes packs that nothing needs, writes sparse ones anew, and removes what is left of deleted volumes.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::audit::{self, Actor, Change};
use crate::backups::garbage::{self, Collected};
use crate::store::garbage::{self as store, CollectedRow};

/// Volumes that are listed at once.
const PAGE: i64 = 100;

/// Of one volume after another: what fails at one keeps no other from it.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let (mut after, mut failed) = (Uuid::nil(), None);
    loop {
        let mut connection = app.pool.acquire().await?;
        let page = store::list_to_collect(&mut connection, after, PAGE).await?;
        drop(connection);
        let Some(last) = page.last() else { break };
        after = last.volume_id;
        for row in page {
            if let Err(error) = collect(&app, row).await {
                failed = Some(error.context(format!("volume {}", row.volume_id)));
            }
        }
    }
    garbage::remove_volumes(&app, PAGE).await?;
    failed.map_or(Ok(()), Err)
}

async fn collect(app: &App, row: CollectedRow) -> anyhow::Result<()> {
    let done = garbage::collect(app, row).await?;
    if done == Collected::default() {
        return Ok(());
    }
    let volume = row.volume_id;
    tracing::info!(%volume, ?done, "collected the garbage of backups");
    let counts = json!({
        "condemned": done.condemned,
        "spared": done.spared,
        "removed": done.removed,
        "rewritten": done.rewritten,
        "orphans": done.orphans,
    });
    let mut transaction = app.pool.begin().await?;
    let change = Change::new("pack.collect", "volume", volume).after(counts);
    let actor = Actor::job("backup_garbage");
    audit::record(&mut transaction, &actor, change, app.clock.now()).await?;
    transaction.commit().await?;
    Ok(())
}
