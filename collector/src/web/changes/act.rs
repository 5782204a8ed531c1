//! What people say of changes: one that is written down, a note, hosts by hand. Each form does what the API's route does,
//! and comes back to the page; what is refused is said there.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

use crate::api::changes::rules::{ChangePatch, MOST_HOSTS, NewChange};
use crate::api::changes::{self as api, edit};
use crate::api::input::{Json, Path};
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::store::changes::ChangeRow;
use crate::web::changes::named_hosts;
use crate::web::changes::page::{Asked, Refused, show};
use crate::web::frame::Frame;
use crate::web::host::query::instant;
use crate::web::{self, settings, words};

type Sent<T> = Result<Form<T>, FormRejection>;

/// Back to the page, at a section of it; where it was refused, the page says why.
async fn back<T>(
    app: &App,
    frame: Frame,
    id: Uuid,
    section: &str,
    done: Result<T, Problem>,
    typed: Option<String>,
) -> Result<Response, Problem> {
    match done {
        Ok(_) => Ok(Redirect::to(&format!("/changes/{id}#{section}")).into_response()),
        Err(problem) if matches!(problem.status, 400 | 409 | 412 | 422) => {
            let problem = &problem;
            let refused = Some(Refused { problem, typed });
            show(app, frame, id, Asked::default(), refused).await
        }
        Err(problem) => Err(problem),
    }
}

/// A change as its form has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ChangeForm {
    pub version: i64,
    pub title: String,
    pub outcome: String,
    pub started_at: String,
    pub ended_at: String,
    pub actor: String,
    pub environment: String,
    pub repository: String,
    pub commit: String,
    pub branch: String,
    pub pull_request: String,
    pub run_url: String,
    /// Names or ids, with spaces or commas between.
    pub hosts: String,
    pub note: String,
}

impl ChangeForm {
    /// As the form of a change that is there begins.
    pub fn of(change: &ChangeRow) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        // As browsers' fields take it: UTC, to the second.
        let field = |at: &OffsetDateTime| {
            let utc = words::utc(&at.to_offset(UtcOffset::UTC));
            utc.get(..19).unwrap_or_default().to_owned()
        };
        Self {
            version: change.version,
            title: change.title.clone(),
            outcome: change.outcome.clone(),
            started_at: field(&change.started_at),
            ended_at: field(&change.ended_at),
            actor: text(&change.actor),
            environment: text(&change.environment),
            repository: text(&change.repository),
            commit: text(&change.commit_id),
            branch: text(&change.branch),
            pull_request: text(&change.pull_request),
            run_url: text(&change.run_url),
            hosts: String::new(),
            note: String::new(),
        }
    }
}

#[derive(Template)]
#[template(path = "changes/new.html")]
struct NewPage {
    frame: Frame,
    form: ChangeForm,
    complaint: Option<String>,
}

/// `GET /changes/new`.
pub async fn new(frame: Frame) -> Response {
    let page = NewPage {
        frame,
        form: ChangeForm::default(),
        complaint: None,
    };
    web::page(&page.frame, &page)
}

/// `POST /changes`: as [`edit::create`], then to its page.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
    form: Sent<ChangeForm>,
) -> Result<Response, Problem> {
    let Form(form) = form?;
    let made = match new_change(&app, &form).await {
        Ok(new) => edit::make(&app, &caller, new).await,
        Err(problem) => Err(problem),
    };
    match made {
        Ok(made) => Ok(Redirect::to(&format!("/changes/{}", made.change_id)).into_response()),
        Err(problem) if problem.status < 500 => {
            let page = NewPage {
                frame,
                form,
                complaint: Some(settings::complaint(&problem)),
            };
            Ok((problem.status_code(), web::page(&page.frame, &page)).into_response())
        }
        Err(problem) => Err(problem),
    }
}

async fn new_change(app: &App, form: &ChangeForm) -> Result<NewChange, Problem> {
    let said = settings::said;
    Ok(NewChange {
        title: form.title.clone(),
        note: said(&plain_lines(&form.note)),
        started_at: instant("the beginning", &form.started_at)?,
        ended_at: instant("the end", &form.ended_at)?,
        outcome: said(&form.outcome),
        actor: said(&form.actor),
        repository: said(&form.repository),
        commit: said(&form.commit),
        branch: said(&form.branch),
        pull_request: said(&form.pull_request),
        environment: said(&form.environment),
        run_url: said(&form.run_url),
        hosts: hosts(app, &form.hosts).await?,
    })
}

/// As browsers send them, with carriage returns, texts are not what was typed.
fn plain_lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

async fn hosts(app: &App, text: &str) -> Result<Vec<Uuid>, Problem> {
    let said = text.split(|char: char| char == ',' || char.is_whitespace());
    let said: Vec<_> = said
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    if said.len() > MOST_HOSTS {
        let detail = format!("must have at most {MOST_HOSTS} hosts");
        return Err(Problem::parameter("hosts", detail));
    }
    named_hosts(app, "hosts", &said).await
}

fn if_match(version: i64) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    let etag = HeaderValue::from_str(&api::etag(version));
    let etag = etag.map_err(|_| Problem::invalid("the form has no version"))?;
    headers.insert(header::IF_MATCH, etag);
    Ok(headers)
}

/// `POST /changes/{id}/edit`: as [`edit::update`] of the version that the form was made of.
pub async fn change(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    id: Path<Uuid>,
    form: Sent<ChangeForm>,
) -> Result<Response, Problem> {
    let (app, change) = (Arc::clone(&state.0), id.0);
    let Form(form) = form?;
    let patch = patch(&form);
    let done = match patch {
        Ok(patch) => edit::update(state, caller, id, if_match(form.version)?, Json(patch)).await,
        Err(problem) => Err(problem),
    };
    back(&app, frame, change, "main", done, None).await
}

/// What the form says of the change itself; note and hosts have forms of their own.
fn patch(form: &ChangeForm) -> Result<ChangePatch, Problem> {
    let said = settings::said;
    Ok(ChangePatch {
        title: Some(form.title.clone()),
        started_at: instant("the beginning", &form.started_at)?,
        ended_at: instant("the end", &form.ended_at)?,
        outcome: said(&form.outcome),
        actor: Some(said(&form.actor)),
        repository: Some(said(&form.repository)),
        commit: Some(said(&form.commit)),
        branch: Some(said(&form.branch)),
        pull_request: Some(said(&form.pull_request)),
        environment: Some(said(&form.environment)),
        run_url: Some(said(&form.run_url)),
        ..ChangePatch::default()
    })
}

/// A note as its form has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NoteForm {
    version: i64,
    note: String,
}

/// `POST /changes/{id}/note`: as [`edit::update`].
pub async fn note(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    id: Path<Uuid>,
    form: Sent<NoteForm>,
) -> Result<Response, Problem> {
    let (app, change) = (Arc::clone(&state.0), id.0);
    let Form(form) = form?;
    let note = plain_lines(&form.note);
    let patch = ChangePatch {
        note: Some(settings::said(&note).map(|_| note.clone())),
        ..ChangePatch::default()
    };
    let headers = if_match(form.version)?;
    let done = edit::update(state, caller, id, headers, Json(patch)).await;
    back(&app, frame, change, "note", done, Some(note)).await
}

/// Hosts as the forms have them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HostsForm {
    version: i64,
    /// To add: names or ids.
    add: String,
    /// To take away: an id.
    remove: String,
}

/// `POST /changes/{id}/hosts`: adds hosts by hand, or takes one away that was added so.
pub async fn change_hosts(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    id: Path<Uuid>,
    form: Sent<HostsForm>,
) -> Result<Response, Problem> {
    let (app, change) = (Arc::clone(&state.0), id.0);
    let Form(form) = form?;
    let done = match linked(&app, change, &form).await {
        Ok(hosts) => {
            let patch = ChangePatch {
                hosts: Some(hosts),
                ..ChangePatch::default()
            };
            edit::update(state, caller, id, if_match(form.version)?, Json(patch)).await
        }
        Err(problem) => Err(problem),
    };
    back(&app, frame, change, "hosts", done, None).await
}

/// The hosts that are linked by hand then.
async fn linked(app: &App, change: Uuid, form: &HostsForm) -> Result<Vec<Uuid>, Problem> {
    let mut linked = api::manual_hosts(app, change).await?;
    for host in hosts(app, &form.add).await? {
        if !linked.contains(&host) {
            linked.push(host);
        }
    }
    let gone: Option<Uuid> = form.remove.parse().ok();
    linked.retain(|host| Some(*host) != gone);
    Ok(linked)
}

/// `POST /changes/{id}/delete`: as [`edit::delete`], then to the list.
pub async fn delete(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    id: Path<Uuid>,
) -> Result<Response, Problem> {
    let (app, change) = (Arc::clone(&state.0), id.0);
    match edit::delete(state, caller, id).await {
        Ok(_) => Ok(Redirect::to("/changes").into_response()),
        done => back(&app, frame, change, "main", done, None).await,
    }
}
