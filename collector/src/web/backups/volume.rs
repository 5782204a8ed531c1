//! The page of a volume: how it stands, the run that is under way, runs, snapshots with why each is kept, and what is set.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use infratrack_shared::ids::VolumeId;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::api::drills::{self, DrillsQuery};
use crate::api::input::{Path, Query};
use crate::api::problem::Problem;
use crate::api::volumes::rules::Source;
use crate::api::volumes::runs::{self, BackupRunsQuery};
use crate::api::volumes::snapshots::{self, KeptSnapshot};
use crate::api::volumes::{self as api};
use crate::app::App;
use crate::backups::retention::Reason;
use crate::backups::verification::{self, Lost};
use crate::store::backup_grants::{self, GrantRow};
use crate::store::backup_run_search::RunRow;
use crate::store::drill_search::DrillRow;
use crate::store::volume_search::VolumeRow;
use crate::web::backups::form::{VolumeForm, length, windows_text};
use crate::web::backups::proof::seconds;
use crate::web::backups::{reason, tone};
use crate::web::frame::Frame;
use crate::web::plain::{block, line};
use crate::web::settings::complaint;
use crate::web::{self, words};

/// Runs and snapshots that are listed; the API has the rest.
const MOST: usize = 50;
/// Likewise of drills: one a month.
const DRILLS: usize = 12;

/// What the page shows beside itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// Runs were asked for: that was done.
    asked: Option<String>,
}

#[derive(Template)]
#[template(path = "backups/volume.html")]
struct VolumePage {
    frame: Frame,
    volume: VolumeRow,
    source: Source,
    form: VolumeForm,
    runs: Vec<RunRow>,
    runs_total: i64,
    drills: Vec<DrillRow>,
    drills_total: i64,
    snapshots: Vec<KeptSnapshot>,
    grants: Vec<GrantRow>,
    lost: Lost,
    was_asked: bool,
    refused: Option<String>,
}

impl VolumePage {
    fn shown(text: &str) -> String {
        line(text, 200)
    }

    fn lines(text: &str) -> String {
        block(text, 4000)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as templates call it")]
    fn size(bytes: &i64) -> String {
        words::bytes(*bytes)
    }

    fn base(&self) -> String {
        format!("/volumes/{}", self.volume.volume_id)
    }

    fn running(&self) -> Option<&RunRow> {
        self.runs.iter().find(|run| run.state == "running")
    }

    fn shown_snapshots(&self) -> &[KeptSnapshot] {
        let shown = self.snapshots.len().min(MOST);
        &self.snapshots[..shown]
    }

    /// How long a drill took.
    fn took(drill: &DrillRow) -> String {
        let about = if drill.is_sampled { "about " } else { "" };
        let took = drill.restore_ms.map(seconds);
        took.map(|took| format!("{about}{took}"))
            .unwrap_or_default()
    }

    fn windows(&self) -> String {
        windows_text(&self.volume.closed_windows.0)
    }

    fn jitter(&self) -> String {
        length(&Some(self.volume.jitter_s))
    }

    fn due(&self) -> String {
        words::due(&self.volume.due_at, &self.frame.now).1
    }

    fn rules(&self) -> String {
        let set = VolumeForm::of(&self.volume).kept();
        let set = set.iter().filter(|(_, count)| *count > 0);
        let set: Vec<_> = set.map(|(name, count)| format!("{count} {name}")).collect();
        set.join(", ")
    }
}

/// How far a run is, in numbers and in words.
struct Progress {
    /// Of those that are expected, in a thousand; `None`: nobody knows how many there will be.
    per_mille: Option<i64>,
    words: String,
}

fn progress(run: &RunRow, now: &time::OffsetDateTime) -> Progress {
    let number = |name: &str| run.progress.0.get(name).and_then(Value::as_i64);
    let bytes = number("bytes").unwrap_or_default().max(0);
    let expected = number("bytes_expected").filter(|expected| *expected > 0);
    let seconds = (*now - run.started_at).whole_seconds().max(1);
    let rate = bytes / seconds;
    let mut said = vec![
        format!("{} files", number("files").unwrap_or_default()),
        words::bytes(bytes),
        format!("{} a second", words::bytes(rate)),
        format!(
            "{} sent",
            words::bytes(number("sent_bytes").unwrap_or_default())
        ),
    ];
    if let Some(left) = expected.map(|expected| expected - bytes)
        && left > 0
        && rate > 0
    {
        said.push(format!("about {} left", words::duration(left / rate)));
    }
    Progress {
        per_mille: expected.map(|expected| (bytes.saturating_mul(1000) / expected).min(1000)),
        words: said.join(", "),
    }
}

/// Why a snapshot is kept, in a word.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as templates call it")]
fn kept(reason: &Reason) -> &'static str {
    match reason {
        Reason::Held => "held",
        Reason::LastWhole => "newest whole",
        Reason::SinceLastWhole => "since the newest whole",
        Reason::Last => "last",
        Reason::Hourly => "hourly",
        Reason::Daily => "daily",
        Reason::Weekly => "weekly",
        Reason::Monthly => "monthly",
        Reason::Yearly => "yearly",
    }
}

/// `GET /volumes/{id}`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<Uuid>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    show(&app, frame, id, asked.asked.is_some(), None).await
}

/// The page, with what somebody wanted and did not get.
pub async fn show(
    app: &App,
    frame: Frame,
    id: Uuid,
    was_asked: bool,
    refused: Option<(&Problem, Option<VolumeForm>)>,
) -> Result<Response, Problem> {
    let mut connection = app.pool.acquire().await?;
    let volume = api::find(app, &mut connection, id).await?;
    let grants = backup_grants::list(&mut connection, id).await?;
    let lost = verification::find_lost(&mut connection, VolumeId(id)).await?;
    drop(connection);
    let query = BackupRunsQuery {
        volume: Some(id),
        limit: i64::try_from(MOST).ok(),
        ..BackupRunsQuery::default()
    };
    let runs = runs::rows(app, &query).await?;
    let query = DrillsQuery {
        volume: Some(id),
        limit: i64::try_from(DRILLS).ok(),
        ..DrillsQuery::default()
    };
    let drilled = drills::rows(app, &query).await?;
    let (refused, typed) = refused.unzip();
    let page = VolumePage {
        source: serde_json::from_value(volume.source.0.clone()).unwrap_or_default(),
        form: typed.flatten().unwrap_or_else(|| VolumeForm::of(&volume)),
        runs: runs.items,
        runs_total: runs.total,
        drills: drilled.items,
        drills_total: drilled.total,
        snapshots: snapshots::kept(app, id, None).await?,
        grants,
        lost,
        was_asked,
        refused: refused.map(complaint),
        frame,
        volume,
    };
    let status = refused.map_or(http::StatusCode::OK, Problem::status_code);
    Ok((status, web::page(&page.frame, &page)).into_response())
}
