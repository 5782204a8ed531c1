//! What an agent makes of an error, as `daemon/link.rs` of the agent does.

use std::time::Duration;

use http::StatusCode;
use infratrack_agent::backoff::{self as waits, Backoff};
use infratrack_agent::uplink::UplinkError;
use infratrack_shared::wire::problem::code;

/// A refused certificate is tried again rarely: only an operator can help.
const CERTIFICATE: Duration = Duration::from_secs(1800);

/// How long to wait before the next attempt.
pub(super) fn wait(error: &UplinkError, backoff: &mut Backoff) -> Duration {
    match error {
        UplinkError::Refused {
            status: StatusCode::BAD_REQUEST | StatusCode::CONFLICT,
            ..
        } => waits::up_to(Duration::from_secs(1)),
        UplinkError::Refused { problem, .. }
            if [code::CERTIFICATE_REVOKED, code::CERTIFICATE_UNKNOWN]
                .contains(&problem.code.as_str()) =>
        {
            waits::retry_after(CERTIFICATE)
        }
        UplinkError::Refused {
            retry_after: Some(asked),
            ..
        } => waits::retry_after(*asked),
        UplinkError::Connect { .. }
        | UplinkError::Slow { .. }
        | UplinkError::Tls { .. }
        | UplinkError::Broken(_)
        | UplinkError::Refused { .. }
        | UplinkError::Answer(_)
        | UplinkError::Unacknowledged
        | UplinkError::Encode(_) => backoff.after_failure(),
    }
}

/// An error's kind, to be counted by.
pub(super) fn kind(error: &UplinkError) -> String {
    match error {
        UplinkError::Connect { source, .. } => format!("connect: {}", source.kind()),
        UplinkError::Slow { step, .. } => format!("too slow to {step}"),
        UplinkError::Tls { source, .. } => format!("TLS: {}", source.kind()),
        UplinkError::Broken(_) => "connection broke".to_owned(),
        UplinkError::Refused {
            status: StatusCode::SERVICE_UNAVAILABLE,
            retry_after: None,
            ..
        } => "refused: 503 without a time to come back".to_owned(),
        UplinkError::Refused {
            status, problem, ..
        } => format!("refused: {} {}", status.as_u16(), problem.code),
        UplinkError::Answer(_) => "answer not understood".to_owned(),
        UplinkError::Unacknowledged => "answer without an Ack".to_owned(),
        UplinkError::Encode(_) => "not encodable".to_owned(),
    }
}
