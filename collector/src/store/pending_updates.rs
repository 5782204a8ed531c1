//! What there is to install on hosts, and what there was.

use infratrack_shared::ids::HostId;
use infratrack_shared::wire::packages::{BlockedWhy, PendingUpdate};
use sqlx::PgConnection;
use time::OffsetDateTime;

/// An update as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub manager: String,
    pub name: String,
    pub arch: String,
    pub installed: String,
    pub candidate: String,
    pub candidate_key: Option<Vec<u8>>,
    pub source: Option<String>,
    pub repository: Option<String>,
    pub is_security: Option<bool>,
    pub severity: Option<String>,
    pub advisories: Vec<String>,
    pub blocked_why: Option<String>,
    pub blocked_detail: Option<String>,
}

impl Row {
    /// What it is known by on its host.
    pub fn key(&self) -> (&str, &str, &str) {
        (&self.manager, &self.name, &self.arch)
    }
}

/// One that is pending no more, and what became of it.
#[derive(Clone, Debug)]
pub struct Past {
    pub manager: String,
    pub name: String,
    pub arch: String,
    pub outcome: &'static str,
}

/// Why it waits, as the tables and the API have it.
pub fn why_name(why: BlockedWhy) -> &'static str {
    match why {
        BlockedWhy::Held => "held",
        BlockedWhy::Pinned => "pinned",
        BlockedWhy::Phased => "phased",
        BlockedWhy::Dependencies => "dependencies",
        BlockedWhy::Subscription => "subscription",
        BlockedWhy::Other => "other",
    }
}

impl Row {
    /// What an agent says, as it is stored; texts are taken as they are.
    pub fn of(manager: &str, update: PendingUpdate, candidate_key: Option<Vec<u8>>) -> Self {
        let (blocked_why, blocked_detail) = update.blocked.map_or((None, None), |blocked| {
            (Some(why_name(blocked.why).to_owned()), blocked.detail)
        });
        Self {
            manager: manager.to_owned(),
            name: update.name,
            arch: update.arch,
            installed: update.installed,
            candidate: update.candidate,
            candidate_key,
            source: update.source,
            repository: update.repository,
            is_security: update.security,
            severity: update.severity,
            advisories: update.advisories,
            blocked_why,
            blocked_detail,
        }
    }
}

/// All of a host.
pub async fn list_rows(connection: &mut PgConnection, host: HostId) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        "select manager, name, arch, installed, candidate, candidate_key, source, repository, is_security, severity,
             advisories, blocked_why, blocked_detail
         from pending_updates where host_id = $1",
        host.0
    )
    .fetch_all(connection)
    .await
}

/// Stores updates of a host, without duplicates. What was pending before keeps its age.
pub async fn upsert(
    connection: &mut PgConnection,
    host: HostId,
    rows: &[Row],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let rows = serde_json::Value::Array(rows.iter().map(Row::to_json).collect());
    let done = sqlx::query!(
        "insert into pending_updates
             (host_id, manager, name, arch, installed, candidate, candidate_key, source, repository, is_security,
              severity, advisories, blocked_why, blocked_detail, first_seen_at, security_since)
         select $1, manager, name, arch, installed, candidate, decode(candidate_key, 'hex'), source, repository,
             is_security, severity, advisories, blocked_why, blocked_detail, $3::timestamptz, case when is_security then $3::timestamptz end
         from jsonb_to_recordset($2) as i (manager text, name text, arch text, installed text, candidate text,
             candidate_key text, source text, repository text, is_security bool, severity text, advisories text[],
             blocked_why text, blocked_detail text)
         on conflict (host_id, manager, name, arch) do update
         set installed = excluded.installed, candidate = excluded.candidate,
             candidate_key = excluded.candidate_key, source = excluded.source, repository = excluded.repository,
             is_security = excluded.is_security, severity = excluded.severity, advisories = excluded.advisories,
             blocked_why = excluded.blocked_why, blocked_detail = excluded.blocked_detail,
             security_since = case when excluded.is_security
                                   then coalesce(pending_updates.security_since, excluded.security_since) end",
        host.0,
        rows,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

impl Row {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "manager": self.manager, "name": self.name, "arch": self.arch, "installed": self.installed,
            "candidate": self.candidate, "candidate_key": self.candidate_key.as_ref().map(hex::encode),
            "source": self.source, "repository": self.repository, "is_security": self.is_security,
            "severity": self.severity, "advisories": self.advisories, "blocked_why": self.blocked_why,
            "blocked_detail": self.blocked_detail,
        })
    }
}

/// Marks those packages of a host of which there are updates for several architectures.
pub async fn mark_multiarch(connection: &mut PgConnection, host: HostId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update pending_updates u set is_multiarch = g.is_multiarch
         from (select manager, name, count(*) > 1 as is_multiarch from pending_updates where host_id = $1
               group by manager, name) as g
         where u.host_id = $1 and u.manager = g.manager and u.name = g.name
           and u.is_multiarch is distinct from g.is_multiarch",
        host.0,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Moves updates of a host to what was.
pub async fn retire(
    connection: &mut PgConnection,
    host: HostId,
    past: &[Past],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let text = |of: fn(&Past) -> &str| -> Vec<String> {
        past.iter().map(|past| of(past).to_owned()).collect()
    };
    let done = sqlx::query!(
        "with gone as (
             delete from pending_updates p
             using unnest($2::text[], $3::text[], $4::text[], $5::text[]) as i (manager, name, arch, outcome)
             where p.host_id = $1 and p.manager = i.manager and p.name = i.name and p.arch = i.arch
             returning p.*, i.outcome
         )
         insert into past_updates (host_id, gone_at, manager, name, arch, installed, candidate, is_security, severity,
             advisories, first_seen_at, security_since, outcome)
         select host_id, $6, manager, name, arch, installed, candidate, is_security, severity, advisories,
             first_seen_at, security_since, outcome
         from gone on conflict do nothing",
        host.0,
        &text(|past| &past.manager),
        &text(|past| &past.name),
        &text(|past| &past.arch),
        &text(|past| past.outcome),
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
