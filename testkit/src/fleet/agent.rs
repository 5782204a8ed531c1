//! One simulated agent: the daemon's loop without a host to observe, over the daemon's own client code.
//!
//! What it does on errors is `daemon/link.rs`, scaled; where the daemon opens a second connection beside
//! a held answer, this one waits for the answer's end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use infratrack_agent::backoff::{self, Backoff};
use infratrack_agent::collect;
use infratrack_agent::reporter::{Report, ReportError, Reported, Reporter};
use infratrack_agent::spool::{Budget, NewRecord, Spool, SpoolError};
use infratrack_agent::uplink::{Answer, Connection, UplinkError};
use infratrack_shared::ids::{CommandId, InstanceId, StreamId};
use infratrack_shared::limits;
use infratrack_shared::wire::answer::Frame;
use infratrack_shared::wire::batch::{Body, Class};
use infratrack_shared::wire::heartbeat::Heartbeat;
use rmpv::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::enroll::Member;
use super::failure;
use super::heartbeat::Host;
use super::sent::Sent;
use super::stats::add;
use crate::ledger::Item;

/// The kind of the records.
const KIND: &str = "fleet_event";
/// An answer is held until so long before the next heartbeat.
const HOLD_MARGIN: Duration = Duration::from_millis(50);
/// As the daemon's.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// More than the reporter takes of either limit: what it sends is among what is looked at.
const LOOK: Budget = Budget {
    records: limits::BATCH_RECORDS,
    bytes: limits::BATCH_BYTES,
    items: limits::ITEMS,
};

/// An agent and what it knows.
pub(super) struct Agent {
    shared: Arc<Shared>,
    member: Member,
    host: Host,
    spool: Spool,
    reporter: Reporter,
    connection: Option<Connection>,
    /// It had a connection before.
    connected: bool,
    held: Option<Answer>,
    backoff: Backoff,
    not_before: Instant,
    next_beat: Instant,
    next_backlog: Option<Instant>,
    due: Option<Heartbeat>,
    /// How far each stream's critical records are acknowledged.
    acknowledged_to: HashMap<StreamId, u64>,
    commands_seen: Vec<CommandId>,
    policy_version: u64,
    stopping: bool,
}

impl Agent {
    pub(super) fn new(shared: Arc<Shared>, index: usize, member: Member, spool: Spool) -> Self {
        let config = &shared.config;
        let clock = config.clock.clone();
        let (instance, boot_id) = (InstanceId::random(), member.boot_id);
        let mut reporter = Reporter::new(spool.clone(), clock, instance, boot_id);
        reporter.batch_records = config.batch_records.clamp(1, limits::BATCH_RECORDS);
        let host = Host::new(config.seed, index);
        let now = Instant::now();
        Self {
            reporter,
            next_beat: now,
            next_backlog: (config.backlog > 0).then_some(now),
            host,
            member,
            spool,
            connection: None,
            connected: false,
            held: None,
            backoff: Backoff::default(),
            not_before: now,
            due: None,
            acknowledged_to: HashMap::new(),
            commands_seen: Vec::new(),
            policy_version: 0,
            stopping: false,
            shared,
        }
    }

    /// Runs until it is asked to stop and has sent everything.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let phase = self.host.part();
        self.next_beat = Instant::now() + self.shared.config.interval.mul_f64(phase);
        loop {
            let wake = self.wake();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop), if !self.stopping => self.begin_stop(),
                frame = next_frame(&mut self.held) => self.frame(frame),
                () = tokio::time::sleep_until(wake) => {}
            }
            self.step().await?;
            if self.stopping && self.due.is_none() && self.queued() == 0 {
                break;
            }
        }
        match self.spool.close().await {
            Ok(()) | Err(SpoolError::Closed) => {}
            // Of a disk that was full a moment ago: what it holds is judged by the tables.
            Err(error) => tracing::warn!(%error, "the spool was not closed in order"),
        }
        Ok(())
    }

    /// Puts `count` records into the spool, and into the ledger.
    pub(super) async fn offer_records(&mut self, count: usize) -> anyhow::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let first = self
            .shared
            .next_unique
            .fetch_add(count as u64, Ordering::Relaxed);
        self.shared.ledger.append(&[Item::RecordsIntended {
            host: self.member.host,
            first,
            count: count as u64,
        }])?;
        let (at, mono_ms) = (self.shared.config.clock.now(), collect::mono_ms());
        let record = |unique: u64| NewRecord {
            at,
            mono_ms,
            boot_id: self.member.boot_id,
            kind: KIND.to_owned(),
            body: Body::Event(event(unique, self.shared.config.event_bytes)),
        };
        let queued = self.spool.usage().critical_records;
        let uniques = first..first + count as u64;
        let records = uniques.clone().map(record).collect();
        let last = match self.spool.append(Class::Critical, records).await {
            Ok(last) => last,
            Err(error) => {
                // None was taken, or so it seems: nothing is promised of them.
                tracing::warn!(%error, "records were not taken");
                self.shared.counters.error("spool".to_owned());
                return Ok(());
            }
        };
        let stream = self.spool.stream();
        let numbers = last + 1 - count as u64..=last;
        let before = numbers.start().saturating_sub(1 + queued);
        self.acknowledged_to.entry(stream).or_insert(before);
        let offered = numbers
            .zip(uniques)
            .map(|(seq, unique)| Item::RecordOffered {
                host: self.member.host,
                stream,
                class: Class::Critical,
                seq,
                unique,
            });
        add(&self.shared.counters.records_offered, count as u64);
        self.shared.ledger.append(&offered.collect::<Vec<_>>())
    }

    fn begin_stop(&mut self) {
        self.stopping = true;
        // The connection is needed for what is queued.
        if self.held.take().is_some() {
            self.connection = None;
        }
        self.next_backlog = (self.queued() > 0).then(Instant::now);
    }

    /// Records in the spool.
    fn queued(&self) -> u64 {
        let usage = self.spool.usage();
        usage.critical_records + usage.beat_records
    }

    fn wake(&self) -> Instant {
        let mut wake = (!self.stopping).then_some(self.next_beat);
        if self.held.is_none() {
            let due = self.due.is_some().then_some(self.not_before);
            let backlog = self.next_backlog.map(|at| at.max(self.not_before));
            wake = [wake, due, backlog].into_iter().flatten().min();
        }
        wake.unwrap_or_else(|| Instant::now() + self.shared.config.interval)
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        if now >= self.next_beat && !self.stopping {
            self.beat().await?;
        }
        let backlog = self.next_backlog.is_some_and(|at| now >= at);
        let idle = self.held.is_none();
        if (self.due.is_some() || backlog) && idle && Instant::now() >= self.not_before {
            self.report().await?;
        }
        Ok(())
    }

    async fn beat(&mut self) -> anyhow::Result<()> {
        let interval = self.shared.config.interval;
        // An interval that was missed as a whole is missed.
        while self.next_beat <= Instant::now() {
            self.next_beat += interval;
        }
        self.offer_records(self.shared.config.events_per_beat)
            .await?;
        let id = match self.spool.heartbeat_number().await {
            Ok(n) => (self.spool.stream(), n),
            Err(error) => {
                tracing::warn!(%error, "no heartbeat: it has no number");
                return Ok(());
            }
        };
        let at = self.shared.config.clock.now();
        let mono_ms = collect::mono_ms();
        let heartbeat = self.host.heartbeat(id, at, mono_ms, self.spool.usage());
        add(&self.shared.counters.heartbeats_offered, 1);
        self.shared.ledger.append(&[Item::HeartbeatOffered {
            host: self.member.host,
            stream: id.0,
            n: id.1,
        }])?;
        self.reporter.keep(self.due.replace(heartbeat)).await;
        Ok(())
    }

    /// Sends what there is, and notes what was acknowledged.
    async fn report(&mut self) -> anyhow::Result<()> {
        self.next_backlog = None;
        let heartbeat = self.due.take();
        if let Err(error) = self.connect().await {
            self.reporter.keep(heartbeat).await;
            self.failed(&error);
            return Ok(());
        }
        let Some(mut connection) = self.connection.take() else {
            return Ok(());
        };
        let sent = Sent {
            live: heartbeat.as_ref().map(|beat| (beat.stream, beat.n)),
            beats: self.queued_beats().await,
        };
        let stream = self.spool.stream();
        let wait = self.wait();
        let report = Report {
            heartbeat,
            commands_seen: self.commands_seen.clone(),
            policy_version: self.policy_version,
            wait,
            ..Report::default()
        };
        let started = Instant::now();
        let reported = self.reporter.report(&mut connection, report).await;
        if self.spool.stream() != stream {
            let host = self.member.host;
            self.shared.ledger.append(&[Item::Forked { host }])?;
            add(&self.shared.counters.forks, 1);
        }
        match reported {
            Ok(reported) => {
                self.shared.counters.latency.record(started.elapsed());
                self.connection = Some(connection);
                self.acknowledged(&sent, reported, wait).await
            }
            Err(ReportError::Uplink(error)) => {
                self.failed(&error);
                Ok(())
            }
            Err(ReportError::Spool(error)) => {
                tracing::warn!(%error, "the spool failed a report");
                self.shared.counters.error("spool".to_owned());
                let wait = self.backoff.after_failure();
                self.put_off(wait);
                Ok(())
            }
        }
    }

    async fn connect(&mut self) -> Result<(), UplinkError> {
        self.connection = self.connection.take().filter(Connection::is_open);
        if self.connection.is_some() {
            return Ok(());
        }
        let _permit = self.shared.handshakes.acquire().await;
        self.connection = Some(Connection::open(&self.member.endpoint).await?);
        add(&self.shared.counters.connects, 1);
        if std::mem::replace(&mut self.connected, true) {
            add(&self.shared.counters.reconnects, 1);
        }
        Ok(())
    }

    async fn acknowledged(
        &mut self,
        sent: &Sent,
        reported: Reported,
        wait: Duration,
    ) -> anyhow::Result<()> {
        let Reported {
            ack,
            mut answer,
            had_records,
            ..
        } = reported;
        self.backoff.reset();
        self.commands_seen.clear();
        let counters = &self.shared.counters;
        let items = sent.acknowledged(self.member.host, &ack);
        let beat = |item: &&Item| matches!(item, Item::HeartbeatAcknowledged { .. });
        add(&counters.requests, 1);
        add(
            &counters.heartbeats_acknowledged,
            items.iter().filter(beat).count() as u64,
        );
        for cursor in &ack.cursors {
            if cursor.class == Class::Critical {
                let before = self.acknowledged_to.entry(cursor.stream).or_default();
                let more = cursor.acked_seq.saturating_sub(*before);
                *before += more;
                add(&counters.records_acknowledged, more);
            }
        }
        for rejected in &ack.rejected {
            counters.error(format!("rejected {}", rejected.code));
        }
        self.shared.ledger.append(&items)?;
        let more = had_records && self.queued() > 0;
        self.next_backlog = more.then(|| Instant::now() + self.shared.config.pace);
        if !wait.is_zero() {
            self.held = Some(answer);
            return Ok(());
        }
        loop {
            match answer.next_frame().await {
                Ok(Some(frame)) => self.obey(frame),
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.broken(&error);
                    return Ok(());
                }
            }
        }
    }

    fn frame(&mut self, frame: Result<Option<Frame>, UplinkError>) {
        match frame {
            Ok(Some(frame)) => self.obey(frame),
            Ok(None) => self.held = None,
            Err(error) => self.broken(&error),
        }
    }

    fn obey(&mut self, frame: Frame) {
        if let Some(policy) = frame.policy {
            self.policy_version = policy.version;
        }
        if let Some(command) = frame.command {
            add(&self.shared.counters.commands, 1);
            self.commands_seen.push(command.id);
        }
        if frame.goaway.is_some() {
            self.held = None;
            self.connection = None;
            self.shared.counters.error("goaway".to_owned());
            self.put_off(backoff::up_to(ELSEWHERE));
        }
    }

    /// The rest of an answer broke: what it acknowledged is.
    fn broken(&mut self, error: &UplinkError) {
        self.held = None;
        self.connection = None;
        self.shared
            .counters
            .error(format!("held answer: {}", failure::kind(error)));
        self.put_off(backoff::up_to(backoff::AFTER_LOSS));
    }

    fn failed(&mut self, error: &UplinkError) {
        tracing::debug!(%error, host = %self.member.host, "no report reached the collector");
        self.connection = None;
        self.shared.counters.error(failure::kind(error));
        let wait = failure::wait(error, &mut self.backoff);
        self.put_off(wait);
    }

    fn put_off(&mut self, wait: Duration) {
        let now = Instant::now();
        self.not_before = now + wait.mul_f64(self.shared.config.backoff_scale);
        self.next_backlog = Some(now);
    }

    /// The heartbeats among what is sent next.
    async fn queued_beats(&self) -> Vec<(u64, StreamId, u64)> {
        if self.spool.usage().beat_records == 0 {
            return Vec::new();
        }
        let next = self.spool.next(LOOK, self.member.boot_id).await;
        let parts = next.ok().flatten().map(|next| next.parts);
        let records = parts.into_iter().flatten().flat_map(|part| part.records);
        let beat = |record: infratrack_shared::wire::batch::Record| match record.body {
            Body::Heartbeat(beat) => Some((record.seq, beat.stream, beat.n)),
            Body::Event(_) => None,
        };
        records.filter_map(beat).collect()
    }

    /// How long the next answer may be held: not with a backlog, never over the next heartbeat.
    fn wait(&self) -> Duration {
        if self.stopping || self.queued() > 100 {
            return Duration::ZERO;
        }
        let free = self
            .next_beat
            .saturating_duration_since(Instant::now() + HOLD_MARGIN);
        self.shared.config.wait.min(free)
    }
}

/// A record's body: its unique number, and ballast.
fn event(unique: u64, bytes: usize) -> Value {
    let mut fields = vec![("unique".into(), unique.into())];
    if bytes > 0 {
        fields.push(("ballast".into(), "b".repeat(bytes).into()));
    }
    Value::Map(fields)
}

/// The next frame of the held answer; never, where none is held.
async fn next_frame(held: &mut Option<Answer>) -> Result<Option<Frame>, UplinkError> {
    match held {
        Some(answer) => answer.next_frame().await,
        None => std::future::pending().await,
    }
}
