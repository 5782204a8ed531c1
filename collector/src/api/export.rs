//! Lists as CSV or as lines of JSON, everything that matches: written while they are read, some rows at a time.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::problem::Problem;

/// How rows are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Json,
    Ndjson,
    Csv,
}

/// A list that can be had whole.
#[derive(Clone, Copy, Debug)]
pub struct Export<T, K> {
    /// The file's name, without its ending.
    pub name: &'static str,
    /// Of the CSV: members of a row's JSON.
    pub columns: &'static [&'static str],
    /// Rows that are read at a time.
    pub rows: i64,
    /// Where a list goes on that ends with this row.
    pub key: fn(&T) -> K,
}

impl<T, K> Export<T, K>
where
    T: Serialize + Send + 'static,
    K: Send + 'static,
{
    /// Begins the answer. `read` answers the rows after a key, or the first ones. Where the database fails, the answer
    /// breaks off.
    pub fn begin<F, R>(self, format: Format, first: Option<K>, read: F) -> Response
    where
        F: Fn(Option<K>, i64) -> R + Send + Sync + 'static,
        R: Future<Output = anyhow::Result<Vec<T>>> + Send,
    {
        let read = Arc::new(read);
        let pages = stream::try_unfold((Some(first), true), move |(after, is_first)| {
            let read = Arc::clone(&read);
            async move {
                let Some(after) = after else {
                    return Ok::<_, anyhow::Error>(None);
                };
                let rows = read(after, self.rows).await?;
                let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < self.rows);
                let last = rows.last().filter(|_| !is_last);
                let after = last.map(|last| Some((self.key)(last)));
                let text = match format {
                    Format::Csv => csv(&values(&rows)?, self.columns, is_first)?,
                    Format::Json | Format::Ndjson => ndjson(&values(&rows)?)?,
                };
                Ok(Some((Bytes::from(text), (after, false))))
            }
        });
        answer(self.name, format, Body::from_stream(pages))
    }
}

/// Refuses what only pages have.
pub fn is_whole(limit: Option<i64>, cursor: Option<&str>) -> Result<(), Problem> {
    for (name, is_set) in [("limit", limit.is_some()), ("cursor", cursor.is_some())] {
        if is_set {
            let detail = "is for pages; an export has everything";
            return Err(Problem::parameter(name, detail));
        }
    }
    Ok(())
}

/// A file to keep.
pub fn answer(name: &str, format: Format, body: Body) -> Response {
    let (kind, ending) = match format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
        Format::Json | Format::Ndjson => ("application/x-ndjson", "ndjson"),
    };
    let headers = [
        (CONTENT_TYPE, kind.to_owned()),
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}.{ending}\""),
        ),
    ];
    (headers, body).into_response()
}

fn values<T: Serialize>(rows: &[T]) -> anyhow::Result<Vec<Value>> {
    let values = rows.iter().map(serde_json::to_value);
    Ok(values.collect::<Result<_, _>>()?)
}

/// An object a line.
pub fn ndjson(rows: &[Value]) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut text, row)?;
        text.push(b'\n');
    }
    Ok(text)
}

/// A row a line, with the names of the columns first where they are wanted.
pub fn csv(rows: &[Value], columns: &[&str], with_header: bool) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    if with_header {
        writer.write_record(columns)?;
    }
    for row in rows {
        writer.write_record(columns.iter().map(|column| cell(&row[*column])))?;
    }
    Ok(writer.into_inner()?)
}

/// A value as text. Whatever a spreadsheet would take for a formula begins with an apostrophe
/// (OWASP, "CSV Injection"); each part of a list too, for where lists are split at semicolons cells may be.
fn cell(value: &Value) -> String {
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
}
