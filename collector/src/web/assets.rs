//! The style sheet and the script, embedded in the binary.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use crate::api::problem::Problem;

/// `GET /static/{file}`.
pub async fn file(Path(file): Path<String>) -> Response {
    let (content_type, text) = match file.as_str() {
        "style.css" => (
            "text/css; charset=utf-8",
            include_str!("../../static/style.css"),
        ),
        "live.js" => (
            "text/javascript; charset=utf-8",
            include_str!("../../static/live.js"),
        ),
        _ => return Problem::missing("file", file).into_response(),
    };
    (
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "max-age=300")],
        text,
    )
        .into_response()
}
