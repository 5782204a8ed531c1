//! What programs send, read strictly: a field or parameter that nobody knows, or whose value is none, is refused with
//! its place, a JSON pointer (RFC 6901) or the parameter's name.
//!
//! The names are axum's, so that `utoipa` sees in a handler's arguments what it takes.

use std::ops::RangeInclusive;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::api::problem::Problem;

/// A JSON body at most.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// A query string at most.
const MAX_QUERY_BYTES: usize = 8 * 1024;

/// A body in JSON; as an answer, too.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// A query string. A name may stand there more than once where its field is a list.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

/// The variable parts of a path.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "send the body as Content-Type: application/json";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::new(status, "unsupported_media_type", detail));
        }
        let body = bytes(request.into_body(), MAX_BODY_BYTES).await?;
        parse(&body).map(Self)
    }
}

/// A body as it is.
pub async fn bytes(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let body = axum::body::to_bytes(body, limit).await;
    body.map_err(|error| unreadable(&error, limit))
}

/// The status of a body that could not be read.
fn unreadable(error: &axum::Error, limit: usize) -> Problem {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            let detail = format!("a body may have {limit} bytes");
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail);
        }
        source = error.source();
    }
    Problem::invalid("the body ended before its end")
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type
        .and_then(|value| value.split(';').next())
        .map(|essence| essence.trim().to_ascii_lowercase());
    essence.is_some_and(|essence| {
        essence == "application/json"
            || essence.starts_with("application/") && essence.ends_with("+json")
    })
}

/// A text of one line, without spaces around it.
pub fn text(pointer: &str, text: &str, chars: RangeInclusive<usize>) -> Result<String, Problem> {
    let text = text.trim();
    if !chars.contains(&text.chars().count()) {
        let detail = format!(
            "must have from {} to {} characters",
            chars.start(),
            chars.end()
        );
        return Err(Problem::field(pointer, detail));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::field(pointer, "must have no control characters"));
    }
    Ok(text.to_owned())
}

/// Refuses a parameter that is there and none of the words.
pub fn one_of(name: &str, value: Option<&str>, words: &[&str]) -> Result<(), Problem> {
    match value {
        Some(value) if !words.contains(&value) => Err(Problem::parameter(
            name,
            format!("must be one of {}", words.join(", ")),
        )),
        _ => Ok(()),
    }
}

/// Reads a document; 400 where it is no JSON, 422 where it is another document than asked for.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde takes a list for a struct too, its fields in order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::field(
            "",
            "the body has to be an object, not a list",
        ));
    }
    let mut document = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut document);
    let parsed = parsed.map_err(|error| {
        if error.inner().is_data() {
            let detail = error.inner().to_string();
            Problem::field(
                pointer(error.path(), &detail),
                format!("is refused: {detail}"),
            )
        } else {
            Problem::invalid(format!("the body is not JSON: {}", error.inner()))
        }
    })?;
    document
        .end()
        .map_err(|error| Problem::invalid(format!("the body is not JSON: {error}")))?;
    Ok(parsed)
}

/// Where in the document, with the field that serde names only in its words.
fn pointer(path: &serde_path_to_error::Path, detail: &str) -> String {
    let mut keys: Vec<String> = path
        .iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } | Segment::Enum { variant: key } => Some(escaped(key)),
            Segment::Unknown => None,
        })
        .collect();
    if let Some(field) = named(detail).map(escaped)
        && keys.last() != Some(&field)
    {
        keys.push(field);
    }
    // Each key has its slash before it, and the whole document is "".
    keys.insert(0, String::new());
    keys.join("/")
}

/// The field in serde's "unknown field `x`, …", "missing field `x`" and "duplicate field `x`".
fn named(detail: &str) -> Option<&str> {
    let rest = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| detail.strip_prefix(start))?;
    rest.split('`').next()
}

/// RFC 6901, section 3.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        if query.len() > MAX_QUERY_BYTES {
            let detail = format!("a query may have {MAX_QUERY_BYTES} bytes");
            return Err(Problem::new(StatusCode::URI_TOO_LONG, "too_large", detail));
        }
        let pairs = serde_html_form::Deserializer::from_bytes(query.as_bytes());
        let parsed = serde_path_to_error::deserialize(pairs);
        parsed.map(Self).map_err(|error| {
            let detail = error.inner().to_string();
            let name = match named(&detail) {
                Some(name) => name.to_owned(),
                None => error.path().to_string(),
            };
            Problem::parameter(name, format!("is refused: {detail}"))
        })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(inner)| Self(inner))
            .map_err(|rejection| Problem::invalid(rejection.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Outer {
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Inner {
        size: u8,
    }

    fn place(body: &str) -> (u16, Option<String>) {
        let problem = parse::<Outer>(body.as_bytes()).unwrap_err();
        let error = problem.errors.into_iter().next();
        (problem.status, error.and_then(|error| error.pointer))
    }

    #[test]
    fn a_refused_document_is_refused_with_its_place() {
        let at = |pointer: &str| (422, Some(pointer.to_owned()));
        assert_eq!(
            place(r#"{"inner":[{"size":1},{"size":"x"}]}"#),
            at("/inner/1/size")
        );
        assert_eq!(
            place(r#"{"inner":[{"size":1,"a/b":2}]}"#),
            at("/inner/0/a~1b")
        );
        assert_eq!(place(r#"{"inner":[{}]}"#), at("/inner/0/size"));
        assert_eq!(place(r#"{"inner":[],"inner":[]}"#), at("/inner"));
        assert_eq!(place("[]").0, 422);
        for no_json in ["", "{", r#"{"inner":[]} x"#, "{\"inner\":[\"\u{0}\"]}"] {
            assert_eq!(place(no_json), (400, None), "{no_json}");
        }
    }
}
