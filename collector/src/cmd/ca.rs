//! `infratrack-collector ca`.

use infratrack_collector::ca::Ca;
use infratrack_collector::config::Config;

/// Prints the trust domain, and the pin that enrollment tokens carry.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    let dir = config.data_dir.join("ca");
    let ca = Ca::open(&dir)?;
    let pin = hex::encode(ca.root_pin());
    super::print(&format!("directory:    {}", dir.display()));
    super::print(&format!("trust domain: {}", ca.trust_domain()));
    super::print(&format!("root key pin: sha256:{pin}"));
    Ok(())
}
