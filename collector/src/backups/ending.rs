//! How runs end: what their host says, held against what is committed. A request and a record of the spool come to the same.
//!
//! Nothing doubtful is `ok`: without its snapshot a run has failed, whatever its host believes.

use infratrack_shared::ids::{HostId, SnapshotId};
use infratrack_shared::limits;
use infratrack_shared::wire::backup::{EndRun, Outcome, Trigger, reason};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use crate::store::backup_runs::{self, Ending, NewRun, RunRow, big};
use crate::store::snapshots::{self, KnownRow, NewSnapshot};
use crate::store::volumes::{self, VolumeRow};
use crate::store::{storable, timestamp};

/// A host's clock may be so far from ours.
pub const SKEW: Duration = Duration::minutes(5);
/// What is told later is no older than this, as with records.
const OLDEST: Duration = Duration::days(30);
/// Texts for people, in characters.
const DETAIL: usize = 4_000;
const ERROR: usize = 1_000;
/// A reason is a word.
const REASON: usize = 64;

/// What a host said of a run, and the collector's view of it.
struct Told<'a> {
    host: HostId,
    end: &'a EndRun,
    volume: &'a VolumeRow,
    now: OffsetDateTime,
}

/// Ends a run. Answers `false` where neither run nor volume is this host's.
pub async fn end(
    connection: &mut PgConnection,
    host: HostId,
    end: &EndRun,
    now: OffsetDateTime,
) -> sqlx::Result<bool> {
    let Some(volume) = volumes::find_of_host(connection, host, end.volume).await? else {
        return Ok(false);
    };
    let volume = &volume;
    let told = Told {
        host,
        end,
        volume,
        now,
    };
    let is_news = insert_unknown(connection, &told).await?;
    let Some(run) = backup_runs::lock(connection, end.run).await? else {
        return Ok(false);
    };
    if run.host_id != host.0 || run.volume_id != end.volume.0 {
        return Ok(false);
    }
    // Said before: it stands.
    if run.lease_until.is_none() {
        return Ok(true);
    }
    let snapshot = told.committed(connection, &run).await?;
    let (state, why) = verdict(end, snapshot.as_ref());
    let detail = end.detail.as_deref().map(|detail| cut(detail, DETAIL));
    let was_given_up = run.state != "running" && !is_news;
    if was_given_up && snapshot.is_none() {
        backup_runs::update_detail(connection, end.run, detail.as_deref()).await?;
        return Ok(true);
    }
    let errors = end.errors.iter().take(limits::BACKUP_ERRORS);
    let errors: Vec<_> = errors.map(|error| cut(error, ERROR)).collect();
    let ending = Ending {
        run: end.run,
        state,
        reason: why.as_deref(),
        detail: detail.as_deref(),
        ended_at: ended_at(&run, end, now),
        progress: end.progress,
        new_bytes: end.new_bytes,
        cpu_ms: end.cpu_ms,
        errors: &errors,
        errors_total: end.errors_total.max(errors.len() as u64),
    };
    backup_runs::update_ended(connection, &ending).await?;
    Ok(true)
}

/// A run that began while no collector was there is heard of here first. Answers whether it is such a one.
async fn insert_unknown(connection: &mut PgConnection, told: &Told<'_>) -> sqlx::Result<bool> {
    let (end, now) = (told.end, told.now);
    if backup_runs::find(connection, end.run).await?.is_some() {
        return Ok(false);
    }
    let started_at = timestamp(end.started_at);
    let new = NewRun {
        run: end.run,
        volume: end.volume,
        host: told.host,
        state: "failed",
        trigger: word(end.trigger),
        started_at: started_at.clamp(now - OLDEST, now),
        host_started_at: started_at,
        lease_until: now,
        parent: None,
        key_id: None,
        agent: "",
    };
    Ok(backup_runs::insert(connection, &new).await? == 1)
}

impl Told<'_> {
    /// The snapshot that the run made. Of what another tool keeps, the host's word is all there is: it is made here.
    async fn committed(
        &self,
        connection: &mut PgConnection,
        run: &RunRow,
    ) -> sqlx::Result<Option<KnownRow>> {
        if let Some(snapshot) = run.snapshot_id {
            return snapshots::find(connection, SnapshotId(snapshot)).await;
        }
        let end = self.end;
        let is_whole = end.outcome == Outcome::Ok;
        let is_made = is_whole || end.outcome == Outcome::Incomplete;
        if self.volume.kind != "external" || !is_made {
            return Ok(None);
        }
        // One of each run, however often it is told.
        let snapshot = SnapshotId(end.run.0);
        let itself = (run.started_at, self.now);
        let (at, is_clock_wrong) = dated(run.host_started_at, run.started_at, itself);
        let new = NewSnapshot {
            snapshot,
            volume: end.volume,
            run: end.run,
            host: self.host,
            key_id: None,
            kind: "external",
            is_whole,
            at,
            is_clock_wrong,
            arrived_at: self.now,
            files: big(end.progress.files),
            bytes: big(end.progress.bytes),
            object: None,
        };
        snapshots::insert(connection, &new).await?;
        backup_runs::update_snapshot(connection, end.run, snapshot).await?;
        volumes::update_protected(connection, end.volume, at, is_whole).await?;
        snapshots::find(connection, snapshot).await
    }
}

/// When a snapshot was made: by the host's clock as its run began, else, where that is wrong, by ours; and whether it is. What
/// the snapshot says of itself has to lie between the begin and now.
pub fn dated(
    by_host: OffsetDateTime,
    by_us: OffsetDateTime,
    (itself, now): (OffsetDateTime, OffsetDateTime),
) -> (OffsetDateTime, bool) {
    let is_within = by_us - SKEW <= itself && itself <= now + SKEW;
    let is_wrong = (by_host - by_us).abs() > SKEW || !is_within;
    (if is_wrong { by_us } else { by_host }, is_wrong)
}

fn ended_at(run: &RunRow, end: &EndRun, now: OffsetDateTime) -> OffsetDateTime {
    let (_, is_wrong) = dated(run.host_started_at, run.started_at, (run.started_at, now));
    if is_wrong || run.started_at > now {
        return now;
    }
    timestamp(end.ended_at).clamp(run.started_at, now)
}

/// State and reason.
fn verdict(end: &EndRun, snapshot: Option<&KnownRow>) -> (&'static str, Option<String>) {
    let told = end.reason.as_deref().filter(|reason| !reason.is_empty());
    let told = told.map(|reason| cut(reason, REASON));
    let or = |otherwise: &str| Some(told.clone().unwrap_or_else(|| otherwise.to_owned()));
    let failed = ("failed", Some(reason::INTERNAL.to_owned()));
    match (end.outcome, snapshot) {
        (Outcome::Failed, _) => ("failed", or(reason::INTERNAL)),
        (Outcome::Cancelled, _) => ("cancelled", or(reason::CANCELLED)),
        (Outcome::Other, _) | (Outcome::Ok | Outcome::Incomplete, None) => failed,
        (Outcome::Ok, Some(snapshot)) if snapshot.is_whole => {
            if snapshot.is_clock_wrong {
                ("incomplete", Some(reason::CLOCK_WRONG.to_owned()))
            } else {
                ("ok", None)
            }
        }
        (Outcome::Ok | Outcome::Incomplete, Some(_)) => {
            ("incomplete", or(reason::UNREADABLE_FILES))
        }
    }
}

/// As it is in the tables.
pub fn word(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Schedule => "schedule",
        Trigger::Command => "command",
        Trigger::Host => "host",
        Trigger::Other => "other",
    }
}

/// A text from a host as it is stored: so many characters, none of them NUL.
pub fn cut(text: &str, most: usize) -> String {
    storable(&text.chars().take(most).collect::<String>())
}

#[cfg(test)]
mod tests {
    use infratrack_shared::ids::{BackupRunId, VolumeId};
    use infratrack_shared::time::UnixMillis;
    use infratrack_shared::wire::backup::Progress;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    fn told(outcome: Outcome, reason: Option<&str>) -> EndRun {
        EndRun {
            run: BackupRunId(Uuid::nil()),
            volume: VolumeId(Uuid::nil()),
            trigger: Trigger::Schedule,
            started_at: UnixMillis(0),
            ended_at: UnixMillis(0),
            outcome,
            reason: reason.map(str::to_owned),
            detail: None,
            errors: Vec::new(),
            errors_total: 0,
            progress: Progress::default(),
            new_bytes: 0,
            snapshot: None,
            cpu_ms: 0,
        }
    }

    #[test]
    fn nothing_doubtful_is_ok() {
        let snapshot = |is_whole, is_clock_wrong| KnownRow {
            volume_id: Uuid::nil(),
            run_id: Uuid::nil(),
            hash: None,
            is_whole,
            is_clock_wrong,
            is_deleted: false,
        };
        let state = |outcome, why, snapshot: Option<KnownRow>| {
            let (state, reason) = verdict(&told(outcome, why), snapshot.as_ref());
            format!("{state} {}", reason.unwrap_or_default())
        };
        let (whole, wrong) = (snapshot(true, false), snapshot(true, true));
        let part = snapshot(false, false);
        assert_eq!(state(Outcome::Ok, None, Some(whole.clone())), "ok ");
        assert_eq!(
            state(Outcome::Ok, None, Some(wrong)),
            "incomplete clock_wrong"
        );
        let unread = "incomplete unreadable_files";
        assert_eq!(state(Outcome::Ok, None, Some(part.clone())), unread);
        let torn = state(Outcome::Incomplete, Some("changed_while_read"), Some(part));
        assert_eq!(torn, "incomplete changed_while_read");
        for outcome in [Outcome::Ok, Outcome::Incomplete, Outcome::Other] {
            assert_eq!(state(outcome, Some("x"), None), "failed internal_error");
        }
        assert_eq!(
            state(Outcome::Failed, Some("timeout"), None),
            "failed timeout"
        );
        assert_eq!(
            state(Outcome::Failed, Some(""), Some(whole)),
            "failed internal_error"
        );
        assert_eq!(state(Outcome::Cancelled, None, None), "cancelled cancelled");
    }

    #[test]
    fn a_clock_is_believed_within_5_minutes() {
        let ours = datetime!(2026-01-01 12:00 UTC);
        let now = datetime!(2026-01-01 13:00 UTC);
        let near = datetime!(2026-01-01 12:05 UTC);
        assert_eq!(dated(near, ours, (near, now)), (near, false));
        let ahead = datetime!(2027-01-01 12:00 UTC);
        let behind = datetime!(2026-01-01 11:54 UTC);
        for wrong in [ahead, behind] {
            assert_eq!(dated(wrong, ours, (wrong, now)), (ours, true));
            assert_eq!(dated(near, ours, (wrong, now)), (ours, true));
        }
        // What is read begins when the hook before it is over.
        let later = datetime!(2026-01-01 12:40 UTC);
        assert_eq!(dated(near, ours, (later, now)), (near, false));
    }

    #[test]
    fn texts_are_cut_at_a_character_and_have_no_nul() {
        assert_eq!(cut("äöü\0x", 4), "äöü\u{fffd}");
    }
}
