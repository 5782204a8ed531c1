//! When an expired certificate returns, and how long to wait where it does not.

use std::time::Duration;

use infratrack_shared::ids::HostId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::problem::code;
use tokio::time::Instant;

use crate::backoff::{self, Backoff};
use crate::returning::ReturnError;
use crate::uplink::UplinkError;

/// Where only an operator can help, it is tried again rarely.
const OPERATOR: Duration = Duration::from_secs(12 * 3600);

/// A collector may not know a certificate because its database is being restored.
const UNKNOWN: Duration = Duration::from_secs(1800);

/// Whether and when to return.
#[derive(Debug)]
pub(super) struct Returning {
    /// `host:port` of the enrollment listener.
    endpoint: Option<String>,
    /// A collector said that the certificate has expired, whatever our clock says.
    told: bool,
    backoff: Backoff,
    not_before: Instant,
}

impl Returning {
    pub(super) fn at(endpoint: Option<String>) -> Self {
        Self {
            endpoint,
            told: false,
            backoff: Backoff::default(),
            not_before: Instant::now(),
        }
    }

    /// Where to return to, if it is time to.
    pub(super) fn due(&mut self, expires: UnixMillis, now: UnixMillis) -> Option<String> {
        if !(self.told || now >= expires) || Instant::now() < self.not_before {
            return None;
        }
        if self.endpoint.is_none() {
            self.wait(backoff::retry_after(OPERATOR));
            tracing::error!(
                "the certificate has expired and it is not known where to return with it: \
                 set enroll_endpoint to the address this host was enrolled at"
            );
        }
        self.endpoint.clone()
    }

    /// When it is, as far as is known.
    pub(super) fn next(&self, expires: UnixMillis, now: UnixMillis) -> Instant {
        let left_ms = expires.millis_since(now).max(0).unsigned_abs();
        let left = Duration::from_millis(if self.told { 0 } else { left_ms });
        self.not_before.max(Instant::now() + left)
    }

    /// A collector refused the certificate as expired.
    pub(super) fn told(&mut self) {
        self.told = true;
    }

    /// The certificate returned.
    pub(super) fn done(&mut self) {
        self.told = false;
        self.backoff.reset();
    }

    /// It did not; says why, and what can be done where that is known.
    pub(super) fn failed(&mut self, error: &ReturnError, host: HostId) {
        let refused = match error {
            ReturnError::Uplink { source, .. } => match source.as_ref() {
                UplinkError::Refused { problem, .. } => Some(problem.code.as_str()),
                UplinkError::Connect { .. }
                | UplinkError::Slow { .. }
                | UplinkError::Tls { .. }
                | UplinkError::Broken(_)
                | UplinkError::Answer(_)
                | UplinkError::Unacknowledged
                | UplinkError::Encode(_) => None,
            },
            ReturnError::Identity(_) | ReturnError::Tls(_) => None,
        };
        let asked = match refused {
            Some(code::RETURN_TOO_LATE | code::CERTIFICATE_REVOKED) => OPERATOR,
            Some(code::CERTIFICATE_UNKNOWN) => UNKNOWN,
            _ => {
                let wait = self.backoff.after_failure();
                self.wait(wait);
                let error: &(dyn std::error::Error + 'static) = error;
                return tracing::warn!(error, ?wait, "the expired certificate did not return");
            }
        };
        self.wait(backoff::retry_after(asked));
        tracing::error!(
            code = refused,
            "this host cannot return by itself. An operator has to make a token for it with \
             `infratrack-collector token enroll --host {host}`, and here \
             `infratrack-agent enroll --force` has to be run with it; nothing collected is lost"
        );
    }

    fn wait(&mut self, wait: Duration) {
        self.not_before = Instant::now() + wait;
    }
}
