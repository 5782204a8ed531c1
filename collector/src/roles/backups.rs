//! The table's routes of backups: what is protected, what there is to restore, and whether that was proven.

use axum::routing::{get, post};
use http::Method;
use utoipa_axum::routes;

use super::{ADMIN, LEAD, OPERATOR, Route, Scope, VIEWER, api};
use crate::api::drills;
use crate::api::volumes::{self, edit, grants, runs, snapshots};
use crate::web::backups::{self, act, drill, proof, volume};

/// All of them.
pub(super) fn routes() -> Vec<Route> {
    let started = |route: Route| route.or_scope(Scope::Backup);
    let form = |access, path, handler| Route::page(access, Method::POST, path, handler);
    let delete = "/volumes/{id}/delete";
    vec![
        Route::page(VIEWER, Method::GET, "/backups", get(backups::list)),
        form(OPERATOR, "/backups/run", post(act::run_all)),
        Route::page(LEAD, Method::GET, "/volumes/new", get(act::new)),
        form(LEAD, "/volumes", post(act::create)),
        Route::page(VIEWER, Method::GET, "/volumes/{id}", get(volume::page)),
        form(LEAD, "/volumes/{id}/edit", post(act::change)),
        form(OPERATOR, "/volumes/{id}/run", post(act::run)),
        form(OPERATOR, "/volumes/{id}/order", post(act::order)),
        form(LEAD, "/volumes/{id}/hold", post(act::hold)),
        form(ADMIN, delete, post(act::delete)).step_up(),
        Route::page(VIEWER, Method::GET, "/backups/proof", get(proof::page)),
        Route::page(VIEWER, Method::GET, "/drills/{id}", get(drill::page)),
        Route::page(
            VIEWER,
            Method::GET,
            "/drills/{id}/report",
            get(drill::report),
        ),
        form(OPERATOR, "/drills/{id}/cancel", post(drill::cancel)),
        form(OPERATOR, "/volumes/{id}/drill", post(drill::ask)),
        api(VIEWER, routes!(volumes::list)),
        api(LEAD, routes!(edit::create)),
        api(VIEWER, routes!(volumes::get)),
        api(LEAD, routes!(edit::update)),
        api(ADMIN, routes!(edit::delete)).step_up(),
        api(VIEWER, routes!(snapshots::list)),
        api(ADMIN, routes!(snapshots::delete)).step_up(),
        api(LEAD, routes!(snapshots::hold)),
        api(LEAD, routes!(snapshots::release)),
        api(VIEWER, routes!(grants::list)),
        api(LEAD, routes!(grants::create)).step_up(),
        api(LEAD, routes!(grants::delete)),
        api(VIEWER, routes!(runs::list)),
        started(api(OPERATOR, routes!(runs::create))),
        api(VIEWER, routes!(runs::get)),
        started(api(OPERATOR, routes!(runs::order))),
        api(VIEWER, routes!(drills::list)),
        started(api(OPERATOR, routes!(drills::create))),
        api(VIEWER, routes!(drills::get)),
        started(api(OPERATOR, routes!(drills::cancel))),
    ]
}
