//! First contact: a token becomes a certificate.

use std::time::Duration;

use http::StatusCode;
use infratrack_shared::ids::{BootId, HostId};
use infratrack_shared::token::EnrollToken;
use infratrack_shared::wire::enroll::{EnrollRequest, EnrollResponse};
use infratrack_shared::wire::{PROTOCOL, path};
use rmpv::Value;
use rustls_pki_types::CertificateDer;
use serde_bytes::ByteBuf;
use std::sync::Arc;
use thiserror::Error;

use crate::identity::{self, Collectors, Identity, IdentityError};
use crate::tls;
use crate::uplink::{Connection, Endpoint, UplinkError};

/// How often to ask at most while an operator has to approve.
const LEAST_POLL: Duration = Duration::from_secs(1);

/// Why a host was not enrolled.
#[derive(Debug, Error)]
pub enum EnrollError {
    #[error("the identity could not be stored")]
    Identity(#[from] IdentityError),
    #[error("TLS cannot be configured")]
    Tls(#[from] rustls::Error),
    #[error("the collector at {endpoint} could not be asked")]
    Uplink {
        endpoint: String,
        source: Box<UplinkError>,
    },
    #[error("the collector refused: {0}")]
    Refused(String),
    #[error("the collector's answer is not valid: {0}")]
    Answer(&'static str),
}

/// What the host says of itself.
#[derive(Clone, Debug)]
pub struct Host {
    pub hostname: String,
    pub boot_id: BootId,
    pub machine_id: Option<String>,
}

/// Enrolls this host at `endpoint` (`host:port`), waiting for an operator's approval where one is asked for.
/// Idempotent: after a lost answer, the same call again gives the same host.
pub async fn enroll(
    identity: &Identity,
    endpoint: &str,
    token: &EnrollToken,
    host: &Host,
) -> Result<HostId, EnrollError> {
    let request = EnrollRequest {
        protocol: PROTOCOL,
        token: token.reveal(),
        csr: ByteBuf::from(identity.request()?),
        hostname: host.hostname.clone(),
        boot_id: host.boot_id,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        machine_id: host.machine_id.clone(),
    };
    loop {
        let (status, answer, root) = ask(endpoint, token, &request).await?;
        if status == StatusCode::ACCEPTED {
            let pending: infratrack_shared::wire::enroll::EnrollPending =
                infratrack_shared::codec::decode_value(&answer)
                    .map_err(|_| EnrollError::Answer("the 202 does not say when to ask again"))?;
            tracing::info!("waiting for an operator to approve this host");
            let poll = Duration::from_millis(u64::from(pending.poll_after_ms));
            tokio::time::sleep(poll.max(LEAST_POLL)).await;
            continue;
        }
        let response: EnrollResponse = infratrack_shared::codec::decode_value(&answer)
            .map_err(|_| EnrollError::Answer("the certificate is missing"))?;
        return store(identity, endpoint, &response, &root);
    }
}

async fn ask(
    endpoint: &str,
    token: &EnrollToken,
    request: &EnrollRequest,
) -> Result<(StatusCode, Value, CertificateDer<'static>), EnrollError> {
    let (config, pinned) = tls::pinned(*token.pin())?;
    let target = Endpoint {
        address: endpoint.to_owned(),
        // What is proven is the pin; this only fills the greeting.
        name: tls::server_name("infratrack")?,
        tls: Arc::new(config),
    };
    let failed = |source: UplinkError| EnrollError::Uplink {
        endpoint: endpoint.to_owned(),
        source: source.into(),
    };
    let mut connection = Connection::open(&target).await.map_err(failed)?;
    let answered = connection.call(path::ENROLL, request).await;
    let (status, answer) = answered.map_err(|error| match error {
        // Anything else is no decision: asked again, it may be taken.
        UplinkError::Refused {
            status, problem, ..
        } if status.is_client_error() => {
            let words = problem
                .detail
                .unwrap_or_else(|| format!("{status} {}", problem.code));
            EnrollError::Refused(words)
        }
        source @ (UplinkError::Refused { .. }
        | UplinkError::Connect { .. }
        | UplinkError::Slow { .. }
        | UplinkError::Tls { .. }
        | UplinkError::Broken(_)
        | UplinkError::Answer(_)
        | UplinkError::Unacknowledged
        | UplinkError::Encode(_)) => failed(source),
    })?;
    let root = pinned
        .root()
        .ok_or(EnrollError::Answer("no root was verified"))?;
    Ok((status, answer, root))
}

fn store(
    identity: &Identity,
    endpoint: &str,
    response: &EnrollResponse,
    root: &CertificateDer<'static>,
) -> Result<HostId, EnrollError> {
    // The pinned root is trusted even if the bundle forgot it; what else is in the bundle came over TLS.
    let mut roots = response.trust_bundle.clone();
    if !roots.iter().any(|known| known.as_slice() == root.as_ref()) {
        roots.push(ByteBuf::from(root.to_vec()));
    }
    let trust_domain =
        identity::trust_domain(root).ok_or(EnrollError::Answer("the root names no fleet"))?;
    let collectors = Collectors {
        trust_domain,
        endpoints: response.endpoints.clone(),
        // The one that is known to be reachable from here.
        enroll_endpoint: Some(endpoint.to_owned()),
    };
    identity.store_enrollment(&response.chain, &roots, &collectors)?;
    Ok(response.host_id)
}
