//! Marks plays that nobody hears of any more as interrupted, until somebody does.

use std::sync::Arc;

use sqlx::PgConnection;
use time::Duration;

use crate::app::App;
use crate::jobs::run::Done;
use crate::store::{change_runs, changes};

/// A play of which nothing comes for so long was interrupted. A task may take hours, and says nothing meanwhile.
const SILENCE: Duration = Duration::hours(6);

/// Marks them. In one transaction: a run and its change say the same at any time.
pub async fn run(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    let now = app.clock.now();
    for change_id in change_runs::update_interrupted(connection, now - SILENCE).await? {
        changes::refresh(connection, change_id, now).await?;
    }
    Ok(Done::Whole)
}
