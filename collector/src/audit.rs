//! The audit log: who changed what, when, from where.
//!
//! [`record`] is called in the transaction of the change, so that neither is there without the other. Rows are
//! sealed into a hash chain afterwards, so that writers never queue on it. docs/audit.md says what it proves.

pub mod chain;
pub mod checkpoint;
pub mod verify;

use std::net::IpAddr;
use std::sync::Arc;

use infratrack_shared::ids::HostId;
use ipnet::IpNet;
use nix::unistd::{Uid, User};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::store::idempotency_keys::{self, Claim};
use crate::store::{audit_log, storable};

/// The most that is kept of `before` and `after` each, as JSON.
pub const DOCUMENT_BYTES: usize = 64 * 1024;
/// The most that is kept of a name or an id.
pub const TEXT_BYTES: usize = 512;
/// Rows of a statement.
const STATEMENT_ROWS: usize = 5000;
/// And bytes of their documents, after which it is sent.
const STATEMENT_BYTES: usize = 4 * 1024 * 1024;

/// What kind of actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// Somebody who logged in by name.
    User,
    /// An API token.
    Token,
    /// Somebody whom a trusted reverse proxy named.
    Proxy,
    /// A host's agent.
    Agent,
    /// The collector itself.
    Job,
    /// Somebody with a shell on the collector.
    CommandLine,
}

impl ActorKind {
    /// What it is called, in the table and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Token => "token",
            Self::Proxy => "proxy",
            Self::Agent => "agent",
            Self::Job => "job",
            Self::CommandLine => "command_line",
        }
    }
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub kind: ActorKind,
    pub name: String,
    pub id: Option<String>,
    pub address: Option<IpAddr>,
    pub request_id: Option<String>,
    /// The `Idempotency-Key` that its request holds; [`record`] says that the request was carried out.
    pub claim: Option<Arc<Claim>>,
}

impl Actor {
    /// A background job.
    pub fn job(name: &'static str) -> Self {
        Self::local(ActorKind::Job, name.to_owned(), None)
    }

    /// The person at the shell: whom the kernel remembers as logged in, through sudo and su; where it does not
    /// know, the user this process runs as.
    pub fn command_line() -> Self {
        let uid = login_uid().unwrap_or_else(Uid::current);
        let user = User::from_uid(uid).ok().flatten();
        let name = user.map_or_else(|| uid.to_string(), |user| user.name);
        Self::local(ActorKind::CommandLine, name, Some(uid.to_string()))
    }

    /// A host's agent.
    pub fn agent(host: HostId, address: Option<IpAddr>) -> Self {
        Self {
            address,
            ..Self::local(ActorKind::Agent, host.to_string(), Some(host.to_string()))
        }
    }

    fn local(kind: ActorKind, name: String, id: Option<String>) -> Self {
        Self {
            kind,
            name,
            id,
            address: None,
            request_id: None,
            claim: None,
        }
    }
}

/// The kernel's audit identity of this process; it is set once at login.
fn login_uid() -> Option<Uid> {
    let text = std::fs::read_to_string("/proc/self/loginuid").ok()?;
    let uid: u32 = text.trim().parse().ok()?;
    (uid != u32::MAX).then(|| Uid::from_raw(uid))
}

/// What was changed. Secrets are never in it: passwords, tokens and their hashes are the caller's to leave out.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// The noun and what was done to it: `host.revoke`.
    pub action: &'static str,
    pub subject_kind: &'a str,
    pub subject_id: String,
    /// What was; of an update, the fields that changed are enough.
    pub before: Option<Value>,
    /// What is.
    pub after: Option<Value>,
}

impl<'a> Change<'a> {
    /// Something was done.
    pub fn new(
        action: &'static str,
        subject_kind: &'a str,
        subject_id: impl std::fmt::Display,
    ) -> Self {
        Self {
            action,
            subject_kind,
            subject_id: subject_id.to_string(),
            before: None,
            after: None,
        }
    }

    /// What was.
    pub fn before(self, before: Value) -> Self {
        let before = Some(before);
        Self { before, ..self }
    }

    /// What is.
    pub fn after(self, after: Value) -> Self {
        let after = Some(after);
        Self { after, ..self }
    }
}

/// Adds the change to the log. Called in the transaction that makes the change.
pub async fn record(
    connection: &mut PgConnection,
    actor: &Actor,
    change: Change<'_>,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    record_all(connection, actor, vec![change], now).await
}

/// Adds changes to the log, in their order, each a row of its own. Called in the transaction that makes them.
pub async fn record_all(
    connection: &mut PgConnection,
    actor: &Actor,
    changes: Vec<Change<'_>>,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let mut rows = audit_log::NewRows::default();
    let mut size_bytes = 0;
    for change in changes {
        let before = change.before.as_ref().map(document);
        let after = change.after.as_ref().map(document);
        size_bytes += [&before, &after]
            .map(|text| text.as_ref().map_or(0, String::len))
            .iter()
            .sum::<usize>();
        rows.actions.push(change.action.to_owned());
        rows.subject_kinds.push(change.subject_kind.to_owned());
        rows.subject_ids.push(text(&change.subject_id));
        rows.befores.push(before);
        rows.afters.push(after);
        if rows.actions.len() == STATEMENT_ROWS || size_bytes >= STATEMENT_BYTES {
            insert(connection, actor, &std::mem::take(&mut rows), now).await?;
            size_bytes = 0;
        }
    }
    if rows.actions.is_empty() {
        return Ok(());
    }
    insert(connection, actor, &rows, now).await
}

async fn insert(
    connection: &mut PgConnection,
    actor: &Actor,
    rows: &audit_log::NewRows,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let actor_id = actor.id.as_deref().map(text);
    let request_id = actor.request_id.as_deref().map(text);
    let by = audit_log::By {
        at: now,
        actor_kind: actor.kind.name(),
        actor_name: &text(&actor.name),
        actor_id: actor_id.as_deref(),
        actor_address: actor
            .address
            .map(|address| IpNet::from(address.to_canonical())),
        request_id: request_id.as_deref(),
    };
    audit_log::insert(connection, &by, rows).await?;
    carried_out(connection, actor).await
}

/// Says of the request's key that it was used, or fails because another request has it by now.
async fn carried_out(connection: &mut PgConnection, actor: &Actor) -> sqlx::Result<()> {
    let Some(claim) = &actor.claim else {
        return Ok(());
    };
    if idempotency_keys::update_carried_out(connection, claim).await? == 0 {
        let text = "another request took over this one's Idempotency-Key";
        return Err(sqlx::Error::Protocol(text.to_owned()));
    }
    Ok(())
}

/// As it is stored: what is too large is named by its size and BLAKE3.
fn document(value: &Value) -> String {
    let whole = value.to_string();
    if whole.len() <= DOCUMENT_BYTES {
        return whole;
    }
    let hash = blake3::hash(whole.as_bytes()).to_hex();
    json!({"omitted": {"size_bytes": whole.len(), "blake3": hash.as_str()}}).to_string()
}

/// As Postgres takes it, and no longer than is kept.
fn text(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    storable(text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_is_too_large_is_named_by_its_size_and_hash() {
        let value = Value::String("x".repeat(DOCUMENT_BYTES - 2));
        assert_eq!(document(&value).len(), DOCUMENT_BYTES);
        let value = Value::String("x".repeat(DOCUMENT_BYTES - 1));
        let kept: Value = serde_json::from_str(&document(&value)).expect("JSON");
        assert_eq!(kept["omitted"]["size_bytes"], DOCUMENT_BYTES + 1);
        let hash = blake3::hash(value.to_string().as_bytes()).to_hex();
        assert_eq!(kept["omitted"]["blake3"], hash.as_str());
    }

    #[test]
    fn a_text_is_cut_at_a_character_and_has_no_nul() {
        assert_eq!(text("a\0b"), "a\u{fffd}b");
        let cut = text(&format!("x{}", "\u{e4}".repeat(TEXT_BYTES)));
        assert_eq!(cut.len(), TEXT_BYTES - 1);
    }
}
