//! By when security updates are due, where tags or the policy changed since they were reported; and how many there are,
//! day by day.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::app::App;
use crate::jobs::run::Done;
use crate::patches;
use crate::store::{exposure, host_patches};

/// Brings every due date to where the policy has it, and counts what is exposed today.
pub async fn run(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    let rules = patches::rules(&app.config.patches);
    if host_patches::update_due(connection, None, &rules).await? > 0 {
        host_patches::update_all_due(connection).await?;
        host_patches::update_liveness(connection, None).await?;
    }
    exposure::upsert_day(connection, app.clock.now()).await?;
    Ok(Done::Whole)
}
