//! Drills: begun, kept alive by beats, ended. What a host says of its own restore is believed: nobody else could see it.

use http::StatusCode;
use infratrack_shared::ids::HostId;
use infratrack_shared::limits;
use infratrack_shared::wire::backup::{Beaten, Ended, Order, Outcome, reason};
use infratrack_shared::wire::drill::{
    BeginDrill, BegunDrill, DrillBeat, DrillCheck, DrillMode, EndDrill,
};
use infratrack_shared::wire::problem::code;
use time::{Duration, OffsetDateTime};

use super::{check_protocol, nothing, unstored};
use crate::agents::ingest::invalid;
use crate::agents::problem::Refusal;
use crate::app::App;
use crate::backups::ending::{cut, word};
use crate::store::drills::{self, DrillRow, Ending, NewDrill};
use crate::store::{unix_millis, volumes};

/// Without a beat for so long a drill counts as interrupted.
const LEASE: Duration = Duration::minutes(2);
/// Texts for people, in characters.
const DETAIL: usize = 4_000;
const ENTRY: usize = 1_000;
const WORD: usize = 64;
/// The agent's version, in characters.
const AGENT: usize = 128;
const MOST_CHECKS: usize = 20;

/// Begins a drill, or answers the same again.
pub(super) async fn begin(
    app: &App,
    host: HostId,
    asked: BeginDrill,
) -> Result<BegunDrill, Refusal> {
    check_protocol(asked.protocol)?;
    let now = app.clock.now();
    let agent = cut(&asked.agent, AGENT);
    let new = NewDrill {
        drill: asked.drill,
        volume: asked.volume,
        host,
        trigger: word(asked.trigger),
        mode: asked.mode.map(mode_word),
        started_at: now,
        lease_until: now + LEASE,
        agent: &agent,
    };
    let begun = async {
        let mut transaction = app.pool.begin().await?;
        let volume = volumes::find_of_host(&mut transaction, host, asked.volume).await?;
        let Some(volume) = volume.filter(|volume| volume.kind != "external") else {
            return Ok(None);
        };
        drills::update_stale(&mut transaction, Some(host), now).await?;
        drills::insert(&mut transaction, &new).await?;
        let known = drills::lock(&mut transaction, asked.drill).await?;
        let lease = drills::find_lease(&mut transaction, host).await?;
        transaction.commit().await?;
        sqlx::Result::Ok(Some((volume, known, lease)))
    };
    let found = begun.await.map_err(unstored)?;
    let (volume, known, lease) = found.ok_or_else(|| nothing("volume with chunks"))?;
    let Some(known) = known else {
        return Err(busy(lease, now));
    };
    let is_same =
        known.host_id == host.0 && known.volume_id == asked.volume.0 && known.state == "running";
    if !is_same {
        return Err(nothing("drill under way"));
    }
    Ok(BegunDrill {
        volume: volume.to_wire(),
        mode: mode(&known.mode),
        lease_ms: u32::try_from(LEASE.whole_milliseconds()).unwrap_or(u32::MAX),
        server_time: unix_millis(now),
    })
}

fn busy(lease: Option<OffsetDateTime>, now: OffsetDateTime) -> Refusal {
    let detail = "another drill of this host is under way";
    let refusal = Refusal::new(StatusCode::CONFLICT, code::VOLUME_BUSY, detail);
    let left = lease.map_or(Duration::ZERO, |lease| lease - now);
    Refusal {
        retry_after_s: Some(u64::try_from(left.whole_seconds()).unwrap_or(0) + 1),
        ..refusal
    }
}

/// Keeps a drill alive.
pub(super) async fn beat(app: &App, host: HostId, beat: DrillBeat) -> Result<Beaten, Refusal> {
    let lease_until = app.clock.now() + LEASE;
    let alive = async {
        let mut connection = app.pool.acquire().await?;
        let (drill, progress) = (beat.drill, &beat.progress);
        drills::update_alive(&mut connection, host, drill, lease_until, progress).await
    };
    let orders = alive.await.map_err(unstored)?;
    let orders = orders.ok_or_else(|| nothing("drill under way"))?;
    let order = if orders == "cancel" {
        Order::Cancel
    } else {
        Order::GoOn
    };
    Ok(Beaten { order })
}

/// Ends a drill.
pub(super) async fn end(app: &App, host: HostId, end: EndDrill) -> Result<Ended, Refusal> {
    if end.report.checks.len() > MOST_CHECKS || end.report.tools.len() > MOST_CHECKS {
        let detail = format!("report: more than {MOST_CHECKS} checks or tools");
        return Err(invalid(detail));
    }
    let now = app.clock.now();
    let ended = async {
        let mut transaction = app.pool.begin().await?;
        let known = drills::lock(&mut transaction, end.drill).await?;
        let known =
            known.filter(|known| known.host_id == host.0 && known.volume_id == end.volume.0);
        let Some(known) = known else {
            return Ok(None);
        };
        // Said before, it stands.
        let state = match known.lease_until {
            None => None,
            Some(_) => Some(keep(&mut transaction, &known, &end, now).await?),
        };
        transaction.commit().await?;
        sqlx::Result::Ok(Some(state))
    };
    let ended = ended.await.map_err(unstored)?;
    let state = ended.ok_or_else(|| nothing("drill"))?;
    if let Some(state) = state {
        app.metrics.backup_drill(state);
    }
    Ok(Ended {})
}

/// Stores what was told.
async fn keep(
    connection: &mut sqlx::PgConnection,
    known: &DrillRow,
    end: &EndDrill,
    now: OffsetDateTime,
) -> sqlx::Result<&'static str> {
    let (state, why) = verdict(end);
    let report = &end.report;
    let detail = end.detail.as_deref().map(|detail| cut(detail, DETAIL));
    let differing = report.differing.iter().take(limits::BACKUP_ERRORS);
    let differing: Vec<_> = differing.map(|entry| cut(entry, ENTRY)).collect();
    let check = |check: &DrillCheck| DrillCheck {
        name: cut(&check.name, WORD),
        outcome: check.outcome,
        detail: cut(&check.detail, ENTRY),
    };
    let checks: Vec<_> = report.checks.iter().map(check).collect();
    let tools = report.tools.iter();
    let tools: Vec<_> = tools
        .map(|(name, version)| (cut(name, WORD), cut(version, WORD)))
        .collect();
    let ending = Ending {
        drill: end.drill,
        state,
        reason: why.as_deref(),
        detail: detail.as_deref(),
        ended_at: now,
        report,
        differing: &differing,
        checks: &checks,
        tools: &tools,
        restore_ms: of_all(end),
    };
    drills::update_ended(connection, &ending).await?;
    if state != "cancelled" {
        let good_at = (state == "ok").then_some(known.started_at);
        drills::update_last(connection, known.volume_id, end.drill, good_at).await?;
    }
    Ok(state)
}

/// State and reason. Nothing doubtful is `ok`.
fn verdict(end: &EndDrill) -> (&'static str, Option<String>) {
    let told = end.reason.as_deref().filter(|reason| !reason.is_empty());
    let told = told.map(|reason| cut(reason, WORD));
    let or = |otherwise: &str| Some(told.clone().unwrap_or_else(|| otherwise.to_owned()));
    match end.outcome {
        Outcome::Ok if end.report.mismatches > 0 => ("failed", or(reason::NOT_RESTORABLE)),
        Outcome::Ok if end.report.snapshot.is_some() => ("ok", None),
        Outcome::Cancelled => ("cancelled", or(reason::CANCELLED)),
        Outcome::Ok | Outcome::Incomplete | Outcome::Failed | Outcome::Other => {
            ("failed", or(reason::INTERNAL))
        }
    }
}

/// How long all of it would take, where a sample did: by its bytes.
fn of_all(end: &EndDrill) -> u64 {
    let report = &end.report;
    if !report.is_sampled || report.bytes == 0 {
        return report.restore_ms;
    }
    let all = u128::from(report.restore_ms) * u128::from(report.bytes_total);
    u64::try_from(all / u128::from(report.bytes)).unwrap_or(u64::MAX)
}

fn mode_word(mode: DrillMode) -> &'static str {
    match mode {
        DrillMode::Full | DrillMode::Other => "full",
        DrillMode::Database => "database",
        DrillMode::Validation => "validation",
    }
}

fn mode(word: &str) -> DrillMode {
    let all = [DrillMode::Database, DrillMode::Validation];
    let found = all.into_iter().find(|mode| mode_word(*mode) == word);
    found.unwrap_or(DrillMode::Full)
}

#[cfg(test)]
mod tests {
    use infratrack_shared::ids::{DrillId, SnapshotId, VolumeId};
    use infratrack_shared::time::UnixMillis;
    use infratrack_shared::wire::drill::DrillReport;

    use super::*;

    fn told(outcome: Outcome, report: DrillReport) -> EndDrill {
        EndDrill {
            drill: DrillId::random(),
            volume: VolumeId::random(),
            started_at: UnixMillis(0),
            ended_at: UnixMillis(0),
            outcome,
            reason: None,
            detail: None,
            report,
        }
    }

    #[test]
    fn nothing_doubtful_is_ok() {
        let good = DrillReport {
            snapshot: Some(SnapshotId::random()),
            ..DrillReport::default()
        };
        assert_eq!(verdict(&told(Outcome::Ok, good.clone())).0, "ok");
        let differs = DrillReport {
            mismatches: 1,
            ..good.clone()
        };
        let (state, reason) = verdict(&told(Outcome::Ok, differs));
        assert_eq!(
            (state, reason.as_deref()),
            ("failed", Some("not_restorable"))
        );
        for (outcome, report) in [
            (Outcome::Ok, DrillReport::default()),
            (Outcome::Incomplete, good.clone()),
            (Outcome::Other, good.clone()),
        ] {
            assert_eq!(verdict(&told(outcome, report)).0, "failed");
        }
        assert_eq!(verdict(&told(Outcome::Cancelled, good)).0, "cancelled");
    }

    #[test]
    fn of_a_sample_the_time_for_all_is_estimated_by_bytes() {
        let report = DrillReport {
            restore_ms: 1000,
            bytes: 10,
            bytes_total: 45,
            ..DrillReport::default()
        };
        assert_eq!(of_all(&told(Outcome::Ok, report.clone())), 1000);
        let is_sampled = true;
        let sample = DrillReport {
            is_sampled,
            ..report
        };
        assert_eq!(of_all(&told(Outcome::Ok, sample)), 4500);
    }

    #[test]
    fn modes_have_words() {
        for mode_of in [DrillMode::Full, DrillMode::Database, DrillMode::Validation] {
            assert_eq!(mode(mode_word(mode_of)), mode_of);
        }
    }
}
