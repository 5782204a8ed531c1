//! Certificates for a fleet: tokens from the operators' API, then each agent's own first contact.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use infratrack_agent::backoff;
use infratrack_agent::collect::{self, Root};
use infratrack_agent::enroll::{EnrollError, Host, enroll};
use infratrack_agent::identity::Identity;
use infratrack_agent::tls;
use infratrack_agent::uplink::Endpoint;
use infratrack_shared::ids::{BootId, HostId};
use infratrack_shared::token::EnrollToken;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{FleetConfig, Tokens};
use crate::operators::Operators;

/// The most hosts a token brings in.
const TOKEN_USES: usize = 500;
/// How often first contact is tried.
const TRIES: u32 = 6;

/// Who an agent is and where it reports.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) host: HostId,
    pub(super) boot_id: BootId,
    pub(super) endpoint: Endpoint,
}

/// Enrolls every agent that has no certificate in `dir` from before; in order of their numbers.
pub(super) async fn members(config: &FleetConfig, dir: &Path) -> anyhow::Result<Vec<Member>> {
    let tokens = Arc::new(tokens(config, dir).await?);
    let gate = Arc::new(Semaphore::new(config.handshakes.max(1)));
    let mut tasks = JoinSet::new();
    for index in 0..config.count {
        let (tokens, gate) = (Arc::clone(&tokens), Arc::clone(&gate));
        let (dir, config) = (super::agent_dir(dir, index), config.clone());
        tasks.spawn(async move {
            let _permit = gate.acquire().await?;
            let token = tokens.get(index / TOKEN_USES);
            let member = member(&config, &dir, index, token).await;
            Ok::<_, anyhow::Error>((index, member.with_context(|| format!("agent {index}"))?))
        });
    }
    let mut members = Vec::with_capacity(config.count);
    while let Some(done) = tasks.join_next().await {
        members.push(done??);
    }
    members.sort_by_key(|(index, _)| *index);
    Ok(members.into_iter().map(|(_, member)| member).collect())
}

async fn member(
    config: &FleetConfig,
    dir: &Path,
    index: usize,
    token: Option<&EnrollToken>,
) -> anyhow::Result<Member> {
    let identity = Identity::open(dir)?;
    let host = Host {
        hostname: format!("fleet-{index:05}"),
        // That of this machine: a fleet that is started again has not booted.
        boot_id: collect::boot_id(&Root::default())?,
        machine_id: None,
    };
    if !identity.is_enrolled() {
        let token = token.context("there is no enrollment token for it")?;
        first_contact(config.enroll, &identity, token, &host).await?;
    }
    let pair = identity.current()?;
    let trust_domain = identity.collectors()?.trust_domain;
    Ok(Member {
        host: pair.host,
        boot_id: host.boot_id,
        endpoint: Endpoint {
            // Where the fleet was told, not where the collector says: it stays on this machine.
            address: config.agents.to_string(),
            name: tls::server_name(&trust_domain)?,
            tls: Arc::new(tls::mutual(&identity.roots()?, pair)?),
        },
    })
}

async fn first_contact(
    collector: SocketAddr,
    identity: &Identity,
    token: &EnrollToken,
    host: &Host,
) -> anyhow::Result<()> {
    let mut tried = 1;
    loop {
        match enroll(identity, &collector.to_string(), token, host).await {
            Ok(_) => return Ok(()),
            Err(error @ EnrollError::Uplink { .. }) if tried < TRIES => {
                tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "again");
                tried += 1;
                tokio::time::sleep(backoff::up_to(Duration::from_secs(1))).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A token for each 500 agents; none where all are enrolled from before.
async fn tokens(config: &FleetConfig, dir: &Path) -> anyhow::Result<Vec<EnrollToken>> {
    let enrolled = |index| {
        super::agent_dir(dir, index)
            .join("identity/identity.pem")
            .exists()
    };
    if (0..config.count).all(enrolled) {
        return Ok(Vec::new());
    }
    let texts = match &config.tokens {
        Tokens::Given(tokens) => tokens.clone(),
        Tokens::Api {
            operators,
            admin_token,
        } => {
            let operators = Operators {
                address: *operators,
                token: admin_token.clone(),
            };
            let mut made = Vec::new();
            for from in (0..config.count).step_by(TOKEN_USES) {
                let uses = TOKEN_USES.min(config.count - from);
                made.push(create_token(&operators, uses).await?);
            }
            made
        }
    };
    let parse = |text: &String| {
        text.trim()
            .parse()
            .context("an enrollment token is damaged")
    };
    texts.iter().map(parse).collect()
}

#[derive(Deserialize)]
struct Created {
    token: String,
}

async fn create_token(operators: &Operators, uses: usize) -> anyhow::Result<String> {
    let wanted = serde_json::json!({ "max_uses": uses, "lifetime_s": 3600, "tags": ["fleet"] });
    let created = operators.create("/api/v1/enroll-tokens", &wanted).await;
    let created: Created = serde_json::from_value(created.context("no enrollment token")?)?;
    Ok(created.token)
}
