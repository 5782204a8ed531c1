//! `infratrack-collector host ID`.

use anyhow::Context;
use infratrack_collector::api::hosts::Host;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::jobs::liveness::Silence;
use infratrack_collector::store::hosts::list;
use infratrack_shared::ids::HostId;

/// Prints a host as `GET /api/v1/hosts/{id}` does. Silence while no collector ran counts here.
pub(crate) async fn show(config: &Config, host: HostId) -> anyhow::Result<()> {
    let pool = super::connect(config).await?;
    let cutoffs = Silence::new(&config.liveness).cutoffs(Clock::system().now());
    let mut connection = pool.acquire().await?;
    let row = list::find(&mut connection, host, cutoffs).await?;
    let row = row.with_context(|| format!("there is no host {host}"))?;
    super::print(&serde_json::to_string_pretty(&Host::from(row))?);
    Ok(())
}
