//! Renewal: a new key and certificate, tried before the old pair is given up.

use std::time::Duration;

use infratrack_shared::ids::InstanceId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::enroll::{RenewRequest, RenewResponse};
use infratrack_shared::wire::{PROTOCOL, path};
use serde_bytes::ByteBuf;
use tokio::time::Instant;

use crate::backoff;
use crate::failpoint::reach;
use crate::identity::{Identity, Pair, renew_at};
use crate::uplink::Connection;

/// The first retry of a failed renewal comes within a minute, later ones ever more rarely.
const FIRST_RETRY: Duration = Duration::from_secs(60);
const LAST_RETRY: Duration = Duration::from_secs(6 * 3600);

/// As whom a new certificate is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewing {
    SameHost,
    /// This machine is a copy of another one, and is to be a host of its own: with a key that nobody else has.
    AnotherHost,
}

/// When to renew.
#[derive(Debug)]
pub(super) struct Renewal {
    at: UnixMillis,
    failures: u32,
    not_before: Instant,
}

impl Renewal {
    /// For the pair in use.
    pub(super) fn of(pair: &Pair) -> Self {
        let at = renew_at(pair, rand::random());
        Self {
            at,
            failures: 0,
            not_before: Instant::now(),
        }
    }

    pub(super) fn is_due(&self, now: UnixMillis) -> bool {
        now >= self.at && Instant::now() >= self.not_before
    }

    pub(super) fn failed(&mut self) {
        let most = FIRST_RETRY
            .saturating_mul(1 << self.failures.min(16))
            .min(LAST_RETRY);
        self.failures += 1;
        self.not_before = Instant::now() + backoff::up_to(most);
    }
}

/// Asks for a certificate and stores it beside the one in use.
pub(super) async fn renew(
    identity: &Identity,
    instance: InstanceId,
    connection: &mut Connection,
) -> anyhow::Result<()> {
    let request = RenewRequest {
        protocol: PROTOCOL,
        csr: ByteBuf::from(identity.request()?),
        instance: Some(instance),
    };
    reach("identity::key-stored");
    let (_, response): (_, RenewResponse) = connection.call(path::RENEW, &request).await?;
    reach("identity::certificate-received");
    if !response.trust_bundle.is_empty() {
        identity.store_roots(&response.trust_bundle)?;
    }
    identity.store_next(&response.chain)?;
    reach("identity::next-stored");
    Ok(())
}
