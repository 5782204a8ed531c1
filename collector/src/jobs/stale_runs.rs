//! Ends runs of backups and drills that nobody hears of any more: their process died, or their host.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::app::App;
use crate::jobs::run::Done;
use crate::store::{backup_runs, drills};

/// Ends those whose lease ran out.
pub async fn run(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    let now = app.clock.now();
    backup_runs::update_stale(connection, None, now).await?;
    let stale = drills::update_stale(connection, None, now).await?;
    for _ in 0..stale {
        app.metrics.backup_drill("failed");
    }
    Ok(Done::Whole)
}
