//! The Host page's buttons: each does what the API's route does, and comes back to the page. What is refused is said on
//! the page.

use std::sync::Arc;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, HeaderValue, header};
use infratrack_shared::ids::HostId;
use infratrack_shared::wire::answer::Action;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::hosts::{edit, find, reported, retire};
use crate::api::input::{Json, Path};
use crate::api::problem::Problem;
use crate::api::tasks::{self, NewTask};
use crate::api::{commands, hosts};
use crate::app::App;
use crate::caller::Caller;
use crate::web::frame::Frame;
use crate::web::host::query::{HostPageQuery, instant};
use crate::web::host::{show, shown_name};

type Sent<T> = Result<Form<T>, FormRejection>;

/// Back to the page, at a section of it; where it was refused, the page says why.
async fn back<T>(
    app: &App,
    frame: Frame,
    id: HostId,
    section: &str,
    done: Result<T, Problem>,
) -> Result<Response, Problem> {
    match done {
        Ok(_) => Ok(Redirect::to(&format!("/hosts/{id}#{section}")).into_response()),
        Err(problem) if matches!(problem.status, 400 | 409 | 412 | 422) => {
            show(app, frame, id, HostPageQuery::default(), Some(&problem)).await
        }
        Err(problem) => Err(problem),
    }
}

/// `POST /hosts/{id}/refresh`: asks the agent for its facts.
pub async fn refresh(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let id = HostId(id);
    let done = commands::queue(&app, id, Action::RefreshFacts, &caller).await;
    back(&app, frame, id, "commands", done).await
}

/// `POST /hosts/{id}/renew`: asks the agent for another key and certificate.
pub async fn renew(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let id = HostId(id);
    let done = commands::queue(&app, id, Action::Renew, &caller).await;
    back(&app, frame, id, "commands", done).await
}

/// `POST /hosts/{id}/retire`: as [`retire::retire`].
pub async fn retire(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    id: Path<Uuid>,
) -> Result<Response, Problem> {
    let (app, host) = (Arc::clone(&state.0), HostId(id.0));
    let done = retire::retire(state, caller, id).await;
    back(&app, frame, host, "danger", done).await
}

/// `POST /hosts/{id}/unretire`: as [`retire::unretire`].
pub async fn unretire(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    id: Path<Uuid>,
) -> Result<Response, Problem> {
    let (app, host) = (Arc::clone(&state.0), HostId(id.0));
    let done = retire::unretire(state, caller, id).await;
    back(&app, frame, host, "danger", done).await
}

/// `POST /hosts/{id}/revoke`: as [`reported::revoke`].
pub async fn revoke(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    id: Path<Uuid>,
) -> Result<Response, Problem> {
    let (app, host) = (Arc::clone(&state.0), HostId(id.0));
    let done = reported::revoke(state, caller, id).await;
    back(&app, frame, host, "certificates", done).await
}

/// The host that stays.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MergeForm {
    into: String,
}

/// `POST /hosts/{id}/merge`: as [`retire::merge`], then to the host that stays.
pub async fn merge(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    id: Path<Uuid>,
    form: Sent<MergeForm>,
) -> Result<Response, Problem> {
    let (app, host) = (Arc::clone(&state.0), HostId(id.0));
    let Form(form) = form?;
    let into = match into(&form.into) {
        Ok(into) => into,
        Err(problem) => return back(&app, frame, host, "danger", Err::<(), _>(problem)).await,
    };
    match retire::merge(state, caller, id, Json(retire::Merge { into })).await {
        Ok(_) => Ok(Redirect::to(&format!("/hosts/{into}")).into_response()),
        Err(problem) => back(&app, frame, host, "danger", Err::<(), _>(problem)).await,
    }
}

/// The host with that id, which may stand at the end of its page's address.
fn into(text: &str) -> Result<Uuid, Problem> {
    let end = text.trim().trim_end_matches('/').rsplit('/').next();
    let id = end.and_then(|id| id.split(['?', '#']).next()?.parse().ok());
    id.ok_or_else(|| {
        Problem::invalid("the host that stays is named by its id or its page's address")
    })
}

/// What has to be typed before a host is deleted.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeleteForm {
    name: String,
}

/// `POST /hosts/{id}/delete`: as [`retire::delete`], then to the list.
pub async fn delete(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    id: Path<Uuid>,
    form: Sent<DeleteForm>,
) -> Result<Response, Problem> {
    let (app, host) = (Arc::clone(&state.0), HostId(id.0));
    let Form(form) = form?;
    let name = find(&app, host).await?.name;
    // What does not print can't be typed: it is named as the page shows it.
    let typed = form.name.trim();
    let done = if typed == name.trim() || typed == shown_name(&name).trim() {
        retire::delete(state, caller, id).await
    } else {
        Err(Problem::invalid("what was typed is not its name"))
    };
    match done {
        Ok(_) => Ok(Redirect::to("/hosts").into_response()),
        done => back(&app, frame, host, "danger", done).await,
    }
}

/// What operators say of a host.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EditForm {
    version: i64,
    tags: String,
    owner: String,
    environment: String,
    notes: String,
}

/// `POST /hosts/{id}/edit`: as [`edit::update`] of the version that the form was made of.
pub async fn edit(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    id: Path<Uuid>,
    form: Sent<EditForm>,
) -> Result<Response, Problem> {
    let (app, host) = (Arc::clone(&state.0), HostId(id.0));
    let Form(form) = form?;
    let is = hosts::detail(&app, host).await?;
    let words = |text: &str| match text.trim() {
        "" => Value::Null,
        text => json!(text),
    };
    let tags = form.tags.split([',', ' ', '\n']).map(str::trim);
    let tags: Vec<_> = tags.filter(|tag| !tag.is_empty()).collect();
    // What stays as it is stays what the host or an inventory says.
    let mut patch = serde_json::Map::new();
    for (field, was, said) in [
        ("tags", json!(is.host.tags), json!(tags)),
        ("owner", json!(is.host.owner), words(&form.owner)),
        (
            "environment",
            json!(is.host.environment),
            words(&form.environment),
        ),
        (
            "notes",
            json!(is.notes),
            words(&form.notes.replace("\r\n", "\n")),
        ),
    ] {
        if was != said {
            patch.insert(field.to_owned(), said);
        }
    }
    let patch = serde_json::from_value(Value::Object(patch));
    let patch = patch.map_err(|error| Problem::invalid(format!("the form is refused: {error}")))?;
    let mut headers = HeaderMap::new();
    let etag = HeaderValue::from_str(&hosts::etag(form.version));
    let etag = etag.map_err(|_| Problem::invalid("the form has no version"))?;
    headers.insert(header::IF_MATCH, etag);
    let done = edit::update(state, caller, id, headers, Json(patch)).await;
    back(&app, frame, host, "state", done).await
}

/// A task to be written down.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TaskForm {
    title: String,
    kind: String,
    status: String,
    at: String,
    notes: String,
}

/// `POST /hosts/{id}/tasks`: as [`tasks::create`].
pub async fn task(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    Path(id): Path<Uuid>,
    form: Sent<TaskForm>,
) -> Result<Response, Problem> {
    let (app, host) = (Arc::clone(&state.0), HostId(id));
    let Form(form) = form?;
    let done = match instant("when", &form.at) {
        Ok(at) => {
            let new = NewTask {
                host_id: id,
                kind: form.kind,
                title: form.title,
                status: Some(form.status).filter(|status| !status.is_empty()),
                notes: form.notes.replace("\r\n", "\n"),
                at,
            };
            tasks::create(state, caller, Json(new)).await
        }
        Err(problem) => Err(problem),
    };
    back(&app, frame, host, "tasks", done).await
}
