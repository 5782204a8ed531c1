//! One action on many hosts from the Hosts page: first the page that says exactly what it would do to how many, then
//! the deed. Where other hosts match by then, it asks again.

use std::sync::Arc;

use askama::Template;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;

use crate::api::hosts::bulk::{self, Bulk, BulkAction, BulkDone, BulkSample};
use crate::api::hosts::query::HostsQuery;
use crate::api::input::Json;
use crate::api::problem::Problem;
use crate::app::App;
use crate::caller::Caller;
use crate::web;
use crate::web::frame::Frame;
use crate::web::hosts::asked::{Asked, link};
use crate::web::hosts::row::{self, cut};

/// What can be done.
const DEEDS: [&str; 5] = ["add_tags", "remove_tags", "owner", "environment", "retire"];

/// What the forms send: the list's, and that of the page that asks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct BulkForm {
    /// `ticked` or `all`.
    which: String,
    /// The ticked ones.
    id: Vec<String>,
    /// The list's filters.
    filter: String,
    /// One of [`DEEDS`].
    deed: String,
    value: String,
    /// How many hosts were said to match, and which.
    total: Option<usize>,
    digest: Option<String>,
    /// It was asked, and the answer is yes.
    confirmed: bool,
}

#[derive(Template)]
#[template(path = "hosts/bulk.html")]
struct BulkPage {
    frame: Frame,
    form: BulkForm,
    /// What it would do, or has done.
    report: Option<BulkDone>,
    is_done: bool,
    complaint: Option<String>,
}

impl BulkPage {
    /// What is done to so many hosts.
    fn deed(&self, count: usize) -> String {
        let value = cut(self.form.value.trim());
        let hosts = format!("{count} host{}", if count == 1 { "" } else { "s" });
        match (self.form.deed.as_str(), value.is_empty()) {
            ("add_tags", _) => format!("Tag {hosts} with {value}"),
            ("remove_tags", _) => format!("Take the tag {value} from {hosts}"),
            ("owner", true) => format!("Take the owner from {hosts}"),
            ("owner", false) => format!("Make {value} the owner of {hosts}"),
            ("environment", true) => format!("Take the environment from {hosts}"),
            ("environment", false) => format!("Put {hosts} into {value}"),
            _ => format!("Retire {hosts}"),
        }
    }

    fn is_grave(&self) -> bool {
        self.form.deed == "retire"
    }

    fn back(&self) -> String {
        link(&self.form.filter)
    }

    /// What changes of a host, field by field.
    fn changes(sample: &BulkSample) -> Vec<(String, String, String)> {
        let text = |value: Option<&serde_json::Value>| match value {
            None | Some(serde_json::Value::Null) => "nothing".to_owned(),
            Some(serde_json::Value::String(text)) => cut(text),
            Some(serde_json::Value::Array(values)) => {
                let texts: Vec<_> = values.iter().filter_map(|value| value.as_str()).collect();
                cut(&texts.join(", "))
            }
            Some(other) => cut(&other.to_string()),
        };
        let fields = sample.after.as_object().into_iter().flatten();
        // Which fields are an operator's follows from the others.
        let fields = fields.filter(|(field, _)| *field != "edited");
        fields
            .map(|(field, after)| {
                let before = text(sample.before.get(field));
                (field.replace('_', " "), before, text(Some(after)))
            })
            .collect()
    }
}

/// `POST /hosts/bulk`: as [`bulk::bulk`], first dry.
pub async fn submit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    frame: Frame,
    body: Bytes,
) -> Result<Response, Problem> {
    let form: BulkForm = serde_html_form::from_bytes(&body)
        .map_err(|error| Problem::invalid(format!("the form is refused: {error}")))?;
    let wanted = match form.wanted() {
        Ok(wanted) => wanted,
        Err(problem) => return Ok(show(frame, form, None, false, Some(problem))),
    };
    if form.confirmed && form.digest.is_some() {
        let deed = Bulk {
            dry_run: false,
            expected_total: form.total,
            expected_digest: form.digest.clone(),
            ..wanted.clone()
        };
        match run(&app, &caller, deed).await {
            Ok(done) => return Ok(show(frame, form, Some(done), true, None)),
            Err(problem) if matches!(problem.code, "total_differs" | "hosts_differ") => {
                let done = run(&app, &caller, wanted).await?;
                let detail = format!(
                    "Meanwhile other hosts match than when you were asked: {} by now. Nothing was changed.",
                    done.matched
                );
                let problem = Problem::conflict("hosts_differ", detail);
                return Ok(show(frame, form, Some(done), false, Some(problem)));
            }
            Err(problem) => return Ok(show(frame, form, None, false, Some(problem))),
        }
    }
    match run(&app, &caller, wanted).await {
        Ok(report) => Ok(show(frame, form, Some(report), false, None)),
        Err(problem) => Ok(show(frame, form, None, false, Some(problem))),
    }
}

impl BulkForm {
    /// What the API is asked for, dry.
    fn wanted(&self) -> Result<Bulk, Problem> {
        Ok(Bulk {
            filter: self.hosts()?,
            action: self.action()?,
            dry_run: true,
            expected_total: None,
            expected_digest: None,
        })
    }

    fn hosts(&self) -> Result<HostsQuery, Problem> {
        if self.which == "all" {
            return Ok(Asked::parse(Some(&self.filter))?.query);
        }
        if self.id.is_empty() {
            return Err(Problem::invalid(
                "No host is ticked. Tick some in the list, or choose all that match.",
            ));
        }
        Ok(HostsQuery {
            id: self.id.clone(),
            // Whatever is ticked is meant.
            state: Some("all".to_owned()),
            ..HostsQuery::default()
        })
    }

    fn action(&self) -> Result<BulkAction, Problem> {
        let value = self.value.trim();
        let mut action = BulkAction::default();
        let tags = || -> Result<Vec<String>, Problem> {
            let tags = value.split(',').map(str::trim);
            let tags: Vec<_> = tags
                .filter(|tag| !tag.is_empty())
                .map(str::to_owned)
                .collect();
            if tags.is_empty() {
                return Err(Problem::invalid("Say which tag."));
            }
            Ok(tags)
        };
        let text = || Some((!value.is_empty()).then(|| value.to_owned()));
        match self.deed.as_str() {
            "add_tags" => action.add_tags = tags()?,
            "remove_tags" => action.remove_tags = tags()?,
            "owner" => action.set.owner = text(),
            "environment" => action.set.environment = text(),
            "retire" => action.retire = true,
            _ => {
                let detail = format!("Say what to do: one of {}.", DEEDS.join(", "));
                return Err(Problem::invalid(detail));
            }
        }
        Ok(action)
    }
}

async fn run(app: &Arc<App>, caller: &Caller, body: Bulk) -> Result<BulkDone, Problem> {
    let app = State(Arc::clone(app));
    let done = bulk::bulk(app, Extension(caller.clone()), Json(body)).await?;
    Ok(done.0)
}

fn show(
    frame: Frame,
    mut form: BulkForm,
    report: Option<BulkDone>,
    is_done: bool,
    problem: Option<Problem>,
) -> Response {
    if let Some(report) = &report {
        form.total = Some(report.matched);
        form.digest = Some(report.digest.clone());
    }
    let status = problem.as_ref().map(Problem::status_code);
    let complaint = problem.map(|problem| problem.detail.unwrap_or(problem.title));
    let page = BulkPage {
        frame,
        form,
        report,
        is_done,
        complaint,
    };
    let answer = web::page(&page.frame, &page);
    (status.unwrap_or(StatusCode::OK), answer).into_response()
}
