//! Saved views: one's own, and those that are shared.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect, Response};
use uuid::Uuid;

use crate::api::input::Path;
use crate::api::problem::Problem;
use crate::api::views::{self, View};
use crate::app::App;
use crate::caller::Caller;
use crate::web::frame::Frame;
use crate::web::hosts::asked::{self, Asked, Chip};
use crate::web::{self, settings};

#[derive(Template)]
#[template(path = "settings/views.html")]
struct ViewsPage {
    frame: Frame,
    /// Each with whether its reader may delete it.
    views: Vec<(View, bool)>,
}

impl ViewsPage {
    fn link(view: &View) -> String {
        asked::link(&view.query)
    }

    /// What it asks for; a view of an older version may ask for what is not known any more.
    fn filters(view: &View) -> Option<Vec<Chip>> {
        let asked = Asked::parse(Some(&view.query)).ok()?;
        Some(asked.chips())
    }
}

/// `GET /settings/views`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let views = views::all(&app, &caller).await?.into_iter();
    let page = ViewsPage {
        frame,
        views: views
            .map(|view| {
                let may_delete = view.may_delete(&caller);
                (view, may_delete)
            })
            .collect(),
    };
    Ok(web::page(&page.frame, &page))
}

/// `POST /settings/views/{id}/delete`: as [`views::delete`].
pub async fn delete(
    app: State<Arc<App>>,
    caller: Extension<Caller>,
    id: Path<Uuid>,
) -> Result<Response, Problem> {
    views::delete(app, caller, id).await?;
    Ok(Redirect::to("/settings/views").into_response())
}
