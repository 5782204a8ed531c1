//! Entity tags (RFC 9110, section 8.8.3) and `If-Match`, so that nobody overwrites what they have not seen.

use axum::response::{IntoResponse, Response};
use http::header::{ETAG, IF_MATCH};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::api::input::Json;
use crate::api::problem::Problem;

/// The tag of a document: of its very text, so that it needs no counter.
pub fn of(document: &impl Serialize) -> String {
    let text = serde_json::to_vec(document).unwrap_or_default();
    let hash = blake3::hash(&text).to_hex();
    format!("\"{}\"", hash.as_str().get(..32).unwrap_or_default())
}

/// An answer with the document and its tag.
pub fn tagged(status: StatusCode, document: impl Serialize) -> Response {
    let tag = of(&document);
    (status, [(ETAG, tag)], Json(document)).into_response()
}

/// Lets an update through that names the tag of what is there: 428 without one, 412 with another.
pub fn check(headers: &HeaderMap, current: &str) -> Result<(), Problem> {
    let Some(said) = headers.get(IF_MATCH) else {
        let detail = "send the ETag of what you read as If-Match, so that nobody's change is lost";
        let status = StatusCode::PRECONDITION_REQUIRED;
        return Err(Problem::new(status, "if_match_required", detail));
    };
    is_current(said.to_str().unwrap_or_default(), current)
}

/// The same of a tag that a form brings.
pub fn is_current(said: &str, current: &str) -> Result<(), Problem> {
    let matches = |tag: &str| tag.trim() == "*" || tag.trim() == current;
    if said.split(',').any(matches) {
        return Ok(());
    }
    let detail = format!("it was changed since: its ETag is {current}");
    let status = StatusCode::PRECONDITION_FAILED;
    Err(Problem::new(status, "changed_since", detail))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn status(said: Option<&'static str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(said) = said {
            headers.insert(IF_MATCH, HeaderValue::from_static(said));
        }
        check(&headers, "\"a\"").map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn only_who_saw_what_is_there_may_change_it() {
        assert_eq!(status(None), 428);
        assert_eq!(status(Some("\"b\"")), 412);
        assert_eq!(status(Some("W/\"a\"")), 412);
        assert_eq!(status(Some("\"b\", \"a\"")), 200);
        assert_eq!(status(Some("*")), 200);
        assert_ne!(of(&1), of(&2));
    }
}
