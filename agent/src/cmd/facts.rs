//! `infratrack-agent facts`.

use infratrack_agent::collect::{self, Root};
use infratrack_agent::config::Config;

/// Prints every fact by its key.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
    let facts = collect::facts(&Root::default(), &config.facts_dir).await;
    let by_key: serde_json::Map<_, _> = facts
        .into_iter()
        .map(|fact| Ok((fact.key, serde_json::to_value(fact.body)?)))
        .collect::<Result<_, serde_json::Error>>()?;
    super::print(&serde_json::to_string_pretty(&by_key)?);
    Ok(())
}
