//! `GET /api/v1/hosts/{id}/facts/history`: what a fact was, what it became, and when.

use std::sync::Arc;

use axum::extract::State;
use infratrack_shared::ids::HostId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::hosts::find;
use crate::api::input::{Json, Path, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::facts::{self, ChangeRow};
use crate::timeline::diff::{Difference, diff};

/// Changes of a page, where nobody said how many, and at most.
const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 50;
/// Characters of a key.
const KEY_CHARS: usize = 256;

/// Which fact.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// `facts.os`.
    pub key: String,
    /// Changes of a page; 20 where it is not said.
    #[param(minimum = 1, maximum = 50)]
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// One change of a fact.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FactChange {
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
    /// The host had this fact before.
    pub was_there: bool,
    /// It had it afterwards.
    pub is_there: bool,
    /// Null where there was nothing, or something of over 64 KiB.
    #[schema(value_type = Option<Object>)]
    pub was: Option<Value>,
    /// Likewise.
    #[schema(value_type = Option<Object>)]
    pub is: Option<Value>,
    /// One of the two was left out for its size, and so are the differences.
    pub is_cut: bool,
    /// Where the two differ: at most 100 places.
    pub differences: Vec<Difference>,
    /// How many places more.
    pub more_differences: usize,
}

impl From<ChangeRow> for FactChange {
    fn from(row: ChangeRow) -> Self {
        let both = row.was_there && row.is_there && !row.is_cut;
        let (differences, more_differences) = if both {
            diff(row.was.as_ref(), row.is.as_ref())
        } else {
            (Vec::new(), 0)
        };
        Self {
            changed_at: row.changed_at,
            was_there: row.was_there,
            is_there: row.is_there,
            was: row.was,
            is: row.is,
            is_cut: row.is_cut,
            differences,
            more_differences,
        }
    }
}

/// Lists how facts changed, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/facts/history",
    tag = "hosts",
    params(("id" = Uuid, Path), HistoryQuery),
    responses((status = 200, body = Page<FactChange>)),
)]
pub async fn history(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Page<FactChange>>, Problem> {
    let id = HostId(id);
    find(&app, id).await?;
    read(&app, id, &query).await.map(Json)
}

/// A page of a fact's changes.
pub async fn read(
    app: &App,
    host: HostId,
    query: &HistoryQuery,
) -> Result<Page<FactChange>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::parameter(
            "limit",
            format!("must be from 1 to {MAX_LIMIT}"),
        ));
    }
    if query.key.is_empty() || query.key.chars().count() > KEY_CHARS {
        return Err(Problem::parameter(
            "key",
            format!("must have 1 to {KEY_CHARS} characters"),
        ));
    }
    let before: Option<i128> = page::cursor(query.cursor.as_deref())?;
    let before = before.and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok());
    let mut connection = app.pool.acquire().await?;
    let rows = facts::list_changes(&mut connection, host, &query.key, before, limit).await?;
    let total = facts::count_changes(&mut connection, host, &query.key).await?;
    let Json(page) = page::page(rows, total, limit, |row| {
        row.changed_at.unix_timestamp_nanos()
    });
    Ok(Page {
        items: page.items.into_iter().map(FactChange::from).collect(),
        total: page.total,
        next_cursor: page.next_cursor,
    })
}
