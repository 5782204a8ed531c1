//! `GET /metrics`: what Prometheus scrapes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::api::problem::Problem;
use crate::app::App;
use crate::metrics;

/// Everything, in the text format of `OpenMetrics` 1.0.0.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    match app.metrics.encode(&app) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", error).into_response()
        }
    }
}
