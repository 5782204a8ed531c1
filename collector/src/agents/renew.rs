//! `POST /agent/v1/renew`: a new certificate for a new key, over the connection of the old one.
//!
//! The same key again is answered with the same certificate, so a lost answer costs nothing. The old
//! certificate stays valid: only its owner knows when the new one has worked.

use std::net::IpAddr;

use http::StatusCode;
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::{HostId, InstanceId};
use infratrack_shared::limits;
use infratrack_shared::wire::enroll::{RenewRequest, RenewResponse};
use infratrack_shared::wire::problem::code;
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::agents::problem::Refusal;
use crate::app::App;
use crate::audit::{Actor, Change, record};
use crate::ca::Request;
use crate::store::events::{self, Event};
use crate::store::host_conflicts::{self, Route};
use crate::store::{agent_certs, host_instances, hosts, json_text, unix_millis};

/// Issues a certificate to `host` for the key in `body`.
pub async fn renew(
    app: &App,
    host: HostId,
    peer: IpAddr,
    body: &[u8],
) -> Result<RenewResponse, Refusal> {
    let request: RenewRequest =
        codec::decode(body, &Limits::bytes(limits::ENROLL_BYTES)).map_err(|error| {
            let detail = format!("{:#}", anyhow::Error::from(error));
            Refusal::new(StatusCode::BAD_REQUEST, code::BODY_INVALID, detail)
        })?;
    let csr = Request::parse(&request.csr)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, code::CSR_INVALID, error))?;
    let mut transaction = app.pool.begin().await.map_err(unavailable)?;
    let host = match request.instance {
        Some(instance) => named(app, &mut transaction, host, instance).await?,
        None => host,
    };
    hosts::lock(&mut transaction, host)
        .await
        .map_err(unavailable)?;
    let (certificate, not_after) = certificate_for(
        app,
        &mut transaction,
        &Applicant {
            host,
            peer,
            action: "host.renew",
        },
        &csr,
    )
    .await?;
    transaction.commit().await.map_err(unavailable)?;
    Ok(response(app, certificate, not_after))
}

/// Who asks, whose row is locked, and what for.
pub(super) struct Applicant {
    pub(super) host: HostId,
    pub(super) peer: IpAddr,
    /// For the audit log.
    pub(super) action: &'static str,
}

/// The certificate that the host has for this key, or a fresh one.
pub(super) async fn certificate_for(
    app: &App,
    connection: &mut PgConnection,
    applicant: &Applicant,
    csr: &Request,
) -> Result<(Vec<u8>, OffsetDateTime), Refusal> {
    let known = agent_certs::find_by_key(connection, &csr.spki_sha256)
        .await
        .map_err(unavailable)?;
    match known {
        Some(known) if known.host_id != applicant.host.0 || known.revoked_at.is_some() => {
            let detail = "this key is another host's, or of a revoked certificate; make a new one";
            Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                code::CSR_INVALID,
                detail,
            ))
        }
        Some(known) if known.not_after > app.clock.now() => {
            Ok((known.certificate, known.not_after))
        }
        // One that expired before its answer arrived is of no use.
        Some(_) | None => issue(app, connection, applicant, csr).await,
    }
}

/// The answer with a certificate of this fleet.
pub(super) fn response(
    app: &App,
    certificate: Vec<u8>,
    not_after: OffsetDateTime,
) -> RenewResponse {
    let ca = app.ca.load();
    RenewResponse {
        chain: ca.chain_of(certificate),
        trust_bundle: ca.trust_bundle(),
        not_after: unix_millis(not_after),
        server_time: app.clock.unix_millis(),
    }
}

/// Whom the certificate is to name: the host, or what an operator made of its clone.
async fn named(
    app: &App,
    connection: &mut PgConnection,
    host: HostId,
    instance: InstanceId,
) -> Result<HostId, Refusal> {
    let standing = host_instances::lock(connection, &[host.0]).await;
    let standing = standing.map_err(unavailable)?;
    if !standing.iter().any(|standing| standing.has_clones) {
        return Ok(host);
    }
    let clone = host_conflicts::find_by_instance(connection, host, instance).await;
    let Some(clone) = clone.map_err(unavailable)? else {
        return Ok(host);
    };
    match clone.state.as_str() {
        "dropped" => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            code::CLONE_BLOCKED,
            "an operator has dropped this copy of the host",
        )),
        "splitting" => {
            let split = split(app, connection, host, &clone).await;
            split.map_err(unavailable)
        }
        "split" => Ok(HostId(clone.hidden_host_id)),
        // Nobody has decided yet: it goes on as what it is taken for.
        _ => Ok(host),
    }
}

/// Makes the clone a host like any other, with all that it reported.
async fn split(
    app: &App,
    connection: &mut PgConnection,
    host: HostId,
    clone: &Route,
) -> sqlx::Result<HostId> {
    let (own, now) = (HostId(clone.hidden_host_id), app.clock.now());
    let from = ["splitting".to_owned()];
    host_conflicts::update_state(
        connection,
        clone.conflict_id,
        &from,
        "split",
        Some(now),
        None,
    )
    .await?;
    hosts::update_own(connection, own).await?;
    host_conflicts::update_counts(connection, host).await?;
    let event = |of: HostId| Event {
        host: of,
        at: now,
        claimed_at: now,
        origin: None,
        instance: None,
        kind: "identity_split".to_owned(),
        body: json_text(
            &serde_json::json!({ "conflict": clone.conflict_id, "host": host, "new_host": own }),
        ),
    };
    let mut both = [event(host), event(own)];
    both.sort_by_key(|event| event.host);
    events::insert(connection, &both.each_ref(), now).await?;
    tracing::info!(%host, new_host = %own, "a clone became a host of its own");
    Ok(own)
}

async fn issue(
    app: &App,
    connection: &mut PgConnection,
    applicant: &Applicant,
    csr: &Request,
) -> Result<(Vec<u8>, OffsetDateTime), Refusal> {
    let host = applicant.host;
    let now = app.clock.now();
    let lifetime = app
        .config
        .certificates
        .lifetime
        .try_into()
        .unwrap_or(time::Duration::days(30));
    let issued = app
        .ca
        .load()
        .issue_host(csr, host, now, lifetime)
        .map_err(|error| unavailable_because(&error))?;
    let cert = agent_certs::NewCert {
        serial: &issued.serial,
        host,
        spki_sha256: &csr.spki_sha256,
        certificate: &issued.certificate,
        issued_at: now,
        not_after: issued.not_after,
        token_id: None,
    };
    agent_certs::insert(connection, &cert)
        .await
        .map_err(unavailable)?;
    let change = Change::new(applicant.action, "host", host);
    let change = change.after(json!({ "serial": hex::encode(&issued.serial) }));
    let actor = Actor::agent(host, Some(applicant.peer));
    record(connection, &actor, change, now)
        .await
        .map_err(unavailable)?;
    Ok((issued.certificate.to_vec(), issued.not_after))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn unavailable(error: sqlx::Error) -> Refusal {
    unavailable_because(&error)
}

fn unavailable_because(error: &(dyn std::error::Error + 'static)) -> Refusal {
    tracing::warn!(error, "cannot renew a certificate");
    Refusal::unavailable("the collector can't issue at the moment", 30)
}
