//! All hosts that match as CSV or as lines of JSON, written while they are read: some hundred are held at a time.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header;
use serde_json::Value;

use crate::api::hosts::Host;
use crate::api::hosts::fields::Fields;
use crate::api::hosts::query::HostsQuery;
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::hosts::Cutoffs;
use crate::store::hosts::list::{self, Column, Page};

/// Hosts that are read at a time.
const ROWS: i64 = 500;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Csv,
    Ndjson,
}

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
    for (name, is_set) in [
        ("limit", query.limit.is_some()),
        ("cursor", query.cursor.is_some()),
    ] {
        if is_set {
            return Err(Problem::parameter(
                name,
                "is for pages; an export has all hosts",
            ));
        }
    }
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
    let (kind, file) = match format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "hosts.csv"),
        Format::Ndjson => ("application/x-ndjson", "hosts.ndjson"),
    };
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{file}\""),
        ),
    ];
    Ok((headers, body).into_response())
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
    let hosts: Vec<Host> = rows.into_iter().map(Host::from).collect();
    let text = match export.format {
        Format::Csv => csv(&hosts, &export.fields, !export.is_begun)?,
        Format::Ndjson => ndjson(&hosts, &export.fields)?,
    };
    export.is_begun = true;
    Ok(Some((Bytes::from(text), export)))
}

fn ndjson(hosts: &[Host], fields: &Fields) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    for host in hosts {
        serde_json::to_writer(&mut text, &fields.cut(host))?;
        text.push(b'\n');
    }
    Ok(text)
}

fn csv(hosts: &[Host], fields: &Fields, with_header: bool) -> anyhow::Result<Vec<u8>> {
    let columns = fields.columns();
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    if with_header {
        writer.write_record(&columns)?;
    }
    for host in hosts {
        let value = fields.cut(host);
        writer.write_record(columns.iter().map(|column| cell(&value[*column])))?;
    }
    Ok(writer.into_inner()?)
}

/// A value as text. Whatever a spreadsheet would take for a formula begins with an apostrophe
/// (OWASP, "CSV Injection"); each part of a list too, for where lists are split at semicolons cells may be.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::String(text) => inert(text),
        Value::Array(values) => {
            let texts = values.iter().filter_map(Value::as_str);
            texts.map(inert).collect::<Vec<_>>().join(";")
        }
        Value::Object(_) => inert(&value.to_string()),
    }
}

fn inert(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        return format!("'{text}");
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_text_and_numbers_stay_numbers() {
        for bad in [
            "=cmd|' /C calc'!A0",
            "+1",
            "-1",
            "@sum",
            "\tx",
            "\rx",
            "\n=x",
        ] {
            assert_eq!(cell(&json!(bad)), format!("'{bad}"));
        }
        assert_eq!(cell(&json!(["=a", "b", "@c"])), "'=a;b;'@c");
        assert_eq!(cell(&json!(-30_000)), "-30000");
        assert_eq!(cell(&json!("web-1")), "web-1");
        assert_eq!(cell(&Value::Null), "");
    }

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
