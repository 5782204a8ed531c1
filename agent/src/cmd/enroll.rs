//! `infratrack-agent enroll`.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, bail};
use infratrack_agent::cli::{Command, Enroll};
use infratrack_agent::collect::{self, Root};
use infratrack_agent::config::Config;
use infratrack_agent::enroll::{Host, enroll};
use infratrack_agent::identity::Identity;
use infratrack_shared::token::EnrollToken;

/// A token has some 100 characters.
const TOKEN_BYTES: u64 = 1024;

/// Enrolls this host.
pub(crate) async fn run(
    config: Config,
    arguments: Enroll,
    token: Option<File>,
) -> anyhow::Result<()> {
    let identity = Identity::open(&config.state_dir)?;
    if identity.is_enrolled() && !arguments.force {
        let host = identity.current()?.host;
        bail!("this host is enrolled as {host}; pass --force to enroll it anew");
    }
    let token: EnrollToken = read_token(token)
        .with_context(|| match &arguments.token_file {
            Some(path) => format!("cannot read the token from {}", path.display()),
            None => "cannot read the token from standard input".to_owned(),
        })?
        .parse()?;
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

/// The file that the token is in, where the command names one.
pub(crate) fn open_token(command: &Command) -> anyhow::Result<Option<File>> {
    let Command::Enroll(Enroll {
        token_file: Some(path),
        ..
    }) = command
    else {
        return Ok(None);
    };
    let file = File::open(path);
    let file = file.with_context(|| format!("cannot read the token from {}", path.display()))?;
    Ok(Some(file))
}

/// From the file, or else from standard input.
fn read_token(file: Option<File>) -> std::io::Result<String> {
    let source: Box<dyn Read> = match file {
        Some(file) => Box::new(file),
        None => Box::new(std::io::stdin()),
    };
    let mut token = String::new();
    source.take(TOKEN_BYTES).read_to_string(&mut token)?;
    Ok(token)
}
