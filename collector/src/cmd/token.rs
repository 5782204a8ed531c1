//! `infratrack-collector token …`.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use infratrack_collector::agents::enroll::{TokenOptions, create_token};
use infratrack_collector::api::auth;
use infratrack_collector::ca::Ca;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::postgres::private_connect_options;
use infratrack_collector::server;
use infratrack_shared::ids::HostId;
use ipnet::IpNet;

/// The kinds of tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// For an administrator: the login form and the API take it.
    Admin,
    /// For a host to enroll with.
    Enroll(EnrollArguments),
}

/// What the token allows.
#[derive(Debug, Args)]
pub(crate) struct EnrollArguments {
    /// How long it is valid, in minutes
    #[arg(long, default_value_t = 60)]
    minutes: u32,
    /// How many hosts may use it
    #[arg(long, default_value_t = 1)]
    uses: i32,
    /// Only from this network
    #[arg(long)]
    cidr: Option<IpNet>,
    /// Only for hosts of such a name; * stands for any text
    #[arg(long)]
    hostname: Option<String>,
    /// A tag for the hosts; may be repeated
    #[arg(long = "tag")]
    tags: Vec<String>,
    /// For a host that is known, by its id: whoever uses the token becomes that host again
    #[arg(long, conflicts_with = "uses")]
    host: Option<HostId>,
    /// An operator has to approve each host
    #[arg(long)]
    approve: bool,
}

/// Makes a token and prints it.
pub(crate) async fn run(config: &Config, token: Token) -> anyhow::Result<()> {
    let options = match super::configured_database(config)? {
        Some(options) => options,
        None => private_connect_options(&config.data_dir).await?,
    };
    let pool = server::connect(options, config)
        .await
        .context("is the collector running? a private database runs only with it")?;
    let now = Clock::system().now();
    match token {
        Token::Admin => {
            let mut connection = pool.acquire().await?;
            super::print(&auth::create_token(&mut connection, "admin", "admin", now).await?);
        }
        Token::Enroll(arguments) => {
            if !(1..=500).contains(&arguments.uses) {
                bail!("--uses must be from 1 to 500");
            }
            let ca = Ca::open(&config.data_dir.join("ca"))?;
            let lifetime = Duration::from_secs(u64::from(arguments.minutes) * 60);
            let options = TokenOptions {
                lifetime: lifetime.try_into()?,
                max_uses: arguments.uses,
                cidr: arguments.cidr,
                hostname_pattern: arguments.hostname,
                tags: arguments.tags,
                host: arguments.host,
                approval_required: arguments.approve,
            };
            let token =
                create_token(&pool, ca.root_pin(now)?, &options, "command line", now).await?;
            super::print(&token.reveal());
        }
    }
    Ok(())
}
