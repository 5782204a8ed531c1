//! `infratrack-package-files DIR`: see `package_files`.

use std::path::PathBuf;

use clap::Parser;

/// Writes man pages, completions and example configurations.
#[derive(Debug, Parser)]
struct Cli {
    directory: PathBuf,
}

fn main() -> anyhow::Result<()> {
    infratrack_testkit::package_files::write_all(&Cli::parse().directory)
}
