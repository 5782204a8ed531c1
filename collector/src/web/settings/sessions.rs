//! Sessions: which browsers are logged in; one's own, for an admin everybody's.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect, Response};
use uuid::Uuid;

use crate::api::input::Path;
use crate::api::problem::Problem;
use crate::api::sessions;
use crate::app::App;
use crate::caller::Caller;
use crate::store::sessions::SessionRow;
use crate::web::frame::Frame;
use crate::web::{self, settings};

#[derive(Template)]
#[template(path = "settings/sessions.html")]
struct SessionsPage {
    frame: Frame,
    sessions: Vec<SessionRow>,
    this: Option<Uuid>,
    reader: String,
}

impl SessionsPage {
    fn is_this(&self, row: &SessionRow) -> bool {
        self.this == Some(row.session_id)
    }

    fn is_of_others(&self) -> bool {
        self.sessions.iter().any(|row| row.name != self.reader)
    }
}

/// `GET /settings/sessions`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let page = SessionsPage {
        frame,
        sessions: sessions::rows(&app, &caller).await?.items,
        this: caller.session.as_ref().map(|session| session.id),
        reader: caller.name,
    };
    Ok(web::page(&page.frame, &page))
}

/// `POST /settings/sessions/{id}/end`.
pub async fn end(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    sessions::end(&app, &caller, id).await?;
    Ok(Redirect::to("/settings/sessions").into_response())
}

/// `POST /settings/sessions/end-others`.
pub async fn end_others(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    sessions::end_others(&app, &caller).await?;
    Ok(Redirect::to("/settings/sessions").into_response())
}
