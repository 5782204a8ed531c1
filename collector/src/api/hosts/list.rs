//! `GET /api/v1/hosts`: pages of the hosts that match, in any sort, with a total that stays.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::hosts::fields::{self, Fields};
use crate::api::hosts::query::HostsQuery;
use crate::api::hosts::{Host, export};
use crate::api::input::{Json, Query};
use crate::api::page::{self, Page};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::hosts::filter::Filter;
use crate::store::hosts::list::{self, Key, Sort};

/// Where the next page begins, and of which list.
#[derive(Serialize, Deserialize)]
struct Cursor {
    /// What tells this list, sort and filter, from others.
    list: u64,
    key: Key,
    id: Uuid,
}

/// Lists hosts for which every filter holds; by `format` or `Accept`, all of them as CSV or NDJSON.
#[utoipa::path(
    get,
    path = "/api/v1/hosts",
    tag = "hosts",
    params(HostsQuery),
    responses(
        (status = 200, content(
            (Page<Host> = "application/json"), (String = "text/csv"), (String = "application/x-ndjson"),
        )),
    ),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(query): Query<HostsQuery>,
) -> Result<Response, Problem> {
    let fields = Fields::parse(query.fields.as_deref(), fields::of_host)?;
    let accepted = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    if let Some(format) = export::format(query.format.as_deref(), accepted)? {
        return export::export(app, &query, format, fields);
    }
    let page = page(&app, &query).await?;
    if fields.is_all() {
        return Ok(Json(page).into_response());
    }
    let cut = Page {
        items: page.items.iter().map(|host| fields.cut(host)).collect(),
        total: page.total,
        next_cursor: page.next_cursor,
    };
    Ok(Json(cut).into_response())
}

/// One page of the hosts that match.
pub async fn page(app: &App, query: &HostsQuery) -> Result<Page<Host>, Problem> {
    let limit = page::limit(query.limit)?;
    let (filter, sort) = (query.filter()?, query.sort()?);
    let list_id = list_id(&filter, sort);
    let asked = list::Page {
        after: after(query.cursor.as_deref(), list_id, sort)?,
        filter,
        sort,
        // One more says whether there is a next page.
        limit: limit + 1,
        with_total: true,
    };
    let mut connection = app.pool.acquire().await?;
    let cutoffs = app.silence.cutoffs(app.clock.now());
    let mut rows = list::list(&mut connection, &asked, cutoffs).await?;
    let total = match rows.first().and_then(|row| row.total) {
        Some(total) => total,
        None => list::count(&mut connection, &asked.filter, cutoffs).await?,
    };
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > most;
    rows.truncate(most);
    let last = rows.last().filter(|_| has_more);
    let next_cursor = last.map(|row| {
        let cursor = Cursor {
            list: list_id,
            key: sort.key(row),
            id: row.host_id,
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
    });
    Ok(Page {
        items: rows.into_iter().map(Host::from).collect(),
        total,
        next_cursor,
    })
}

/// The same for the same filter and sort, of any collector.
fn list_id(filter: &Filter, sort: Sort) -> u64 {
    let text = format!(
        "{sort:?} {}",
        serde_json::to_string(filter).unwrap_or_default()
    );
    let hash = blake3::hash(text.as_bytes());
    hash.as_bytes()
        .iter()
        .take(8)
        .fold(0, |id, byte| id << 8 | u64::from(*byte))
}

fn after(text: Option<&str>, list: u64, sort: Sort) -> Result<Option<(Key, Uuid)>, Problem> {
    let Some(cursor) = page::cursor::<Cursor>(text)? else {
        return Ok(None);
    };
    if cursor.list != list || !cursor.key.is_of(sort.column) {
        let detail = "is of another sort or filter; ask for the first page of this one";
        return Err(Problem::parameter("cursor", detail));
    }
    Ok(Some((cursor.key, cursor.id)))
}
