//! `GET /api/v1/openapi.json`: the API as an `OpenAPI` 3.1 document, made from the table of routes and the handlers.
//!
//! `collector/openapi.json` is this document; a test compares them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{HttpMethod, Operation, Paths};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    ResponseBuilder,
};

use crate::api::problem::{Place, Problem};
use crate::roles::{Access, Route, Scope, routes};

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let mut text =
        serde_json::to_string_pretty(&openapi()).expect("the document is made of plain values");
    text.push('\n');
    text
});

/// The document's text, with a line end.
pub fn text() -> &'static str {
    &DOCUMENT
}

/// `GET /api/v1/openapi.json`.
pub async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], text()).into_response()
}

fn openapi() -> OpenApi {
    let mut paths = Paths::new();
    let mut schemas = vec![
        (Problem::name().into_owned(), Problem::schema()),
        (Place::name().into_owned(), Place::schema()),
    ];
    for route in routes() {
        let Some(operation) = &route.operation else {
            continue;
        };
        schemas.extend(route.schemas.iter().cloned());
        paths.add_path_operation(
            &route.path,
            vec![method(route)],
            documented(route, operation.clone()),
        );
    }
    let mut components = ComponentsBuilder::new()
        .security_scheme(
            "bearer",
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        )
        .security_scheme(
            "api_token",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-TOKEN"))),
        );
    let mut seen = BTreeSet::new();
    for (name, schema) in schemas {
        if seen.insert(name.clone()) {
            components = components.schema(name, schema);
        }
    }
    let info = InfoBuilder::new()
        .title("Infratrack")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(include_str!("openapi.md")));
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components.build()))
        .security(Some([
            SecurityRequirement::new("bearer", Vec::<String>::new()),
            SecurityRequirement::new("api_token", Vec::<String>::new()),
        ]))
        .build()
}

fn method(route: &Route) -> HttpMethod {
    match route.method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

/// With what the table knows of the route, and what every route may answer.
fn documented(route: &Route, mut operation: Operation) -> Operation {
    let role = match route.access {
        Access::Public => "none",
        Access::Role(role) => role.name(),
    };
    // One, for several have no order.
    let access = json!({
        "role": role,
        "scope": route.scope.map(Scope::name),
        "step_up": route.step_up,
    });
    let extensions = ExtensionsBuilder::new().add("x-access", access);
    operation.extensions = Some(extensions.build());
    // utoipa's own are made of the function's name alone, and resources share those.
    let verb = operation.operation_id.take().unwrap_or_default();
    operation.operation_id = Some(operation_id(&verb, &route.path));
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            let status = status
                .parse()
                .ok()
                .and_then(|code: u16| StatusCode::from_u16(code).ok());
            let words = status.and_then(|status| status.canonical_reason());
            words
                .unwrap_or_default()
                .clone_into(&mut response.description);
        }
    }
    let problem = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .build();
    let response = ResponseBuilder::new()
        .description("what was wrong (RFC 9457)")
        .content("application/problem+json", problem);
    operation
        .responses
        .responses
        .insert("default".to_owned(), response.build().into());
    operation
}

/// `list_hosts_events` of `/api/v1/hosts/{id}/events`.
fn operation_id(verb: &str, path: &str) -> String {
    let nouns = path
        .split('/')
        .skip(3)
        .filter(|part| !part.starts_with('{') && *part != verb)
        .map(|part| part.replace('-', "_"));
    std::iter::once(verb.to_owned())
        .chain(nouns)
        .collect::<Vec<_>>()
        .join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if std::env::var_os("INFRATRACK_RECORD").is_some() {
            std::fs::write(path, text()).expect("written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == text(),
            "collector/openapi.json is of other code: INFRATRACK_RECORD=1 cargo test openapi writes it"
        );
    }
}
