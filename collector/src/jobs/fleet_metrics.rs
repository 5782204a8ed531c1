//! The state of the fleet and of the audit log as metrics: every collector looks by itself, for any may be scraped.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::app::App;
use crate::metrics::HostStatus;
use crate::store::audit_chain;
use crate::store::change_links;
use crate::store::drills;
use crate::store::hosts;
use crate::store::hosts::list::{self, Page};
use crate::store::{volume_figures, volume_search};

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
            limit: most,
            ..Page::default()
        };
        let rows = list::list(&mut connection, &page, cutoffs).await?;
        named.extend(rows.into_iter().map(|row| HostStatus {
            host_id: row.host_id.to_string(),
            name: row.name,
            is_healthy: row.status == "healthy",
        }));
    }
    app.metrics.fleet(by_status, named);
    let links = change_links::count_waiting(&mut connection).await?;
    app.metrics.change_links(links);
    let overdue = drills::count_overdue(&mut connection, app.clock.now()).await?;
    app.metrics.backup_drills_overdue(overdue);
    let unsealed = audit_chain::count_pending(&mut connection).await?;
    let signed = audit_chain::find_last_checkpoint(&mut connection).await?;
    let age = signed.map(|(_, at)| app.clock.now() - at);
    app.metrics.audit(unsealed, age);
    volumes(&app, &mut connection).await
}

/// Counts volumes by how they stand; tells of each where they are few, else of all together.
async fn volumes(app: &App, connection: &mut PgConnection) -> anyhow::Result<()> {
    let now = app.clock.now();
    let by_status = volume_search::count_by_status(connection, now).await?;
    let total: i64 = by_status.iter().map(|(_, count)| count).sum();
    let figures = if total <= i64::from(app.config.operators.metrics_hosts) {
        volume_figures::list(connection, now).await?
    } else {
        vec![volume_figures::sum(connection, now).await?]
    };
    app.metrics.volumes.set(by_status, figures);
    Ok(())
}
