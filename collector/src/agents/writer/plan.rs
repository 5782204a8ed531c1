//! What a group of batches becomes: decided in memory, under the locks of its streams.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use infratrack_shared::ids::{HostId, InstanceId, StreamId};
use infratrack_shared::wire::answer::{Ack, Cursor, Expected, Rejected, StateAck};
use infratrack_shared::wire::batch::{Batch, Body, Class, Part, Record, StatePart};
use infratrack_shared::wire::event::Event as Known;

use sqlx::types::Json;

use crate::agents::arrival::{self, Clocks, Effective};
use crate::agents::cursor::{Decision, decide};
use crate::agents::writer::{Outcome, Report, json};
use crate::store::agent_streams::Stream;
use crate::store::dead_letters::DeadLetter;
use crate::store::events::Event;
use crate::store::facts::Fact;
use crate::store::gaps::Gap;
use crate::store::heartbeats::Row;
use crate::store::{timestamp, unix_millis};

/// Everything a flush stores, and the answers it gives once that is committed.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    pub heartbeats: Vec<Row<'a>>,
    pub events: Vec<Planned<'a>>,
    pub results: Vec<(HostId, infratrack_shared::wire::event::CommandResult)>,
    /// How runs of backups ended.
    pub ended: Vec<(HostId, infratrack_shared::wire::backup::EndRun)>,
    pub facts: BTreeMap<(HostId, String), Fact>,
    pub gaps: Vec<Gap>,
    pub dead: Vec<DeadLetter>,
    pub streams: BTreeMap<(HostId, StreamId), Stream>,
    /// For each report, in order.
    pub answers: Vec<Answer>,
}

/// An event, and which report and record it is of, to say so should it be refused.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub event: Event,
    pub report: usize,
    pub class: Class,
    pub record: &'a Record,
}

/// What a report is answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Ack(Ack),
    Forked,
}

impl Answer {
    /// What becomes of a batch of `host` that is answered so, once that is committed.
    pub(super) fn into_outcome(self, host: HostId) -> Outcome {
        match self {
            Self::Ack(ack) => Outcome::Stored { host, ack },
            Self::Forked => Outcome::Forked,
        }
    }
}

/// Whether none of `reports` has anything but a live heartbeat, and no host two processes in them. The hosts'
/// rows are all that such a group has to lock.
pub(super) fn is_live(reports: &[&Report]) -> bool {
    let mut instances = HashMap::with_capacity(reports.len());
    reports.iter().all(|report| {
        let batch = &report.batch;
        let in_place = instances.entry(report.host).or_insert(batch.instance);
        is_heartbeat(batch) && *in_place == batch.instance
    })
}

fn is_heartbeat(batch: &Batch) -> bool {
    batch.heartbeat.is_some() && batch.parts.is_empty() && batch.state.is_empty()
}

/// The hosts in a group that sent more than heartbeats.
pub(super) fn busy_hosts<'a>(reports: impl Iterator<Item = &'a Report>) -> HashSet<HostId> {
    let busy = reports.filter(|report| !is_heartbeat(&report.batch));
    busy.map(|report| report.host).collect()
}

/// How many rows a batch is, about.
pub(super) fn rows(batch: &Batch) -> usize {
    let records: usize = batch.parts.iter().map(|part| part.records.len()).sum();
    1 + records + batch.state.len()
}

/// The streams whose rows the group moves or orders by.
pub(super) fn streams(reports: &[&Report]) -> Vec<(HostId, StreamId, InstanceId)> {
    let moving = reports
        .iter()
        .filter(|r| !r.batch.parts.is_empty() || !r.batch.state.is_empty());
    let unique: BTreeMap<_, _> = moving
        .map(|r| ((r.host, r.batch.stream), r.batch.instance))
        .collect();
    unique
        .into_iter()
        .map(|((host, stream), instance)| (host, stream, instance))
        .collect()
}

/// Decides the group, whose streams are `locked`. The reports `forked` by number are known to be of a copy.
pub(super) fn plan<'a>(
    reports: &[&'a Report],
    locked: Vec<Stream>,
    forked: &BTreeSet<usize>,
) -> Plan<'a> {
    let mut plan = Plan {
        streams: locked
            .into_iter()
            .map(|row| ((row.host, row.stream), row))
            .collect(),
        ..Plan::default()
    };
    for (index, report) in reports.iter().enumerate() {
        let answer = if forked.contains(&index) {
            Answer::Forked
        } else {
            plan.report(index, report)
        };
        plan.answers.push(answer);
    }
    plan.keep_each_once();
    plan.heartbeats
        .sort_by_key(|row| (row.host, row.at, row.heartbeat.stream, row.heartbeat.n));
    plan.events.sort_by_key(|planned| planned.event.host);
    plan.ended.sort_by_key(|(host, ended)| (*host, ended.run));
    plan.gaps
        .sort_by_key(|gap| (gap.host, gap.stream, gap.class, gap.from_seq));
    plan
}

impl<'a> Plan<'a> {
    /// A heartbeat that came twice before either was stored, under times that may differ, is kept as it came
    /// first. What is in the table is compared there; what is in one statement, nowhere but here.
    fn keep_each_once(&mut self) {
        if self.heartbeats.iter().all(|row| !row.may_move) {
            return;
        }
        let mut seen = HashSet::with_capacity(self.heartbeats.len());
        self.heartbeats.retain(|row| {
            let heartbeat = row.heartbeat;
            seen.insert((row.host, heartbeat.stream, heartbeat.n, row.claimed_at))
        });
    }

    fn report(&mut self, index: usize, report: &'a Report) -> Answer {
        let batch = &report.batch;
        let mut decisions = Vec::new();
        for part in &batch.parts {
            let Some(row) = self.streams.get(&(report.host, batch.stream)) else {
                continue;
            };
            let cursor = row.of(part.class);
            match decide(cursor, part) {
                Decision::Forked => return Answer::Forked,
                decision @ (Decision::Advance { .. } | Decision::Expected(_)) => {
                    decisions.push((part, decision));
                }
            }
        }
        let mut ack = Ack {
            server_time: unix_millis(report.received_at),
            ..Ack::default()
        };
        for (part, decision) in decisions {
            self.part(index, report, part, decision, &mut ack);
        }
        for state in &batch.state {
            self.state(report, state, &mut ack);
        }
        if let Some(heartbeat) = &batch.heartbeat {
            let mono_ms = Some(heartbeat.mono_ms);
            let effective = arrival::effective(heartbeat.at, mono_ms, clocks(report));
            self.heartbeats.push(row(report, heartbeat, effective));
        }
        Answer::Ack(ack)
    }

    fn part(
        &mut self,
        index: usize,
        report: &'a Report,
        part: &'a Part,
        decision: Decision<'a>,
        ack: &mut Ack,
    ) {
        let (class, stream) = (part.class, report.batch.stream);
        let (records, lost, cursor) = match decision {
            Decision::Advance {
                records,
                lost,
                cursor,
            } => (records, lost, cursor),
            Decision::Expected(seq) => {
                ack.expected.push(Expected { stream, class, seq });
                return;
            }
            Decision::Forked => return,
        };
        for record in records {
            self.record(index, report, class, record, ack);
        }
        self.gaps.extend(lost.into_iter().map(|lost| {
            Gap {
                host: report.host,
                stream,
                class,
                from_seq: lost.from,
                to_seq: lost.to,
                reason: serde_json::to_value(lost.reason)
                    .ok()
                    .and_then(|reason| reason.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                instance: report.batch.instance,
            }
        }));
        if let Some(row) = self.streams.get_mut(&(report.host, stream)) {
            row.instance = report.batch.instance;
            match class {
                Class::Critical => row.critical = cursor,
                Class::Beat => row.beat = cursor,
            }
        }
        ack.cursors.push(Cursor {
            stream,
            class,
            acked_seq: cursor.seq,
        });
    }

    fn record(
        &mut self,
        index: usize,
        report: &'a Report,
        class: Class,
        record: &'a Record,
        ack: &mut Ack,
    ) {
        let mono_ms = record.boot_id.is_none().then_some(record.mono_ms);
        let effective = arrival::effective(record.at, mono_ms, clocks(report));
        let body = match &record.body {
            Body::Heartbeat(heartbeat) => {
                self.heartbeats.push(row(report, heartbeat, effective));
                return;
            }
            Body::Event(body) => body,
        };
        let stream = report.batch.stream;
        if Known::KINDS.contains(&record.kind.as_str()) {
            match Known::from_body(&record.kind, body) {
                Ok(Known::CommandResult(result)) => self.results.push((report.host, result)),
                Ok(Known::BackupResult(ended)) => self.ended.push((report.host, ended)),
                Ok(_) => {}
                Err(error) => {
                    self.dead
                        .push(dead_letter(report, class, record, &describe(&error)));
                    ack.rejected
                        .push(rejected(class, record.seq, "body_invalid"));
                    return;
                }
            }
        }
        let boot = record.boot_id.unwrap_or(report.batch.boot_id);
        let event = Event {
            host: report.host,
            at: timestamp(effective.at),
            claimed_at: timestamp(record.at),
            origin: Some((stream, record.seq, boot, record.mono_ms)),
            instance: Some(report.batch.instance),
            kind: record.kind.clone(),
            body: Json(json::text(body)),
        };
        self.events.push(Planned {
            event,
            report: index,
            class,
            record,
        });
    }

    fn state(&mut self, report: &Report, state: &StatePart, ack: &mut Ack) {
        let Some(row) = self.streams.get(&(report.host, report.batch.stream)) else {
            return;
        };
        if state.parts != 1 || state.base_hash.is_some() || state.key.contains('\0') {
            ack.rejected.push(Rejected {
                key: Some(state.key.clone()),
                version: Some(state.version),
                code: "state_parts_unsupported".to_owned(),
                ..Rejected::default()
            });
            return;
        }
        let fact = Fact {
            host: report.host,
            key: state.key.clone(),
            stream_ordinal: row.ordinal,
            version: state.version,
            hash: state.new_hash,
            body: json::tree(&state.body),
            instance: report.batch.instance,
        };
        let newest = self
            .facts
            .entry((report.host, state.key.clone()))
            .or_insert_with(|| fact.clone());
        if (fact.stream_ordinal, fact.version) > (newest.stream_ordinal, newest.version) {
            *newest = fact;
        }
        ack.state.push(StateAck {
            key: state.key.clone(),
            version: state.version,
            part: 0,
        });
    }
}

fn clocks(report: &Report) -> Clocks {
    Clocks {
        received_at: unix_millis(report.received_at),
        skew_ms: report.skew_ms,
        mono_ms: report.batch.mono_ms,
    }
}

fn row<'a>(
    report: &Report,
    heartbeat: &'a infratrack_shared::wire::heartbeat::Heartbeat,
    effective: Effective,
) -> Row<'a> {
    Row {
        host: report.host,
        at: timestamp(effective.at),
        may_move: effective.may_move,
        claimed_at: timestamp(heartbeat.at),
        received_at: report.received_at,
        instance: report.batch.instance,
        heartbeat,
    }
}

/// A record that is kept whole although it can't be stored as what it is.
pub(super) fn dead_letter(
    report: &Report,
    class: Class,
    record: &Record,
    error: &str,
) -> DeadLetter {
    let body = match &record.body {
        Body::Heartbeat(heartbeat) => infratrack_shared::codec::encode(heartbeat),
        Body::Event(body) => infratrack_shared::codec::encode(body),
    };
    DeadLetter {
        host: report.host,
        stream: report.batch.stream,
        class,
        seq: record.seq,
        kind: record.kind.clone(),
        claimed_at: record.at,
        error: error.to_owned(),
        instance: report.batch.instance,
        body: body.unwrap_or_default(),
    }
}

/// What the agent is told of it.
pub(super) fn rejected(class: Class, seq: u64, code: &str) -> Rejected {
    Rejected {
        class: Some(class),
        seq: Some(seq),
        code: code.to_owned(),
        ..Rejected::default()
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
