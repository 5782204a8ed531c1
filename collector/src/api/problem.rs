//! Errors of the operators' side: `application/problem+json` (RFC 9457), with a request id, and where it can be said
//! the place in what was sent.

use axum::Json;
use axum::extract::rejection::{FormRejection, PathRejection};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use sqlx::error::DatabaseError;
use utoipa::ToSchema;

use crate::api::requests;

/// One refusal or failure.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// A stable word.
    #[serde(rename = "type")]
    pub code: &'static str,
    /// The status in words.
    pub title: String,
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// As in the answer's `X-Request-Id` and in the collector's log.
    pub request_id: String,
    /// What is wrong where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<Place>,
}

/// What is wrong with one part of a request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Place {
    pub detail: String,
    /// Into the body (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The name of a parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

impl Problem {
    /// A problem with its detail.
    pub fn new(status: StatusCode, code: &'static str, detail: impl std::fmt::Display) -> Self {
        Self {
            code,
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: Some(detail.to_string()),
            request_id: requests::current_id(),
            errors: Vec::new(),
        }
    }

    /// 404 of a thing with an id.
    pub fn missing(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no {what} {id}"),
        )
    }

    /// 400 of a request as a whole.
    pub fn invalid(detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    /// 400 of a parameter of the query. Name and detail make a sentence.
    pub fn parameter(name: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        let name = name.into();
        let mut problem = Self::invalid(format!("{name} {detail}").trim_start());
        problem.errors.push(Place {
            detail: detail.to_string(),
            pointer: None,
            parameter: Some(name),
        });
        problem
    }

    /// 422 of a field of the body, by its JSON pointer. Pointer and detail make a sentence.
    pub fn field(pointer: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        let pointer = pointer.into();
        let whole = if pointer.is_empty() {
            detail.to_string()
        } else {
            format!("{pointer} {detail}")
        };
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", whole);
        problem.errors.push(Place {
            detail: detail.to_string(),
            pointer: Some(pointer),
            parameter: None,
        });
        problem
    }

    /// 409: what is there does not allow it.
    pub fn conflict(code: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 408 of a body that dribbles.
    pub fn too_slow(detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail)
    }

    /// Its status, for an answer of another shape.
    pub fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// 503: the same request may work in a while.
    pub fn unavailable(detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status_code(), Json(&self)).into_response();
        // A person sees a page of it: `web::failed`.
        response.extensions_mut().insert(self);
        let content_type = HeaderValue::from_static("application/problem+json");
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
        response
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        // Class 22: the database can't hold a value, a NUL in a text, say.
        let code = error.as_database_error().and_then(DatabaseError::code);
        if code.is_some_and(|code| code.starts_with("22")) {
            return Self::invalid("a value of this request cannot be stored or searched for");
        }
        let problem = Self::unavailable(
            "the database did not answer this request; the collector's log says why",
        );
        tracing::error!(%error, request_id = %problem.request_id, "request failed in the database");
        problem
    }
}

macro_rules! rejections {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Problem {
            fn from(rejection: $rejection) -> Self {
                Self::new(rejection.status(), "invalid", rejection.body_text())
            }
        }
    )*};
}

rejections!(FormRejection, PathRejection);

/// The answer to a method that a path has not; `Allow` says which it has.
pub async fn not_allowed(method: http::Method, uri: http::Uri) -> Problem {
    let detail = format!("{} takes no {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// The answer where nothing is.
pub async fn not_found(uri: http::Uri) -> Problem {
    Problem::missing("page", uri.path())
}
