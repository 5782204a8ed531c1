//! `infratrack-agent facts`.

use infratrack_agent::collect::{FactSources, Root};
use infratrack_agent::config::Config;

/// Prints every fact by its key.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
    let mut sources = FactSources::new(Root::default(), &config.facts_dir)
        .with_instance_metadata(config.instance_metadata.clone());
    let by_key: serde_json::Map<_, _> = sources
        .collect()
        .await
        .into_iter()
        .map(|fact| Ok((fact.key, serde_json::to_value(fact.body)?)))
        .collect::<Result<_, serde_json::Error>>()?;
    super::print(&serde_json::to_string_pretty(&by_key)?);
    Ok(())
}
