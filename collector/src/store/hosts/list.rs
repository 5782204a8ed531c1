//! Lists of hosts: filters that are all to hold, a sort, and pages that begin after a place in it.
//!
//! The hosts of a page are picked first, from as few tables as filter and sort need; what is shown of them is
//! read afterwards. Status is judged for all that match only where filter or sort ask for it.

use infratrack_shared::ids::HostId;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::hosts::Cutoffs;
use crate::store::hosts::filter::{
    Filter, State, push_host_filters, push_liveness, push_seen_filters,
};

/// A host with its state.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct HostRow {
    pub host_id: Uuid,
    pub name: String,
    pub machine_id: Option<String>,
    pub tags: Vec<String>,
    pub owner: Option<String>,
    pub environment: Option<String>,
    pub addresses: Vec<String>,
    pub instance_id: Option<String>,
    pub os_id: Option<String>,
    pub os_name: Option<String>,
    pub origin: String,
    pub edited: Vec<String>,
    pub version: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: Option<OffsetDateTime>,
    pub retired_at: Option<OffsetDateTime>,
    pub missing_since: Option<OffsetDateTime>,
    pub merged_into: Option<Uuid>,
    pub last_seen_at: Option<OffsetDateTime>,
    pub liveness: String,
    pub liveness_reason: Option<String>,
    pub status: String,
    pub reasons: Vec<String>,
    pub agent_version: Option<String>,
    pub skew_ms: Option<i64>,
    pub cpu_ratio: Option<f32>,
    pub memory_used_ratio: Option<f32>,
    pub disk_used_ratio: Option<f32>,
    pub failed_unit_count: Option<i32>,
    pub reboot_required: Option<bool>,
    pub spool_records: Option<i64>,
    pub cert_not_after: Option<OffsetDateTime>,
    /// How many match on all pages, where it was asked for and came for little.
    pub total: Option<i64>,
}

/// By what a list is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Column {
    #[default]
    Name,
    /// The worst first.
    Status,
    LastSeenAt,
    CreatedAt,
    DiskUsedRatio,
    MemoryUsedRatio,
    CpuRatio,
    AgentVersion,
}

/// A column and a direction; hosts without a value come last in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    pub column: Column,
    pub is_descending: bool,
}

/// Statuses, the worst first.
const STATUSES: [&str; 4] = ["unhealthy", "degraded", "unknown", "healthy"];

impl Sort {
    fn expression(self) -> &'static str {
        match self.column {
            Column::Name => "h.name",
            Column::Status => {
                "array_position(array['unhealthy', 'degraded', 'unknown', 'healthy'], j.status)"
            }
            Column::LastSeenAt => "l.last_seen_at",
            Column::CreatedAt => "h.created_at",
            Column::DiskUsedRatio => "l.disk_used_ratio",
            Column::MemoryUsedRatio => "l.memory_used_ratio",
            Column::CpuRatio => "l.cpu_ratio",
            Column::AgentVersion => "l.agent_version",
        }
    }

    fn is_of_host(self) -> bool {
        matches!(self.column, Column::Name | Column::CreatedAt)
    }

    fn order(self) -> &'static str {
        match (self.is_of_host(), self.is_descending) {
            (_, false) => "",
            (true, true) => " desc",
            (false, true) => " desc nulls last",
        }
    }

    fn direction(self) -> &'static str {
        if self.is_descending { " desc" } else { "" }
    }

    /// Where in this sort a host stands.
    pub fn key(self, row: &HostRow) -> Key {
        let text = |text: &str| Key::Text(text.to_owned());
        let micros = |at: OffsetDateTime| i64::try_from(at.unix_timestamp_nanos() / 1000);
        let time = |at| micros(at).map_or(Key::None, Key::Micros);
        let real = |ratio: f32| Key::Bits(ratio.to_bits());
        match self.column {
            Column::Name => text(&row.name),
            Column::Status => {
                let mut places = (1..).zip(STATUSES);
                let place = places.find(|(_, status)| *status == row.status);
                place.map_or(Key::None, |(place, _)| Key::Rank(place))
            }
            Column::LastSeenAt => row.last_seen_at.map_or(Key::None, time),
            Column::CreatedAt => time(row.created_at),
            Column::DiskUsedRatio => row.disk_used_ratio.map_or(Key::None, real),
            Column::MemoryUsedRatio => row.memory_used_ratio.map_or(Key::None, real),
            Column::CpuRatio => row.cpu_ratio.map_or(Key::None, real),
            Column::AgentVersion => row.agent_version.as_deref().map_or(Key::None, text),
        }
    }
}

/// The value by which a host is sorted, exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    None,
    Text(String),
    Rank(i32),
    /// Since 1970.
    Micros(i64),
    /// Of a 32-bit floating point number.
    Bits(u32),
}

impl Key {
    /// Whether it is one of this column's.
    pub fn is_of(&self, column: Column) -> bool {
        match self {
            Self::None => !matches!(column, Column::Name | Column::CreatedAt | Column::Status),
            Self::Text(_) => matches!(column, Column::Name | Column::AgentVersion),
            Self::Rank(_) => column == Column::Status,
            Self::Micros(_) => matches!(column, Column::LastSeenAt | Column::CreatedAt),
            Self::Bits(_) => matches!(
                column,
                Column::DiskUsedRatio | Column::MemoryUsedRatio | Column::CpuRatio
            ),
        }
    }

    fn push(&self, query: &mut QueryBuilder<Postgres>) {
        match self {
            Self::None => query.push("null"),
            Self::Text(text) => query.push_bind(text.clone()),
            Self::Rank(rank) => query.push_bind(*rank),
            Self::Micros(micros) => {
                let nanos = i128::from(*micros) * 1000;
                let at = OffsetDateTime::from_unix_timestamp_nanos(nanos);
                query.push_bind(at.unwrap_or(OffsetDateTime::UNIX_EPOCH))
            }
            Self::Bits(bits) => query.push_bind(f32::from_bits(*bits)),
        };
    }
}

/// Which hosts, in which order, from where, how many.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub filter: Filter,
    pub sort: Sort,
    /// Where the last host of the page before stands.
    pub after: Option<(Key, Uuid)>,
    pub limit: i64,
    /// Whether the total is asked for, too.
    pub with_total: bool,
}

impl Page {
    /// Whether the total comes with the page, because finding out which hosts match is most of the work and is done once.
    fn counts(&self) -> bool {
        let sorts_by_status = self.sort.column == Column::Status;
        self.with_total && (sorts_by_status || !self.filter.is_all())
    }
}

/// One page of hosts.
pub async fn list(
    connection: &mut PgConnection,
    page: &Page,
    cutoffs: Cutoffs,
) -> sqlx::Result<Vec<HostRow>> {
    let mut query = QueryBuilder::new("");
    push_page(&mut query, page, cutoffs);
    query.build_query_as().fetch_all(connection).await
}

/// How many hosts match, on all pages.
pub async fn count(
    connection: &mut PgConnection,
    filter: &Filter,
    cutoffs: Cutoffs,
) -> sqlx::Result<i64> {
    let mut query = QueryBuilder::new("select count(*)");
    push_matching(
        &mut query,
        filter,
        cutoffs,
        filter.needs_liveness(),
        filter.judges(),
    );
    query.build_query_scalar().fetch_one(connection).await
}

/// The hosts that match, by id, at most `limit`.
pub async fn list_ids(
    connection: &mut PgConnection,
    filter: &Filter,
    cutoffs: Cutoffs,
    limit: i64,
) -> sqlx::Result<Vec<Uuid>> {
    let mut query = QueryBuilder::new("select h.host_id");
    push_matching(
        &mut query,
        filter,
        cutoffs,
        filter.needs_liveness(),
        filter.judges(),
    );
    query.push(" order by h.host_id limit ").push_bind(limit);
    query.build_query_scalar().fetch_all(connection).await
}

/// A host, be it retired or a clone's hidden one.
pub async fn find(
    connection: &mut PgConnection,
    host: HostId,
    cutoffs: Cutoffs,
) -> sqlx::Result<Option<HostRow>> {
    let mut query = QueryBuilder::new("");
    push_shown(&mut query, cutoffs);
    query.push(", null::int8 as total from hosts h join host_liveness l using (host_id)");
    query.push(CERTIFICATE);
    query
        .push(" where h.deleted_at is null and h.host_id = ")
        .push_bind(host.0);
    query.push(") as r");
    query.build_query_as().fetch_optional(connection).await
}

/// What Postgres says it would do, or with `analyze` did, for a page and for its total.
pub async fn explain(
    connection: &mut PgConnection,
    page: &Page,
    cutoffs: Cutoffs,
    analyze: bool,
) -> sqlx::Result<String> {
    let how = if analyze {
        "explain (analyze, buffers) "
    } else {
        "explain "
    };
    let mut of_page = QueryBuilder::new(how);
    push_page(&mut of_page, page, cutoffs);
    let mut lines: Vec<String> = of_page
        .build_query_scalar()
        .fetch_all(&mut *connection)
        .await?;
    if page.with_total && !page.counts() {
        let mut of_total = QueryBuilder::new(how);
        of_total.push("select count(*)");
        let filter = &page.filter;
        push_matching(
            &mut of_total,
            filter,
            cutoffs,
            filter.needs_liveness(),
            filter.judges(),
        );
        lines.extend(
            of_total
                .build_query_scalar::<String>()
                .fetch_all(connection)
                .await?,
        );
    }
    Ok(lines.join("\n"))
}

/// The certificate that lasts longest.
pub(super) const CERTIFICATE: &str = " left join lateral (
    select max(a.not_after) as not_after from agent_certs a
    where a.host_id = h.host_id and a.revoked_at is null) c on true";

/// `select` of all that is shown, up to its `from`; the caller closes it with `) as r`.
pub(super) fn push_shown(query: &mut QueryBuilder<Postgres>, cutoffs: Cutoffs) {
    query.push(
        "select r.*, host_status(r.last_seen_at, r.reasons) as status from (
         select h.host_id, h.name, h.machine_id, h.tags, h.owner, h.environment,
             array(select host(a) from unnest(h.addresses) as a) as addresses, h.instance_id, h.os_id, h.os_name,
             h.origin, h.edited, h.version, h.created_at, h.updated_at, h.retired_at, h.missing_since, h.merged_into,
             l.last_seen_at, l.liveness_reason, l.agent_version, l.skew_ms, l.cpu_ratio, l.memory_used_ratio,
             l.disk_used_ratio, l.failed_unit_count, l.reboot_required, l.spool_records,
             c.not_after as cert_not_after, ",
    );
    push_liveness(query, cutoffs);
    query.push(" as liveness, ");
    push_reasons(query, cutoffs);
    query.push(" as reasons");
}

fn push_reasons(query: &mut QueryBuilder<Postgres>, cutoffs: Cutoffs) {
    query
        .push("host_reasons(l, c.not_after, ")
        .push_bind(cutoffs.now);
    query.push(", ").push_bind(cutoffs.late_before);
    query.push(", ").push_bind(cutoffs.offline_before).push(")");
}

fn push_page(query: &mut QueryBuilder<Postgres>, page: &Page, cutoffs: Cutoffs) {
    let (filter, sort) = (&page.filter, page.sort);
    let judges = filter.judges() || sort.column == Column::Status;
    let liveness = filter.needs_liveness() || judges || !sort.is_of_host();
    let by = sort.expression();
    if page.counts() {
        query.push(format!(
            "with matching as materialized (select h.host_id, {by} as sorted_by"
        ));
        push_matching(query, filter, cutoffs, liveness, judges);
        query.push(") ");
        push_shown(query, cutoffs);
        query.push(
            ", p.sorted_by, (select count(*) from matching) as total
             from (select h.host_id, h.sorted_by from matching h where true",
        );
        push_place(query, page, "h.sorted_by");
    } else {
        push_shown(query, cutoffs);
        query.push(format!(
            ", p.sorted_by, null::int8 as total from (select h.host_id, {by} as sorted_by"
        ));
        push_matching(query, filter, cutoffs, liveness, judges);
        push_place(query, page, by);
    }
    query.push(") as p join hosts h using (host_id) join host_liveness l using (host_id)");
    query.push(CERTIFICATE);
    let (order, direction) = (sort.order(), sort.direction());
    query.push(format!(
        ") as r order by r.sorted_by{order}, r.host_id{direction}"
    ));
}

/// Where the page begins and ends among all that match, sorted by `by`.
fn push_place(query: &mut QueryBuilder<Postgres>, page: &Page, by: &str) {
    if let Some((key, host)) = &page.after {
        push_after(query, page.sort, by, key, *host);
    }
    let (order, direction) = (page.sort.order(), page.sort.direction());
    query.push(format!(
        " order by {by}{order}, h.host_id{direction} limit "
    ));
    query.push_bind(page.limit);
}

/// The hosts that stand after `key` and `host`.
fn push_after(query: &mut QueryBuilder<Postgres>, sort: Sort, by: &str, key: &Key, host: Uuid) {
    let than = if sort.is_descending { " < " } else { " > " };
    if sort.is_of_host() {
        // So that an index on both can begin there.
        query.push(format!(" and ({by}, h.host_id){than}("));
        key.push(query);
        query.push(", ").push_bind(host).push(")");
    } else if *key == Key::None {
        query
            .push(format!(" and {by} is null and h.host_id{than}"))
            .push_bind(host);
    } else {
        query.push(format!(" and ({by} is null or {by}{than}"));
        key.push(query);
        query.push(format!(" or {by} = "));
        key.push(query);
        query
            .push(format!(" and h.host_id{than}"))
            .push_bind(host)
            .push(")");
    }
}

/// `from` and `where` of all hosts that match: `h`, with `l` and the judged `j` where they are asked for.
pub(super) fn push_matching(
    query: &mut QueryBuilder<Postgres>,
    filter: &Filter,
    cutoffs: Cutoffs,
    liveness: bool,
    judges: bool,
) {
    query.push(" from hosts h");
    if liveness {
        query.push(" join host_liveness l using (host_id)");
    }
    if judges {
        query.push(
            " left join (select host_id, max(not_after) as not_after from agent_certs
                         where revoked_at is null group by host_id) c using (host_id)
             cross join lateral (select reasons, host_status(l.last_seen_at, reasons) as status from (select ",
        );
        push_reasons(query, cutoffs);
        // Kept apart, so that reasons are found once a host.
        query.push(" as reasons offset 0) as why) as j");
    }
    query.push(" where h.conflict_of is null and h.deleted_at is null");
    query.push(match filter.state {
        State::Active => " and h.retired_at is null",
        State::Missing => " and h.retired_at is null and h.missing_since is not null",
        State::Retired => " and h.retired_at is not null",
        State::All => "",
    });
    push_host_filters(query, filter);
    push_seen_filters(query, filter, cutoffs);
}
