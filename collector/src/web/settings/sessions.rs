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

/// A browser as people know it, by what it calls itself; what is no browser's name stays.
fn browser(user_agent: &str) -> String {
    // Each also calls itself what those after it are called.
    let browsers = [
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Version/", "Safari"),
    ];
    let systems = [
        ("Windows", "Windows"),
        ("Android", "Android"),
        ("iPhone", "iOS"),
        ("iPad", "iOS"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ];
    let found = browsers.iter().find_map(|(mark, name)| {
        let (_, rest) = user_agent.split_once(mark)?;
        let version: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(format!("{name} {version}"))
    });
    let system = systems.iter().find(|(mark, _)| user_agent.contains(mark));
    match (found, system) {
        (Some(found), Some((_, system))) => format!("{found} on {system}"),
        (Some(found), None) => found,
        (None, _) => user_agent.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_called_as_people_know_them() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
        assert_eq!(browser(chrome), "Chrome 142 on Linux");
        assert_eq!(browser(&format!("{chrome} Edg/142.0")), "Edge 142 on Linux");
        let safari = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1";
        assert_eq!(browser(safari), "Safari 18 on iOS");
        assert_eq!(browser("curl/8.14"), "curl/8.14");
    }
}
