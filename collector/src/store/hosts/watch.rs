//! The hosts that somebody watches, read again: those of which something changed, in one query for all who watch.

use sqlx::{PgConnection, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::hosts::Cutoffs;
use crate::store::hosts::list::{CERTIFICATE, HostRow, push_shown};

/// Those of `hosts` of which something was heard or edited since `since`, and all of `anyway`. Without `since`: all.
pub async fn list_changed(
    connection: &mut PgConnection,
    hosts: &[Uuid],
    anyway: &[Uuid],
    since: Option<OffsetDateTime>,
    cutoffs: Cutoffs,
) -> sqlx::Result<Vec<HostRow>> {
    let mut query = QueryBuilder::new("");
    push_shown(&mut query, cutoffs);
    query.push(", null::int8 as total from hosts h join host_liveness l using (host_id)");
    query.push(CERTIFICATE);
    query
        .push(" where h.deleted_at is null and h.host_id = any(")
        .push_bind(hosts)
        .push(")");
    if let Some(since) = since {
        query
            .push(" and (l.last_seen_at >= ")
            .push_bind(since)
            .push(" or l.liveness_changed_at >= ")
            .push_bind(since)
            .push(" or h.updated_at >= ")
            .push_bind(since)
            .push(" or h.host_id = any(")
            .push_bind(anyway)
            .push("))");
    }
    query.push(") as r");
    query.build_query_as().fetch_all(connection).await
}
