//! `POST /enroll/v1`, `POST /agent/v1/renew`, and `POST /enroll/v1/return`: how a host gets its certificate,
//! keeps it, and gets another after it expired.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::{BootId, HostId, InstanceId};
use crate::time::UnixMillis;
use crate::wire::answer::Policy;

/// First contact. At most [`crate::limits::ENROLL_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollRequest {
    pub protocol: u16,
    /// [`crate::token::EnrollToken`] as text.
    pub token: String,
    /// PKCS #10 (RFC 2986), DER. Only its public key is taken.
    pub csr: ByteBuf,
    pub hostname: String,
    pub boot_id: BootId,
    pub agent_version: String,
    #[serde(default)]
    pub machine_id: Option<String>,
}

/// The host's identity. Also the answer to a repeated request with the same token and key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnrollResponse {
    pub host_id: HostId,
    /// Leaf first, then the issuing CA; DER.
    pub chain: Vec<ByteBuf>,
    /// Roots to accept, DER.
    pub trust_bundle: Vec<ByteBuf>,
    pub not_after: UnixMillis,
    /// `host:port` of the agent listeners.
    pub endpoints: Vec<String>,
    pub policy: Policy,
    pub server_time: UnixMillis,
}

/// 202: an operator has to approve first; ask again with the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollPending {
    pub poll_after_ms: u32,
}

/// A new key for a host that has a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    pub protocol: u16,
    /// PKCS #10, DER, with a fresh key. The same key again is answered with the same certificate.
    pub csr: ByteBuf,
    /// This run of the agent process: a clone that is to be a host of its own is known by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
}

/// The new certificate: to a [`RenewRequest`] and to a [`ReturnRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewResponse {
    pub chain: Vec<ByteBuf>,
    pub trust_bundle: Vec<ByteBuf>,
    pub not_after: UnixMillis,
    pub server_time: UnixMillis,
}

/// Asks for a nonce to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeRequest {
    pub protocol: u16,
}

/// The nonce, good for 60 s at every collector of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeResponse {
    pub nonce: ByteBuf,
    pub server_time: UnixMillis,
}

/// A new key for a host whose certificate has expired. The same key again is answered with the same
/// certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnRequest {
    pub protocol: u16,
    /// The certificate that expired, DER.
    pub certificate: ByteBuf,
    pub nonce: ByteBuf,
    /// PKCS #10, DER, with a fresh key.
    pub csr: ByteBuf,
    /// ECDSA P-256 with SHA-256, ASN.1, by the expired certificate's key over [`return_message`].
    pub signature: ByteBuf,
}

/// What the key of an expired certificate signs. Begins with words that no certificate and no TLS
/// handshake begins with, so that the signature is good for nothing else.
pub fn return_message(nonce: &[u8], csr: &[u8]) -> Vec<u8> {
    // The length keeps the two apart.
    let length = u32::try_from(nonce.len()).unwrap_or(u32::MAX).to_be_bytes();
    [b"infratrack return 1\n", &length[..], nonce, csr].concat()
}
