//! A drill's page: its report, to read and to file.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::api::drills;
use crate::api::input::Path;
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::store::drill_search::DrillRow;
use crate::web::backups::act::back;
use crate::web::backups::proof::seconds;
use crate::web::backups::{reason, tone};
use crate::web::frame::Frame;
use crate::web::plain::{block, line};
use crate::web::{self, given, words};

/// A check as the page shows it.
struct Check {
    name: String,
    outcome: String,
    detail: String,
}

#[derive(Template)]
#[template(path = "backups/drill.html")]
struct DrillPage {
    frame: Frame,
    drill: DrillRow,
    checks: Vec<Check>,
    tools: Vec<String>,
}

impl DrillPage {
    fn shown(text: &str) -> String {
        line(text, 300)
    }

    fn lines(text: &str) -> String {
        block(text, 4000)
    }

    #[expect(clippy::ref_option, reason = "as templates call it")]
    fn size(bytes: &Option<i64>) -> String {
        bytes.map_or_else(|| "-".to_owned(), words::bytes)
    }

    #[expect(clippy::ref_option, reason = "as templates call it")]
    fn number(count: &Option<i64>) -> String {
        count.map_or_else(|| "-".to_owned(), |count| count.to_string())
    }

    fn took(&self) -> String {
        let about = if self.drill.is_sampled { "about " } else { "" };
        let took = self.drill.restore_ms.map(seconds);
        let promised = self.drill.rto_s.map(|rto_s| words::duration(rto_s.into()));
        let kept = match self.drill.is_within_rto {
            Some(true) => ": kept",
            Some(false) => ": not kept",
            None => "",
        };
        match (took, promised) {
            (Some(took), Some(promised)) => format!("{about}{took} of {promised}{kept}"),
            (Some(took), None) => format!("{about}{took}"),
            (None, _) => "-".to_owned(),
        }
    }
}

/// `GET /drills/{id}`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let drill = drills::find(&app, id).await?;
    let said = |value: Option<&Value>| {
        let text = value.and_then(Value::as_str).unwrap_or_default();
        line(text, 1000)
    };
    let checks = drill.checks.0.as_array().into_iter().flatten();
    let checks = checks.map(|check| Check {
        name: said(check.get("name")).replace('_', " "),
        outcome: said(check.get("outcome")),
        detail: said(check.get("detail")),
    });
    let tools = drill.tools.0.as_array().into_iter().flatten();
    let tools = tools.map(|tool| format!("{} {}", said(tool.get(0)), said(tool.get(1))));
    let page = DrillPage {
        checks: checks.collect(),
        tools: tools.collect(),
        frame,
        drill,
    };
    Ok(web::page(&page.frame, &page))
}

/// `GET /drills/{id}/report`: the report as a file.
pub async fn report(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let drill = drills::find(&app, id).await?;
    Ok(drills::evidence(&drill))
}

/// `POST /drills/{id}/cancel`: as [`drills::cancel`].
pub async fn cancel(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    drills::stop(&app, &caller, id).await?;
    Ok(Redirect::to(&format!("/drills/{id}")).into_response())
}

/// How it is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct DrillForm {
    mode: String,
}

/// `POST /volumes/{id}/drill`: as [`drills::create`].
pub async fn ask(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
    Path(id): Path<Uuid>,
    form: Result<Form<DrillForm>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form?;
    let asked = drills::ask(&app, &caller, id, given(&form.mode).as_deref()).await;
    match asked {
        Ok(_) => Ok(Redirect::to(&format!("/volumes/{id}?asked=drill")).into_response()),
        refused => back(&app, frame, id, refused, None).await,
    }
}
