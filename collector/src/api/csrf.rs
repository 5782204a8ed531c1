//! Requests that a browser makes on another site's behalf (CSRF): refused by what browsers say of a request's origin, and,
//! where a cookie says who is calling, by a token that only our own pages know.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::problem::Problem;

/// Where scripts of our pages put the token; forms have a field for it.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-csrf-token");
const TOKEN_FIELD: &str = "csrf";
/// Fetch Metadata, which a script cannot forge (W3C, "Fetch Metadata Request Headers").
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// A form at most.
const FORM_BYTES: usize = 64 * 1024;

/// The token of a session: known to whoever can read its pages, worthless for telling its cookie.
pub fn token(session_secret: &str) -> String {
    let hash = Sha256::new()
        .chain_update(b"infratrack csrf 1\n")
        .chain_update(session_secret)
        .finalize();
    hex::encode(hash)
}

/// Refuses an unsafe request that a browser says comes from another site.
pub fn same_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if method.is_safe() {
        return Ok(());
    }
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text(&FETCH_SITE).is_none_or(|site| site == "same-origin" || site == "none");
    let origin = text(&ORIGIN).is_none_or(|origin| {
        let named = origin.split_once("://").map(|(_, host)| host);
        named.is_some() && named == text(&HOST)
    });
    if site && origin {
        return Ok(());
    }
    let detail = "this request came from another site's page";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_origin", detail))
}

/// Lets an unsafe request of a session pass if it has the session's token; a form's body is read for it and put back.
pub async fn has_token(request: Request, expected: &str) -> Result<Request, Problem> {
    if request.method().is_safe() {
        return Ok(request);
    }
    let is = |said: &[u8]| bool::from(said.ct_eq(expected.as_bytes()));
    if let Some(said) = request.headers().get(&TOKEN_HEADER) {
        return if is(said.as_bytes()) {
            Ok(request)
        } else {
            Err(missing())
        };
    }
    if !is_form(request.headers()) {
        return Err(missing());
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, FORM_BYTES).await;
    let body = body.map_err(|_| {
        let detail = format!("a form may have {FORM_BYTES} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    })?;
    if field(&body).is_some_and(|said| is(said.as_bytes())) {
        Ok(Request::from_parts(head, Body::from(body)))
    } else {
        Err(missing())
    }
}

fn missing() -> Problem {
    let detail = "this session's requests need its token, as X-CSRF-Token or the form's field csrf; load the page again";
    Problem::new(StatusCode::FORBIDDEN, "csrf", detail)
}

/// Whether a body is what a form sends.
pub fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    content_type.is_some_and(|value| {
        value
            .as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    })
}

fn field(body: &Bytes) -> Option<String> {
    let pairs: Vec<(String, String)> = serde_html_form::from_bytes(body).ok()?;
    let mut values = pairs.into_iter().filter(|(name, _)| name == TOKEN_FIELD);
    values.next().map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn from(headers: &[(&HeaderName, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        map.insert(HOST, HeaderValue::from_static("collector.example:8080"));
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        assert!(same_origin(&Method::GET, &map).is_ok());
        same_origin(&Method::POST, &map).is_ok()
    }

    #[test]
    fn a_request_of_another_site_is_told_by_what_browsers_say() {
        assert!(from(&[]));
        assert!(from(&[(&ORIGIN, "https://collector.example:8080")]));
        assert!(from(&[(&FETCH_SITE, "same-origin")]));
        assert!(from(&[(&FETCH_SITE, "none")]));
        for (name, value) in [
            (&ORIGIN, "https://evil.example"),
            (&ORIGIN, "https://collector.example"),
            (&ORIGIN, "null"),
            (&FETCH_SITE, "same-site"),
            (&FETCH_SITE, "cross-site"),
            (&FETCH_SITE, ""),
        ] {
            assert!(!from(&[(name, value)]), "{name}: {value}");
        }
        assert!(!from(&[
            (&ORIGIN, "https://collector.example:8080"),
            (&FETCH_SITE, "cross-site")
        ]));
    }
}
