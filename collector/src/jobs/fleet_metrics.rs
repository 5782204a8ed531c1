//! The fleet's state as metrics: every collector looks by itself, for any may be scraped.

use std::sync::Arc;

use crate::app::App;
use crate::metrics::HostStatus;
use crate::store::hosts::{self, Filter, Page};

/// Counts hosts by status; names them where they are few.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let mut connection = app.pool.acquire().await?;
    let cutoffs = app.silence.cutoffs(app.clock.now());
    let by_status = hosts::count_by_status(&mut connection, cutoffs).await?;
    let total: i64 = by_status.iter().map(|(_, count)| count).sum();
    let most = i64::from(app.config.operators.metrics_hosts);
    let mut named = Vec::new();
    if total <= most {
        let page = Page {
            filter: Filter::default(),
            host: None,
            after: None,
            limit: most,
        };
        let rows = hosts::list(&mut connection, &page, cutoffs).await?;
        named.extend(rows.into_iter().map(|row| HostStatus {
            host_id: row.host_id.to_string(),
            name: row.name,
            is_healthy: row.status == "healthy",
        }));
    }
    app.metrics.fleet(by_status, named);
    Ok(())
}
