//! Which certificates may speak: the positive list, cached, with revocations pushed into the cache.
//!
//! Checked for every request, on connections that are already open too. Where the database can't be
//! asked for [`STALE_AFTER`], nobody is let through: a revocation may have been missed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use infratrack_shared::ids::HostId;
use infratrack_shared::wire::problem::code;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::agents::commands::Answers;
use crate::agents::problem::Refusal;
use crate::clock::Clock;
use crate::store;

/// Without news for this long, requests are answered 503 instead of being believed.
const STALE_AFTER: Duration = Duration::from_secs(60);
/// Revocations are looked for from this long before the last look: transactions take time to commit.
const OVERLAP: time::Duration = time::Duration::seconds(120);
/// How often revocations are looked for where no notification comes.
pub const POLL: Duration = Duration::from_secs(2);
/// A look that takes longer is given up: the next one may have a connection that works.
const LOOK_UP: Duration = Duration::from_secs(5);

/// The cache of the positive list.
#[derive(Debug)]
pub struct Certificates {
    pool: PgPool,
    clock: Clock,
    answers: Arc<Answers>,
    inner: Mutex<Inner>,
}

#[derive(Clone, Copy, Debug)]
struct Valid {
    host: HostId,
    not_after: OffsetDateTime,
}

#[derive(Debug)]
struct Inner {
    valid: HashMap<Vec<u8>, Valid>,
    revoked: HashSet<Vec<u8>>,
    fresh_at: Instant,
}

impl Certificates {
    /// An empty cache over `pool`.
    pub fn new(pool: PgPool, clock: Clock, answers: Arc<Answers>) -> Self {
        let inner = Inner {
            valid: HashMap::new(),
            revoked: HashSet::new(),
            fresh_at: Instant::now(),
        };
        Self {
            pool,
            clock,
            answers,
            inner: Mutex::new(inner),
        }
    }

    /// The host that the certificate with this serial speaks for, or why it may not.
    pub async fn check(&self, serial: &[u8]) -> Result<HostId, Refusal> {
        {
            let inner = self.lock();
            if inner.fresh_at.elapsed() > STALE_AFTER {
                return Err(Refusal::unavailable("revocations can't be looked up", 30));
            }
            if denied(inner.revoked.contains(serial)) {
                return Err(revoked());
            }
            if let Some(valid) = inner.valid.get(serial) {
                return self.unexpired(*valid);
            }
        }
        // Boxed: it is seldom needed, and every request's future would have room for it.
        Box::pin(self.look_up(serial)).await
    }

    /// Asks the database, once for each certificate.
    async fn look_up(&self, serial: &[u8]) -> Result<HostId, Refusal> {
        let unavailable = |error: sqlx::Error| {
            tracing::warn!(%error, "cannot look up a certificate");
            Refusal::unavailable("certificates can't be looked up", 10)
        };
        let mut connection = self.pool.acquire().await.map_err(unavailable)?;
        let row = store::agent_certs::find(&mut connection, serial)
            .await
            .map_err(unavailable)?;
        let Some(row) = row else {
            let detail = "this certificate is not in the list of issued ones; enroll again";
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                code::CERTIFICATE_UNKNOWN,
                detail,
            ));
        };
        let mut inner = self.lock();
        if denied(row.revoked_at.is_some()) {
            inner.revoked.insert(serial.to_vec());
            return Err(revoked());
        }
        // A revocation may have come between the look-up and now.
        if denied(inner.revoked.contains(serial)) {
            return Err(revoked());
        }
        let valid = Valid {
            host: HostId(row.host_id),
            not_after: row.not_after,
        };
        inner.valid.insert(serial.to_vec(), valid);
        drop(inner);
        self.unexpired(valid)
    }

    /// The handshake has looked at this too, but a connection may outlive its certificate.
    fn unexpired(&self, valid: Valid) -> Result<HostId, Refusal> {
        if valid.not_after > self.clock.now() {
            return Ok(valid.host);
        }
        let detail = "this certificate has expired; return with it";
        Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            code::CERTIFICATE_EXPIRED,
            detail,
        ))
    }

    /// Looks for revocations and ends the held answers of their hosts.
    pub async fn refresh(&self) -> sqlx::Result<()> {
        let since = self.clock.now() - OVERLAP;
        let asked_at = Instant::now();
        let revoked = async {
            let mut connection = self.pool.acquire().await?;
            store::agent_certs::list_revoked(&mut connection, since).await
        };
        let revoked = tokio::time::timeout(LOOK_UP, revoked)
            .await
            .unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())));
        let revoked = revoked.inspect_err(|_| {
            // The database may come back as an older one that never knew some of them.
            self.lock().valid.clear();
        })?;
        let mut inner = self.lock();
        inner.fresh_at = asked_at;
        let now = self.clock.now();
        inner.valid.retain(|_, valid| valid.not_after > now);
        for (serial, host) in revoked {
            inner.valid.remove(&serial);
            if inner.revoked.insert(serial) {
                self.answers.end(host);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the mutant leaves out, for the tests to notice.
fn denied(is_revoked: bool) -> bool {
    is_revoked && !cfg!(feature = "mutant-no-deny-check")
}

fn revoked() -> Refusal {
    let detail = "this certificate was revoked; an operator has to enroll the host again";
    Refusal::new(StatusCode::FORBIDDEN, code::CERTIFICATE_REVOKED, detail)
}
