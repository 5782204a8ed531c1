//! One transaction: lock the hosts and streams, decide, insert, move the cursors, COMMIT.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use infratrack_shared::digest::Digest;
use infratrack_shared::ids::HostId;
use infratrack_shared::wire::answer::WantWhole;
use infratrack_shared::wire::batch::FACTS;
use infratrack_shared::wire::packages::{PACKAGES, UPDATES};
use serde::Deserialize;
use sqlx::{Acquire, PgConnection, Postgres, Transaction};
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;

use crate::agents::writer::clones::{self, Arrived, Verdict};
use crate::agents::writer::plan::{self, Answer, Plan, Planned, dead_letter, rejected};
use crate::agents::writer::{Outcome, Report, Writer};
use crate::backups::ending;
use crate::failpoint::reach;
use crate::store;
use crate::store::events::Event;
use crate::store::heartbeats::Row;
use crate::store::host_instances::Standing;
use crate::store::host_liveness::{Seen, SeenRow};

/// A bucket is summed 4 minutes after its end; from 2 minutes after it, a row for it is late.
const LATE_AFTER: time::Duration = time::Duration::minutes(2);
const BUCKET_S: i64 = 300;

/// Some times what a large group takes: whoever waits on a locked row is not waited for.
const TURN: std::time::Duration = std::time::Duration::from_millis(200);

/// Stores `reports` in one transaction. `careful` finds the rows that can't be stored, one by one.
/// None for those of a group whose process is not in place: each of them is for a transaction of its own.
pub(super) async fn flush(
    writer: &Writer,
    reports: &[&Report],
    careful: bool,
) -> sqlx::Result<Vec<Option<Outcome>>> {
    let mut transaction = writer.own.begin().await?;
    if plan::is_live(reports) {
        let turn = take_turn(writer).await;
        let seen = update_seen(&mut transaction, reports).await?;
        // Of one that is alone, it is found out below what it is instead.
        if reports.len() > 1 || !seen.is_empty() {
            return flush_live(writer, transaction, reports, seen, turn).await;
        }
    }
    let hosts: BTreeSet<_> = reports.iter().map(|report| report.host.0).collect();
    let hosts: Vec<_> = hosts.into_iter().collect();
    let standings = store::host_instances::lock(&mut transaction, &hosts).await?;
    let unsettled: BTreeSet<_> = reports
        .iter()
        .filter(|report| !clones::is_settled(report, &standings))
        .map(|report| report.host)
        .collect();
    if let ([report], [standing]) = (reports, standings.as_slice())
        && !unsettled.is_empty()
    {
        let outcome = settle(writer, transaction, report, standing, careful).await?;
        return Ok(vec![Some(outcome)]);
    }
    let settled: Vec<&Report> = reports
        .iter()
        .filter(|report| !unsettled.contains(&report.host))
        .copied()
        .collect();
    let answers = write(writer, &mut transaction, &settled, careful, None).await?;
    conclude(transaction).await?;
    let is_settled = |report: &Report| !unsettled.contains(&report.host);
    Ok(outcomes(reports, is_settled, answers))
}

/// None where the others take long: it only saves time.
async fn take_turn(writer: &Writer) -> Option<OwnedSemaphorePermit> {
    let turn = Arc::clone(&writer.turn).acquire_owned();
    tokio::time::timeout(TURN, turn).await.ok()?.ok()
}

/// Stores live heartbeats and nothing else, of hosts whose rows are updated, and so locked, already.
async fn flush_live(
    writer: &Writer,
    mut transaction: Transaction<'static, Postgres>,
    reports: &[&Report],
    seen: HashMap<HostId, SeenRow>,
    turn: Option<OwnedSemaphorePermit>,
) -> sqlx::Result<Vec<Option<Outcome>>> {
    let hosts: HashSet<_> = seen.keys().copied().collect();
    let is_settled = |report: &Report| hosts.contains(&report.host);
    let settled = reports.iter().copied().filter(|report| is_settled(report));
    let settled: Vec<_> = settled.collect();
    let answers = write(writer, &mut transaction, &settled, false, Some(seen)).await?;
    drop(turn);
    conclude(transaction).await?;
    Ok(outcomes(reports, is_settled, answers))
}

/// The answers of the settled ones of `reports`, at their places.
fn outcomes(
    reports: &[&Report],
    is_settled: impl Fn(&Report) -> bool,
    answers: Vec<Answer>,
) -> Vec<Option<Outcome>> {
    let mut answers = answers.into_iter();
    let outcome = |report: &&Report| {
        let answer = is_settled(report).then(|| answers.next()).flatten();
        answer.map(|answer| answer.into_outcome(report.host))
    };
    reports.iter().map(outcome).collect()
}

/// Stores one batch whose process is not in place, as that of whose it is.
async fn settle(
    writer: &Writer,
    mut transaction: Transaction<'static, Postgres>,
    report: &Report,
    standing: &Standing,
    careful: bool,
) -> sqlx::Result<Outcome> {
    let now = writer.clock.now();
    let (host, arrived) = match clones::settle(&mut transaction, report, standing, now).await? {
        Verdict::Take { host, arrived } => (host, arrived),
        Verdict::InFlight => {
            transaction.commit().await?;
            return Ok(Outcome::InFlight);
        }
        Verdict::SetApart => return Ok(Outcome::SetApart),
        Verdict::Blocked => return Ok(Outcome::Blocked),
    };
    let report = Report {
        host,
        ..report.clone()
    };
    if arrived == Arrived::Again && clones::was_overtaken(&mut transaction, &report).await? {
        return Ok(Outcome::Forked);
    }
    let answers = write(writer, &mut transaction, &[&report], careful, None).await?;
    let outcome = answers.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
    let outcome = outcome.into_outcome(host);
    if outcome == Outcome::Forked && arrived != Arrived::Back {
        // Nothing of it is stored, so it has taken nothing over.
        return Ok(outcome);
    }
    conclude(transaction).await?;
    if arrived != Arrived::Before {
        note_replaced(writer, host).await;
    }
    Ok(outcome)
}

/// Says since when whoever was in place before `host`'s process is replaced: from now, after the commit.
async fn note_replaced(writer: &Writer, host: HostId) {
    let noted = async {
        let mut connection = writer.pool.acquire().await?;
        let now = writer.clock.now();
        store::host_instances::update_replaced(&mut connection, host, now).await
    };
    if let Err(error) = noted.await {
        // The next batch of the one that was replaced notes it.
        tracing::warn!(%error, %host, "a replaced process was not noted as such");
    }
}

/// Writes what `reports`, whose processes are in place, say. `seen` are the hosts' rows where they are updated.
async fn write(
    writer: &Writer,
    transaction: &mut PgConnection,
    reports: &[&Report],
    careful: bool,
    seen: Option<HashMap<HostId, SeenRow>>,
) -> sqlx::Result<Vec<Answer>> {
    let now = writer.clock.now();
    let streams = plan::streams(reports);
    let locked = if streams.is_empty() {
        Vec::new()
    } else {
        store::agent_streams::lock(transaction, &streams, now).await?
    };
    let forked = clones::forked(transaction, reports, &locked).await?;
    let mut plan = plan::plan(reports, locked, &forked);
    insert_heartbeats(writer, transaction, &plan.heartbeats, now).await?;
    if !plan.events.is_empty() {
        insert_events(transaction, &mut plan, reports, careful, now).await?;
    }
    finish_commands(transaction, &plan, reports, now).await?;
    for (host, ended) in &plan.ended {
        // Of a volume that is not the host's nothing is left but the event.
        ending::end(transaction, *host, ended, now).await?;
    }
    store_facts(transaction, &plan, now).await?;
    if !plan.gaps.is_empty() {
        store::gaps::insert(transaction, &plan.gaps, now).await?;
    }
    for letter in &plan.dead {
        store::dead_letters::insert(transaction, letter, now).await?;
    }
    let seen = match seen {
        Some(seen) => seen,
        None => update_seen(transaction, &taken(reports, &plan.answers)).await?,
    };
    ask_for_wholes(&mut plan, reports, &seen);
    if !plan.streams.is_empty() {
        let moved: Vec<_> = plan.streams.values().copied().collect();
        let updated = store::agent_streams::update(transaction, &moved).await?;
        if updated != moved.len() as u64 {
            return Err(sqlx::Error::RowNotFound);
        }
    }
    Ok(plan.answers)
}

async fn conclude(transaction: Transaction<'static, Postgres>) -> sqlx::Result<()> {
    reach("writer::stored");
    commit(transaction).await?;
    reach("writer::committed");
    Ok(())
}

#[cfg(not(feature = "mutant-ack-before-commit"))]
async fn commit(transaction: Transaction<'static, Postgres>) -> sqlx::Result<()> {
    transaction.commit().await
}

/// What the tests must notice: the answer leaves, the COMMIT may never come.
#[cfg(feature = "mutant-ack-before-commit")]
#[expect(clippy::unused_async, reason = "stands for the one above")]
async fn commit(transaction: Transaction<'static, Postgres>) -> sqlx::Result<()> {
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        drop(transaction.commit().await);
    });
    Ok(())
}

async fn insert_heartbeats(
    writer: &Writer,
    connection: &mut PgConnection,
    rows: &[Row<'_>],
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    // Partitions are whole days; the oldest that is surely there begins with the day of this instant.
    let oldest = (now - writer.heartbeats_kept).replace_time(time::Time::MIDNIGHT);
    let (mut raw, late): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.at >= oldest);
    let doubtful = raw.iter().filter(|row| row.may_move);
    let doubtful: Vec<_> = doubtful.map(|row| row.key()).collect();
    if !doubtful.is_empty() {
        let known = store::heartbeats::list_known(connection, &doubtful).await?;
        let known: HashSet<_> = known.into_iter().collect();
        raw.retain(|row| !row.may_move || !known.contains(&row.key()));
    }
    if !raw.is_empty() {
        store::heartbeats::insert(connection, &raw).await?;
    }
    for row in late {
        store::rollups::add_late(connection, row).await?;
    }
    let dirty: BTreeSet<_> = raw
        .iter()
        .map(|row| {
            (
                row.host.0,
                row.at.unix_timestamp().div_euclid(BUCKET_S) * BUCKET_S,
            )
        })
        .filter(|(_, bucket)| bucket + BUCKET_S + LATE_AFTER.whole_seconds() < now.unix_timestamp())
        .collect();
    if !dirty.is_empty() {
        let (hosts, buckets): (Vec<_>, Vec<_>) = dirty.into_iter().unzip();
        let buckets: Vec<_> = buckets
            .into_iter()
            .flat_map(OffsetDateTime::from_unix_timestamp)
            .collect();
        store::rollups::mark_dirty(connection, &hosts, &buckets).await?;
    }
    Ok(())
}

async fn insert_events(
    connection: &mut PgConnection,
    plan: &mut Plan<'_>,
    reports: &[&Report],
    careful: bool,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    if !careful {
        let events: Vec<&Event> = plan.events.iter().map(|planned| &planned.event).collect();
        return store::events::insert(connection, &events, now)
            .await
            .map(drop);
    }
    let all: Vec<&Planned<'_>> = plan.events.iter().collect();
    let mut refused = Vec::new();
    let mut open = vec![all.as_slice()];
    while let Some(some) = open.pop() {
        let events: Vec<&Event> = some.iter().map(|planned| &planned.event).collect();
        let mut savepoint = connection.begin().await?;
        match store::events::insert(&mut savepoint, &events, now).await {
            Ok(_) => savepoint.commit().await?,
            Err(error) if super::kind(&error) == super::Failure::Data => {
                savepoint.rollback().await?;
                match some {
                    [one] => refused.push((*one, error.to_string())),
                    _ => open.extend([
                        some.split_at(some.len() / 2).1,
                        some.split_at(some.len() / 2).0,
                    ]),
                }
            }
            Err(error) => return Err(error),
        }
    }
    for (planned, error) in refused {
        let Some(report) = reports.get(planned.report) else {
            continue;
        };
        plan.dead
            .push(dead_letter(report, planned.class, planned.record, &error));
        if let Some(Answer::Ack(ack)) = plan.answers.get_mut(planned.report) {
            ack.rejected
                .push(rejected(planned.class, planned.record.seq, "not_storable"));
        }
    }
    Ok(())
}

async fn finish_commands(
    connection: &mut PgConnection,
    plan: &Plan<'_>,
    reports: &[&Report],
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let seen: BTreeSet<_> = reports
        .iter()
        .flat_map(|report| {
            report
                .batch
                .commands_seen
                .iter()
                .map(|id| (report.host.0, id.0))
        })
        .collect();
    if !seen.is_empty() {
        let (hosts, commands): (Vec<_>, Vec<_>) = seen.into_iter().unzip();
        store::commands::confirm(connection, &hosts, &commands, now).await?;
    }
    for (host, result) in &plan.results {
        let outcome = serde_json::to_value(result.outcome).unwrap_or_default();
        let outcome = outcome.as_str().unwrap_or("other");
        let detail = result.detail.as_deref().map(store::storable);
        store::commands::finish(
            connection,
            *host,
            result.id,
            outcome,
            detail.as_deref(),
            now,
        )
        .await?;
    }
    Ok(())
}

async fn store_facts(
    connection: &mut PgConnection,
    plan: &Plan<'_>,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    if plan.facts.is_empty() {
        return Ok(());
    }
    let (lists, facts): (Vec<_>, Vec<_>) = plan.facts.values().partition(|fact| fact.key == FACTS);
    let mut changes = store::facts::upsert(connection, &facts, now).await?;
    for list in &lists {
        // Anything but a list of texts leaves every fact in place.
        if let Ok(keys) = Vec::deserialize(&list.body) {
            changes += store::facts::delete_unlisted(connection, list, &keys, now).await?;
        }
    }
    let hosts: BTreeSet<_> = plan.facts.values().map(|fact| fact.host.0).collect();
    let hosts: Vec<_> = hosts.into_iter().collect();
    let mut by_host: BTreeMap<HostId, Vec<(String, Digest)>> = BTreeMap::new();
    for (host, key, hash) in store::facts::list_hashes(connection, &hosts).await? {
        by_host.entry(host).or_default().push((key, hash));
    }
    let hashes: Vec<_> = by_host
        .iter()
        .map(|(host, facts)| {
            (
                *host,
                Digest::of_set(facts.iter().map(|(key, hash)| (key.as_str(), *hash))),
            )
        })
        .collect();
    store::host_liveness::update_facts_hash(connection, &hashes).await?;
    if changes > 0 {
        store::host_search::update_fact_words(connection, &hosts).await?;
    }
    store::hosts::update_identity(connection, &hosts)
        .await
        .map(drop)
}

/// The reports that were not answered as a copy's.
fn taken<'a>(reports: &[&'a Report], answers: &[Answer]) -> Vec<&'a Report> {
    let taken = reports
        .iter()
        .zip(answers)
        .filter_map(|(report, answer)| match answer {
            Answer::Ack(_) => Some(*report),
            Answer::Forked => None,
        });
    taken.collect()
}

/// Moves the rows of the hosts in `reports`, each by its last heartbeat.
async fn update_seen(
    connection: &mut PgConnection,
    reports: &[&Report],
) -> sqlx::Result<HashMap<HostId, SeenRow>> {
    let last: BTreeMap<_, _> = reports
        .iter()
        .filter_map(|report| Some((report.host, seen(report)?)))
        .collect();
    if last.is_empty() {
        return Ok(HashMap::new());
    }
    let last: Vec<_> = last.into_values().collect();
    let rows = store::host_liveness::update_seen(connection, &last).await?;
    Ok(rows
        .into_iter()
        .map(|row| (HostId(row.host_id), row))
        .collect())
}

/// Where what a heartbeat says of the facts, or of the large state, differs from what is stored, asks for it.
fn ask_for_wholes(plan: &mut Plan<'_>, reports: &[&Report], seen: &HashMap<HostId, SeenRow>) {
    for (report, answer) in reports.iter().zip(&mut plan.answers) {
        let (Some(heartbeat), Answer::Ack(ack)) = (&report.batch.heartbeat, answer) else {
            continue;
        };
        let stored = seen.get(&report.host);
        let facts = stored.and_then(|row| row.facts_hash.as_deref());
        let inventory = stored.and_then(|row| row.inventory_hash.as_deref());
        let asked: [(_, _, &[&str]); 2] = [
            (heartbeat.facts_hash, facts, &[FACTS]),
            (heartbeat.inventory_hash, inventory, &[PACKAGES, UPDATES]),
        ];
        for (told, stored, keys) in asked {
            if told.is_some() && told != stored.and_then(Digest::from_slice) {
                let wants = keys.iter().map(|&key| WantWhole {
                    key: key.to_owned(),
                });
                ack.want_whole.extend(wants);
            }
        }
    }
}

fn seen(report: &Report) -> Option<Seen<'_>> {
    let heartbeat = report.batch.heartbeat.as_ref()?;
    Some(Seen {
        host: report.host,
        received_at: report.received_at,
        instance: report.batch.instance,
        boot_id: report.batch.boot_id,
        skew_ms: report.skew_ms,
        disk_used_ratio: store::heartbeats::disk_used_ratio(heartbeat),
        heartbeat,
    })
}
