//! `infratrack-collector config show`.

use infratrack_collector::config::Config;

/// Prints every setting with its value. There is no secret among them: secrets are files that are named.
pub(crate) fn show(config: &Config) -> anyhow::Result<()> {
    super::print(toml::to_string_pretty(config)?.trim_end());
    Ok(())
}
