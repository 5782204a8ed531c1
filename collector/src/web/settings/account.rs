//! Your account: who you are here, what you may do, your password and how pages look.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::Response;

use crate::api::password;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::ActorKind;
use crate::caller::{Caller, STEP_UP};
use crate::roles::Scope;
use crate::web::frame::Frame;
use crate::web::{self, settings};

#[derive(Template)]
#[template(path = "settings/account.html")]
struct AccountPage {
    frame: Frame,
    name: String,
    /// How they came in.
    by: &'static str,
    scopes: Vec<&'static str>,
    has_password: bool,
    proved_at: Option<time::OffsetDateTime>,
}

impl AccountPage {
    fn step_up_minutes() -> i64 {
        STEP_UP.whole_minutes()
    }
}

/// `GET /settings/account`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let has_password = password::has_one(&app, &caller).await?;
    let by = match (caller.kind, caller.session.is_some()) {
        (ActorKind::User, _) if has_password => "name and password",
        (ActorKind::User, _) => "the login provider",
        (ActorKind::Proxy, _) => "the reverse proxy",
        (_, true) => "an API token, in a session",
        (_, false) => "an API token",
    };
    let page = AccountPage {
        frame,
        by,
        scopes: caller.scopes.iter().copied().map(Scope::name).collect(),
        has_password,
        proved_at: caller
            .session
            .as_ref()
            .map(|session| session.authenticated_at),
        name: caller.name,
    };
    Ok(web::page(&page.frame, &page))
}
