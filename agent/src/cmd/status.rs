//! `infratrack-agent status`.

use infratrack_agent::clock::Clock;
use infratrack_agent::config::Config;
use infratrack_agent::identity::Identity;

const DAY_MS: i64 = 86_400_000;

/// Prints the identity. Whether the collector hears of it: `systemctl status infratrack-agent`.
pub(crate) fn run(config: &Config, json: bool) -> anyhow::Result<()> {
    let identity = Identity::open(&config.state_dir)?;
    let pair = identity.current()?;
    let collectors = identity.collectors()?;
    if json {
        let status = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "host_id": pair.host,
            "trust_domain": collectors.trust_domain,
            "endpoints": collectors.endpoints,
            "certificate_serial": pair.serial,
            "certificate_not_after_ms": pair.not_after,
        });
        super::print(&status.to_string());
        return Ok(());
    }
    let left_ms = pair.not_after.millis_since(Clock::system().now());
    let left = if left_ms > 0 {
        format!("valid for {} more days", left_ms / DAY_MS)
    } else {
        format!("expired {} days ago", -left_ms / DAY_MS)
    };
    super::print(&format!("host id:      {}", pair.host));
    super::print(&format!("trust domain: {}", collectors.trust_domain));
    super::print(&format!(
        "collectors:   {}",
        collectors.endpoints.join(", ")
    ));
    super::print(&format!("certificate:  {} ({left})", pair.serial));
    Ok(())
}
