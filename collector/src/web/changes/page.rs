//! The page of a change: what was planned and what came of it, its runs, the hosts that it touched, and what people say
//! of it. One run is open at a time; which, and which part of it, stands in the URL.

use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::api::changes::runs::{self, ResourcesQuery, ResultsQuery};
use crate::api::changes::{self as api, ChangeWithRuns, hosts};
use crate::api::input::{Json, Path, Query};
use crate::api::page::{Page, PageQuery};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::change_hosts::ChangeHostRow;
use crate::store::change_links::LinkRow;
use crate::store::change_runs::{ResourceRow, RunRow};
use crate::store::play_results::{PlayHostRow, ResultRow};
use crate::store::plays::TaskRow;
use crate::store::related_changes::RelatedRow;
use crate::store::run_resources::DriftGroup;
use crate::web::changes::act::ChangeForm;
use crate::web::changes::shown::{self, Lines, Module, drifted};
use crate::web::frame::Frame;
use crate::web::plain::{block, encoded, line};
use crate::web::{self, given, words};

/// Runs that are listed; the API has the rest.
const RUNS: usize = 100;
/// Outputs, checks and messages of a run, likewise.
const DETAILS: usize = 100;
/// Parts of a plan's page, and what they are called.
const OF_PLAN: [(&str, &str); 4] = [
    ("changes", "Changes"),
    ("drift", "Drift"),
    ("deferred", "Deferred"),
    ("all", "With what stays"),
];
/// Of an apply's.
const OF_APPLY: [(&str, &str); 1] = [("operations", "Operations")];
/// Of a play's.
const OF_PLAY: [(&str, &str); 4] = [
    ("hosts", "Hosts"),
    ("failed", "What failed"),
    ("tasks", "Tasks"),
    ("results", "Results"),
];
/// The columns of a recap: what Ansible calls them, and what they are called here.
pub const RECAP: [(&str, &str); 7] = [
    ("ok", "OK"),
    ("changed", "Changed"),
    ("failures", "Failed"),
    ("unreachable", "Unreachable"),
    ("skipped", "Skipped"),
    ("rescued", "Rescued"),
    ("ignored", "Ignored"),
];

/// Which run is open, and which part of it. Empty is what matters most.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    run: String,
    view: String,
    cursor: String,
    task: String,
    batch: String,
    /// Where the list of hosts goes on.
    hosts: String,
}

/// What is shown of the open run.
enum Part {
    Resources(Page<ResourceRow>),
    Drift(Vec<DriftGroup>, Page<ResourceRow>),
    Hosts(Page<PlayHostRow>),
    Tasks(Page<TaskRow>),
    Results(Page<ResultRow>),
    /// A state has its counts alone.
    Nothing,
}

impl Part {
    fn next(&self) -> Option<&str> {
        match self {
            Self::Resources(page) | Self::Drift(_, page) => page.next_cursor.as_deref(),
            Self::Hosts(page) => page.next_cursor.as_deref(),
            Self::Tasks(page) => page.next_cursor.as_deref(),
            Self::Results(page) => page.next_cursor.as_deref(),
            Self::Nothing => None,
        }
    }
}

/// What somebody wanted and did not get.
pub struct Refused<'a> {
    pub problem: &'a Problem,
    /// A note that was typed.
    pub typed: Option<String>,
}

#[derive(Template)]
#[template(path = "changes/page.html")]
struct ChangePage {
    frame: Frame,
    asked: Asked,
    found: ChangeWithRuns,
    /// The place of the open run in the list.
    open: Option<usize>,
    view: &'static str,
    part: Part,
    hosts: Page<ChangeHostRow>,
    waiting: Vec<LinkRow>,
    related: Vec<RelatedRow>,
    refused: Option<String>,
    typed: Option<String>,
}

impl ChangePage {
    fn title(&self) -> String {
        line(&self.found.change.title, 200)
    }

    fn base(&self) -> String {
        format!("/changes/{}", self.found.change.change_id)
    }

    fn is_manual(&self) -> bool {
        self.found.change.origin == "manual"
    }

    fn run(&self) -> Option<&RunRow> {
        self.found.runs.get(self.open?)
    }

    /// The newest first.
    fn runs(&self) -> impl Iterator<Item = &RunRow> {
        self.found.runs.iter().rev().take(RUNS)
    }

    fn more_runs(&self) -> usize {
        self.found.runs.len().saturating_sub(RUNS)
    }

    fn is_open(&self, run: &RunRow) -> bool {
        self.run().is_some_and(|open| open.run_id == run.run_id)
    }

    fn link(&self, pairs: &[(&str, &str)], section: &str) -> String {
        let mut address = self.base();
        let mut sign = '?';
        for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = write!(address, "{sign}{name}={}", encoded(value));
            sign = '&';
        }
        let _ = write!(address, "#{section}");
        address
    }

    fn of_run(&self, run: &RunRow) -> String {
        self.link(&[("run", &run.run_id.to_string())], "run")
    }

    /// The open run in another part, or further on.
    fn part_at(&self, view: &str, cursor: &str) -> String {
        let run = self.run().map(|run| run.run_id.to_string());
        let run = run.unwrap_or_default();
        let mut pairs = vec![("run", run.as_str()), ("view", view), ("cursor", cursor)];
        if !cursor.is_empty() {
            pairs.push(("task", &self.asked.task));
            pairs.push(("batch", &self.asked.batch));
        }
        self.link(&pairs, "run")
    }

    fn of_task(&self, task: &TaskRow) -> String {
        let run = self.run().map(|run| run.run_id.to_string());
        let batch = task.batch.to_string();
        let pairs = [
            ("run", run.as_deref().unwrap_or_default()),
            ("view", "results"),
            ("task", task.task.as_str()),
            ("batch", batch.as_str()),
        ];
        self.link(&pairs, "run")
    }

    fn hosts_at(&self, cursor: &str) -> String {
        self.link(&[("run", &self.asked.run), ("hosts", cursor)], "hosts")
    }

    /// The parts of the open run: where, what they are called, whether it is this one.
    fn views(&self) -> Vec<(String, &'static str, bool)> {
        let views = self.run().map(views_of).unwrap_or_default();
        let view = views
            .iter()
            .map(|(view, called)| (self.part_at(view, ""), *called, *view == self.view));
        view.collect()
    }

    fn modules(resources: &[ResourceRow]) -> Vec<Module<'_>> {
        shown::by_module(resources)
    }

    fn action(resource: &ResourceRow) -> (&'static str, &str) {
        match resource.part.as_str() {
            "drift" => drifted(&resource.action),
            _ => shown::action(&resource.action),
        }
    }

    /// Counts of the run's summary that are not 0, with what they are called.
    fn counts(run: &RunRow) -> Vec<(&'static str, i64)> {
        let of_terraform = [
            ("add", "to add"),
            ("change", "to change"),
            ("destroy", "to destroy"),
            ("replace", "replaced"),
            ("import", "imported"),
            ("move", "moved"),
            ("forget", "forgotten"),
            ("read", "read"),
            ("no_op", "unchanged"),
            ("drift", "drifted"),
            ("outputs", "outputs"),
            ("deferred", "deferred"),
            ("unrecognised", "not known"),
            ("actions", "actions to invoke"),
        ];
        let of_apply = [
            ("add", "added"),
            ("change", "changed"),
            ("destroy", "destroyed"),
            ("import", "imported"),
        ];
        let names: &[(&str, &str)] = match run.kind.as_str() {
            "play" => &RECAP,
            "apply" => &of_apply,
            _ => &of_terraform,
        };
        let count = |name: &str| run.summary.get(name).and_then(Value::as_i64);
        let counts = names.iter().map(|(name, called)| (*called, count(name)));
        let counts = counts.filter_map(|(called, count)| Some((called, count?)));
        counts.filter(|(_, count)| *count != 0).collect()
    }

    /// What was claimed of a run, and what it says of itself: plain texts.
    fn said(run: &RunRow) -> Vec<(String, String)> {
        let texts = [&run.claims, &run.detail].into_iter();
        let members = texts.filter_map(Value::as_object).flatten();
        let said = members.filter_map(|(name, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Bool(true) => "yes".to_owned(),
                Value::Array(texts) => {
                    let texts: Option<Vec<_>> = texts.iter().map(Value::as_str).collect();
                    texts.filter(|texts| !texts.is_empty())?.join(", ")
                }
                Value::Null | Value::Bool(false) | Value::Number(_) | Value::Object(_) => {
                    return None;
                }
            };
            Some((name.replace('_', " "), line(&text, 300)))
        });
        said.collect()
    }

    /// Some of a list in the run's detail.
    fn details<'a>(run: &'a RunRow, name: &str) -> &'a [Value] {
        let all = run.detail.get(name).and_then(Value::as_array);
        let all = all.map(Vec::as_slice).unwrap_or_default();
        all.get(..DETAILS).unwrap_or(all)
    }

    fn text(value: &Value, name: &str) -> String {
        let text = value.get(name).and_then(Value::as_str);
        line(text.unwrap_or_default(), 600)
    }

    fn number(value: &Value, name: &str) -> Option<i64> {
        value.get(name).and_then(Value::as_i64)
    }

    fn flag(value: &Value, name: &str) -> bool {
        value.get(name).and_then(Value::as_bool) == Some(true)
    }

    fn messages(value: &Value) -> Vec<String> {
        let all = value.get("messages").and_then(Value::as_array);
        let texts = all.into_iter().flatten().filter_map(Value::as_str);
        texts.take(20).map(|text| line(text, 600)).collect()
    }

    fn lines_of(value: &Value) -> Lines {
        Lines::of(value.get("attributes").unwrap_or(&Value::Null))
    }

    /// Texts of a result that stand in lines: what it is, and what was before and after where both are told.
    fn diffs(result: &ResultRow) -> Vec<(String, String, String)> {
        let all = result.body.get("diff").and_then(Value::as_array);
        let diffs = all.into_iter().flatten().take(8).map(|diff| {
            let text = |name: &str| {
                let text = diff.get(name).and_then(Value::as_str).unwrap_or_default();
                block(text, 4_096)
            };
            let header = match text("after_header") {
                header if header.is_empty() => text("before_header"),
                header => header,
            };
            let after = format!("{}{}", text("after"), text("prepared"));
            (line(&header, 200), text("before"), after)
        });
        diffs.collect()
    }

    /// Of what can be downloaded.
    fn size(run: &RunRow) -> Option<String> {
        run.artifact_bytes.map(words::bytes)
    }

    fn shown(text: &str) -> String {
        line(text, 300)
    }

    fn lines(text: &str) -> String {
        block(text, 16 * 1024)
    }

    /// What the form to edit it begins with.
    fn form(&self) -> ChangeForm {
        ChangeForm::of(&self.found.change)
    }
}

fn views_of(run: &RunRow) -> &'static [(&'static str, &'static str)] {
    match run.kind.as_str() {
        "plan" => &OF_PLAN,
        "apply" => &OF_APPLY,
        "play" => &OF_PLAY,
        _ => &[],
    }
}

/// `GET /changes/{id}`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<Uuid>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    show(&app, frame, id, asked, None).await
}

/// The page; after a form that was refused, with why.
pub async fn show(
    app: &App,
    frame: Frame,
    id: Uuid,
    asked: Asked,
    refused: Option<Refused<'_>>,
) -> Result<Response, Problem> {
    let found = api::read(app, id).await?;
    let open = open(&found.runs, &asked.run)?;
    let run = open.and_then(|open| found.runs.get(open));
    let view = view(run, &asked.view)?;
    let part = match run {
        Some(run) => part(app, run, view, &asked).await?,
        None => Part::Nothing,
    };
    let of_hosts = PageQuery {
        limit: None,
        cursor: given(&asked.hosts),
    };
    let Json(hosts) = hosts::rows(app, id, &of_hosts).await?;
    let status = refused
        .as_ref()
        .map(|refused| refused.problem.status_code());
    let (why, typed) = refused
        .map(|Refused { problem, typed }| {
            let why = problem.detail.clone();
            (why.unwrap_or_else(|| problem.title.clone()), typed)
        })
        .unzip();
    let page = ChangePage {
        related: hosts::related_to(app, id).await?,
        waiting: hosts::waiting(app, id).await?,
        frame,
        asked,
        found,
        open,
        view,
        part,
        hosts,
        refused: why,
        typed: typed.flatten(),
    };
    let shown = web::page(&page.frame, &page);
    Ok((status.unwrap_or(shown.status()), shown).into_response())
}

/// The run that is asked for; else the newest plan, else the newest play, else the newest.
fn open(runs: &[RunRow], asked: &str) -> Result<Option<usize>, Problem> {
    if asked.is_empty() {
        let of = |kind: &str| runs.iter().rposition(|run| run.kind == kind);
        let newest = runs.len().checked_sub(1);
        return Ok(of("plan").or_else(|| of("play")).or(newest));
    }
    let id: Option<Uuid> = asked.parse().ok();
    let place = id.and_then(|id| runs.iter().position(|run| run.run_id == id));
    place
        .map(Some)
        .ok_or_else(|| Problem::missing("run", line(asked, 80)))
}

fn view(run: Option<&RunRow>, asked: &str) -> Result<&'static str, Problem> {
    let views = run.map(views_of).unwrap_or_default();
    let found = if asked.is_empty() {
        views.first()
    } else {
        views.iter().find(|(view, _)| *view == asked)
    };
    match found {
        Some((view, _)) => Ok(view),
        None if asked.is_empty() => Ok(""),
        None => Err(Problem::parameter("view", "is no part of this run")),
    }
}

async fn part(app: &App, run: &RunRow, view: &str, asked: &Asked) -> Result<Part, Problem> {
    let id = run.run_id;
    let cursor = given(&asked.cursor);
    let resources = |part: Option<&str>, unchanged| ResourcesQuery {
        part: part.map(str::to_owned),
        unchanged,
        limit: None,
        cursor: cursor.clone(),
    };
    let page = PageQuery {
        limit: None,
        cursor: cursor.clone(),
    };
    Ok(match view {
        "changes" => {
            Part::Resources(resources_of(app, id, resources(Some("change"), false)).await?)
        }
        "all" => Part::Resources(resources_of(app, id, resources(Some("change"), true)).await?),
        "deferred" => {
            Part::Resources(resources_of(app, id, resources(Some("deferred"), true)).await?)
        }
        "operations" => {
            Part::Resources(resources_of(app, id, resources(Some("operation"), true)).await?)
        }
        "drift" => {
            let groups = runs::drift_of(app, id).await?;
            Part::Drift(
                groups,
                resources_of(app, id, resources(Some("drift"), false)).await?,
            )
        }
        "hosts" => Part::Hosts(runs::hosts_of(app, id, &page).await?.0),
        "tasks" => Part::Tasks(runs::tasks_of(app, id, &page).await?.0),
        "failed" | "results" => {
            let batch = given(&asked.batch).map(|batch| batch.parse());
            let batch = batch.transpose();
            let query = ResultsQuery {
                failed: view == "failed",
                task: given(&asked.task),
                batch: batch.map_err(|_| Problem::parameter("batch", "must be a number"))?,
                limit: None,
                cursor: cursor.clone(),
            };
            Part::Results(runs::results_of(app, id, &query).await?.0)
        }
        _ => Part::Nothing,
    })
}

async fn resources_of(
    app: &App,
    run_id: Uuid,
    query: ResourcesQuery,
) -> Result<Page<ResourceRow>, Problem> {
    let Json(page) = runs::resources_of(app, run_id, &query).await?;
    Ok(page)
}
