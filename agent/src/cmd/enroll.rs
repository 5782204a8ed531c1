//! `infratrack-agent enroll`.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use infratrack_agent::collect::{self, Root};
use infratrack_agent::config::Config;
use infratrack_agent::enroll::{Host, enroll};
use infratrack_agent::identity::Identity;
use infratrack_shared::token::EnrollToken;

/// A token has some 100 characters.
const TOKEN_BYTES: u64 = 1024;

/// Where and with what. The token is never an argument: arguments are seen by every user.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The collector's enrollment address, host:port
    #[arg(long)]
    collector: String,
    /// Read the token from standard input
    #[arg(long, required_unless_present = "token_file")]
    token_stdin: bool,
    /// Read the token from a file
    #[arg(long, conflicts_with = "token_stdin")]
    token_file: Option<PathBuf>,
    /// Enroll anew although this host has an identity; the collector decides which host it becomes
    #[arg(long)]
    force: bool,
}

/// Enrolls this host.
pub(crate) async fn run(config: Config, arguments: Arguments) -> anyhow::Result<()> {
    let identity = Identity::open(&config.state_dir)?;
    if identity.is_enrolled() && !arguments.force {
        let host = identity.current()?.host;
        bail!("this host is enrolled as {host}; pass --force to enroll it anew");
    }
    let token: EnrollToken = read_token(&arguments)?.parse()?;
    let root = Root::default();
    let host = Host {
        hostname: collect::hostname(&root).context("cannot read the host's name")?,
        boot_id: collect::boot_id(&root).context("cannot read the boot id")?,
        machine_id: collect::machine_id(&root).ok(),
    };
    let id = enroll(&identity, &arguments.collector, &token, &host).await?;
    super::print(&format!("enrolled as {id}"));
    Ok(())
}

fn read_token(arguments: &Arguments) -> anyhow::Result<String> {
    let mut token = String::new();
    match &arguments.token_file {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(TOKEN_BYTES).read_to_string(&mut token))
            .with_context(|| format!("cannot read the token from {}", path.display()))?,
        None => std::io::stdin()
            .take(TOKEN_BYTES)
            .read_to_string(&mut token)
            .context("cannot read the token from standard input")?,
    };
    Ok(token)
}
