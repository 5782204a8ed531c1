//! Users: who may log in by name, with which role; one is made, changed and deleted here as by the API.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;

use crate::api::etag;
use crate::api::input::Path;
use crate::api::problem::Problem;
use crate::api::users::{self, NewUser, User, UserUpdate};
use crate::app::App;
use crate::caller::Caller;
use crate::login::password::MIN_CHARS;
use crate::roles::Role;
use crate::web::frame::Frame;
use crate::web::{self, settings};

#[derive(Template)]
#[template(path = "settings/users.html")]
struct UsersPage {
    frame: Frame,
    users: Vec<User>,
}

#[derive(Template)]
#[template(path = "settings/user_new.html")]
struct NewUserPage {
    frame: Frame,
    complaint: Option<String>,
    form: NewForm,
}

#[derive(Template)]
#[template(path = "settings/user.html")]
struct UserPage {
    frame: Frame,
    complaint: Option<String>,
    user: User,
    /// Of what the reader sees.
    tag: String,
    is_reader: bool,
}

/// What the form of a new user sends.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct NewForm {
    name: String,
    role: String,
    password: String,
    /// Whether they keep the password.
    keep: bool,
}

impl NewForm {
    fn is_role(&self, role: Role) -> bool {
        self.role == role.name() || self.role.is_empty() && role == Role::Viewer
    }
}

/// What a form of a user's page sends.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ChangeForm {
    tag: String,
    /// `role | password | disable | enable | delete`.
    action: String,
    role: String,
    password: String,
    keep: bool,
}

/// `GET /settings/users`.
pub async fn list(State(app): State<Arc<App>>, frame: Frame) -> Result<Response, Problem> {
    let users = users::all(&app).await?.items;
    let page = UsersPage { frame, users };
    Ok(web::page(&page.frame, &page))
}

/// `GET /settings/users/_new`.
pub async fn new(frame: Frame) -> Response {
    let page = NewUserPage {
        frame,
        complaint: None,
        form: NewForm::default(),
    };
    web::page(&page.frame, &page)
}

/// `POST /settings/users`.
pub async fn create(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
    form: Result<Form<NewForm>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form?;
    let body = NewUser {
        name: form.name.clone(),
        role: form.role.clone(),
        password: form.password.clone(),
        must_change_password: !form.keep,
    };
    match users::add(&app, &caller, body).await {
        Ok(_) => Ok(Redirect::to("/settings/users").into_response()),
        Err(problem) if problem.status < 500 => {
            let complaint = Some(settings::complaint(&problem));
            let page = NewUserPage {
                frame,
                complaint,
                form,
            };
            Ok((problem.status_code(), web::page(&page.frame, &page)).into_response())
        }
        Err(problem) => Err(problem),
    }
}

/// `GET /settings/users/{name}`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    show(&app, frame, &caller, &name, StatusCode::OK, None).await
}

/// `POST /settings/users/{name}`.
pub async fn update(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    form: Result<Form<ChangeForm>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form?;
    let done = carry_out(&app, &caller, &name, &form).await;
    let list = "/settings/users";
    match done {
        // Whose sessions ended, the reader's own with them, logs in again on the way.
        Ok(()) => Ok(Redirect::to(list).into_response()),
        Err(problem) if problem.status < 500 => {
            let complaint = Some(settings::complaint(&problem));
            show(
                &app,
                frame,
                &caller,
                &name,
                problem.status_code(),
                complaint,
            )
            .await
        }
        Err(problem) => Err(problem),
    }
}

async fn carry_out(
    app: &App,
    caller: &Caller,
    name: &str,
    form: &ChangeForm,
) -> Result<(), Problem> {
    let is_current = |before: &User| etag::is_current(&form.tag, &etag::of(before));
    let update = match form.action.as_str() {
        "role" => UserUpdate {
            role: Some(form.role.clone()),
            ..UserUpdate::default()
        },
        "password" => UserUpdate {
            password: Some(form.password.clone()),
            must_change_password: Some(!form.keep),
            ..UserUpdate::default()
        },
        "disable" | "enable" => UserUpdate {
            disabled: Some(form.action == "disable"),
            ..UserUpdate::default()
        },
        "delete" => return users::remove(app, caller, name).await,
        _ => return Err(Problem::field("/action", "is not known here")),
    };
    users::change(app, caller, name, is_current, update)
        .await
        .map(drop)
}

async fn show(
    app: &App,
    frame: Frame,
    caller: &Caller,
    name: &str,
    status: StatusCode,
    complaint: Option<String>,
) -> Result<Response, Problem> {
    let user = users::one(app, name).await?;
    let page = UserPage {
        frame,
        complaint,
        tag: etag::of(&user),
        is_reader: caller.id == user.id.to_string(),
        user,
    };
    Ok((status, web::page(&page.frame, &page)).into_response())
}
