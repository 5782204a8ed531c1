//! What people see: server-rendered pages that work without script.

pub mod advisories;
pub mod assets;
pub mod audit;
pub mod backups;
pub mod changes;
pub mod conflicts;
pub mod docs;
pub mod escape;
pub mod failed;
pub mod frame;
pub mod host;
pub mod hosts;
pub mod inventory;
pub mod kept;
pub mod keys;
pub mod kit;
pub mod live;
pub mod login;
pub mod oidc;
pub mod overview;
pub mod packages;
pub mod password;
pub mod patches;
pub mod plain;
pub mod search;
pub mod settings;
pub mod setup;
pub mod step_up;
pub mod theme;
pub mod words;

use askama::Template;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::api::problem::Problem;
use crate::login::oidc::local_path;
use crate::web::frame::Frame;

/// Of answers that are no pages.
const POLICY: &str =
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Adds the security headers to every answer of the operators' listener.
pub async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(POLICY));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A path of this site, where one was asked for; else the first page.
pub fn local(next: &str) -> &str {
    local_path(next).unwrap_or("/")
}

/// What a field of a form has; nothing where it was left empty.
fn given(field: &str) -> Option<String> {
    (!field.is_empty()).then(|| field.to_owned())
}

/// A page from its template, which loads and runs what its frame allows.
fn page(frame: &Frame, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (
            [(header::CONTENT_SECURITY_POLICY, frame.policy())],
            Html(html),
        )
            .into_response(),
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "template", error).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_site_are_gone_on_to() {
        assert_eq!(local("/hosts/1?a=b"), "/hosts/1?a=b");
        for bad in [
            "",
            "hosts",
            "//evil",
            "/\\evil",
            "https://evil",
            "/a\tb",
            "/\n/evil",
            "\\evil",
        ] {
            assert_eq!(local(bad), "/", "{bad:?}");
        }
    }
}
