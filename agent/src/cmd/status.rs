//! `infratrack-agent status`.

use infratrack_agent::clock::Clock;
use infratrack_agent::config::Config;
use infratrack_agent::identity::Identity;

/// Prints the identity. Whether the collector hears of it: `systemctl status infratrack-agent`.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    let identity = Identity::open(&config.state_dir)?;
    let pair = identity.current()?;
    let collectors = identity.collectors()?;
    let days = pair.not_after.millis_since(Clock::system().now()) / 86_400_000;
    super::print(&format!("host id:      {}", pair.host));
    super::print(&format!("trust domain: {}", collectors.trust_domain));
    super::print(&format!(
        "collectors:   {}",
        collectors.endpoints.join(", ")
    ));
    super::print(&format!(
        "certificate:  {} (valid for {days} more days)",
        pair.serial
    ));
    Ok(())
}
