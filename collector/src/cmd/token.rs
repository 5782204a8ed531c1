//! `infratrack-collector token …`.

use std::time::Duration;

use anyhow::bail;
use infratrack_collector::agents::enroll::{TokenOptions, create_token};
use infratrack_collector::api::auth;
use infratrack_collector::ca::Ca;
use infratrack_collector::cli::Token;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;

/// Makes a token and prints it.
pub(crate) async fn run(config: &Config, token: Token) -> anyhow::Result<()> {
    let pool = super::connect(config).await?;
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
            if arguments.json {
                let made = serde_json::json!({
                    "token": token.reveal(),
                    "enroll_endpoint": config.enroll_endpoint(),
                });
                super::print(&made.to_string());
            } else {
                super::print(&token.reveal());
            }
        }
    }
    Ok(())
}
