//! The connections to the collectors: which endpoint, as whom, and when to try again.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use infratrack_shared::ids::{HostId, InstanceId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::event::{CertificateRenewed, Event};
use infratrack_shared::wire::problem::code;
use serde_bytes::ByteBuf;
use tokio::time::Instant;

use crate::backoff::{self, Backoff};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::renewal::{self, Renewal, Renewing};
use crate::daemon::returning::Returning;
use crate::identity::{Collectors, Identity, Pair};
use crate::reporter::{Report, ReportError, Reported, Reporter};
use crate::returning;
use crate::tls;
use crate::uplink::{Connection, Endpoint, UplinkError};

/// An idle second connection is closed after this.
const SIDE: Duration = Duration::from_secs(60);
/// A collector that drains asks for this; it is spread over the fleet.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// A refused certificate is tried again rarely: only an operator can help.
const REVOKED: Duration = Duration::from_secs(24 * 3600);
const UNKNOWN: Duration = Duration::from_secs(3600);

/// Both connections and what it takes to open them.
pub(super) struct Link {
    identity: Identity,
    collectors: Collectors,
    host: HostId,
    /// This run of the process.
    instance: InstanceId,
    tls: Arc<rustls::ClientConfig>,
    /// The pair in `tls` is a renewed one that no Ack has come over yet.
    trying_next: bool,
    endpoint: usize,
    main: Option<Connection>,
    side: Option<(Connection, Instant)>,
    backoff: Backoff,
    not_before: Instant,
    /// When the certificate in `tls` ends.
    expires: UnixMillis,
    renewal: Renewal,
    returning: Returning,
    renewed: Option<Event>,
}

/// Why no report arrived, and how long to wait.
pub(super) struct Lost {
    pub(super) words: String,
    pub(super) wait: Duration,
}

impl Link {
    pub(super) fn new(
        identity: Identity,
        instance: InstanceId,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let current = identity.current()?;
        let mut collectors = identity.collectors()?;
        if !config.endpoints.is_empty() {
            config.endpoints.clone_into(&mut collectors.endpoints);
        }
        let enroll_endpoint = config.enroll_endpoint.clone();
        let returning = Returning::at(enroll_endpoint.or(collectors.enroll_endpoint.take()));
        anyhow::ensure!(
            !collectors.endpoints.is_empty(),
            "no collector is known: set endpoints"
        );
        let (next, host) = (identity.next()?, current.host);
        let trying_next = next.is_some();
        let pair = next.unwrap_or(current);
        let (renewal, expires) = (Renewal::of(&pair), pair.not_after);
        let tls = tls::mutual(&identity.roots()?, pair)?;
        Ok(Self {
            identity,
            // Hosts begin at different collectors.
            endpoint: usize::from(host.0.as_bytes().last().copied().unwrap_or(0)),
            collectors,
            host,
            instance,
            tls: Arc::new(tls),
            trying_next,
            main: None,
            side: None,
            backoff: Backoff::default(),
            not_before: Instant::now(),
            expires,
            renewal,
            returning,
            renewed: None,
        })
    }

    pub(super) fn host(&self) -> HostId {
        self.host
    }

    /// This host's place in an interval, 0 to 1, by its id.
    pub(super) fn phase(&self) -> f64 {
        let hash = blake3::hash(self.host.0.as_bytes());
        let bits = hash
            .as_bytes()
            .first_chunk()
            .map_or(0, |first| u32::from_be_bytes(*first));
        f64::from(bits) / f64::from(u32::MAX)
    }

    /// Nothing is to be sent before this.
    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    /// When the certificate is to return, if nothing renews it before.
    pub(super) fn next_return(&self, now: UnixMillis) -> Instant {
        self.returning.next(self.expires, now)
    }

    /// Sends one report, over the main connection where that is `free`.
    pub(super) async fn report(
        &mut self,
        reporter: &mut Reporter,
        report: Report,
        free: bool,
    ) -> Result<Reported, Lost> {
        let connection = match self.connection(free).await {
            Ok(connection) => connection,
            Err(error) => {
                reporter.keep(report.heartbeat).await;
                return Err(self.failed(&error));
            }
        };
        match reporter.report(connection, report).await {
            Ok(reported) => {
                self.backoff.reset();
                self.acknowledged();
                Ok(reported)
            }
            Err(ReportError::Uplink(error)) => Err(self.failed(&error)),
            Err(ReportError::Spool(error)) => {
                let wait = self.backoff.after_failure();
                self.not_before = Instant::now() + wait;
                Err(Lost {
                    words: error.to_string(),
                    wait,
                })
            }
        }
    }

    /// The held answer broke: a silently lost connection took many with it.
    pub(super) fn broken(&mut self, error: &UplinkError) -> Lost {
        self.main = None;
        let wait = backoff::up_to(backoff::AFTER_LOSS);
        self.not_before = Instant::now() + wait;
        Lost {
            words: words(error),
            wait,
        }
    }

    /// This collector drains: another one, soon.
    pub(super) fn go_elsewhere(&mut self) {
        self.disconnect();
        self.not_before = Instant::now() + backoff::up_to(ELSEWHERE);
    }

    /// Trusts these roots from here on, where they are new.
    pub(super) fn trust(&mut self, bundle: &[ByteBuf]) -> anyhow::Result<()> {
        let known = self.identity.roots()?;
        let same = bundle.len() == known.len()
            && bundle
                .iter()
                .zip(&known)
                .all(|(new, old)| new.as_slice() == old.as_ref());
        if !bundle.is_empty() && !same {
            self.identity.store_roots(bundle)?;
            self.reload()?;
        }
        Ok(())
    }

    /// Renews when it is time, or returns when that time has passed. The event, once the new certificate is
    /// in use.
    pub(super) async fn renew_if_due(&mut self, clock: &Clock) -> Option<Event> {
        if let Some(endpoint) = self.returning.due(self.expires, clock.now()) {
            self.come_back(&endpoint).await;
        } else if self.renewal.is_due(clock.now())
            && Instant::now() >= self.not_before
            && let Err(error) = self.renew(Renewing::SameHost).await
        {
            tracing::warn!(
                error = format!("{error:#}"),
                "the certificate was not renewed"
            );
            self.renewal.failed();
        }
        self.renewed.take()
    }

    /// Gets a certificate for a new key and uses it from the next connection on.
    pub(super) async fn renew(&mut self, renewing: Renewing) -> anyhow::Result<()> {
        if renewing == Renewing::AnotherHost {
            // A key that waits for its certificate may have been copied with the disk.
            self.identity.discard_next()?;
            self.reload()?;
        }
        let endpoint = self.target()?;
        let mut connection = Connection::open(&endpoint).await?;
        renewal::renew(&self.identity, self.instance, &mut connection).await?;
        self.reload()?;
        Ok(())
    }

    /// Returns with the expired certificate, and uses the new one from the next connection on.
    async fn come_back(&mut self, endpoint: &str) {
        tracing::info!(endpoint, "the certificate has expired; returning with it");
        let (identity, trust_domain) = (&self.identity, &self.collectors.trust_domain);
        let returned = async {
            let old = match identity.next()? {
                Some(next) => next,
                None => identity.current()?,
            };
            returning::come_back(identity, &old, endpoint, trust_domain).await
        };
        match returned.await {
            Ok(()) => {
                self.returning.done();
                if let Err(error) = self.reload() {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the returned certificate is not usable");
                }
            }
            // A renewed one that no collector knows: the one before it may still return.
            Err(error) if self.trying_next && error.is_unknown() => {
                self.certificate_unknown();
            }
            Err(error) => self.returning.failed(&error, self.host),
        }
    }

    async fn connection(&mut self, free: bool) -> Result<&mut Connection, UplinkError> {
        let endpoint = self
            .target()
            .map_err(|error| UplinkError::Answer(error.into()))?;
        if free {
            self.side = self.side.take().filter(|(_, used)| used.elapsed() < SIDE);
            let ready = self.main.take().filter(Connection::is_open);
            let open = match ready {
                Some(connection) => connection,
                None => Connection::open(&endpoint).await?,
            };
            return Ok(self.main.insert(open));
        }
        let ready = self
            .side
            .take()
            .map(|(connection, _)| connection)
            .filter(Connection::is_open);
        let open = match ready {
            Some(connection) => connection,
            None => Connection::open(&endpoint).await?,
        };
        Ok(&mut self.side.insert((open, Instant::now())).0)
    }

    fn target(&self) -> anyhow::Result<Endpoint> {
        let endpoints = &self.collectors.endpoints;
        let address = endpoints
            .get(self.endpoint % endpoints.len())
            .cloned()
            .unwrap_or_default();
        let name = tls::server_name(&self.collectors.trust_domain)?;
        Ok(Endpoint {
            address,
            name,
            tls: Arc::clone(&self.tls),
        })
    }

    /// An Ack came: the pair it came over works.
    fn acknowledged(&mut self) {
        if !std::mem::take(&mut self.trying_next) {
            return;
        }
        let promoted = self
            .identity
            .promote_next()
            .and_then(|()| self.identity.current());
        match promoted {
            Ok(Pair {
                host,
                serial,
                not_after,
                ..
            }) => {
                self.host = host;
                tracing::info!(serial, "the renewed certificate is in use");
                self.renewed = Some(Event::CertificateRenewed(CertificateRenewed {
                    serial,
                    not_after,
                }));
            }
            Err(error) => tracing::error!(%error, "the renewed certificate was not put in place"),
        }
    }

    fn failed(&mut self, error: &UplinkError) -> Lost {
        if error.is_expired() {
            self.returning.told();
        }
        let wait = match error {
            UplinkError::Refused { problem, .. } if problem.code == code::PROTOCOL_UNSUPPORTED => {
                // One side has to be upgraded first.
                backoff::retry_after(UNKNOWN / 2)
            }
            UplinkError::Refused { problem, .. }
                if [code::CERTIFICATE_REVOKED, code::CLONE_BLOCKED]
                    .contains(&problem.code.as_str()) =>
            {
                backoff::retry_after(REVOKED / 2)
            }
            UplinkError::Refused { problem, .. } if problem.code == code::CERTIFICATE_UNKNOWN => {
                self.certificate_unknown()
            }
            UplinkError::Refused {
                status:
                    StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::CONFLICT,
                ..
            } => {
                // The reporter has taken care of it: at once, but not in a circle.
                backoff::up_to(Duration::from_secs(1))
            }
            UplinkError::Refused {
                retry_after: Some(asked),
                ..
            } => backoff::retry_after(*asked),
            UplinkError::Tls { .. } if self.trying_next => self.certificate_unknown(),
            UplinkError::Connect { .. } | UplinkError::Slow { .. } | UplinkError::Tls { .. } => {
                self.disconnect();
                self.backoff.after_failure()
            }
            UplinkError::Refused { .. }
            | UplinkError::Broken(_)
            | UplinkError::Answer(_)
            | UplinkError::Unacknowledged
            | UplinkError::Encode(_) => self.backoff.after_failure(),
        };
        self.main = None;
        self.side = None;
        self.not_before = Instant::now() + wait;
        Lost {
            words: words(error),
            wait,
        }
    }

    /// A renewed certificate that is refused is given up for the one before; that one is all there is.
    fn certificate_unknown(&mut self) -> Duration {
        if std::mem::take(&mut self.trying_next) {
            let back = self.identity.discard_next().map_err(anyhow::Error::from);
            if let Err(error) = back.and_then(|()| self.reload()) {
                tracing::error!(
                    error = format!("{error:#}"),
                    "cannot go back to the old certificate"
                );
            }
            return backoff::up_to(Duration::from_secs(1));
        }
        backoff::retry_after(UNKNOWN / 2)
    }

    /// Reads identity and roots again; the next connection uses them.
    fn reload(&mut self) -> anyhow::Result<()> {
        let next = self.identity.next()?;
        self.trying_next = next.is_some();
        let pair = match next {
            Some(pair) => pair,
            None => self.identity.current()?,
        };
        (self.renewal, self.expires) = (Renewal::of(&pair), pair.not_after);
        self.tls = Arc::new(tls::mutual(&self.identity.roots()?, pair)?);
        // A held answer goes on to its end over the old connection.
        self.side = None;
        self.main = None;
        Ok(())
    }

    fn disconnect(&mut self) {
        self.main = None;
        self.side = None;
        self.endpoint = self.endpoint.wrapping_add(1);
    }
}

/// The error and its causes.
fn words(error: &UplinkError) -> String {
    let first: &dyn std::error::Error = error;
    let causes = std::iter::successors(Some(first), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
