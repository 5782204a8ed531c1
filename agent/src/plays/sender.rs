//! The connection that plays go over: its own, so that no heartbeat waits for it. What is known of the collectors and of
//! ourselves is read anew for each connection, since the run loop renews it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use infratrack_shared::wire::path;
use infratrack_shared::wire::plays::{Plays, PlaysTaken};
use infratrack_shared::wire::problem::{Problem, code};
use tokio::time::Instant;

use super::shelf::Answered;
use crate::backoff::{self, Backoff};
use crate::identity::Identity;
use crate::tls;
use crate::uplink::{Connection, Endpoint, UplinkError};

/// A collector hangs up an idle connection after 90 s.
const IDLE: Duration = Duration::from_secs(60);
/// Only an operator can help, or an upgrade.
const REVOKED: Duration = Duration::from_secs(12 * 3600);
const UNKNOWN: Duration = Duration::from_secs(1800);
const NOT_SPOKEN: Duration = Duration::from_secs(600);
/// An operator has to give this host a tag, and sees its plays soon after.
const NOT_ALLOWED: Duration = Duration::from_secs(600);
/// The longest that a collector may ask for.
const LATER: Duration = Duration::from_secs(300);
/// Answers without progress in a row, before it is a failure.
const CIRCLES: u32 = 8;

/// Sends plays.
#[derive(Debug)]
pub(super) struct Sender {
    state_dir: PathBuf,
    /// In place of those that the enrollment named.
    endpoints: Vec<String>,
    endpoint: usize,
    connection: Option<(Connection, Instant)>,
    backoff: Backoff,
    circles: u32,
    is_away: bool,
    is_not_allowed: bool,
    not_before: Instant,
}

impl Sender {
    pub(super) fn new(state_dir: PathBuf, endpoints: Vec<String>) -> Self {
        Self {
            state_dir,
            endpoints,
            endpoint: 0,
            connection: None,
            backoff: Backoff::default(),
            circles: 0,
            is_away: false,
            is_not_allowed: false,
            not_before: Instant::now(),
        }
    }

    /// Nothing is to be sent before this.
    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    pub(super) fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Sends a request, and says what it means for its run. What it means for all is in `not_before`.
    pub(super) async fn send(&mut self, plays: &Plays) -> Answered {
        let taken = match self.post(plays).await {
            Ok(taken) => taken,
            Err(error) => return self.failed(&error),
        };
        self.is_away = false;
        self.is_not_allowed = false;
        if let Some(rejected) = taken.rejected {
            tracing::warn!(run = %plays.run, seq = rejected.seq, why = rejected.detail, "a record of a play is not taken");
            let (seq, status) = (rejected.seq, rejected.status);
            return Answered::Rejected { seq, status };
        }
        if taken.acked_seq >= plays.first_seq {
            self.circles = 0;
            self.backoff.reset();
        } else {
            self.circles += 1;
            if self.circles > CIRCLES {
                self.wait(None);
            }
        }
        Answered::Acked(taken.acked_seq)
    }

    async fn post(&mut self, plays: &Plays) -> Result<PlaysTaken, UplinkError> {
        let ready = self.connection.take();
        let ready = ready.filter(|(open, used)| open.is_open() && used.elapsed() < IDLE);
        let mut connection = match ready {
            Some((connection, _)) => connection,
            None => Connection::open(&self.target()?).await?,
        };
        let (_, taken) = connection.call_packed(path::PLAYS, plays).await?;
        self.connection = Some((connection, Instant::now()));
        Ok(taken)
    }

    fn target(&self) -> Result<Endpoint, UplinkError> {
        let target = || -> anyhow::Result<Endpoint> {
            let identity = Identity::open(&self.state_dir)?;
            let collectors = identity.collectors()?;
            let endpoints = if self.endpoints.is_empty() {
                &collectors.endpoints
            } else {
                &self.endpoints
            };
            let count = endpoints.len().max(1);
            let address = endpoints.get(self.endpoint % count).cloned();
            Ok(Endpoint {
                address: address.unwrap_or_default(),
                name: tls::server_name(&collectors.trust_domain)?,
                tls: Arc::new(tls::mutual(&identity.roots()?, identity.current()?)?),
            })
        };
        target().map_err(|error| UplinkError::Answer(error.into()))
    }

    fn failed(&mut self, error: &UplinkError) -> Answered {
        match error {
            UplinkError::Refused {
                status: status @ (StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE),
                problem,
                ..
            } if problem.code != code::PROTOCOL_UNSUPPORTED => Answered::Refused {
                status: status.as_u16(),
            },
            UplinkError::Refused { problem, .. } if problem.code == code::ANOTHER_TOKEN => {
                Answered::NotOurs
            }
            UplinkError::Refused { problem, .. } if problem.code == code::PLAYS_NOT_ALLOWED => {
                self.not_allowed(problem)
            }
            UplinkError::Refused {
                status,
                problem,
                retry_after,
            } => {
                let asked = match problem.code.as_str() {
                    code::CERTIFICATE_REVOKED | code::CLONE_BLOCKED => Some(REVOKED),
                    code::CERTIFICATE_UNKNOWN => Some(UNKNOWN),
                    code::PROTOCOL_UNSUPPORTED => Some(NOT_SPOKEN),
                    _ if *status == StatusCode::NOT_FOUND => Some(NOT_SPOKEN),
                    _ => retry_after.map(|asked| asked.min(LATER)),
                };
                self.away(error, asked)
            }
            UplinkError::Connect { .. } | UplinkError::Slow { .. } | UplinkError::Tls { .. } => {
                self.endpoint = self.endpoint.wrapping_add(1);
                self.away(error, None)
            }
            UplinkError::Broken(_)
            | UplinkError::Answer(_)
            | UplinkError::Unacknowledged
            | UplinkError::Encode(_) => self.away(error, None),
        }
    }

    /// No run is at fault: all are kept.
    fn not_allowed(&mut self, problem: &Problem) -> Answered {
        let wait = self.wait(Some(NOT_ALLOWED));
        self.is_away = false;
        // Once, until one is taken: a collector that is away in between makes it no news.
        if !std::mem::replace(&mut self.is_not_allowed, true) {
            let why = problem.detail.as_deref().unwrap_or(&problem.code);
            tracing::warn!(
                why,
                ?wait,
                "the collector takes no plays from this host; they are kept"
            );
        }
        Answered::Nothing
    }

    fn away(&mut self, error: &UplinkError, asked: Option<Duration>) -> Answered {
        let wait = self.wait(asked);
        // Once, until it is there again.
        if !std::mem::replace(&mut self.is_away, true) {
            tracing::warn!(%error, ?wait, "plays wait for the collector");
        }
        Answered::Nothing
    }

    fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let wait = match asked {
            Some(asked) => backoff::retry_after(asked),
            None => self.backoff.after_failure(),
        };
        self.not_before = Instant::now() + wait;
        wait
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use tracing_subscriber::fmt;

    use super::*;

    fn refused(code: &str) -> UplinkError {
        UplinkError::Refused {
            status: StatusCode::FORBIDDEN,
            problem: Problem {
                code: code.to_owned(),
                detail: Some("it has no such tag".to_owned()),
                ..Problem::default()
            },
            retry_after: None,
        }
    }

    #[test]
    fn a_host_that_may_bring_no_plays_keeps_them_asks_again_later_and_says_so_once() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let lines = fmt().with_writer(Arc::new(File::create(&log).unwrap()));
        let mut sender = Sender::new(dir.path().to_owned(), Vec::new());
        let begun = Instant::now();
        tracing::subscriber::with_default(lines.finish(), || {
            for error in [
                refused(code::PLAYS_NOT_ALLOWED),
                UplinkError::Unacknowledged,
                refused(code::PLAYS_NOT_ALLOWED),
            ] {
                let answer = sender.failed(&error);
                assert!(matches!(answer, Answered::Nothing), "{answer:?}");
            }
        });
        let later = sender.not_before();
        assert!((begun + NOT_ALLOWED..=Instant::now() + NOT_ALLOWED * 2).contains(&later));
        let log = fs::read_to_string(log).unwrap();
        assert_eq!(log.matches("takes no plays").count(), 1, "{log}");
        assert!(log.contains("it has no such tag"), "{log}");
    }
}
