//! How many requests a credential may make, and how it is told: `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers), and `Retry-After` where it is too many.

use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::api::problem::Problem;
use crate::app::App;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Takes from a credential's share; answers the headers that say what is left, or the refusal.
pub fn take(app: &App, credential: String) -> Result<HeaderMap, Box<Response>> {
    let operators = &app.config.operators;
    let (rate, burst) = (
        operators.requests_per_second.max(1),
        operators.requests_burst.max(1),
    );
    // Who used it all up has it all again after this.
    let window_s = burst.div_ceil(rate);
    let taken = app.operator_rates.take(credential);
    let (left, wait_s) = match taken {
        Ok(left) => (left, 0),
        Err(wait) => (0.0, wait.as_secs() + 1),
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to the burst, which is a u32"
    )]
    let left = left as u32;
    let full_in_s = (burst - left.min(burst)).div_ceil(rate);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (LIMIT, format!("\"credential\";r={left};t={full_in_s}")),
        (POLICY, format!("\"credential\";q={burst};w={window_s}")),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    if wait_s == 0 {
        return Ok(headers);
    }
    headers.insert(RETRY_AFTER, HeaderValue::from(wait_s));
    let detail = format!("{rate} requests a second, {burst} at once; try again in {wait_s} s");
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail);
    Err(Box::new((headers, problem).into_response()))
}
