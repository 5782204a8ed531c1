//! Says that this collector is alive, and notes the times in which none was.

use std::sync::Arc;

use time::Duration;

use crate::app::App;
use crate::jobs::lead;
use crate::store::collectors::{self, Downtime};

/// Silence of all collectors that counts as downtime; they speak every 2 seconds.
const SILENT: Duration = Duration::seconds(10);

/// One sign of life.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let hostname = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let mut transaction = app.pool.begin().await?;
    let now = app.clock.now();
    if lead(&mut transaction, "alive").await? {
        let last = collectors::find_last_alive(&mut transaction).await?;
        if let Some(last) = last.filter(|last| now - *last > SILENT) {
            let downtime = Downtime {
                from_at: last,
                to_at: now,
            };
            collectors::insert_downtime(&mut transaction, downtime).await?;
        }
    }
    collectors::upsert_alive(&mut transaction, app.id, &hostname, app.started_at, now).await?;
    let since = now - Duration::days(1);
    let downtimes = collectors::list_downtimes(&mut transaction, since).await?;
    transaction.commit().await?;
    app.silence.set_downtimes(downtimes);
    Ok(())
}

/// The last sign of life.
pub async fn stopped(app: &App) -> sqlx::Result<()> {
    let mut connection = app.pool.acquire().await?;
    collectors::update_stopped(&mut connection, app.id, app.clock.now())
        .await
        .map(drop)
}
