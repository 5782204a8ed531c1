//! Makes partitions ahead, drops those past retention.

use std::sync::Arc;

use time::Duration;

use crate::app::App;
use crate::ca_log;
use crate::jobs::lead;
use crate::store::{agent_certs, partitions, rollups};

/// Days of heartbeats made ahead, so that a week without a collector leaves no hole at its start.
const DAYS_AHEAD: i64 = 7;

/// Brings the partitions to where `now` needs them.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let now = app.clock.now();
    let retention = &app.config.retention;
    let kept = Duration::try_from(retention.heartbeats)?;
    let mut transaction = app.pool.begin().await?;
    if !lead(&mut transaction, "partitions").await? {
        return Ok(());
    }
    let oldest = (now - kept).date();
    let mut day = oldest;
    while day <= now.date() + Duration::days(DAYS_AHEAD) {
        partitions::create_heartbeats(&mut transaction, day).await?;
        day += Duration::DAY;
    }
    // Effective times reach from 30 days back to 5 minutes ahead.
    for days in [-31, 0, 31] {
        let month = now.date() + Duration::days(days);
        partitions::create_events(&mut transaction, month.year(), month.month()).await?;
    }
    // A day more than `oldest`: writers that read the clock a moment ago still find their partition.
    let oldest_kept = partitions::heartbeats_name(oldest - Duration::DAY);
    for name in partitions::list_heartbeats(&mut transaction).await? {
        if name < oldest_kept {
            partitions::drop_heartbeats(&mut transaction, &name).await?;
            tracing::info!(partition = name, "dropped heartbeats past retention");
        }
    }
    let kept = Duration::try_from(retention.heartbeats_5m)?;
    rollups::delete_5m(&mut transaction, now - kept).await?;
    agent_certs::delete_expired(&mut transaction, now - ca_log::KEPT).await?;
    transaction.commit().await?;
    Ok(())
}
