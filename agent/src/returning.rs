//! The return of an expired certificate: the host proves with its old key that it is still itself.
//!
//! Over the enrollment listener, because the agent listener takes no expired certificate. What comes back
//! waits beside the pair in use like a renewed one; spool and stream are not touched.

use std::sync::Arc;

use infratrack_shared::wire::enroll::{
    ChallengeRequest, ChallengeResponse, RenewResponse, ReturnRequest, return_message,
};
use infratrack_shared::wire::problem::code;
use infratrack_shared::wire::{PROTOCOL, path};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls_pki_types::PrivateKeyDer;
use serde_bytes::ByteBuf;
use thiserror::Error;

use crate::identity::{Identity, IdentityError, Pair};
use crate::tls;
use crate::uplink::{Connection, Endpoint, UplinkError};

/// Why the certificate did not return.
#[derive(Debug, Error)]
pub enum ReturnError {
    #[error("the identity could not be read or stored")]
    Identity(#[from] IdentityError),
    #[error("the old key cannot sign, or TLS cannot be configured")]
    Tls(#[from] rustls::Error),
    #[error("the collector at {endpoint} did not take the certificate back")]
    Uplink {
        endpoint: String,
        source: Box<UplinkError>,
    },
}

impl ReturnError {
    /// Whether no collector knows the certificate.
    pub fn is_unknown(&self) -> bool {
        let Self::Uplink { source, .. } = self else {
            return false;
        };
        matches!(&**source, UplinkError::Refused { problem, .. } if problem.code == code::CERTIFICATE_UNKNOWN)
    }
}

/// Gets a certificate for a new key from the enrollment listener at `endpoint` (`host:port`), by the key of
/// `old`, and stores it to be tried. Idempotent: after a lost answer, the same call gives the same one.
pub async fn come_back(
    identity: &Identity,
    old: &Pair,
    endpoint: &str,
    trust_domain: &str,
) -> Result<(), ReturnError> {
    let target = Endpoint {
        address: endpoint.to_owned(),
        name: tls::server_name(trust_domain)?,
        tls: Arc::new(tls::server_only(&identity.roots()?)?),
    };
    let csr = identity.request()?;
    let answered = ask(&target, old, csr).await?;
    let response = answered.map_err(|source| ReturnError::Uplink {
        endpoint: endpoint.to_owned(),
        source: Box::new(source),
    })?;
    if !response.trust_bundle.is_empty() {
        identity.store_roots(&response.trust_bundle)?;
    }
    identity.store_next(&response.chain)?;
    Ok(())
}

async fn ask(
    target: &Endpoint,
    old: &Pair,
    csr: Vec<u8>,
) -> Result<Result<RenewResponse, UplinkError>, rustls::Error> {
    let nonce = async {
        let mut connection = Connection::open(target).await?;
        let protocol = PROTOCOL;
        let request = ChallengeRequest { protocol };
        let (_, challenge): (_, ChallengeResponse) =
            connection.call(path::CHALLENGE, &request).await?;
        Ok((connection, challenge.nonce))
    };
    let (mut connection, nonce) = match nonce.await {
        Ok(answered) => answered,
        Err(error) => return Ok(Err(error)),
    };
    let leaf = old.chain.first().map(|leaf| leaf.to_vec());
    let request = ReturnRequest {
        protocol: PROTOCOL,
        certificate: ByteBuf::from(leaf.unwrap_or_default()),
        signature: ByteBuf::from(sign(&old.key, &return_message(&nonce, &csr))?),
        nonce,
        csr: ByteBuf::from(csr),
    };
    let answered = connection.call(path::RETURN, &request).await;
    Ok(answered.map(|(_, response)| response))
}

/// ECDSA P-256 with SHA-256, ASN.1.
pub fn sign(key: &PrivateKeyDer<'_>, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    any_ecdsa_type(key)?
        .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
        .ok_or_else(|| rustls::Error::General("the key is not P-256".to_owned()))?
        .sign(message)
}
