//! The Hosts page's forms that keep a view and delete one.

use std::sync::Arc;

use axum::Form;
use axum::extract::{Extension, State};
use axum::response::Redirect;
use serde::Deserialize;
use uuid::Uuid;

use crate::api::input::Path;
use crate::api::problem::Problem;
use crate::api::views::{self, NewView};
use crate::app::App;
use crate::caller::Caller;
use crate::web::hosts::asked;

/// What the form sends; a box that is not ticked is not sent.
#[derive(Debug, Deserialize)]
pub struct ViewForm {
    name: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    is_shared: bool,
    #[serde(default)]
    is_default: bool,
}

/// `POST /hosts/views`: as [`views::create`], then to the view.
pub async fn save(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Form(form): Form<ViewForm>,
) -> Result<Redirect, Problem> {
    let new = NewView {
        name: form.name,
        query: form.query,
        is_shared: form.is_shared,
        is_default: form.is_default,
    };
    let view = views::keep(&app, &caller, &new).await?;
    Ok(Redirect::to(&asked::link(&view.query)))
}

/// `POST /hosts/views/{id}/delete`: as [`views::delete`], then to all hosts.
pub async fn delete(
    app: State<Arc<App>>,
    caller: Extension<Caller>,
    id: Path<Uuid>,
) -> Result<Redirect, Problem> {
    views::delete(app, caller, id).await?;
    Ok(Redirect::to(&asked::link("")))
}
