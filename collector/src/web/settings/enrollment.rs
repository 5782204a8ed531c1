//! Enrollment: tokens that bring hosts in, with the lines to type on them; and hosts that wait to be let in.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::tokens::network;
use crate::api::enroll_tokens::{self, Created, NewToken};
use crate::api::input::{Path, Query};
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::store::enroll_tokens::{EnrollTokenRow, WaitingRow};
use crate::web::frame::Frame;
use crate::web::{self, settings, words};

#[derive(Template)]
#[template(path = "settings/enrollment.html")]
struct EnrollmentPage {
    frame: Frame,
    tokens: Vec<EnrollTokenRow>,
    waiting: Vec<WaitingRow>,
}

impl EnrollmentPage {
    /// For how long it lets hosts in.
    fn left(row: &EnrollTokenRow, now: &OffsetDateTime) -> String {
        words::duration((row.expires_at - *now).whole_seconds())
    }
}

#[derive(Template)]
#[template(path = "settings/enrollment_new.html")]
struct NewPage {
    frame: Frame,
    complaint: Option<String>,
    form: NewForm,
}

#[derive(Template)]
#[template(path = "settings/enrollment_made.html")]
struct MadePage {
    frame: Frame,
    made: Created,
    base_url: String,
    approval_required: bool,
}

/// What the form sends.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct NewForm {
    hours: String,
    uses: String,
    hostname_pattern: String,
    cidr: String,
    /// Between commas.
    tags: String,
    /// Whoever uses it becomes this host again.
    host_id: String,
    approval_required: bool,
}

impl NewForm {
    fn hours(&self) -> String {
        settings::said(&self.hours).unwrap_or_else(|| "1".to_owned())
    }

    fn uses(&self) -> String {
        settings::said(&self.uses).unwrap_or_else(|| "1".to_owned())
    }
}

/// Of the form's address.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewQuery {
    /// For a machine that was installed anew.
    host: String,
}

/// `GET /settings/enrollment`.
pub async fn page(State(app): State<Arc<App>>, frame: Frame) -> Result<Response, Problem> {
    let page = EnrollmentPage {
        frame,
        tokens: enroll_tokens::rows(&app).await?.items,
        waiting: enroll_tokens::waiting_rows(&app).await?.items,
    };
    Ok(web::page(&page.frame, &page))
}

/// `GET /settings/enrollment/new`.
pub async fn new(frame: Frame, Query(query): Query<NewQuery>) -> Response {
    let form = NewForm {
        host_id: query.host,
        ..NewForm::default()
    };
    let page = NewPage {
        frame,
        complaint: None,
        form,
    };
    web::page(&page.frame, &page)
}

/// `POST /settings/enrollment`: the answer is the one place that has the token.
pub async fn create(
    State(app): State<Arc<App>>,
    frame: Frame,
    Extension(caller): Extension<Caller>,
    form: Result<Form<NewForm>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form?;
    let made = match body(&form) {
        Ok(body) => enroll_tokens::make(&app, &caller, body).await,
        Err(problem) => Err(problem),
    };
    match made {
        Ok(made) => {
            let page = MadePage {
                frame,
                made,
                base_url: app.config.operators.base_url(),
                approval_required: form.approval_required,
            };
            Ok(web::page(&page.frame, &page))
        }
        Err(problem) if problem.status < 500 => {
            let page = NewPage {
                frame,
                complaint: Some(settings::complaint(&problem)),
                form,
            };
            let status = problem.status_code();
            Ok((status, web::page(&page.frame, &page)).into_response())
        }
        Err(problem) => Err(problem),
    }
}

fn body(form: &NewForm) -> Result<NewToken, Problem> {
    let hours: i64 = form
        .hours()
        .parse()
        .map_err(|_| Problem::field("/hours", "must be a whole number"))?;
    if !(1..=168).contains(&hours) {
        return Err(Problem::field("/hours", "must be from 1 to 168"));
    }
    let uses = form
        .uses()
        .parse()
        .map_err(|_| Problem::field("/uses", "must be a whole number"))?;
    let host_id = settings::said(&form.host_id).map(|id| id.parse::<Uuid>());
    let tags = form.tags.split(',').filter_map(settings::said);
    Ok(NewToken {
        lifetime_s: Some(hours * 3600),
        max_uses: Some(uses),
        cidr: network(&form.cidr)?,
        hostname_pattern: settings::said(&form.hostname_pattern),
        tags: tags.collect(),
        host_id: host_id
            .transpose()
            .map_err(|_| Problem::field("/host", "must be the id on a host's page"))?,
        approval_required: form.approval_required,
    })
}

/// `POST /settings/enrollment/{id}/approve`.
pub async fn approve(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    enroll_tokens::let_in(&app, &caller, &id).await?;
    Ok(Redirect::to("/settings/enrollment").into_response())
}

/// `POST /settings/enrollment/{id}/delete`.
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    enroll_tokens::remove(&app, &caller, &id).await?;
    Ok(Redirect::to("/settings/enrollment").into_response())
}
