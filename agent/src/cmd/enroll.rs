//! `infratrack-agent enroll`.

use std::io::Read;

use anyhow::{Context, bail};
use infratrack_agent::cli::Enroll;
use infratrack_agent::collect::{self, Root};
use infratrack_agent::config::Config;
use infratrack_agent::enroll::{Host, enroll};
use infratrack_agent::identity::Identity;
use infratrack_shared::token::EnrollToken;

/// A token has some 100 characters.
const TOKEN_BYTES: u64 = 1024;

/// Enrolls this host.
pub(crate) async fn run(config: Config, arguments: Enroll) -> anyhow::Result<()> {
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

fn read_token(arguments: &Enroll) -> anyhow::Result<String> {
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
