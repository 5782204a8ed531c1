//! `infratrack-agent config show`.

use infratrack_agent::config::Config;

/// Prints every setting with its value.
pub(crate) fn show(config: &Config) -> anyhow::Result<()> {
    super::print(toml::to_string_pretty(config)?.trim_end());
    Ok(())
}
