//! Brings revocations and commands to this collector: at once by notification, else every 2 seconds.

use std::sync::Arc;
use std::time::Duration;

use infratrack_shared::ids::HostId;
use sqlx::postgres::PgListener;

use crate::app::App;
use crate::store::{agent_certs, commands};

/// A connection without a notification for so long is replaced.
const QUIET: Duration = Duration::from_secs(60);
/// Commands are read within this, or by whoever looks next.
const DELIVER: Duration = Duration::from_secs(5);

/// Looks for revocations.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    Ok(app.certificates.refresh().await?)
}

/// Listens for notifications, and connects again where that breaks.
pub async fn listen(app: Arc<App>) {
    loop {
        if let Err(error) = listen_once(&app).await {
            tracing::warn!(%error, "not listening for notifications");
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(500..2000))).await;
    }
}

/// Until the connection breaks or was quiet for long: one on which nothing passes any more is quiet too.
async fn listen_once(app: &Arc<App>) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(&app.pool).await?;
    listener
        .listen_all([agent_certs::CHANNEL, commands::CHANNEL])
        .await?;
    loop {
        let Ok(notification) = tokio::time::timeout(QUIET, listener.recv()).await else {
            return Ok(());
        };
        let notification = notification?;
        if notification.channel() == agent_certs::CHANNEL {
            app.certificates.refresh().await?;
        } else if let Ok(host) = notification.payload().parse::<HostId>() {
            app.answers.add_waiting(host);
            let deliver = app.answers.deliver(&app.pool, &app.clock, host);
            // What is late goes with the host's next answer.
            let delivered = tokio::time::timeout(DELIVER, deliver).await;
            delivered.unwrap_or(Ok(()))?;
        }
    }
}
