//! All hosts that match as CSV or as lines of JSON, written while they are read: some hundred are held at a time.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream;

use crate::api::export::{Format, answer, csv, is_whole, ndjson};
use crate::api::hosts::Host;
use crate::api::hosts::fields::Fields;
use crate::api::hosts::query::HostsQuery;
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::hosts::Cutoffs;
use crate::store::hosts::list::{self, Column, Page};

/// Hosts that are read at a time.
const ROWS: i64 = 500;

/// The format that was asked for; none: a page.
pub fn format(name: Option<&str>, accept: Option<&str>) -> Result<Option<Format>, Problem> {
    match name {
        Some("csv") => Ok(Some(Format::Csv)),
        Some("ndjson") => Ok(Some(Format::Ndjson)),
        Some("json") => Ok(None),
        Some(_) => Err(Problem::parameter(
            "format",
            "must be one of json, csv, ndjson",
        )),
        None => Ok(accepted(accept.unwrap_or_default())),
    }
}

/// The first one that a program accepts, where it has a choice.
fn accepted(accept: &str) -> Option<Format> {
    let mut types = accept
        .split(',')
        .map(|kind| kind.split(';').next().unwrap_or_default().trim());
    types
        .find_map(|kind| match kind {
            "text/csv" => Some(Some(Format::Csv)),
            "application/x-ndjson" | "application/ndjson" => Some(Some(Format::Ndjson)),
            "application/json" | "*/*" => Some(None),
            _ => None,
        })
        .flatten()
}

/// Where an export stands.
struct Export {
    app: Arc<App>,
    page: Page,
    cutoffs: Cutoffs,
    format: Format,
    fields: Fields,
    is_begun: bool,
    is_done: bool,
}

/// Begins the answer.
pub fn export(
    app: Arc<App>,
    query: &HostsQuery,
    format: Format,
    fields: Fields,
) -> Result<Response, Problem> {
    is_whole(query.limit, query.cursor.as_deref())?;
    let sort = query.sort()?;
    if !matches!(sort.column, Column::Name | Column::CreatedAt) {
        let detail =
            "must be name or created_at in an export: other values change while it is written";
        return Err(Problem::parameter("sort", detail));
    }
    let export = Export {
        cutoffs: app.silence.cutoffs(app.clock.now()),
        page: Page {
            filter: query.filter()?,
            sort,
            after: None,
            limit: ROWS,
            with_total: false,
        },
        app,
        format,
        fields,
        is_begun: false,
        is_done: false,
    };
    let body = Body::from_stream(stream::try_unfold(export, next));
    Ok(answer("hosts", format, body))
}

/// The next hosts, as they are written.
async fn next(mut export: Export) -> anyhow::Result<Option<(Bytes, Export)>> {
    if export.is_done {
        return Ok(None);
    }
    let rows = {
        let mut connection = export.app.pool.acquire().await?;
        list::list(&mut connection, &export.page, export.cutoffs).await?
    };
    export.is_done = i64::try_from(rows.len()).is_ok_and(|count| count < ROWS);
    if let Some(last) = rows.last() {
        export.page.after = Some((export.page.sort.key(last), last.host_id));
    }
    let hosts = rows.into_iter().map(Host::from);
    let hosts: Vec<_> = hosts.map(|host| export.fields.cut(&host)).collect();
    let text = match export.format {
        Format::Csv => csv(&hosts, &export.fields.columns(), !export.is_begun)?,
        Format::Json | Format::Ndjson => ndjson(&hosts)?,
    };
    export.is_begun = true;
    Ok(Some((Bytes::from(text), export)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_what_it_asks_for_first() {
        assert_eq!(accepted("text/csv"), Some(Format::Csv));
        assert_eq!(
            accepted("text/html, application/x-ndjson;q=0.9"),
            Some(Format::Ndjson)
        );
        assert_eq!(accepted("application/json, text/csv"), None);
        assert_eq!(accepted("*/*"), None);
        assert_eq!(accepted(""), None);
    }
}
