//! `infratrack-collector serve`.

use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::login::setup;
use infratrack_collector::postgres::PrivatePostgres;
use infratrack_collector::server::{self, Server};
use infratrack_collector::starting::Starting;
use sd_notify::NotifyState;
use sqlx::postgres::PgConnectOptions;

/// One try for the database takes less.
const STARTING_US: u32 = 90_000_000;

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    if let Some(options) = super::configured_database(&config).await? {
        return wait_and_serve(config, options).await;
    }
    let (options, mut postgres) = super::database(&config).await?;
    server::migrate(options.clone()).await?;
    let pool = server::connect(options, &config).await?;
    let server = Server::start(config, Clock::system(), pool).await?;
    let served = serve(server, postgres.as_mut()).await;
    if let Some(postgres) = postgres {
        postgres.stop().await;
    }
    served
}

/// Over a database of the operators' own, which may come later than the collector.
async fn wait_and_serve(config: Config, options: PgConnectOptions) -> anyhow::Result<()> {
    let starting = Starting::begin(&config).await?;
    let connect = async || {
        tell(NotifyState::ExtendTimeoutUsec(STARTING_US));
        tell(NotifyState::Status(starting.reason()));
        server::migrate(options.clone()).await?;
        server::connect(options.clone(), &config).await
    };
    let pool = tokio::select! {
        pool = starting.until(connect) => pool?,
        asked = super::asked_to_stop(None) => return asked,
    };
    let operators = starting.end().await?;
    let server = Server::start_on(config, Clock::system(), pool, operators).await?;
    serve(server, None).await
}

async fn serve(server: Server, postgres: Option<&mut PrivatePostgres>) -> anyhow::Result<()> {
    let addresses = server.addresses;
    tracing::info!(
        agents = %addresses.agents, enroll = %addresses.enroll, operators = %addresses.operators,
        "collector started"
    );
    say_how_to_begin(&server).await;
    tell(NotifyState::Status("running"));
    tell(NotifyState::Ready);
    let watched = tokio::spawn(tell_the_watchdog());
    let asked = super::asked_to_stop(postgres).await;
    watched.abort();
    tell(NotifyState::Stopping);
    tracing::info!("stopping");
    server.stop().await;
    asked
}

/// Where nobody could log in yet: the link that makes the first user. It stands in the journal, works once, and for an
/// hour at most.
async fn say_how_to_begin(server: &Server) {
    let app = &server.app;
    match setup::link(app).await {
        Ok(Some(path)) => {
            let url = app.config.operators.base_url();
            super::print(&format!(
                "There is no user yet. Make the first one: {url}{path}"
            ));
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "no link for the first user could be made"),
    }
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
