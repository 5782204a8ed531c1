//! Finds commands whose notification was missed.

use std::sync::Arc;

use infratrack_shared::ids::HostId;

use crate::app::App;
use crate::store::commands;

/// Refreshes the set of hosts with commands, and sends to those whose answer is held here.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let mut connection = app.pool.acquire().await?;
    let hosts = commands::list_hosts_with_open(&mut connection, app.clock.now()).await?;
    drop(connection);
    for host in app
        .answers
        .set_waiting(hosts.into_iter().map(HostId).collect())
    {
        app.answers.deliver(&app.pool, &app.clock, host).await?;
    }
    Ok(())
}
