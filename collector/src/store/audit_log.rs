//! The audit log: rows are added, read, never changed. The chain over them is [`super::audit_chain`]'s.

use ipnet::IpNet;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Rows are counted up to here.
pub const COUNTED: i64 = 100_000;

/// Who did it and when, the same in all rows of a statement.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    pub at: OffsetDateTime,
    pub actor_kind: &'a str,
    pub actor_name: &'a str,
    pub actor_id: Option<&'a str>,
    pub actor_address: Option<IpNet>,
    pub request_id: Option<&'a str>,
}

/// Rows to add, column by column.
#[derive(Clone, Debug, Default)]
pub struct NewRows {
    pub actions: Vec<String>,
    pub subject_kinds: Vec<String>,
    pub subject_ids: Vec<String>,
    /// JSON, kept as it is to the byte.
    pub befores: Vec<Option<String>>,
    pub afters: Vec<Option<String>>,
}

/// Adds rows; their ids are in their order.
pub async fn insert(
    connection: &mut PgConnection,
    by: &By<'_>,
    rows: &NewRows,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into audit_log (at, actor_kind, actor_name, actor_id, actor_address, request_id, action,
             subject_kind, subject_id, before, after)
         select $1, $2, $3, $4, $5, $6, action, subject_kind, subject_id, before::json, after::json
         from unnest($7::text[], $8::text[], $9::text[], $10::text[], $11::text[]) with ordinality
             as new (action, subject_kind, subject_id, before, after, place)
         order by place",
        by.at,
        by.actor_kind,
        by.actor_name,
        by.actor_id,
        by.actor_address,
        by.request_id,
        &rows.actions,
        &rows.subject_kinds,
        &rows.subject_ids,
        &rows.befores as &[Option<String>],
        &rows.afters as &[Option<String>],
    )
    .execute(connection)
    .await
    .map(drop)
}

/// A row as it is shown.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
#[schema(as = AuditEntry)]
pub struct Entry {
    #[serde(rename = "id")]
    pub audit_id: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// `user`, `token`, `proxy`, `agent`, `job` or `command_line`.
    pub actor_kind: String,
    pub actor_name: String,
    pub actor_id: Option<String>,
    /// Where the request came from.
    pub actor_address: Option<String>,
    pub request_id: Option<String>,
    pub action: String,
    pub subject_kind: String,
    pub subject_id: String,
    #[schema(value_type = Option<Object>)]
    pub before: Option<Json<Box<RawValue>>>,
    #[schema(value_type = Option<Object>)]
    pub after: Option<Json<Box<RawValue>>>,
    /// Its place in the chain; null until it is sealed, within seconds.
    pub seal: Option<i64>,
}

/// Which rows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub actor: Option<String>,
    pub action: Option<String>,
    pub subject_kind: Option<String>,
    pub subject_id: Option<String>,
    pub request_id: Option<String>,
    pub from: Option<OffsetDateTime>,
    pub to: Option<OffsetDateTime>,
}

impl Filter {
    fn restrict(&self, sql: &mut QueryBuilder<Postgres>) {
        sql.push(" where true");
        for (column, value) in [
            ("actor_name", &self.actor),
            ("action", &self.action),
            ("subject_kind", &self.subject_kind),
            ("subject_id", &self.subject_id),
            ("request_id", &self.request_id),
        ] {
            if let Some(value) = value {
                sql.push(" and l.").push(column).push(" = ");
                sql.push_bind(value.clone());
            }
        }
        if let Some(from) = self.from {
            sql.push(" and l.at >= ").push_bind(from);
        }
        if let Some(to) = self.to {
            sql.push(" and l.at < ").push_bind(to);
        }
    }
}

/// Rows that match, newest first, after the last of the page before.
pub async fn list(
    connection: &mut PgConnection,
    filter: &Filter,
    after: Option<(OffsetDateTime, i64)>,
    limit: i64,
) -> sqlx::Result<Vec<Entry>> {
    let mut sql = QueryBuilder::new(
        "select l.audit_id, l.at, l.actor_kind, l.actor_name, l.actor_id, host(l.actor_address) as actor_address,
             l.request_id, l.action, l.subject_kind, l.subject_id, l.before, l.after, s.seq as seal
         from audit_log l left join audit_seals s using (audit_id)",
    );
    filter.restrict(&mut sql);
    if let Some((at, audit_id)) = after {
        sql.push(" and (l.at, l.audit_id) < (").push_bind(at);
        sql.push(", ").push_bind(audit_id).push(")");
    }
    sql.push(" order by l.at desc, l.audit_id desc limit ");
    sql.push_bind(limit);
    sql.build_query_as().fetch_all(connection).await
}

/// How many rows match, up to [`COUNTED`].
pub async fn count(connection: &mut PgConnection, filter: &Filter) -> sqlx::Result<i64> {
    let mut sql = QueryBuilder::new("select count(*) from (select from audit_log l");
    filter.restrict(&mut sql);
    sql.push(" limit ").push_bind(COUNTED).push(") as counted");
    sql.build_query_scalar().fetch_one(connection).await
}
