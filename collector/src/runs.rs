//! What the ways by which a run comes have in common: who brings it, when it was, and which change it is of.

use sqlx::PgConnection;
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use infratrack_shared::ids::HostId;

use crate::caller::Caller;
use crate::changes::claims::Claims;
use crate::changes::correlate::{self, KeyKind};
use crate::store::changes;

/// A run's own time is believed where it is not older, since what was spooled may come late, nor newer by more than a
/// wrong clock.
const OLDEST: Duration = Duration::days(30);
const NEWEST: Duration = Duration::minutes(5);

/// Who brings a run.
#[derive(Clone, Copy, Debug)]
pub enum Bringer<'a> {
    /// With a token.
    Caller(&'a Caller),
    /// The agent of this host.
    Host(HostId),
}

impl Bringer<'_> {
    /// The only repository whose runs they may bring.
    pub fn repository(&self) -> Option<&str> {
        match self {
            Self::Caller(caller) => caller.repository.as_deref(),
            Self::Host(_) => None,
        }
    }

    /// Whether it was them who began a run, by what is stored of it. Hosts may have got another name since.
    pub fn has_brought(&self, brought_by: &str) -> bool {
        match self {
            Self::Caller(caller) => brought_by == caller.name,
            Self::Host(host) => {
                brought_by.starts_with(AGENT) && brought_by.ends_with(&of_host("", *host))
            }
        }
    }
}

const AGENT: &str = "agent of ";

/// What is stored of a run that a host's agent brings.
pub fn brought_by_agent(name: &str, host: HostId) -> String {
    format!("{AGENT}{}", of_host(name, host))
}

fn of_host(name: &str, host: HostId) -> String {
    format!("{name} ({host})")
}

/// Why a run has no change.
#[derive(Debug, Error)]
pub enum NotJoined {
    #[error("{0}")]
    OtherRepository(String),
    #[error("the run's change could not be asked for")]
    Database(#[from] sqlx::Error),
}

/// When something happened: as it is said, or else now.
pub fn believed(at: OffsetDateTime, now: OffsetDateTime) -> OffsetDateTime {
    if (now - OLDEST..=now + NEWEST).contains(&at) {
        at
    } else {
        now
    }
}

/// What is claimed, of the repository that the bringer is for: said so where nothing is said, refused where another is.
pub fn of_bringer(bringer: Bringer<'_>, mut claims: Claims) -> Result<Claims, NotJoined> {
    if let Some(own) = bringer.repository() {
        let said = claims.repository.get_or_insert_with(|| own.to_owned());
        if !correlate::is_same_repository(said, own) {
            let detail = format!("this token is for runs of {own}");
            return Err(NotJoined::OtherRepository(detail));
        }
    }
    Ok(claims)
}

/// The change that a run with these keys belongs to, or a new one of this id.
pub async fn join(
    connection: &mut PgConnection,
    bringer: Bringer<'_>,
    keys: &[correlate::Key],
    new_id: Uuid,
    now: OffsetDateTime,
) -> Result<Uuid, NotJoined> {
    let mut sorted: Vec<_> = keys.iter().collect();
    sorted.sort();
    for key in sorted {
        changes::lock_key(connection, key.kind.name(), &key.text).await?;
    }
    let explicit = keys.iter().find(|key| key.kind == KeyKind::Explicit);
    let explicit = explicit.map(|key| key.text.as_str());
    let mut found = None;
    for key in keys {
        let since = now - key.kind.joins_within();
        let named = (key.kind.name(), key.text.as_str());
        found = changes::find_by_key(connection, named, since, explicit).await?;
        if found.is_some() {
            break;
        }
    }
    if let (Some(own), Some(found)) = (bringer.repository(), found) {
        // An id or a trace may be anybody's.
        let theirs = changes::find(connection, found).await?;
        let theirs = theirs.and_then(|change| change.repository);
        if theirs.is_some_and(|theirs| !correlate::is_same_repository(&theirs, own)) {
            let detail = format!("the change is of another repository than {own}");
            return Err(NotJoined::OtherRepository(detail));
        }
    }
    let change_id = found.unwrap_or(new_id);
    if found.is_none() {
        changes::insert(connection, change_id, now).await?;
    }
    let pairs: Vec<_> = keys
        .iter()
        .map(|key| (key.kind.name().to_owned(), key.text.clone()))
        .collect();
    changes::upsert_keys(connection, change_id, &pairs, now).await?;
    Ok(change_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_knows_its_runs_by_its_id_whatever_it_is_called() {
        let (one, other) = (HostId::random(), HostId::random());
        let stored = brought_by_agent("ci-1", one);
        assert_eq!(stored, format!("agent of ci-1 ({one})"));
        assert!(Bringer::Host(one).has_brought(&stored));
        assert!(!Bringer::Host(other).has_brought(&stored));
        assert!(!Bringer::Host(one).has_brought(&format!("ci-1 ({one})")));
    }
}
