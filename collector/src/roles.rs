//! Who may call what: one table, from which the operators' router is built.
//!
//! A route that is not in here does not exist; tests walk the same table.

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{MethodRouter, get, post};
use http::Method;

use crate::app::App;
use crate::{api, web};

/// What a credential may do; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Sees everything but secrets.
    Viewer,
    /// Edits hosts, sends commands.
    Operator,
    /// Closes, retires, edits policies.
    Lead,
    /// Deletes, and decides who may do what.
    Admin,
}

impl Role {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Lead => "lead",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "viewer" | "read" => Some(Self::Viewer),
            "operator" | "member" => Some(Self::Operator),
            "lead" => Some(Self::Lead),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Public,
    /// This role or a higher one.
    Role(Role),
}

/// One route and who may call it.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub access: Access,
    handler: MethodRouter<Arc<App>>,
}

/// The table.
#[expect(clippy::too_many_lines, reason = "one table, some lines a route")]
pub fn routes() -> Vec<Route> {
    use Access::{Public, Role as At};
    use Role::{Admin, Operator, Viewer};
    let see = |path, handler| Route {
        method: Method::GET,
        path,
        access: At(Viewer),
        handler,
    };
    let open = |path, handler| Route {
        method: Method::GET,
        path,
        access: Public,
        handler,
    };
    let act = |path, role, handler| Route {
        method: Method::POST,
        path,
        access: At(role),
        handler,
    };
    vec![
        open("/health", get(api::health::health)),
        see("/metrics", get(api::metrics::metrics)),
        open("/login", get(web::login::page)),
        Route {
            method: Method::POST,
            path: "/login",
            access: Public,
            handler: post(web::login::submit),
        },
        Route {
            method: Method::POST,
            path: "/logout",
            access: Public,
            handler: post(web::login::leave),
        },
        open("/static/{file}", get(web::assets::file)),
        see("/", get(web::hosts::home)),
        see("/hosts", get(web::hosts::page)),
        see("/hosts/{id}", get(web::host::page)),
        act("/hosts/{id}/refresh", Operator, post(web::host::refresh)),
        act(
            "/hosts/{id}/conflicts/{conflict}/split",
            Operator,
            post(web::conflicts::split),
        ),
        act(
            "/hosts/{id}/conflicts/{conflict}/drop",
            Operator,
            post(web::conflicts::drop_clone),
        ),
        see("/api/v1/hosts", get(api::hosts::list)),
        see("/api/v1/hosts/{id}", get(api::hosts::get)),
        see("/api/v1/hosts/{id}/heartbeats", get(api::hosts::heartbeats)),
        see("/api/v1/hosts/{id}/facts", get(api::hosts::facts)),
        see("/api/v1/hosts/{id}/events", get(api::hosts::events)),
        see("/api/v1/hosts/{id}/gaps", get(api::hosts::gaps)),
        see("/api/v1/hosts/{id}/commands", get(api::commands::list)),
        act(
            "/api/v1/hosts/{id}/commands",
            Operator,
            post(api::commands::create),
        ),
        see("/api/v1/hosts/{id}/conflicts", get(api::conflicts::list)),
        act(
            "/api/v1/hosts/{id}/conflicts/{conflict}/split",
            Operator,
            post(api::conflicts::split),
        ),
        act(
            "/api/v1/hosts/{id}/conflicts/{conflict}/drop",
            Operator,
            post(api::conflicts::drop_clone),
        ),
        act("/api/v1/hosts/{id}/revoke", Admin, post(api::hosts::revoke)),
        act(
            "/api/v1/enroll-tokens",
            Admin,
            post(api::enroll_tokens::create),
        ),
        act(
            "/api/v1/enroll-tokens/{id}/approve",
            Admin,
            post(api::enroll_tokens::approve),
        ),
    ]
}

/// The operators' router.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in routes() {
        let guard = api::auth::Guard {
            app: Arc::clone(&app),
            route: route.path,
            access: route.access,
        };
        let guarded = route
            .handler
            .layer(middleware::from_fn_with_state(guard, api::auth::guard));
        router = router.route(route.path, guarded);
    }
    router
        .fallback(api::problem::not_found)
        .layer(middleware::from_fn(web::headers))
        .with_state(app)
}
