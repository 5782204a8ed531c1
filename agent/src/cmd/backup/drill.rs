//! `infratrack-agent backup drill`.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use infratrack_agent::backup::drill;
use infratrack_agent::backup::run::Host;
use infratrack_agent::cli::{Began, Rehearsed};
use infratrack_shared::wire::backup::Outcome;
use infratrack_shared::wire::drill::{CheckOutcome, DrillMode, EndDrill};

use super::{Shown, find, how_far, size, trigger_of};

/// Rehearses restoring a volume, and says what came of it.
pub(super) fn rehearse(
    host: &Host,
    volume: &str,
    (began, mode): (Began, Option<Rehearsed>),
    is_json: bool,
) -> anyhow::Result<ExitCode> {
    let volume = find(host, volume)?;
    let mode = mode.map(|mode| match mode {
        Rehearsed::Full => DrillMode::Full,
        Rehearsed::Database => DrillMode::Database,
        Rehearsed::Validation => DrillMode::Validation,
    });
    let is_shown = !is_json && io::stderr().is_terminal();
    let (begun, shown) = (Instant::now(), Shown::default());
    let ended = drill::drill(host, &volume, (trigger_of(began), mode), move |progress| {
        if is_shown {
            shown.show(&how_far(&progress, begun.elapsed()));
        }
    })?;
    if is_shown {
        writeln!(io::stderr()).ok();
    }
    if is_json {
        crate::cmd::print(&serde_json::to_string(&ended)?);
    } else {
        crate::cmd::print(&told(&volume.name, &ended));
    }
    Ok(match ended.outcome {
        Outcome::Ok => ExitCode::SUCCESS,
        Outcome::Incomplete | Outcome::Failed | Outcome::Cancelled | Outcome::Other => {
            ExitCode::FAILURE
        }
    })
}

fn told(name: &str, ended: &EndDrill) -> String {
    let report = &ended.report;
    let outcome = match ended.outcome {
        Outcome::Ok => "restorable",
        Outcome::Cancelled => "cancelled",
        Outcome::Incomplete | Outcome::Failed | Outcome::Other => "NOT restorable",
    };
    let (files, bytes) = (report.files, size(report.bytes));
    let took = Duration::from_millis(report.restore_ms);
    let mut text = format!("{name}: {outcome}, {files} files, {bytes}, in {took:?}");
    if report.is_sampled {
        let all = size(report.bytes_total);
        text = format!("{text}; a sample of {} files, {all}", report.files_total);
    }
    for check in &report.checks {
        let outcome = match check.outcome {
            CheckOutcome::Ok => "ok",
            CheckOutcome::Failed => "failed",
            CheckOutcome::Skipped => "not done",
        };
        text = format!("{text}\n{}: {outcome}: {}", check.name, check.detail);
    }
    for differing in &report.differing {
        text = format!("{text}\n{}", differing.escape_debug());
    }
    if let Some(reason) = &ended.reason {
        let detail = ended.detail.as_deref().unwrap_or_default();
        text = format!("{text}\n{reason}: {detail}");
    }
    text
}
