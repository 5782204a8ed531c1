//! `infratrack-collector token …`.

use std::time::Duration;

use anyhow::{anyhow, bail};
use infratrack_collector::agents::enroll::{TokenOptions, create_token};
use infratrack_collector::api::hosts::rules;
use infratrack_collector::audit::{Actor, Change, record};
use infratrack_collector::ca::{Ca, Place};
use infratrack_collector::cli::Token;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::Role;
use serde_json::json;

/// Makes a token and prints it.
pub(crate) async fn run(config: &Config, action: Token) -> anyhow::Result<()> {
    let pool = super::connect(config).await?;
    let now = Clock::system().now();
    match action {
        Token::Admin => {
            let mut transaction = pool.begin().await?;
            let new = NewToken::of_role("admin", Role::Admin, "command line");
            let (id, token) = token::create(&mut transaction, &new, now).await?;
            let change = Change::new("token.create", "token", id)
                .after(json!({ "name": "admin", "role": "admin" }));
            record(&mut transaction, &Actor::command_line(), change, now).await?;
            transaction.commit().await?;
            super::print(&token);
        }
        Token::Enroll(arguments) => {
            if !(1..=500).contains(&arguments.uses) {
                bail!("--uses must be from 1 to 500");
            }
            let tags = rules::tags("", &arguments.tags);
            let tags = tags.map_err(|problem| {
                let place = problem.errors.first().map(|place| place.detail.clone());
                anyhow!("--tag {}", place.unwrap_or(problem.title))
            })?;
            let ca = Ca::open_at(&Place::of(config).await?)?;
            let lifetime = Duration::from_secs(u64::from(arguments.minutes) * 60);
            let options = TokenOptions {
                lifetime: lifetime.try_into()?,
                max_uses: arguments.uses,
                cidr: arguments.cidr,
                hostname_pattern: arguments.hostname,
                tags,
                host: arguments.host,
                approval_required: arguments.approve,
            };
            let token = create_token(
                &pool,
                ca.root_pin(now)?,
                &options,
                &Actor::command_line(),
                now,
            )
            .await?;
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
