//! `POST /enroll/v1` and `POST /agent/v1/renew`: how a host gets and keeps its certificate.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::{BootId, HostId};
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
}

/// The new certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewResponse {
    pub chain: Vec<ByteBuf>,
    pub trust_bundle: Vec<ByteBuf>,
    pub not_after: UnixMillis,
    pub server_time: UnixMillis,
}
