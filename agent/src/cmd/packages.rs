//! `infratrack-agent packages`.

use infratrack_agent::collect::{self, Root};

/// Prints what each database of packages has.
pub(crate) fn run() -> anyhow::Result<()> {
    let found = collect::installed_packages(&Root::default());
    super::print(&serde_json::to_string_pretty(&found)?);
    Ok(())
}
