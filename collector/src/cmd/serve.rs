//! `infratrack-collector serve`.

use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::server::{self, Server};
use sd_notify::NotifyState;

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let (options, mut postgres) = super::database(&config).await?;
    let served = serve(config, options, postgres.as_mut()).await;
    if let Some(postgres) = postgres {
        postgres.stop().await;
    }
    served
}

async fn serve(
    config: Config,
    options: sqlx::postgres::PgConnectOptions,
    postgres: Option<&mut infratrack_collector::postgres::PrivatePostgres>,
) -> anyhow::Result<()> {
    server::migrate(options.clone()).await?;
    let pool = server::connect(options, &config).await?;
    let server = Server::start(config, Clock::system(), pool).await?;
    let addresses = server.addresses;
    tracing::info!(
        agents = %addresses.agents, enroll = %addresses.enroll, operators = %addresses.operators,
        "collector started"
    );
    tell(NotifyState::Ready);
    let watched = tokio::spawn(tell_the_watchdog());
    let asked = super::asked_to_stop(postgres).await;
    watched.abort();
    tell(NotifyState::Stopping);
    tracing::info!("stopping");
    server.stop().await;
    asked
}

/// Says twice in the watchdog's time that tasks run. A database that is away is no reason to be restarted.
async fn tell_the_watchdog() {
    let Some(every) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        tell(NotifyState::Watchdog);
        tokio::time::sleep(every / 2).await;
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not told");
    }
}
