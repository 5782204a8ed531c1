//! `POST /enroll/v1`: first contact of a host, proven by a token.
//!
//! Idempotent for a token and a key: a lost answer burns no use and makes no second host. Everything that
//! is wrong with a token is one answer; what exactly is in the log.

use std::net::IpAddr;

use anyhow::Context;
use http::StatusCode;
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::HostId;
use infratrack_shared::limits;
use infratrack_shared::token::EnrollToken;
use infratrack_shared::wire::PROTOCOL;
use infratrack_shared::wire::enroll::{EnrollPending, EnrollRequest, EnrollResponse};
use infratrack_shared::wire::problem::code;
use ipnet::IpNet;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::agents::problem::Refusal;
use crate::app::App;
use crate::audit::{Actor, Change, record};
use crate::ca::Request;
use crate::store::{self, agent_certs, enroll_tokens, storable, unix_millis};

/// How long an agent that waits for approval is asked to wait between two looks.
const POLL_MS: u32 = 10_000;
/// The longest host name taken: `HOST_NAME_MAX` of Linux is 64, a DNS name has at most 253 bytes.
const HOSTNAME_BYTES: usize = 253;

/// What an enrollment becomes.
#[derive(Debug)]
pub enum Enrolled {
    Done(Box<EnrollResponse>),
    Pending(EnrollPending),
}

/// Enrolls the host that sent `body` from `peer`.
pub async fn enroll(app: &App, peer: IpAddr, body: &[u8]) -> Result<Enrolled, Refusal> {
    let mut request: EnrollRequest = codec::decode(body, &Limits::bytes(limits::ENROLL_BYTES))
        .map_err(|error| {
            let detail = format!("{:#}", anyhow::Error::from(error));
            Refusal::new(StatusCode::BAD_REQUEST, code::BODY_INVALID, detail)
        })?;
    // All of it goes into tables and the audit log.
    request.hostname = storable(&request.hostname);
    request.agent_version = storable(&request.agent_version);
    request.machine_id = request.machine_id.as_deref().map(storable);
    if request.protocol.abs_diff(PROTOCOL) > 1 || request.protocol == 0 {
        let detail = format!(
            "protocol {}: this collector speaks {PROTOCOL}",
            request.protocol
        );
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            code::PROTOCOL_UNSUPPORTED,
            detail,
        ));
    }
    if request.hostname.is_empty() || request.hostname.len() > HOSTNAME_BYTES {
        let detail = format!("hostname must have 1 to {HOSTNAME_BYTES} bytes");
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            code::BODY_INVALID,
            detail,
        ));
    }
    let csr = Request::parse(&request.csr)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, code::CSR_INVALID, error))?;
    let token: EnrollToken = request
        .token
        .parse()
        .map_err(|error| invalid_token(&error))?;
    let attempt = Attempt {
        app,
        peer,
        request: &request,
        csr: &csr,
        token: &token,
        now: app.clock.now(),
    };
    attempt.run().await
}

struct Attempt<'a> {
    app: &'a App,
    peer: IpAddr,
    request: &'a EnrollRequest,
    csr: &'a Request,
    token: &'a EnrollToken,
    now: OffsetDateTime,
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Enrolled, Refusal> {
        let mut transaction = self.app.pool.begin().await.map_err(unavailable)?;
        let id = self.token.id();
        let row = enroll_tokens::find_for_update(&mut transaction, &id)
            .await
            .map_err(unavailable)?;
        let row = row.ok_or_else(|| invalid_token(&"unknown"))?;
        if !bool::from(row.secret_hash.ct_eq(&self.token.secret_hash())) {
            return Err(invalid_token(&"wrong secret"));
        }
        let key = &self.csr.spki_sha256;
        let before = enroll_tokens::find_enrollment(&mut transaction, &id, key)
            .await
            .map_err(unavailable)?;
        if let Some(host) = before.as_ref().and_then(|before| before.host_id) {
            return self.again(&mut transaction, HostId(host)).await;
        }
        self.check(&row, before.is_some())?;
        let approved = match &before {
            Some(before) => before.approved_at.is_some(),
            None => !row.approval_required,
        };
        if before.is_none() {
            let applicant = self.applicant(&id);
            enroll_tokens::insert_enrollment(&mut transaction, &applicant, approved, self.now)
                .await
                .map_err(unavailable)?;
            enroll_tokens::use_once(&mut transaction, &id)
                .await
                .map_err(unavailable)?;
        }
        if !approved {
            transaction.commit().await.map_err(unavailable)?;
            return Ok(Enrolled::Pending(EnrollPending {
                poll_after_ms: POLL_MS,
            }));
        }
        let (host, action) = self.host(&mut transaction, &row).await?;
        let issued = self
            .app
            .ca
            .load()
            .issue_host(self.csr, host, self.now, self.lifetime())
            .map_err(|error| unavailable_because(&error))?;
        let cert = agent_certs::NewCert {
            serial: &issued.serial,
            host,
            spki_sha256: key,
            certificate: &issued.certificate,
            issued_at: self.now,
            not_after: issued.not_after,
            token_id: Some(&id),
        };
        agent_certs::insert(&mut transaction, &cert)
            .await
            .map_err(unavailable)?;
        enroll_tokens::update_enrollment_host(&mut transaction, &id, key, host)
            .await
            .map_err(unavailable)?;
        let change = Change::new(action, "host", host).after(json!({
            "token": id, "hostname": self.request.hostname, "serial": hex::encode(&issued.serial),
        }));
        let actor = Actor::agent(host, Some(self.peer));
        record(&mut transaction, &actor, change, self.now)
            .await
            .map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        tracing::info!(%host, token = id, hostname = self.request.hostname, "host enrolled");
        Ok(self.response(host, issued.certificate.to_vec(), issued.not_after))
    }

    /// The answer that was lost, if what it said still holds.
    async fn again(
        &self,
        connection: &mut PgConnection,
        host: HostId,
    ) -> Result<Enrolled, Refusal> {
        let cert = agent_certs::find_by_key(connection, &self.csr.spki_sha256)
            .await
            .map_err(unavailable)?
            .filter(|cert| cert.revoked_at.is_none() && cert.host_id == host.0)
            .filter(|cert| cert.not_after > self.now)
            .ok_or_else(|| invalid_token(&"used for a certificate that is revoked or expired"))?;
        Ok(self.response(host, cert.certificate, cert.not_after))
    }

    fn check(&self, row: &enroll_tokens::TokenRow, counted: bool) -> Result<(), Refusal> {
        if row.expires_at <= self.now {
            return Err(invalid_token(&"expired"));
        }
        if !counted && row.uses >= row.max_uses {
            return Err(invalid_token(&"used up"));
        }
        if row
            .cidr
            .is_some_and(|cidr| !cidr.contains(&self.peer.to_canonical()))
        {
            return Err(invalid_token(&format!("used from {}", self.peer)));
        }
        let pattern = row.hostname_pattern.as_deref();
        if pattern.is_some_and(|pattern| !glob(pattern, &self.request.hostname)) {
            return Err(invalid_token(&format!(
                "used by a host named {:?}",
                self.request.hostname
            )));
        }
        Ok(())
    }

    /// The host the token names, or the one whose key this was, or a new one; and what that is called.
    async fn host(
        &self,
        connection: &mut PgConnection,
        row: &enroll_tokens::TokenRow,
    ) -> Result<(HostId, &'static str), Refusal> {
        const REATTACH: &str = "host.reattach";
        if let Some(host) = row.host_id.map(HostId) {
            let retired_at = store::hosts::lock(connection, host).await;
            return match retired_at.map_err(unavailable)? {
                None => Ok((host, REATTACH)),
                Some(_) => Err(invalid_token(&format!("for host {host}, which is retired"))),
            };
        }
        let known = agent_certs::find_by_key(connection, &self.csr.spki_sha256)
            .await
            .map_err(unavailable)?;
        match known {
            Some(known) if known.revoked_at.is_none() => {
                return Ok((HostId(known.host_id), REATTACH));
            }
            Some(_) => return Err(invalid_token(&"sent with the key of a revoked certificate")),
            None => {}
        }
        let host = HostId::at(unix_millis(self.now));
        store::hosts::insert(
            connection,
            host,
            &self.request.hostname,
            self.request.machine_id.as_deref(),
            &row.tags,
            self.now,
        )
        .await
        .map_err(unavailable)?;
        Ok((host, "host.enroll"))
    }

    fn applicant<'b>(&'b self, token_id: &'b str) -> enroll_tokens::Applicant<'b> {
        enroll_tokens::Applicant {
            token_id,
            spki_sha256: &self.csr.spki_sha256,
            hostname: &self.request.hostname,
            machine_id: self.request.machine_id.as_deref(),
            peer: IpNet::from(self.peer.to_canonical()),
        }
    }

    fn lifetime(&self) -> time::Duration {
        self.app
            .config
            .certificates
            .lifetime
            .try_into()
            .unwrap_or(time::Duration::days(30))
    }

    fn response(&self, host: HostId, certificate: Vec<u8>, not_after: OffsetDateTime) -> Enrolled {
        let ca = self.app.ca.load();
        Enrolled::Done(Box::new(EnrollResponse {
            host_id: host,
            chain: ca.chain_of(certificate),
            trust_bundle: ca.trust_bundle(),
            not_after: unix_millis(not_after),
            endpoints: self.app.config.agent_endpoints(),
            policy: self.app.policy.borrow().clone(),
            server_time: self.app.clock.unix_millis(),
        }))
    }
}

/// What a new token allows.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    pub lifetime: time::Duration,
    pub max_uses: i32,
    pub cidr: Option<IpNet>,
    pub hostname_pattern: Option<String>,
    pub tags: Vec<String>,
    /// Whoever uses the token becomes this host again.
    pub host: Option<HostId>,
    pub approval_required: bool,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            lifetime: time::Duration::hours(1),
            max_uses: 1,
            cidr: None,
            hostname_pattern: None,
            tags: Vec::new(),
            host: None,
            approval_required: false,
        }
    }
}

/// Makes an enrollment token; it can be shown only now.
pub async fn create_token(
    pool: &PgPool,
    root_pin: [u8; 32],
    options: &TokenOptions,
    by: &Actor,
    now: OffsetDateTime,
) -> anyhow::Result<EnrollToken> {
    let token = EnrollToken::new(rand::random(), rand::random(), root_pin);
    let row = enroll_tokens::NewToken {
        token_id: &token.id(),
        secret_hash: &token.secret_hash(),
        expires_at: now + options.lifetime,
        max_uses: options.max_uses,
        cidr: options.cidr,
        hostname_pattern: options.hostname_pattern.as_deref(),
        tags: &options.tags,
        host: options.host,
        approval_required: options.approval_required,
        created_by: &by.name,
    };
    let change = Change::new("enroll_token.create", "enroll_token", token.id()).after(json!({
        "expires_at": row.expires_at.format(&Rfc3339)?, "max_uses": row.max_uses, "cidr": row.cidr,
        "hostname_pattern": row.hostname_pattern, "tags": row.tags, "host": row.host,
        "approval_required": row.approval_required,
    }));
    let mut transaction = pool.begin().await?;
    enroll_tokens::insert(&mut transaction, &row, now)
        .await
        .context("cannot store the token")?;
    record(&mut transaction, by, change, now).await?;
    transaction.commit().await?;
    Ok(token)
}

/// `*` stands for any text, everything else for itself.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(head) else {
        return false;
    };
    (0..=text.len())
        .filter_map(|at| text.get(at..))
        .any(|tail| glob(rest, tail))
}

fn invalid_token(reason: &dyn std::fmt::Display) -> Refusal {
    tracing::warn!(%reason, "enrollment token refused");
    let detail = "the enrollment token is unknown, used up, expired, or not for this host";
    Refusal::new(StatusCode::UNAUTHORIZED, code::TOKEN_INVALID, detail)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn unavailable(error: sqlx::Error) -> Refusal {
    unavailable_because(&error)
}

fn unavailable_because(error: &(dyn std::error::Error + 'static)) -> Refusal {
    tracing::warn!(error, "cannot enroll a host");
    Refusal::unavailable("the collector can't enroll at the moment", 10)
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn a_pattern_is_a_glob_over_the_whole_name() {
        assert!(glob("web-*", "web-01"));
        assert!(glob("*.example.org", "a.b.example.org"));
        assert!(glob("a*b*c", "axxbyyc"));
        assert!(!glob("web-*", "db-01"));
        assert!(!glob("web", "web-01"));
    }
}
