//! The table's routes of one host: its page, and what programs ask and do of hosts.

use axum::routing::{get, post};
use http::Method;
use utoipa_axum::routes;

use super::{ADMIN, LEAD, OPERATOR, Route, VIEWER, api as route};
use crate::web;

/// A host's page, and its buttons.
pub(super) fn page() -> Vec<Route> {
    use Method as M;
    use web::host::{self, act, facts, what_changed};
    let button = |access, path: &str, handler| Route::page(access, M::POST, path, handler);
    let changed = "/hosts/{id}/what-changed";
    vec![
        Route::page(VIEWER, M::GET, "/hosts/{id}", get(host::page)),
        Route::page(VIEWER, M::GET, "/hosts/{id}/state", get(host::state)),
        Route::page(VIEWER, M::GET, "/hosts/{id}/facts", get(facts::page)),
        Route::page(VIEWER, M::GET, changed, get(what_changed::page)),
        button(OPERATOR, "/hosts/{id}/refresh", post(act::refresh)),
        button(OPERATOR, "/hosts/{id}/renew", post(act::renew)),
        button(OPERATOR, "/hosts/{id}/edit", post(act::edit)),
        button(OPERATOR, "/hosts/{id}/tasks", post(act::task)),
        button(LEAD, "/hosts/{id}/retire", post(act::retire)),
        button(LEAD, "/hosts/{id}/unretire", post(act::unretire)),
        button(LEAD, "/hosts/{id}/merge", post(act::merge)),
        button(ADMIN, "/hosts/{id}/revoke", post(act::revoke)).step_up(),
        button(ADMIN, "/hosts/{id}/delete", post(act::delete)).step_up(),
    ]
}

/// What programs ask and do of hosts.
pub(super) fn api() -> Vec<Route> {
    use crate::api::{commands, conflicts, hosts, inventory, overview, tasks, views};
    vec![
        route(VIEWER, routes!(hosts::list::list)),
        route(OPERATOR, routes!(hosts::edit::create)),
        route(OPERATOR, routes!(hosts::bulk::bulk)),
        route(VIEWER, routes!(hosts::get)),
        route(OPERATOR, routes!(hosts::edit::update)),
        route(ADMIN, routes!(hosts::retire::delete)).step_up(),
        route(LEAD, routes!(hosts::retire::retire)),
        route(LEAD, routes!(hosts::retire::unretire)),
        route(LEAD, routes!(hosts::retire::merge)),
        route(VIEWER, routes!(hosts::reported::heartbeats)),
        route(VIEWER, routes!(hosts::reported::facts)),
        route(VIEWER, routes!(hosts::reported::events)),
        route(VIEWER, routes!(hosts::reported::gaps)),
        route(VIEWER, routes!(hosts::facts::history)),
        route(VIEWER, routes!(hosts::metrics::metrics)),
        route(VIEWER, routes!(hosts::timeline::timeline)),
        route(VIEWER, routes!(hosts::what_changed::what_changed)),
        route(ADMIN, routes!(hosts::reported::revoke)).step_up(),
        route(VIEWER, routes!(commands::list)),
        route(OPERATOR, routes!(commands::create)),
        route(VIEWER, routes!(conflicts::list)),
        route(OPERATOR, routes!(conflicts::split)),
        route(OPERATOR, routes!(conflicts::drop_clone)),
        route(VIEWER, routes!(inventory::probes)),
        route(OPERATOR, routes!(inventory::sync)),
        route(VIEWER, routes!(inventory::sources)),
        route(VIEWER, routes!(inventory::expected)),
        route(VIEWER, routes!(tasks::list)),
        route(OPERATOR, routes!(tasks::create)),
        route(VIEWER, routes!(tasks::get)),
        route(OPERATOR, routes!(tasks::update)),
        route(ADMIN, routes!(tasks::delete)).step_up(),
        route(VIEWER, routes!(overview::get)),
        route(VIEWER, routes!(views::list)),
        route(VIEWER, routes!(views::create)),
        route(VIEWER, routes!(views::delete)),
    ]
}
