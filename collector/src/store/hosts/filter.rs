//! Which hosts a list shows, as conditions on `hosts h`, `host_liveness l` and the judged `j`.
//!
//! Called by [`super::list`], which brings those tables.

use ipnet::IpNet;
use serde::Serialize;
use sqlx::{Postgres, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::hosts::Cutoffs;

/// Hosts that are at work, or not any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not retired, those that are missing in their inventory among them.
    #[default]
    Active,
    /// Not retired, and no longer listed by the inventory they came from.
    Missing,
    Retired,
    All,
}

/// Which hosts a list shows: those for which all of it holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Filter {
    /// Any of these; empty: any.
    pub hosts: Vec<Uuid>,
    /// Any of these.
    pub status: Vec<String>,
    /// Any of these.
    pub liveness: Vec<String>,
    /// Each begins a word of the host or its facts, or stands in its name.
    pub words: Vec<String>,
    /// All of these.
    pub tags: Vec<String>,
    /// None of these.
    pub not_tags: Vec<String>,
    pub owner: Option<String>,
    pub environment: Option<String>,
    pub origin: Option<String>,
    pub os: Option<String>,
    pub agent_version: Option<String>,
    /// An address of the host is, or is in, this.
    pub address: Option<IpNet>,
    /// Any of these.
    pub reasons: Vec<String>,
    /// The certificate expires within so many days, or has.
    pub certificate_days: Option<i32>,
    pub state: State,
    pub last_seen_before: Option<OffsetDateTime>,
    pub last_seen_after: Option<OffsetDateTime>,
    pub created_before: Option<OffsetDateTime>,
    pub created_after: Option<OffsetDateTime>,
}

impl Filter {
    /// Whether nothing but the state decides.
    pub(super) fn is_all(&self) -> bool {
        let state = self.state;
        *self
            == Self {
                state,
                ..Self::default()
            }
    }

    /// Whether status, reasons or the certificate decide.
    pub(super) fn judges(&self) -> bool {
        !self.status.is_empty() || !self.reasons.is_empty() || self.certificate_days.is_some()
    }

    /// Whether what was last heard of a host decides.
    pub(super) fn needs_liveness(&self) -> bool {
        let seen = self.last_seen_before.is_some() || self.last_seen_after.is_some();
        self.judges() || seen || !self.liveness.is_empty() || self.agent_version.is_some()
    }
}

/// Silence in words.
pub(super) fn push_liveness(query: &mut QueryBuilder<Postgres>, cutoffs: Cutoffs) {
    query
        .push("host_liveness_word(l, ")
        .push_bind(cutoffs.late_before);
    query.push(", ").push_bind(cutoffs.offline_before).push(")");
}

/// Of the host's own row, and its words.
pub(super) fn push_host_filters(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if !filter.hosts.is_empty() {
        query
            .push(" and h.host_id = any(")
            .push_bind(filter.hosts.clone())
            .push(")");
    }
    if !filter.tags.is_empty() {
        query.push(" and h.tags @> ").push_bind(filter.tags.clone());
    }
    if !filter.not_tags.is_empty() {
        query
            .push(" and not h.tags && ")
            .push_bind(filter.not_tags.clone());
    }
    for (column, value) in [
        (" and h.owner = ", &filter.owner),
        (" and h.environment = ", &filter.environment),
        (" and h.origin = ", &filter.origin),
        (" and h.os_id = ", &filter.os),
    ] {
        if let Some(value) = value {
            query.push(column).push_bind(value.clone());
        }
    }
    for (column, at) in [
        (" and h.created_at < ", filter.created_before),
        (" and h.created_at > ", filter.created_after),
    ] {
        if let Some(at) = at {
            query.push(column).push_bind(at);
        }
    }
    if let Some(address) = filter.address {
        query.push(" and exists (select from unnest(h.addresses) as a where a <<= ");
        query.push_bind(address).push("::inet)");
    }
    for word in &filter.words {
        query
            .push(" and (h.host_id in (select w from hosts_with_word(")
            .push_bind(word.clone());
        query
            .push(") as w) or h.name ilike ")
            .push_bind(format!("%{}%", escape_like(word)));
        query.push(")");
    }
}

/// Of what was last heard of the host.
pub(super) fn push_seen_filters(
    query: &mut QueryBuilder<Postgres>,
    filter: &Filter,
    cutoffs: Cutoffs,
) {
    for (column, at) in [
        (" and l.last_seen_at < ", filter.last_seen_before),
        (" and l.last_seen_at > ", filter.last_seen_after),
    ] {
        if let Some(at) = at {
            query.push(column).push_bind(at);
        }
    }
    if let Some(version) = &filter.agent_version {
        query
            .push(" and l.agent_version = ")
            .push_bind(version.clone());
    }
    if !filter.liveness.is_empty() {
        query.push(" and (");
        push_liveness(query, cutoffs);
        query
            .push(") = any(")
            .push_bind(filter.liveness.clone())
            .push(")");
    }
    if !filter.status.is_empty() {
        query
            .push(" and j.status = any(")
            .push_bind(filter.status.clone())
            .push(")");
    }
    if !filter.reasons.is_empty() {
        query
            .push(" and j.reasons && ")
            .push_bind(filter.reasons.clone());
    }
    if let Some(days) = filter.certificate_days {
        query
            .push(" and c.not_after < ")
            .push_bind(cutoffs.now)
            .push(" + make_interval(days => ")
            .push_bind(days)
            .push(")");
    }
}

/// `%`, `_` and `\` stand for themselves.
fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_")
}
