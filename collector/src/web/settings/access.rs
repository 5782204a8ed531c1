//! Roles: who may do what, read off the table that the router is made of.

use askama::Template;
use axum::response::Response;

use crate::roles::{Access, Role, Route, Scope, routes};
use crate::web::frame::Frame;
use crate::web::{self, settings};

#[derive(Template)]
#[template(path = "settings/roles.html")]
struct RolesPage {
    frame: Frame,
    groups: Vec<Group>,
}

/// Routes of one kind.
struct Group {
    name: &'static str,
    id: &'static str,
    lines: Vec<Line>,
}

/// A route.
struct Line {
    method: String,
    path: String,
    /// What it does, as the API's document says.
    what: String,
    /// `None`: anybody.
    role: Option<Role>,
    scope: Option<&'static str>,
    step_up: bool,
}

impl Line {
    fn of(route: &Route) -> Self {
        let operation = route.operation.as_ref();
        let what = operation.and_then(|operation| operation.summary.clone());
        Self {
            method: route.method.to_string(),
            path: route.path.clone(),
            // The document is Markdown.
            what: what.unwrap_or_default().replace('`', ""),
            role: match route.access {
                Access::Public => None,
                Access::Role(role) => Some(role),
            },
            scope: route.scope.map(Scope::name),
            step_up: route.step_up,
        }
    }

    fn may(&self, role: Role) -> bool {
        self.role.is_none_or(|needed| role >= needed)
    }
}

/// `GET /settings/roles`.
pub async fn page(frame: Frame) -> Response {
    let lines = |is_api: bool| {
        let of_kind = routes()
            .iter()
            .filter(|route| route.operation.is_some() == is_api);
        let mut lines: Vec<_> = of_kind.map(Line::of).collect();
        lines.sort_by(|a, b| (&a.path, &a.method).cmp(&(&b.path, &b.method)));
        lines
    };
    let groups = vec![
        Group {
            name: "API",
            id: "api",
            lines: lines(true),
        },
        Group {
            name: "Pages",
            id: "pages",
            lines: lines(false),
        },
    ];
    let page = RolesPage { frame, groups };
    web::page(&page.frame, &page)
}
