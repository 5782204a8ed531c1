//! `/api/docs`: the API's document, to be browsed. The viewer is Swagger UI, embedded.

use std::sync::Arc;

use axum::response::{IntoResponse, Redirect, Response};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use utoipa_swagger_ui::Config;

use crate::api::input::Path;
use crate::api::problem::Problem;

/// The viewer sets styles by script, and shows images that stand in its style sheet.
const POLICY: &str = "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; img-src 'self' data:; \
    connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// `GET /api/docs`.
pub async fn home() -> Redirect {
    Redirect::to("/api/docs/index.html")
}

/// `GET /api/docs/{file}`.
pub async fn file(Path(file): Path<String>) -> Response {
    let config = Config::from("/api/v1/openapi.json").persist_authorization(false);
    let found = utoipa_swagger_ui::serve(&file, Arc::new(config));
    let mut response = match found {
        Ok(Some(found)) => {
            let content_type = found.content_type;
            ([(CONTENT_TYPE, content_type)], found.bytes.into_owned()).into_response()
        }
        Ok(None) => return Problem::missing("file", file).into_response(),
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Problem::new(status, "docs", error).into_response();
        }
    };
    let policy = HeaderValue::from_static(POLICY);
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, policy);
    response
}
