//! Whose batch it is, where two processes report as one host: a restart, or a copied disk.
//!
//! A process that reports for the first time takes over from the one before. If that one comes back soon, they
//! are two: what came between moves to a hidden host, and the cursors return to where they were. Called by
//! `flush` for one batch at a time, in its transaction; the lock of the host's row orders all of them.

use std::collections::BTreeSet;

use infratrack_shared::ids::{HostId, InstanceId};
use infratrack_shared::wire::batch::{Body, Record};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::agents::cursor;
use crate::agents::writer::{Report, json};
use crate::store::agent_streams::Stream;
use crate::store::events::{self, Event};
use crate::store::host_conflicts::{self, NewConflict, Route};
use crate::store::host_instances::{self, Arrival, InstanceRow, Standing};
use crate::store::set_apart::{self, Move};
use crate::store::{self, agent_streams, json_text, timestamp, unix_millis};

/// A process that comes back within this after it was replaced never went away.
const COMES_BACK_WITHIN: Duration = Duration::minutes(10);
/// Who was replaced is known for this long.
const KNOWN_FOR: Duration = Duration::days(30);
/// No row is filed under an earlier time than this before it is received.
const OLDEST: Duration = Duration::days(31);

/// What becomes of a batch before it is looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is `host`'s.
    Take { host: HostId, arrived: Arrived },
    /// Its process was replaced while it was under way: it is to be sent again.
    InFlight,
    /// It is a clone's that was set apart, and uses the host's stream.
    SetApart,
    /// It is a clone's that was dropped.
    Blocked,
}

/// How the process of a batch came to be in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// It was.
    Before,
    /// It has taken over.
    First,
    /// It had been replaced, too long ago to say by whom.
    Again,
    /// It had been replaced, and whoever did it was set apart.
    Back,
}

/// What a process claims by reporting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    InPlace,
    First,
    /// Received before its successor's first commit was known to have happened.
    InFlight,
    Back,
    Again,
}

/// Judges the claim of the process that is `known` as given, where `in_place` is the one in place.
fn claim(
    instance: InstanceId,
    in_place: Option<InstanceId>,
    known: Option<&InstanceRow>,
    received_at: OffsetDateTime,
) -> Claim {
    if in_place == Some(instance) {
        return Claim::InPlace;
    }
    let Some(known) = known else {
        return Claim::First;
    };
    match known.replaced_at {
        Some(replaced_at) if received_at > replaced_at + COMES_BACK_WITHIN => Claim::Again,
        Some(replaced_at) if received_at > replaced_at => Claim::Back,
        Some(_) | None => Claim::InFlight,
    }
}

/// Whether a batch can go with others: it is of the process in place. `standings` are sorted by host.
pub(super) fn is_settled(report: &Report, standings: &[Standing]) -> bool {
    let standing = standings.binary_search_by_key(&report.host, |standing| standing.host);
    let standing = standing.ok().and_then(|index| standings.get(index));
    // A host without a row has nothing to be in place of.
    standing.is_none_or(|standing| standing.instance == Some(report.batch.instance))
}

/// Decides whose `report` is, and does what follows from it. `standing` is that of the certificate's host,
/// whose row is locked.
pub(super) async fn settle(
    connection: &mut PgConnection,
    report: &Report,
    standing: &Standing,
    now: OffsetDateTime,
) -> sqlx::Result<Verdict> {
    let instance = report.batch.instance;
    let mut owner = *standing;
    if standing.has_clones && standing.instance != Some(instance) {
        let stream = report.batch.stream;
        let route = host_conflicts::find_route(connection, report.host, instance, stream).await?;
        if let Some(Route {
            hidden_host_id,
            state,
            ..
        }) = route
        {
            if state == "dropped" {
                return Ok(Verdict::Blocked);
            }
            let hidden = HostId(hidden_host_id);
            if uses_the_hosts_stream(connection, report, hidden).await? {
                return Ok(Verdict::SetApart);
            }
            let locked = host_instances::lock(connection, &[hidden.0]).await?;
            owner = locked.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
        }
    }
    let known = host_instances::find(connection, owner.host, instance).await?;
    let arrived = match (
        claim(instance, owner.instance, known.as_ref(), report.received_at),
        known,
    ) {
        (Claim::InPlace, _) => Arrived::Before,
        (Claim::InFlight, _) => {
            // If nobody could say when the successor was committed: by now it is.
            host_instances::update_replaced(connection, owner.host, now).await?;
            return Ok(Verdict::InFlight);
        }
        (Claim::Back, Some(known)) => {
            set_apart(connection, report, owner.host, &known, now).await?;
            Arrived::Back
        }
        (Claim::Again, _) => {
            host_instances::delete(connection, owner.host, instance).await?;
            take_over(connection, report, owner.host, now).await?;
            Arrived::Again
        }
        (Claim::First | Claim::Back, _) => {
            take_over(connection, report, owner.host, now).await?;
            Arrived::First
        }
    };
    Ok(Verdict::Take {
        host: owner.host,
        arrived,
    })
}

/// Whether a clone's batch has to go on in a stream of its own. One that repeats what was stored before the
/// clone was set apart, and only its answer was lost, is taken once more, so that it is not stored twice.
async fn uses_the_hosts_stream(
    connection: &mut PgConnection,
    report: &Report,
    hidden: HostId,
) -> sqlx::Result<bool> {
    let stream = report.batch.stream;
    if agent_streams::find(connection, report.host, stream)
        .await?
        .is_none()
    {
        return Ok(false);
    }
    let Some(own) = agent_streams::find(connection, hidden, stream).await? else {
        return Ok(true);
    };
    let repeats = report
        .batch
        .parts
        .iter()
        .any(|part| part.first_seq <= own.of(part.class).seq);
    Ok(!repeats)
}

/// Whether others have moved the stream of a process that was replaced and is back: what it has below their
/// cursor can't be told from what they had.
pub(super) async fn was_overtaken(
    connection: &mut PgConnection,
    report: &Report,
) -> sqlx::Result<bool> {
    let batch = &report.batch;
    let stream = agent_streams::find(connection, report.host, batch.stream).await?;
    Ok(!batch.parts.is_empty() && stream.is_some_and(|row| row.instance != batch.instance))
}

/// The numbers of the reports whose records are other ones than were stored under their numbers: a disk that
/// was copied, or rolled back.
///
/// Where a part reaches the cursor, the hash there tells. This is for those that end below it, of a process
/// that did not move it (salvaged records are such, and an old copy's), and for those that begin above it
/// because what is between went to a clone: sent again, that would be stored twice.
pub(super) async fn forked(
    connection: &mut PgConnection,
    reports: &[&Report],
    streams: &[Stream],
) -> sqlx::Result<BTreeSet<usize>> {
    let mut forked = BTreeSet::new();
    for (index, report) in reports.iter().enumerate() {
        let batch = &report.batch;
        let stream = streams
            .iter()
            .find(|row| (row.host, row.stream) == (report.host, batch.stream));
        let Some(stream) = stream.filter(|row| row.instance != batch.instance) else {
            continue;
        };
        for part in &batch.parts {
            let cursor = stream.of(part.class);
            let is_forked = if part.first_seq > cursor.seq.saturating_add(1) {
                let (last, class) = (part.first_seq - 1, part.class);
                host_conflicts::is_with_clone(connection, report.host, batch.stream, class, last)
                    .await?
            } else if let Some(record) = cursor::last_below(cursor, part) {
                is_another(connection, report, record).await?
            } else {
                false
            };
            if is_forked {
                forked.insert(index);
            }
        }
    }
    Ok(forked)
}

/// Whether something else is stored under the number of `record`. Where nothing is (it was a gap, or is past
/// its retention), it is taken for the same.
async fn is_another(
    connection: &mut PgConnection,
    report: &Report,
    record: &Record,
) -> sqlx::Result<bool> {
    let (host, since) = (report.host, report.received_at - OLDEST);
    let claimed_at = timestamp(record.at);
    match &record.body {
        Body::Heartbeat(heartbeat) => {
            store::heartbeats::is_another(connection, host, heartbeat, claimed_at, since).await
        }
        Body::Event(body) => {
            let stream = report.batch.stream;
            let stored = events::find_origin(connection, host, stream, record.seq, since).await?;
            let same = (claimed_at, record.kind.clone(), json::tree(body));
            Ok(stored.is_some_and(|stored| stored != same))
        }
    }
}

async fn take_over(
    connection: &mut PgConnection,
    report: &Report,
    host: HostId,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let arrival = Arrival {
        host,
        instance: report.batch.instance,
        boot_id: report.batch.boot_id,
        address: report.address,
        received_at: report.received_at,
    };
    host_instances::delete_replaced(connection, host, now - KNOWN_FOR).await?;
    host_instances::insert(connection, &arrival).await?;
    set_apart::mark_streams(connection, host, arrival.instance).await?;
    host_instances::update_in_place(connection, host, arrival.instance, arrival.received_at)
        .await
        .map(drop)
}

/// Sets everybody apart who took over from `kept`, which has come back to `owner`.
async fn set_apart(
    connection: &mut PgConnection,
    report: &Report,
    owner: HostId,
    kept: &InstanceRow,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let clones = host_instances::list_after(connection, owner, kept.ordinal).await?;
    let successors = clones.iter().skip(1).map(|next| InstanceId(next.instance));
    let successors = successors.map(Some).chain([None]);
    let mut moves = Vec::new();
    let mut events = Vec::new();
    for (clone, next) in clones.iter().zip(successors) {
        let moved = Move {
            from: owner,
            to: HostId::at(unix_millis(now)),
            instance: InstanceId(clone.instance),
            since: clone.first_seen_at - OLDEST,
        };
        let conflict = NewConflict {
            conflict: HostId::at(unix_millis(now)).0,
            host: report.host,
            hidden: moved.to,
            kept,
            clone,
            now,
        };
        set_apart::insert_hidden(connection, report.host, &moved, clone.first_seen_at, now).await?;
        move_rows(connection, &moved).await?;
        set_apart::copy_streams(connection, &moved, next, now).await?;
        host_conflicts::insert(connection, &conflict).await?;
        host_instances::insert_clone(connection, moved.to, clone).await?;
        events.push(event(&conflict, report));
        moves.push(moved);
        tracing::warn!(
            host = %report.host, clone = %moved.to, instance = %moved.instance,
            "two machines report as this host; one was set apart"
        );
    }
    restore(connection, report, &moves, owner).await?;
    host_conflicts::update_counts(connection, report.host).await?;
    let events: Vec<_> = events.iter().collect();
    events::insert(connection, &events, now).await.map(drop)
}

async fn move_rows(connection: &mut PgConnection, moved: &Move) -> sqlx::Result<()> {
    set_apart::heartbeats(connection, moved).await?;
    set_apart::update_last_seen(connection, moved).await?;
    set_apart::events(connection, moved).await?;
    set_apart::gaps(connection, moved).await?;
    set_apart::dead_letters(connection, moved).await?;
    set_apart::copy_facts(connection, moved).await?;
    store::host_search::update_fact_words(connection, &[moved.to.0])
        .await
        .map(drop)
}

/// Puts `owner` back to where the first of the clones took over, and its process in place.
async fn restore(
    connection: &mut PgConnection,
    report: &Report,
    moves: &[Move],
    owner: HostId,
) -> sqlx::Result<()> {
    let kept = report.batch.instance;
    if let Some(first) = moves.first() {
        set_apart::restore_streams(connection, owner, first.instance).await?;
        set_apart::delete_foreign_streams(connection, owner, first.instance).await?;
    }
    let instances: Vec<Uuid> = moves.iter().map(|moved| moved.instance.0).collect();
    set_apart::delete_foreign_facts(connection, owner, &instances).await?;
    set_apart::restore_facts(connection, owner, &instances, kept).await?;
    for moved in moves {
        set_apart::fact_changes(connection, moved).await?;
        host_instances::delete(connection, owner, moved.instance).await?;
    }
    set_apart::forget_hashes(connection, owner).await?;
    store::host_search::update_fact_words(connection, &[owner.0]).await?;
    store::hosts::update_identity(connection, &[owner.0]).await?;
    set_apart::delete_empty_5m(connection, owner).await?;
    set_apart::delete_empty_1h(connection, owner).await?;
    host_instances::update_back(connection, owner, kept).await?;
    host_instances::update_in_place(connection, owner, kept, report.received_at)
        .await
        .map(drop)
}

fn event(conflict: &NewConflict<'_>, report: &Report) -> Event {
    let (kept, clone) = (conflict.kept, conflict.clone);
    Event {
        host: conflict.host,
        at: report.received_at,
        claimed_at: report.received_at,
        origin: None,
        instance: None,
        kind: "identity_conflict".to_owned(),
        body: json_text(&serde_json::json!({
            "conflict": conflict.conflict,
            "hidden_host": conflict.hidden,
            "instance": kept.instance,
            "boot_id": kept.boot_id,
            "address": kept.address.addr(),
            "first_seen_at": unix_millis(kept.first_seen_at),
            "last_seen_at": unix_millis(report.received_at),
            "other_instance": clone.instance,
            "other_boot_id": clone.boot_id,
            "other_address": clone.address.addr(),
            "other_first_seen_at": unix_millis(clone.first_seen_at),
            "other_last_seen_at": unix_millis(clone.replaced_at.unwrap_or(conflict.now)),
        })),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const REPLACED: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn known(replaced_at: Option<OffsetDateTime>) -> InstanceRow {
        InstanceRow {
            instance: Uuid::nil(),
            ordinal: 1,
            boot_id: Uuid::nil(),
            address: std::net::IpAddr::from([127, 0, 0, 1]).into(),
            first_seen_at: REPLACED - Duration::hours(1),
            replaced_at,
        }
    }

    fn comes_back(after: Duration) -> Claim {
        let other = Some(InstanceId::random());
        let known = known(Some(REPLACED));
        claim(
            InstanceId(known.instance),
            other,
            Some(&known),
            REPLACED + after,
        )
    }

    #[test]
    fn a_process_nobody_knows_takes_over_and_the_one_in_place_stays() {
        let (a, b) = (InstanceId::random(), InstanceId::random());
        assert_eq!(claim(b, Some(a), None, REPLACED), Claim::First);
        assert_eq!(claim(a, None, None, REPLACED), Claim::First);
        let itself = known(None);
        assert_eq!(claim(a, Some(a), Some(&itself), REPLACED), Claim::InPlace);
    }

    #[test]
    fn only_what_is_received_after_the_successors_commit_and_within_10_minutes_comes_back() {
        assert_eq!(comes_back(Duration::seconds(-1)), Claim::InFlight);
        assert_eq!(comes_back(Duration::ZERO), Claim::InFlight);
        assert_eq!(comes_back(Duration::microseconds(1)), Claim::Back);
        assert_eq!(comes_back(Duration::minutes(10)), Claim::Back);
        assert_eq!(comes_back(Duration::seconds(601)), Claim::Again);
    }

    #[test]
    fn before_the_successors_commit_is_known_nobody_comes_back() {
        let known = known(None);
        let claimed = claim(
            InstanceId(known.instance),
            Some(InstanceId::random()),
            Some(&known),
            REPLACED + Duration::minutes(1),
        );
        assert_eq!(claimed, Claim::InFlight);
    }
}
