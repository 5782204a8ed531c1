//! Writes down how the fleet is, a row an hour, for the trend on the Overview; hours of long ago are forgotten.

use std::sync::Arc;

use sqlx::PgConnection;
use time::Duration;

use crate::app::App;
use crate::jobs::run::{Done, Work};
use crate::store::fleet::{self, HourRow};

/// Hours are kept for so long: some 10,000 rows.
const KEPT: Duration = Duration::days(400);

/// Counts all hosts into the row of this hour.
pub(super) fn run<'a>(app: &'a Arc<App>, connection: &'a mut PgConnection) -> Work<'a, Done> {
    Box::pin(async move {
        let now = app.clock.now();
        let counts = fleet::count(connection, app.silence.cutoffs(now), 0).await?;
        // An empty fleet has no trend.
        if counts.total > 0 {
            let hour = HourRow {
                at: now,
                healthy: counts.healthy,
                degraded: counts.degraded,
                unhealthy: counts.unhealthy,
                unknown: counts.unknown,
            };
            fleet::upsert_hour(connection, &hour).await?;
        }
        fleet::delete_hours(connection, now - KEPT).await?;
        Ok(Done::Whole)
    })
}
