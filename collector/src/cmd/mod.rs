//! The subcommands, one file each.

pub(crate) mod audit;
pub(crate) mod ca;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod host;
pub(crate) mod migrate;
pub(crate) mod owner;
pub(crate) mod sample;
pub(crate) mod serve;
pub(crate) mod token;
pub(crate) mod user;

use std::io::{self, Write};

use anyhow::Context;
use infratrack_collector::config::Config;
use infratrack_collector::postgres::{PrivatePostgres, private_connect_options};
use infratrack_collector::server;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::signal::unix::{SignalKind, signal};

/// Says what went wrong, with its causes, once.
#[expect(clippy::print_stderr, reason = "the command line's last words")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("infratrack-collector: {error:#}");
}

/// Prints a result.
pub(crate) fn print(text: &str) {
    match writeln!(io::stdout(), "{text}") {
        // Who reads may have had enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.expect("standard output takes what is written"),
    }
}

/// The configured database.
pub(crate) async fn configured_database(
    config: &Config,
) -> anyhow::Result<Option<PgConnectOptions>> {
    let Some(url) = config.database_url().await? else {
        return Ok(None);
    };
    // The error of a bad URL may quote it, with the password.
    let options = url
        .expose()
        .parse()
        .map_err(|_| anyhow::anyhow!("the database's URL is not valid"))?;
    Ok(Some(options))
}

/// The database of this configuration: the configured one, or the private one, started.
pub(crate) async fn database(
    config: &Config,
) -> anyhow::Result<(PgConnectOptions, Option<PrivatePostgres>)> {
    if let Some(options) = configured_database(config).await? {
        return Ok((options, None));
    }
    let postgres = PrivatePostgres::start(&config.data_dir, &[])
        .await
        .context("cannot start the private Postgres")?;
    Ok((postgres.connect_options(), Some(postgres)))
}

/// The database of this configuration, where a collector runs.
pub(crate) async fn connect(config: &Config) -> anyhow::Result<PgPool> {
    let options = match configured_database(config).await? {
        Some(options) => options,
        None => private_connect_options(&config.data_dir).await?,
    };
    server::connect(options, config)
        .await
        .context("is the collector running? a private database runs only with it")
}

/// Waits for SIGTERM or SIGINT, or for the private Postgres to be beyond help.
pub(crate) async fn asked_to_stop(postgres: Option<&mut PrivatePostgres>) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let lost = async {
        match postgres {
            Some(postgres) => postgres.supervise().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        error = lost => Err(error.into()),
    }
}
