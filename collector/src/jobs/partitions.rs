//! Makes partitions ahead, drops those past retention.

use std::sync::Arc;

use sqlx::PgConnection;
use time::Duration;

use crate::app::App;
use crate::ca_log;
use crate::jobs::run::Done;
use crate::store::{agent_certs, host_states, partitions, rollups};

/// Days of heartbeats made ahead, so that a week without a collector leaves no hole at its start.
const DAYS_AHEAD: i64 = 7;

/// Brings the partitions to where `now` needs them.
pub async fn run(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    let now = app.clock.now();
    let retention = &app.config.retention;
    let kept = Duration::try_from(retention.heartbeats)?;
    let oldest = (now - kept).date();
    let mut day = oldest;
    while day <= now.date() + Duration::days(DAYS_AHEAD) {
        partitions::create_heartbeats(connection, day).await?;
        day += Duration::DAY;
    }
    // Effective times reach from 30 days back to 5 minutes ahead.
    for days in [-31, 0, 31] {
        let month = now.date() + Duration::days(days);
        partitions::create_events(connection, month.year(), month.month()).await?;
    }
    // A day more than `oldest`: writers that read the clock a moment ago still find their partition.
    let oldest_kept = partitions::heartbeats_name(oldest - Duration::DAY);
    for name in partitions::list_heartbeats(connection).await? {
        if name < oldest_kept {
            partitions::drop_heartbeats(connection, &name).await?;
            tracing::info!(partition = name, "dropped heartbeats past retention");
        }
    }
    let kept = Duration::try_from(retention.heartbeats_5m)?;
    rollups::delete_5m(connection, now - kept).await?;
    agent_certs::delete_expired(connection, now - ca_log::KEPT).await?;
    host_states::delete_old_parts(connection, now - Duration::DAY).await?;
    Ok(Done::Whole)
}
