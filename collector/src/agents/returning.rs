//! `POST /enroll/v1/challenge` and `POST /enroll/v1/return`: a host whose certificate expired while it was
//! off comes back as the host it was.
//!
//! What proves it is the expired certificate's key; who that is says the list of issued certificates, not
//! the request. Never for a revoked certificate or a retired host, and never later than [`WINDOW`].

use std::net::IpAddr;

use http::StatusCode;
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::HostId;
use infratrack_shared::limits;
use infratrack_shared::wire::PROTOCOL;
use infratrack_shared::wire::enroll::{
    ChallengeRequest, ChallengeResponse, RenewResponse, ReturnRequest, return_message,
};
use infratrack_shared::wire::problem::code;
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use sqlx::PgConnection;
use time::Duration;

use crate::agents::problem::Refusal;
use crate::agents::{challenge, renew};
use crate::app::App;
use crate::ca::{self, Request, signature};
use crate::store::{agent_certs, hosts};

/// A certificate returns at most this long after it expired.
const WINDOW: Duration = Duration::days(30);

/// A nonce to sign.
pub fn challenge(app: &App, body: &[u8]) -> Result<ChallengeResponse, Refusal> {
    let request: ChallengeRequest = decode(body)?;
    speaks(request.protocol)?;
    let nonce = challenge::nonce(&app.ca.load(), app.clock.now());
    Ok(ChallengeResponse {
        nonce: ByteBuf::from(nonce),
        server_time: app.clock.unix_millis(),
    })
}

/// Issues a certificate for a new key to the host that holds the key of an expired one.
pub async fn come_back(app: &App, peer: IpAddr, body: &[u8]) -> Result<RenewResponse, Refusal> {
    let request: ReturnRequest = decode(body)?;
    speaks(request.protocol)?;
    if !challenge::is_fresh(&app.ca.load(), &request.nonce, app.clock.now()) {
        let detail = "the nonce is older than 60 s, or not of this fleet; ask for another";
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            code::CHALLENGE_STALE,
            detail,
        ));
    }
    let csr = Request::parse(&request.csr)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, code::CSR_INVALID, error))?;
    let mut transaction = app.pool.begin().await.map_err(unavailable)?;
    let host = prove(app, &mut transaction, &request).await?;
    let applicant = renew::Applicant {
        host,
        peer,
        action: "host.return",
    };
    let (certificate, not_after) =
        renew::certificate_for(app, &mut transaction, &applicant, &csr).await?;
    transaction.commit().await.map_err(unavailable)?;
    tracing::info!(%host, "a host returned with an expired certificate");
    Ok(renew::response(app, certificate, not_after))
}

/// The host whose expired certificate's key signed the request.
async fn prove(
    app: &App,
    connection: &mut PgConnection,
    request: &ReturnRequest,
) -> Result<HostId, Refusal> {
    let unknown = || {
        let detail = "the certificate is not in the list of issued ones, or its key did not sign";
        Refusal::new(StatusCode::UNAUTHORIZED, code::CERTIFICATE_UNKNOWN, detail)
    };
    let sent = CertificateDer::from(request.certificate.as_slice());
    let serial = ca::Presented::read(&sent).ok_or_else(unknown)?.serial;
    let listed = agent_certs::find(connection, &serial)
        .await
        .map_err(unavailable)?
        .filter(|listed| listed.certificate == *request.certificate)
        .ok_or_else(unknown)?;
    let message = return_message(&request.nonce, &request.csr);
    // Before anything is said of the certificate: only its owner learns it.
    if !signature::verifies(&sent, &message, &request.signature) {
        return Err(unknown());
    }
    let host = HostId(listed.host_id);
    let forbidden = |code, detail: &str| Refusal::new(StatusCode::FORBIDDEN, code, detail);
    let retired_at = hosts::lock(connection, host).await.map_err(unavailable)?;
    if listed.revoked_at.is_some() {
        let detail = "this certificate was revoked; an operator has to enroll the host again";
        return Err(forbidden(code::CERTIFICATE_REVOKED, detail));
    }
    if retired_at.is_some() {
        let detail = "this host was retired; an operator has to enroll it again";
        return Err(forbidden(code::CERTIFICATE_REVOKED, detail));
    }
    if app.clock.now() - listed.not_after > WINDOW {
        let detail = format!(
            "the certificate expired more than {} days ago; an operator has to make a token for host {host}",
            WINDOW.whole_days()
        );
        return Err(forbidden(code::RETURN_TOO_LATE, &detail));
    }
    Ok(host)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    codec::decode(body, &Limits::bytes(limits::ENROLL_BYTES)).map_err(|error| {
        let detail = format!("{:#}", anyhow::Error::from(error));
        Refusal::new(StatusCode::BAD_REQUEST, code::BODY_INVALID, detail)
    })
}

fn speaks(protocol: u16) -> Result<(), Refusal> {
    if protocol.abs_diff(PROTOCOL) <= 1 && protocol != 0 {
        return Ok(());
    }
    let detail = format!("protocol {protocol}: this collector speaks {PROTOCOL}");
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        code::PROTOCOL_UNSUPPORTED,
        detail,
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn unavailable(error: sqlx::Error) -> Refusal {
    tracing::warn!(%error, "cannot let a host return");
    Refusal::unavailable("the collector can't issue at the moment", 10)
}
