//! The hosts that somebody watches, read again: those of which something changed, in one query for all who watch.

use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::hosts::Cutoffs;
use crate::store::hosts::list::{CERTIFICATE, HostRow, push_shown};

/// What is read again.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    pub hosts: &'a [Uuid],
    /// Those of them that are read whatever happened.
    pub anyway: &'a [Uuid],
    /// The others where something was heard of them or edited since; without it all.
    pub since: Option<OffsetDateTime>,
}

/// Those of the watched hosts that are to be shown anew.
pub async fn list_changed(
    connection: &mut PgConnection,
    watched: Watched<'_>,
    cutoffs: Cutoffs,
) -> sqlx::Result<Vec<HostRow>> {
    let mut query = QueryBuilder::new("");
    push(&mut query, watched, cutoffs);
    query.build_query_as().fetch_all(connection).await
}

/// What Postgres says it would do for it.
pub async fn explain(
    connection: &mut PgConnection,
    watched: Watched<'_>,
    cutoffs: Cutoffs,
) -> sqlx::Result<String> {
    let mut query = QueryBuilder::new("explain (costs off) ");
    push(&mut query, watched, cutoffs);
    let lines: Vec<String> = query.build_query_scalar().fetch_all(connection).await?;
    Ok(lines.join("\n"))
}

fn push(query: &mut QueryBuilder<Postgres>, watched: Watched<'_>, cutoffs: Cutoffs) {
    push_shown(query, cutoffs);
    query.push(", null::int8 as total from hosts h join host_liveness l using (host_id)");
    query.push(CERTIFICATE);
    query
        .push(" where h.deleted_at is null and h.host_id = any(")
        .push_bind(watched.hosts)
        .push(")");
    if let Some(since) = watched.since {
        query
            .push(" and (l.last_seen_at >= ")
            .push_bind(since)
            .push(" or l.liveness_changed_at >= ")
            .push_bind(since)
            .push(" or h.updated_at >= ")
            .push_bind(since)
            .push(" or h.host_id = any(")
            .push_bind(watched.anyway)
            .push("))");
    }
    query.push(") as r");
}
