//! Ends runs of backups that nobody hears of any more: their process died, or their host.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::app::App;
use crate::jobs::run::Done;
use crate::store::backup_runs;

/// Ends those whose lease ran out.
pub async fn run(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    backup_runs::update_stale(connection, None, app.clock.now()).await?;
    Ok(Done::Whole)
}
