//! Brings revocations and commands to this collector: at once by notification, else every 2 seconds.

use std::sync::Arc;
use std::time::Duration;

use infratrack_shared::ids::HostId;
use sqlx::postgres::PgListener;

use crate::app::App;
use crate::store::{agent_certs, commands};

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

async fn listen_once(app: &Arc<App>) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(&app.pool).await?;
    listener
        .listen_all([agent_certs::CHANNEL, commands::CHANNEL])
        .await?;
    loop {
        let notification = listener.recv().await?;
        if notification.channel() == agent_certs::CHANNEL {
            app.certificates.refresh().await?;
        } else if let Ok(host) = notification.payload().parse::<HostId>() {
            app.answers.add_waiting(host);
            app.answers.deliver(&app.pool, &app.clock, host).await?;
        }
    }
}
