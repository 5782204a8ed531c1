//! Errors on the wire: the members of RFC 9457, in MessagePack.

use serde::{Deserialize, Serialize};

/// Why a request was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word that programs branch on.
    #[serde(rename = "type")]
    pub code: String,
    /// What it means, for people.
    pub title: String,
    pub status: u16,
    /// What was wrong with this request, and where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// The values of [`Problem::code`] that agents act on.
pub mod code {
    /// 409: the stream was used by another copy of this host's state; go on in a new one.
    pub const STREAM_FORKED: &str = "stream_forked";
    /// 409: another machine reports as this host and keeps the stream; go on in a new one.
    pub const CLONE_SET_APART: &str = "clone_set_apart";
    /// 403: another machine reports as this host, and an operator dropped this one. Keep the spool.
    pub const CLONE_BLOCKED: &str = "clone_blocked";
    /// 401: the collector never issued this certificate, or no longer knows it.
    pub const CERTIFICATE_UNKNOWN: &str = "certificate_unknown";
    /// 401: the certificate has expired; return with it.
    pub const CERTIFICATE_EXPIRED: &str = "certificate_expired";
    /// 400: the nonce of a return is older than 60 s or from elsewhere; ask for another.
    pub const CHALLENGE_STALE: &str = "challenge_stale";
    /// 403: the certificate expired more than 30 days ago; an operator has to make a token for the host.
    pub const RETURN_TOO_LATE: &str = "return_too_late";
    /// 403: the certificate was revoked, or its host retired. Keep the spool, stop sending.
    pub const CERTIFICATE_REVOKED: &str = "certificate_revoked";
    /// 403: this run of Ansible was begun by another host, or with a token.
    pub const ANOTHER_TOKEN: &str = "another_token";
    /// 403: this collector takes no plays from this host. Keep them, and ask again later.
    pub const PLAYS_NOT_ALLOWED: &str = "plays_not_allowed";
    /// 409: another run of this volume is under way; its lease runs out within `Retry-After`.
    pub const VOLUME_BUSY: &str = "volume_busy";
    /// 409: another snapshot has this id, or the run has another snapshot; this one is to be sent under a new id by a new run.
    pub const SNAPSHOT_DIFFERS: &str = "snapshot_differs";
    /// 411: a pack or a snapshot needs a `Content-Length`.
    pub const LENGTH_REQUIRED: &str = "length_required";
    /// 416: not one range within the pack.
    pub const RANGE_INVALID: &str = "range_invalid";
    /// 401: token unknown, used up, expired, or used from a wrong place; one answer for all.
    pub const TOKEN_INVALID: &str = "token_invalid";
    /// 400: the CSR is damaged or its key is not acceptable.
    pub const CSR_INVALID: &str = "csr_invalid";
    /// 400: the body does not decode or breaks a limit.
    pub const BODY_INVALID: &str = "body_invalid";
    /// 413: the body is over its limit.
    pub const BODY_TOO_LARGE: &str = "body_too_large";
    /// 408: the body came too slowly.
    pub const BODY_TOO_SLOW: &str = "body_too_slow";
    /// 429: this host sends more than its share.
    pub const RATE_LIMITED: &str = "rate_limited";
    /// 503: the collector can't store at the moment; resend later.
    pub const UNAVAILABLE: &str = "unavailable";
    /// 404.
    pub const NOT_FOUND: &str = "not_found";
    /// 405.
    pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
    /// 415: not MessagePack, or another compression than zstd.
    pub const UNSUPPORTED_MEDIA: &str = "unsupported_media";
    /// 400: a protocol version this build can't talk to.
    pub const PROTOCOL_UNSUPPORTED: &str = "protocol_unsupported";
}
