//! The Host page's buttons for a machine that was set apart from the host: split it or drop it.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Redirect;
use uuid::Uuid;

use crate::api::conflicts;
use crate::api::input::Path;
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;

/// `POST /hosts/{id}/conflicts/{conflict}/split`: as [`conflicts::split`], then back to the page.
pub async fn split(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    ids: Path<(Uuid, Uuid)>,
) -> Result<Redirect, Problem> {
    let row = conflicts::split(State(app), Extension(caller), ids).await?;
    Ok(Redirect::to(&format!("/hosts/{}", row.0.host_id)))
}

/// `POST /hosts/{id}/conflicts/{conflict}/drop`: as [`conflicts::drop_clone`], then back to the page.
pub async fn drop_clone(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    ids: Path<(Uuid, Uuid)>,
) -> Result<Redirect, Problem> {
    let row = conflicts::drop_clone(State(app), Extension(caller), ids).await?;
    Ok(Redirect::to(&format!("/hosts/{}", row.0.host_id)))
}
