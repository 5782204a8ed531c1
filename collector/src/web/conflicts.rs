//! The Host page's buttons for a machine that was set apart from the host: split it or drop it.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::response::Redirect;
use uuid::Uuid;

use crate::api::auth::Caller;
use crate::api::conflicts;
use crate::api::problem::Problem;
use crate::app::App;

/// `POST /hosts/{id}/conflicts/{conflict}/split`: as [`conflicts::split`], then back to the page.
pub async fn split(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    ids: Result<Path<(Uuid, Uuid)>, PathRejection>,
) -> Result<Redirect, Problem> {
    let row = conflicts::split(State(app), Extension(caller), ids).await?;
    Ok(Redirect::to(&format!("/hosts/{}", row.host_id)))
}

/// `POST /hosts/{id}/conflicts/{conflict}/drop`: as [`conflicts::drop_clone`], then back to the page.
pub async fn drop_clone(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    ids: Result<Path<(Uuid, Uuid)>, PathRejection>,
) -> Result<Redirect, Problem> {
    let row = conflicts::drop_clone(State(app), Extension(caller), ids).await?;
    Ok(Redirect::to(&format!("/hosts/{}", row.host_id)))
}
