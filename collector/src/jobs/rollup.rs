//! Sums heartbeats by 5 minutes and by hour, and sums again what changed after that.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use crate::app::App;
use crate::jobs::run::Done;
use crate::store::rollups;

const BUCKET: Duration = Duration::minutes(5);
const HOUR: Duration = Duration::hours(1);
/// A bucket is summed this long after its end. Writers mark rows as late from 2 minutes after it, so a
/// transaction would have to take 2 minutes to be missed.
const SEALED_AFTER: Duration = Duration::minutes(4);

/// Sums what was sealed since the last run, and what became dirty.
pub async fn run(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    let now = app.clock.now();
    let sealed = floor(now - SEALED_AFTER, BUCKET);
    let oldest = floor(
        now - Duration::try_from(app.config.retention.heartbeats)?,
        BUCKET,
    );
    let newest = rollups::find_newest_5m(connection).await?;
    let from = newest.map_or(oldest, |newest| (newest + BUCKET).max(oldest));
    let mut hours = BTreeSet::new();
    if from < sealed {
        rollups::sum_5m(connection, from, sealed).await?;
        let mut hour = floor(from, HOUR);
        while hour < sealed {
            hours.insert(hour);
            hour += HOUR;
        }
    }
    for bucket in rollups::take_dirty(connection).await? {
        // The raw rows of older buckets may be gone: a sum of what is left would forget them.
        if bucket >= oldest && bucket < sealed {
            rollups::sum_5m(connection, bucket, bucket + BUCKET).await?;
            hours.insert(floor(bucket, HOUR));
        }
    }
    for hour in hours {
        rollups::sum_1h(connection, hour, hour + HOUR).await?;
    }
    Ok(Done::Whole)
}

/// The last multiple of `step` since the epoch that is not after `at`.
pub(crate) fn floor(at: OffsetDateTime, step: Duration) -> OffsetDateTime {
    let seconds = at.unix_timestamp().rem_euclid(step.whole_seconds());
    at.replace_nanosecond(0).unwrap_or(at) - Duration::seconds(seconds)
}
