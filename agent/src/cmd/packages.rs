//! `infratrack-agent packages`.

use infratrack_agent::collect::Root;
use infratrack_agent::packages;

/// Prints what each database of packages has.
pub(crate) fn run() -> anyhow::Result<()> {
    let found = packages::collect(&Root::default());
    super::print(&serde_json::to_string_pretty(&found)?);
    Ok(())
}
