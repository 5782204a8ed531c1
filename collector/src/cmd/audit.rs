//! `infratrack-collector audit verify`.

use anyhow::bail;
use infratrack_collector::audit::verify::{self, Report};
use infratrack_collector::blob::BlobStore;
use infratrack_collector::ca::{Ca, Place};
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use serde_json::json;

/// Verifies the log; fails where it is not whole.
pub(crate) async fn verify(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let ca = Ca::open_at(&Place::of(config).await?)?;
    let blob = BlobStore::open(config).await?;
    let pool = super::connect(config).await?;
    let report = verify::verify(&pool, &blob, &ca).await?;
    if as_json {
        super::print(&document(&report).to_string());
    } else {
        say(&report);
    }
    if let Some(finding) = &report.finding {
        bail!("the audit log is not whole: {finding}");
    }
    Ok(())
}

fn say(report: &Report) {
    super::print(&format!("rows as they were sealed: {}", report.rows));
    match &report.last_checkpoint {
        Some(last) => {
            let age = verify::age(last, Clock::system().now());
            super::print(&format!(
                "checkpoints that agree:   {}, the last at row {}, {} s ago",
                report.checkpoints,
                last.seq,
                age.whole_seconds()
            ));
        }
        None => {
            super::print("checkpoints that agree:   0: nothing outside of the database says so");
        }
    }
    super::print(&format!("rows not sealed yet:      {}", report.pending));
    if report.finding.is_none() {
        super::print("the audit log is whole");
    }
}

fn document(report: &Report) -> serde_json::Value {
    json!({
        "is_whole": report.finding.is_none(),
        "rows": report.rows,
        "checkpoints": report.checkpoints,
        "last_checkpoint_seq": report.last_checkpoint.as_ref().map(|last| last.seq),
        "not_sealed": report.pending,
        "finding": report.finding.as_ref().map(ToString::to_string),
    })
}
