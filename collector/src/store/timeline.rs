//! What happened to a host, source by source: each a bounded statement over one table, all of one shape.
//!
//! The sources stand in [`sources`]; a row's id begins with its source's name, so that (time, id) orders the rows of
//! all of them. [`crate::timeline`] merges them.

pub mod around;
pub mod sources;

use infratrack_shared::ids::HostId;
use serde_json::Value;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, FromRow, PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;

/// A table that tells of hosts.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Begins the ids of its rows.
    pub name: &'static str,
    /// The kinds its rows are of.
    pub kinds: &'static [&'static str],
    /// A select of what a [`Row`] has, but its id, up to a whole `where`; `$1` is the host's id.
    select: &'static str,
    /// When it happened; with its table's name where the select gives that name to something else.
    at: &'static str,
    /// What follows the name in a row's id.
    id: &'static str,
}

/// Which rows of a source.
#[derive(Clone, Debug)]
pub struct Ask {
    pub host: HostId,
    /// From this place on, without it.
    pub from: Option<(OffsetDateTime, String)>,
    /// The rows after the place, oldest first; else those before it, newest first.
    pub is_forward: bool,
    /// At this time or later.
    pub after: Option<OffsetDateTime>,
    /// Before this time.
    pub before: Option<OffsetDateTime>,
    /// Of the source's rows only those whose `what` is one of these, or none of these.
    pub whats: Option<Whats>,
    pub limit: i64,
}

/// Which `what` of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whats {
    OneOf(Vec<&'static str>),
    NoneOf(Vec<&'static str>),
}

/// What a source tells.
#[derive(Clone, Debug, FromRow)]
pub struct Row {
    pub id: String,
    pub at: OffsetDateTime,
    /// Until when, where it lasted.
    pub until: Option<OffsetDateTime>,
    /// When the collector learned of it, where that may be much later.
    pub received_at: Option<OffsetDateTime>,
    /// The kind of event, the key of a fact, the action of a command.
    pub what: String,
    pub by: Option<String>,
    /// What else there is; null where it is large.
    pub body: Option<Value>,
    /// It was left out: it is large.
    pub is_cut: bool,
}

/// The rows of a source.
pub async fn list(
    connection: &mut PgConnection,
    source: &Source,
    ask: &Ask,
) -> sqlx::Result<Vec<Row>> {
    let mut sql = statement("", source, ask)?;
    sql.build_query_as().fetch_all(connection).await
}

/// How Postgres reads them, as text.
pub async fn explain(
    connection: &mut PgConnection,
    source: &Source,
    ask: &Ask,
) -> sqlx::Result<String> {
    let mut sql = statement("explain (costs off) ", source, ask)?;
    let lines: Vec<String> = sql.build_query_scalar().fetch_all(connection).await?;
    Ok(lines.join("\n"))
}

fn statement(before: &str, source: &Source, ask: &Ask) -> sqlx::Result<QueryBuilder<Postgres>> {
    let Source { at, .. } = *source;
    // Bytes, as Rust compares: no language's order.
    let id = format!("('{}:' || {}) collate \"C\"", source.name, source.id);
    let mut arguments = PgArguments::default();
    arguments.add(ask.host.0).map_err(sqlx::Error::Encode)?;
    let select = format!("{before}select {id} as id, {}", source.select);
    let mut sql = QueryBuilder::with_arguments(select, arguments);
    let (past, order) = if ask.is_forward {
        (">", "asc")
    } else {
        ("<", "desc")
    };
    if let Some((place, place_id)) = &ask.from {
        sql.push(format!(" and {at} {past}= ")).push_bind(*place);
        sql.push(format!(" and ({at} {past} ")).push_bind(*place);
        sql.push(format!(" or {id} {past} "))
            .push_bind(place_id.clone())
            .push(")");
    }
    if let Some(after) = ask.after {
        sql.push(format!(" and {at} >= ")).push_bind(after);
    }
    if let Some(before) = ask.before {
        sql.push(format!(" and {at} < ")).push_bind(before);
    }
    match &ask.whats {
        Some(Whats::OneOf(whats)) => {
            sql.push(" and kind = any(")
                .push_bind(owned(whats))
                .push(")");
        }
        Some(Whats::NoneOf(whats)) => {
            sql.push(" and kind <> all(")
                .push_bind(owned(whats))
                .push(")");
        }
        None => {}
    }
    sql.push(format!(" order by {at} {order}, {id} {order} limit "))
        .push_bind(ask.limit);
    Ok(sql)
}

fn owned(whats: &[&'static str]) -> Vec<String> {
    whats.iter().map(|&what| what.to_owned()).collect()
}
