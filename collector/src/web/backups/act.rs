//! The forms of backups. Each does what the API's route does, and comes back to the page; what is refused is said there.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use uuid::Uuid;

use crate::api::etag;
use crate::api::input::{Path, Query};
use crate::api::problem::Problem;
use crate::api::volumes::edit;
use crate::api::volumes::runs::{self, NewRuns};
use crate::api::volumes::snapshots;
use crate::app::App;
use crate::caller::Caller;
use crate::web::backups::form::VolumeForm;
use crate::web::backups::volume::show;
use crate::web::changes::find_host;
use crate::web::frame::Frame;
use crate::web::{self, settings};

type Sent<T> = Result<Form<T>, FormRejection>;

#[derive(Template)]
#[template(path = "backups/new.html")]
struct NewPage {
    frame: Frame,
    form: VolumeForm,
    complaint: Option<String>,
}

/// What a new volume begins with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewQuery {
    host: String,
}

/// `GET /volumes/new`.
pub async fn new(frame: Frame, Query(query): Query<NewQuery>) -> Response {
    let page = NewPage {
        frame,
        form: VolumeForm {
            host: query.host,
            ..VolumeForm::default()
        },
        complaint: None,
    };
    web::page(&page.frame, &page)
}

/// `POST /volumes`: as [`edit::create`], then to its page.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
    form: Sent<VolumeForm>,
) -> Result<Response, Problem> {
    let Form(form) = form?;
    let made = async {
        let (host, _) = find_host(&app, form.host.trim()).await?;
        edit::make(&app, &caller, form.new_volume(host)?).await
    };
    match made.await {
        Ok(made) => Ok(Redirect::to(&format!("/volumes/{}", made.volume_id)).into_response()),
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

/// Back to the page; where it was refused, the page says why.
pub async fn back<T>(
    app: &App,
    frame: Frame,
    id: Uuid,
    done: Result<T, Problem>,
    typed: Option<VolumeForm>,
) -> Result<Response, Problem> {
    match done {
        Ok(_) => Ok(Redirect::to(&format!("/volumes/{id}")).into_response()),
        Err(problem) if matches!(problem.status, 400 | 409 | 412 | 422) => {
            show(app, frame, id, false, Some((&problem, typed))).await
        }
        Err(problem) => Err(problem),
    }
}

/// `POST /volumes/{id}/edit`: as [`edit::update`] of the version that the form was made of.
pub async fn change(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
    Path(id): Path<Uuid>,
    form: Sent<VolumeForm>,
) -> Result<Response, Problem> {
    let Form(form) = form?;
    let version = format!("\"{}\"", form.version);
    let done = match form.patch() {
        Ok(patch) => {
            let check = |current: &str| etag::is_current(&version, current);
            edit::change(&app, &caller, id, patch, check).await
        }
        Err(problem) => Err(problem),
    };
    back(&app, frame, id, done, Some(form)).await
}

/// `POST /volumes/{id}/run`: as [`runs::create`] of this volume.
pub async fn run(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let new = NewRuns {
        volumes: vec![id],
        ..NewRuns::default()
    };
    match runs::start(&app, &caller, &new).await {
        Ok(_) => Ok(Redirect::to(&format!("/volumes/{id}?asked=1")).into_response()),
        done => back(&app, frame, id, done, None).await,
    }
}

/// `POST /backups/run`: as [`runs::create`] of all.
pub async fn run_all(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let new = NewRuns {
        all: true,
        ..NewRuns::default()
    };
    runs::start(&app, &caller, &new).await?;
    Ok(Redirect::to("/backups").into_response())
}

/// An order to a run.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct OrderForm {
    run: Option<Uuid>,
    order: String,
}

/// `POST /volumes/{id}/order`: as [`runs::order`].
pub async fn order(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
    Path(id): Path<Uuid>,
    form: Sent<OrderForm>,
) -> Result<Response, Problem> {
    let Form(form) = form?;
    let done = runs::give(&app, &caller, form.run.unwrap_or_default(), &form.order).await;
    back(&app, frame, id, done, None).await
}

/// A hold, or its end where no reason is given.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HoldForm {
    snapshot: Option<Uuid>,
    because: String,
    release: bool,
}

/// `POST /volumes/{id}/hold`: as [`snapshots::hold`] and [`snapshots::release`].
pub async fn hold(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
    Path(id): Path<Uuid>,
    form: Sent<HoldForm>,
) -> Result<Response, Problem> {
    let Form(form) = form?;
    let snapshot = form.snapshot.unwrap_or_default();
    let done = if form.release {
        snapshots::set(&app, &caller, snapshot, None).await
    } else {
        snapshots::hold_for(&app, &caller, snapshot, &form.because).await
    };
    back(&app, frame, id, done, None).await
}

/// `POST /volumes/{id}/delete`: as [`edit::delete`], then to the list.
pub async fn delete(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    frame: Frame,
    id: Path<Uuid>,
) -> Result<Response, Problem> {
    let (app, volume) = (Arc::clone(&state.0), id.0);
    match edit::delete(state, caller, id).await {
        Ok(_) => Ok(Redirect::to("/backups").into_response()),
        done => back(&app, frame, volume, done, None).await,
    }
}
