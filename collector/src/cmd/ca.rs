//! `infratrack-collector ca …`.

use anyhow::{Context, bail};
use clap::Subcommand;
use infratrack_collector::blob::BlobStore;
use infratrack_collector::ca::Ca;
use infratrack_collector::ca_log::replay::replay;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::postgres::private_connect_options;
use infratrack_collector::server;

/// What to do with the certificate authority.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Print the trust domain, and the pin that enrollment tokens carry.
    Show,
    /// Bring certificates and revocations back that a restored database lacks; `serve` does it by itself.
    Replay,
}

/// Does it; where nothing is asked for, shows the CA.
pub(crate) async fn run(config: &Config, action: Option<Action>) -> anyhow::Result<()> {
    match action.unwrap_or(Action::Show) {
        Action::Show => show(config),
        Action::Replay => replay_log(config).await,
    }
}

fn show(config: &Config) -> anyhow::Result<()> {
    let dir = config.data_dir.join("ca");
    let ca = Ca::open(&dir)?;
    let pin = hex::encode(ca.root_pin());
    super::print(&format!("directory:    {}", dir.display()));
    super::print(&format!("trust domain: {}", ca.trust_domain()));
    super::print(&format!("root key pin: sha256:{pin}"));
    Ok(())
}

async fn replay_log(config: &Config) -> anyhow::Result<()> {
    let ca = Ca::open(&config.data_dir.join("ca"))?;
    let blob = BlobStore::open(config)?;
    let options = match super::configured_database(config)? {
        Some(options) => options,
        None => private_connect_options(&config.data_dir).await?,
    };
    let pool = server::connect(options, config)
        .await
        .context("is the collector running? a private database runs only with it")?;
    let report = replay(&pool, &blob, &ca, Clock::system().now()).await?;
    super::print(&format!(
        "the log has {} objects; restored {} certificates of {} lost hosts, {} revocations",
        report.listed,
        report.certificates_restored,
        report.hosts_restored,
        report.revocations_restored
    ));
    for (key, error) in &report.refused {
        super::print(&format!("not believed: {key}: {error}"));
    }
    if !report.refused.is_empty() {
        bail!(
            "{} objects of the log are not believed",
            report.refused.len()
        );
    }
    Ok(())
}
