//! The run loop: heartbeats when they are due, records when there are some, commands when they come.
//!
//! One task does everything in turn; what can block runs elsewhere with a time limit. The connection's
//! answer is held open between heartbeats, so that commands arrive at once; what can't wait for its end
//! goes over a second connection.

mod backups;
mod boots;
mod commands;
mod facts;
mod inventory;
mod link;
mod notify;
mod package_logs;
mod records;
mod renewal;
mod returning;
mod stop;

use std::time::Duration;

use anyhow::Context;
use infratrack_shared::ids::{BootId, InstanceId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::answer::{Ack, Frame, Policy};
use infratrack_shared::wire::event::Event;
use infratrack_shared::wire::heartbeat::Heartbeat;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::collect::{self, FactSources, HeartbeatSource, InventorySource, Root};
use crate::config::Config;
use crate::failpoint::reach;
use crate::identity::Identity;
use crate::plays::Plays;
use crate::reporter::{Report, Reporter};
use crate::spool::{Spool, SpoolConfig, SpoolError};
use crate::uplink::Answer;
use crate::watch::{Area, Watch};
use backups::Backups;
use commands::Commands;
use facts::Facts;
use inventory::Inventory;
use link::{Link, Lost};
use notify::Notify;
use package_logs::PackageLogs;
use stop::{Stop, stop_reason};

/// The held answer ends this long before the next heartbeat is due, so that the connection is free then.
const HOLD_MARGIN: Duration = Duration::from_millis(500);
/// Between two batches of a backlog: half the rate a host may send at.
const BACKLOG_PACE: Duration = Duration::from_millis(500);
/// For the last words of an orderly stop.
const STOP: Duration = Duration::from_secs(5);

/// A running agent.
pub struct Daemon {
    clock: Clock,
    boot_id: BootId,
    instance: InstanceId,
    spool: Spool,
    reporter: Reporter,
    link: Link,
    heartbeats: HeartbeatSource,
    facts: Facts,
    inventory: Inventory,
    commands: Commands,
    package_logs: PackageLogs,
    /// Beside the run loop, as are plays.
    backups: Backups,
    /// Beside the run loop.
    plays: Option<Plays>,
    /// Remembered of this boot; none where that could not be kept.
    boot: Option<boots::Last>,
    policy: Policy,
    notify: Notify,
    /// Collector's clock less ours, as of the last Ack.
    server_ahead_ms: i64,
    held: Option<Answer>,
    due: Option<Heartbeat>,
    next_heartbeat: Instant,
    next_backlog: Option<Instant>,
    /// Something that is not to wait for the next heartbeat.
    urgent: bool,
}

/// Runs the agent until it is asked to stop.
pub async fn run(config: Config, root: Root, clock: Clock) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let mut daemon = Daemon::start(config, root, clock).await?;
    Notify::ready();
    loop {
        let wake = daemon.wake();
        tokio::select! {
            biased;
            () = stop.asked() => break,
            frame = next_frame(&mut daemon.held) => daemon.frame(frame).await?,
            () = daemon.package_logs.told() => daemon.urgent = true,
            () = daemon.backups.told() => daemon.urgent = true,
            () = daemon.inventory.changed() => {}
            () = tokio::time::sleep_until(wake) => {}
        }
        daemon.step().await?;
    }
    daemon.stop().await
}

impl Daemon {
    async fn start(config: Config, root: Root, clock: Clock) -> anyhow::Result<Self> {
        let identity = Identity::open(&config.state_dir)?;
        let instance = InstanceId::random();
        let link = Link::new(identity, instance, &config)?;
        let boot_id = collect::boot_id(&root).context("cannot read the boot id")?;
        let spool_config = SpoolConfig {
            quota_bytes: config.spool_quota_bytes,
            // The file this process runs, whatever has been installed since.
            program: Some("/proc/self/exe".into()),
            ..SpoolConfig::new(config.state_dir.join("spool"))
        };
        let place = spool_config.dir.clone();
        let (spool, opened) = Spool::open(spool_config, clock.now())
            .await
            .with_context(|| format!("cannot open the spool in {}", place.display()))?;
        let reporter = Reporter::new(spool.clone(), clock.clone(), instance, boot_id);
        let sources = FactSources::new(root.clone(), &config.facts_dir)
            .with_instance_metadata(config.instance_metadata.clone());
        let mut facts = Facts::new(sources);
        facts.collect(&spool).await?;
        let host = link.host();
        let watch = Watch::start(&root);
        let logs = watch.of(Area::Logs);
        let mut inventory = Inventory::new(InventorySource::new(root.clone()), watch);
        inventory.read(&spool).await?;
        let mut daemon = Self {
            commands: Commands::load(&spool).await?,
            package_logs: PackageLogs::start(
                root.clone(),
                spool.clone(),
                clock.clone(),
                boot_id,
                logs,
            ),
            backups: Backups::start(
                &config,
                &root,
                spool.clone(),
                clock.clone(),
                (host, boot_id),
            ),
            heartbeats: HeartbeatSource::new(root.clone()),
            plays: None,
            boot: None,
            policy: Policy::default(),
            notify: Notify::new(),
            server_ahead_ms: 0,
            held: None,
            due: None,
            next_heartbeat: Instant::now(),
            next_backlog: None,
            urgent: true,
            clock,
            boot_id,
            instance,
            spool,
            reporter,
            link,
            facts,
            inventory,
        };
        daemon.tell_start(&root).await?;
        daemon.tell_damage(opened).await;
        for result in daemon.commands.interrupted() {
            daemon.record(&Event::CommandResult(result)).await;
        }
        daemon.commands.save(&daemon.spool).await?;
        daemon.plays = Plays::start(&config, daemon.clock.clone());
        tracing::info!(%host, %instance, "agent started");
        Ok(daemon)
    }

    /// When there is something to do.
    fn wake(&self) -> Instant {
        let mut wake = self
            .next_heartbeat
            .min(self.facts.next())
            .min(self.inventory.next())
            .min(self.link.next_return(self.clock.now()))
            .min(self.notify.next());
        if self.urgent || self.due.is_some() {
            wake = wake.min(self.link.not_before());
        }
        if let Some(backlog) = self.next_backlog {
            wake = wake.min(backlog.max(self.link.not_before()));
        }
        wake
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        self.notify.tick();
        let now = Instant::now();
        if now >= self.facts.next() {
            self.facts.set_interval(self.policy.intervals.facts_ms);
            self.urgent |= self.facts.collect(&self.spool).await?;
        }
        if now >= self.inventory.next() {
            self.urgent |= self.inventory.read(&self.spool).await?;
        }
        if now >= self.next_heartbeat {
            self.beat().await;
        }
        if let Some(event) = self.link.renew_if_due(&self.clock).await {
            self.record(&event).await;
        }
        let backlog = self.next_backlog.is_some_and(|at| now >= at);
        if (self.due.is_some() || self.urgent || backlog) && now >= self.link.not_before() {
            self.report().await;
        }
        Ok(())
    }

    /// Takes a heartbeat. One that is still due could not be sent: it goes to the ring.
    async fn beat(&mut self) {
        let interval =
            Duration::from_millis(u64::from(self.policy.intervals.heartbeat_ms.max(1000)));
        self.next_heartbeat = next_beat(self.link.phase(), interval, self.clock.now());
        let number = match self.spool.heartbeat_number().await {
            Ok(number) => number,
            Err(error) => return tracing::warn!(%error, "no heartbeat: it has no number"),
        };
        let base = Heartbeat {
            stream: self.spool.stream(),
            n: number,
            at: self.clock.now(),
            mono_ms: collect::mono_ms(),
            spool: self.spool.usage(),
            facts_hash: Some(self.facts.hash()),
            inventory_hash: self.inventory.hash(),
            ..Heartbeat::default()
        };
        let heartbeat = self.heartbeats.collect(base).await;
        self.reporter.keep(self.due.replace(heartbeat)).await;
    }

    /// Sends what there is, and does what the Ack says.
    async fn report(&mut self) {
        let free = self.held.is_none();
        let wait = self
            .next_heartbeat
            .saturating_duration_since(Instant::now() + HOLD_MARGIN);
        // With a backlog the connection is needed again at once.
        let backlog = self.spool.usage().critical_records + self.spool.usage().beat_records;
        let wait = if free && backlog <= 100 {
            wait
        } else {
            Duration::ZERO
        };
        self.urgent = false;
        let mut state = self.facts.pending();
        let facts = state.len();
        state.extend(self.inventory.offered());
        let report = Report {
            heartbeat: self.due.take(),
            state,
            commands_seen: self.commands.seen(),
            policy_version: self.policy.version,
            wait,
        };
        let sent = self.link.report(&mut self.reporter, report, free).await;
        let refused = self.reporter.take_refused_state();
        for (key, version) in &refused {
            self.inventory.refused(key, *version);
        }
        self.facts.refused(refused);
        let reported = match sent {
            Ok(reported) => reported,
            Err(lost) => return self.lost(&lost),
        };
        self.notify.status("connected");
        if reported.state_sent > facts {
            self.inventory.sent();
        }
        self.acknowledged(&reported.ack).await;
        if free && !wait.is_zero() {
            self.held = Some(reported.answer);
        } else {
            self.read_to_end(reported.answer).await;
        }
        let usage = self.spool.usage();
        let more = reported.had_records && usage.critical_records + usage.beat_records > 0;
        self.next_backlog = more.then(|| Instant::now() + BACKLOG_PACE);
    }

    async fn acknowledged(&mut self, ack: &Ack) {
        self.server_ahead_ms = ack.server_time.millis_since(self.clock.now());
        self.commands.confirmed();
        if let Err(error) = self.facts.acknowledged(ack, &self.spool).await {
            tracing::warn!(%error, "facts that the collector wants wait for the spool");
        }
        self.urgent |= self.facts.has_pending();
        self.inventory_acknowledged(ack).await;
    }

    async fn inventory_acknowledged(&mut self, ack: &Ack) {
        if let Err(error) = self.inventory.acknowledged(ack, &self.spool).await {
            tracing::warn!(%error, "packages that the collector wants wait for the spool");
        }
        self.urgent |= self.inventory.has_next();
    }

    /// The rest of an answer that was not held: policy, perhaps commands.
    async fn read_to_end(&mut self, mut answer: Answer) {
        loop {
            match answer.next_frame().await {
                Ok(Some(frame)) => {
                    if let Err(error) = self.obey(frame).await {
                        tracing::warn!(error = format!("{error:#}"), "a frame was not obeyed");
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    let lost = self.link.broken(&error);
                    return self.lost(&lost);
                }
            }
        }
    }

    async fn frame(
        &mut self,
        frame: Result<Option<Frame>, crate::uplink::UplinkError>,
    ) -> anyhow::Result<()> {
        match frame {
            Ok(Some(frame)) => self.obey(frame).await,
            Ok(None) => {
                self.held = None;
                Ok(())
            }
            Err(error) => {
                let lost = self.link.broken(&error);
                self.lost(&lost);
                Ok(())
            }
        }
    }

    async fn obey(&mut self, frame: Frame) -> anyhow::Result<()> {
        // What took longer to store than the rest of its batch.
        if let Some(ack) = &frame.ack {
            self.inventory_acknowledged(ack).await;
        }
        if let Some(policy) = frame.policy {
            self.link.trust(&policy.trust_bundle)?;
            tracing::info!(version = policy.version, "policy applied");
            self.policy = policy;
        }
        if frame.goaway.is_some() {
            self.held = None;
            self.link.go_elsewhere();
        }
        if let Some(command) = frame.command {
            self.command(command).await?;
        }
        Ok(())
    }

    async fn command(
        &mut self,
        command: infratrack_shared::wire::answer::Command,
    ) -> anyhow::Result<()> {
        let server_now = UnixMillis(self.clock.now().0.saturating_add(self.server_ahead_ms));
        self.urgent = true;
        // Durable before it is acted on: a crash in the middle is "interrupted", not a repetition.
        if !self.commands.begin(&command, &self.spool).await? {
            return Ok(());
        }
        reach("command::begun");
        let result = if command.expires_at < server_now {
            commands::expired(&command)
        } else {
            let parts = (&mut self.facts, &mut self.link, &self.backups);
            commands::execute(&command, parts, &self.spool).await
        };
        tracing::info!(id = %command.id, action = ?command.action, outcome = ?result.outcome, "command");
        reach("command::executed");
        self.record(&Event::CommandResult(result)).await;
        reach("command::recorded");
        self.commands.end(command.id, &self.spool).await?;
        Ok(())
    }

    fn lost(&mut self, lost: &Lost) {
        tracing::warn!(error = lost.words, wait = ?lost.wait, "no report reached the collector");
        self.notify
            .status(&format!("not connected: {}", lost.words));
        self.held = None;
        self.next_backlog = Some(Instant::now());
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        Notify::stopping();
        // It must not ask a spool that is closed.
        self.package_logs.stop();
        self.backups.stop();
        self.plays = None;
        let reason = stop_reason().await;
        self.tell_stop(reason).await;
        // Over the second connection: giving up a held answer would break the first.
        if Instant::now() >= self.link.not_before() {
            // What was not said in time is said after the next start.
            tokio::time::timeout(STOP, self.report()).await.ok();
        }
        match self.spool.close().await {
            Ok(()) | Err(SpoolError::Closed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The next frame of the held answer; never, where none is held.
async fn next_frame(
    held: &mut Option<Answer>,
) -> Result<Option<Frame>, crate::uplink::UplinkError> {
    match held {
        Some(answer) => answer.next_frame().await,
        None => std::future::pending().await,
    }
}

/// The next instant at `phase` of the interval by the wall clock: hosts are spread evenly over it.
fn next_beat(phase: f64, interval: Duration, now: UnixMillis) -> Instant {
    let interval_ms = i64::try_from(interval.as_millis())
        .unwrap_or(i64::MAX)
        .max(1);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a part of the interval in milliseconds"
    )]
    let offset = (interval_ms as f64 * phase) as i64;
    let into = (now.0.saturating_sub(offset)).rem_euclid(interval_ms);
    Instant::now() + Duration::from_millis((interval_ms - into).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_heartbeat_keeps_its_phase_of_the_interval() {
        let interval = Duration::from_secs(30);
        for now_ms in [0, 1, 14_999, 15_000, 29_999, 1_800_000_012_345] {
            let wait = next_beat(0.5, interval, UnixMillis(now_ms)) - Instant::now();
            assert!(wait > Duration::ZERO && wait <= interval);
            let at = now_ms + i64::try_from(wait.as_millis()).expect("short");
            assert_eq!(at.rem_euclid(30_000), 15_000, "from {now_ms}");
        }
    }
}
