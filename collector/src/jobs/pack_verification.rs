//! Reads packs again, each within 90 days, as far as its share of a day's bytes goes.

use std::sync::Arc;

use crate::app::App;
use crate::backups::verification;
use crate::store::verification as store;

/// Within so many days all is read.
const DAYS: i64 = 90;
/// Runs a day: so that a day's bytes are not read at once.
const RUNS: i64 = 24;

pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let mut connection = app.pool.acquire().await?;
    let sums = store::find_sums(&mut connection).await?;
    drop(connection);
    let per_day = app.config.backups.verify_bytes_per_day;
    let per_day = i64::try_from(per_day).unwrap_or(i64::MAX);
    if sums.bytes / DAYS > per_day {
        let needed = sums.bytes / DAYS;
        tracing::warn!(
            per_day,
            needed,
            "backups.verify_bytes_per_day is too small to read every pack within {DAYS} days"
        );
    }
    let left = per_day.saturating_sub(sums.read_bytes);
    let done = verification::verify(&app, left.min(per_day / RUNS)).await;
    let mut connection = app.pool.acquire().await?;
    let sums = store::find_sums(&mut connection).await?;
    app.metrics.backup_packs(sums.overdue, sums.lost_chunks);
    done
}
