//! Lists in pages: `{"items": […], "total": N, "next_cursor": "…" | null}`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::api::input::Json;
use crate::api::problem::Problem;

/// Rows of a page where nobody said how many.
const DEFAULT_LIMIT: i64 = 50;
/// Rows of a page at most.
const MAX_LIMIT: i64 = 500;

/// One page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub total: i64,
    /// Pass it as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A list that is whole.
    pub fn whole(items: Vec<T>) -> Self {
        Self {
            total: i64::try_from(items.len()).unwrap_or(i64::MAX),
            items,
            next_cursor: None,
        }
    }
}

/// The parameters of a list without filters.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Rows of a page; 50 where it is not said.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// How many rows were asked for.
pub fn limit(asked: Option<i64>) -> Result<i64, Problem> {
    let limit = asked.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::parameter(
            "limit",
            format!("must be from 1 to {MAX_LIMIT}"),
        ))
    }
}

/// Reads a cursor that [`page`] wrote.
pub fn cursor<K: DeserializeOwned>(text: Option<&str>) -> Result<Option<K>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let key = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok());
    key.map(Some)
        .ok_or_else(|| Problem::parameter("cursor", "is not one that this API gave out"))
}

/// The time and the id in a cursor of a list by time, whose key is nanoseconds since the Unix epoch and the id.
pub fn by_time<I>(key: Option<(i128, I)>) -> Option<(OffsetDateTime, I)> {
    let (nanos, id) = key?;
    Some((OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?, id))
}

/// A page of `items`, of which there are `limit` unless it is the last.
pub fn page<T, K: Serialize>(
    items: Vec<T>,
    total: i64,
    limit: i64,
    key: impl Fn(&T) -> K,
) -> Json<Page<T>> {
    let full = i64::try_from(items.len()).is_ok_and(|count| count == limit);
    let next = items
        .last()
        .filter(|_| full)
        .and_then(|last| serde_json::to_vec(&key(last)).ok());
    Json(Page {
        items,
        total,
        next_cursor: next.map(|json| URL_SAFE_NO_PAD.encode(json)),
    })
}
