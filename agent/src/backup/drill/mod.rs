//! Restore drills: the newest whole snapshot is restored into a scratch directory as a real restore would, read back and compared; what
//! a program wrote is checked by its recipe. Nothing is written elsewhere, and nothing of it stays. The collector is told what came
//! of it; who is not told takes the drill for interrupted.

mod cluster;
mod guarded;
mod recipe;
mod scratch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use infratrack_shared::backup::SnapshotKind;
use infratrack_shared::ids::DrillId;
use infratrack_shared::limits::BACKUP_ERRORS;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::PROTOCOL;
use infratrack_shared::wire::backup::{Outcome, Progress, Trigger, Volume, reason};
use infratrack_shared::wire::drill::{
    BeginDrill, CheckOutcome, DrillCheck, DrillMode, DrillReport, EndDrill,
};
use tokio::runtime::Runtime;

use self::guarded::{Guarded, keep_room};
use self::recipe::{Dump, Found};
use self::scratch::Scratch;
use super::chunks::Meter;
use super::config::Allowed;
use super::control::{Control, Failure};
use super::keys::Keys;
use super::pipeline::{Pipeline, persist};
use super::pulse::{Beating, Pulse};
use super::remote::{Collector, DrillLane};
use super::restore::{
    self, ChunkError, Fetcher, Opened, Options, Remote, RestoreError, Restored, Sample, Source,
    SourceError,
};
use super::run::{Host, NoRun, VERSION, cut};
use super::volume_lock::VolumeLock;

/// For the collector to be told of the end.
const END: Duration = Duration::from_secs(15 * 60);

/// Rehearses restoring a volume. `show` is told every second how far it is.
pub fn drill(
    host: &Host,
    volume: &Volume,
    (trigger, mode): (Trigger, Option<DrillMode>),
    show: impl Fn(Progress) + Send + 'static,
) -> Result<EndDrill, NoRun> {
    let lock = VolumeLock::of_drills(&host.state_dir).map_err(NoRun::Lock)?;
    let _lock = lock.ok_or(NoRun::DrillUnderWay)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NoRun::Runtime)?;
    let mut drill = Drill {
        host,
        runtime,
        collector: host.collector.clone(),
        id: DrillId::at(host.clock.now()),
        volume: volume.clone(),
        trigger,
        mode: mode.unwrap_or_default(),
        started_at: host.clock.now(),
        control: Pipeline::control(host.patience),
        meter: Arc::default(),
        report: DrillReport::default(),
    };
    let done = drill.go(mode, show);
    let end = drill.end(done);
    drill.tell(&end);
    Ok(end)
}

/// One drill.
struct Drill<'a> {
    host: &'a Host,
    runtime: Runtime,
    collector: Collector,
    id: DrillId,
    volume: Volume,
    trigger: Trigger,
    mode: DrillMode,
    started_at: UnixMillis,
    control: Arc<Control>,
    meter: Arc<Meter>,
    report: DrillReport,
}

impl Drill<'_> {
    fn go(
        &mut self,
        wanted: Option<DrillMode>,
        show: impl Fn(Progress) + Send + 'static,
    ) -> Result<(), Failure> {
        self.begin(wanted)?;
        let allowed = Allowed::load(&self.host.allowed);
        let allowed = allowed.map_err(|error| Failure::of(reason::CONFIGURATION, error))?;
        let scratch = Scratch::make(&self.host.state_dir, self.id);
        let scratch = scratch.map_err(|error| Failure::of(reason::INTERNAL, error))?;
        let _pulse = self.pulse(scratch.path().to_owned(), show)?;
        let remote = Remote::new(self.collector.clone(), self.volume.id, self.host.patience);
        let control = Arc::clone(&self.control);
        let guarded = Guarded {
            source: &remote,
            control: &control,
            scratch: scratch.path(),
        };
        let opened = self.open(&remote, &guarded)?;
        let done = self.rehearse(&allowed, &scratch, &guarded, &opened);
        self.report.read_bytes = remote.read_bytes();
        done.and_then(|()| self.verdict())
    }

    fn begin(&mut self, mode: Option<DrillMode>) -> Result<(), Failure> {
        let begin = BeginDrill {
            protocol: PROTOCOL,
            drill: self.id,
            volume: self.volume.id,
            trigger: self.trigger,
            started_at: self.started_at,
            agent: VERSION.to_owned(),
            mode,
        };
        let Self {
            runtime,
            collector,
            control,
            ..
        } = self;
        let asked = persist(control, async || collector.begin_drill(&begin).await);
        let begun = runtime.block_on(asked)?;
        self.volume = begun.volume;
        let is_dump = self.volume.source.command.is_some();
        self.mode = if begun.mode == DrillMode::Database && !is_dump {
            DrillMode::Full
        } else {
            begun.mode
        };
        if self.volume.source.external.is_some() {
            let detail = "what another tool keeps is not restored from here";
            return Err(Failure::new(reason::UNSUPPORTED, detail));
        }
        Ok(())
    }

    fn pulse(
        &self,
        scratch: PathBuf,
        show: impl Fn(Progress) + Send + 'static,
    ) -> Result<Pulse, Failure> {
        let beating = Beating {
            control: Arc::clone(&self.control),
            meter: Arc::clone(&self.meter),
            clock: self.host.clock.clone(),
            closed_windows: self.volume.closed_windows.clone(),
            expected: Progress::default(),
        };
        let lane = DrillLane {
            collector: self.collector.clone(),
            drill: self.id,
        };
        let control = Arc::clone(&self.control);
        Pulse::start(beating, lane, move |progress| {
            keep_room(&scratch, &control);
            show(progress);
        })
    }

    /// The newest snapshot that has everything.
    fn open(&mut self, remote: &Remote, guarded: &Guarded<'_>) -> Result<Opened, Failure> {
        let listed = remote.snapshots(None);
        let listed = listed.map_err(|error| self.unread(error.into()))?.snapshots;
        let newest = listed.iter().find(|snapshot| snapshot.is_whole);
        let newest = newest
            .ok_or_else(|| Failure::new(reason::NO_SNAPSHOT, "the volume has no whole snapshot"))?;
        self.report.snapshot = Some(newest.id);
        let keys = Keys::of(&self.host.state_dir, self.volume.id);
        let mut is_key_missing = false;
        let opened = Opened::open(guarded, self.volume.id, newest.id, |id| {
            let key = keys.find(id)?;
            is_key_missing = key.is_none();
            key.ok_or_else(|| anyhow!("this host does not have the key {id}"))
        });
        opened.map_err(|error| {
            if is_key_missing {
                Failure::of(reason::NO_KEY, error)
            } else {
                self.unread(error)
            }
        })
    }

    fn rehearse(
        &mut self,
        allowed: &Allowed,
        scratch: &Scratch,
        guarded: &Guarded<'_>,
        opened: &Opened,
    ) -> Result<(), Failure> {
        let (from, root) = (opened.fetcher(guarded), &opened.manifest.root);
        let room = scratch.room(allowed.drill_max_bytes);
        let room = room.map_err(|error| Failure::of(reason::INTERNAL, error))?;
        let seed = *blake3::hash(opened.head.snapshot_id.0.as_bytes()).as_bytes();
        let sampled = Sample::within(from, root, seed, room);
        let (sample, sizes) = sampled.map_err(|error| self.unread(error.into()))?;
        self.report.files_total = sizes.files;
        self.report.bytes_total = sizes.bytes;
        let has_room = sizes.on_disk <= room;
        let is_read = self.mode == DrillMode::Validation;
        self.report.is_sampled = !has_room && !is_read;
        if self.report.is_sampled {
            let detail = format!("{} bytes are wanted, {room} may be taken", sizes.on_disk);
            self.check("scratch", CheckOutcome::Skipped, detail);
        }
        // Of one file there is no sample.
        let is_dump = opened.head.kind == SnapshotKind::Command;
        if is_read || (!has_room && (is_dump || sample.is_empty())) {
            return self.read(from, opened);
        }
        let options = Options {
            sample: (!has_room).then_some(sample),
            is_scratch: true,
            ..Options::default()
        };
        self.write(from, opened, &options, scratch)?;
        if is_dump {
            let left = room.saturating_sub(sizes.on_disk);
            self.recipe(allowed, scratch, opened, left)?;
        }
        Ok(())
    }

    /// Reads and opens everything, and writes nothing.
    fn read(&mut self, from: Fetcher<'_>, opened: &Opened) -> Result<(), Failure> {
        let begun = Instant::now();
        let options = Options::default();
        let read = restore::verify(from, &opened.manifest.root, &options, &self.meter);
        let read = read.map_err(|error| self.unread(error.into()))?;
        self.report.restore_ms = millis(begun);
        self.report.files = read.files;
        self.report.bytes = read.bytes;
        let detail = format!("{} files were read and opened, and not written", read.files);
        self.found(&[&read], &detail);
        Ok(())
    }

    /// Restores, and reads back what was restored.
    fn write(
        &mut self,
        from: Fetcher<'_>,
        opened: &Opened,
        options: &Options,
        scratch: &Scratch,
    ) -> Result<(), Failure> {
        let (root, to) = (&opened.manifest.root, scratch.files());
        let begun = Instant::now();
        let restored = restore::restore(from, root, &to, options, &self.meter);
        let restored = restored.map_err(|error| self.unread(error.into()))?;
        self.report.restore_ms = millis(begun);
        self.report.files = restored.files;
        self.report.bytes = restored.bytes;
        if self.mode == DrillMode::Database {
            let detail = "every chunk was opened; the file was not read back";
            self.found(&[&restored], detail);
            return Ok(());
        }
        let compared = restore::compare(from, root, &to, options, &Meter::default());
        let compared = compared.map_err(|error| self.unread(error.into()))?;
        let detail = format!("{} files were read back and compared", compared.files);
        self.found(&[&restored, &compared], &detail);
        Ok(())
    }

    /// Counts what did not come back. What failed to be written is missing when it is compared: it is one.
    fn found(&mut self, passes: &[&Restored], detail: &str) {
        let totals = passes.iter().map(|pass| pass.errors_total);
        self.report.mismatches = totals.max().unwrap_or_default();
        if self.volume.is_catalog_visible {
            let mut seen = std::collections::BTreeSet::new();
            let errors = passes.iter().flat_map(|pass| &pass.errors);
            let first = errors.filter(|unread| seen.insert(unread.path.clone()));
            let first = first.map(|unread| format!("{}: {}", unread.path, unread.what));
            self.report.differing = first.take(BACKUP_ERRORS).collect();
        }
        let outcome = match self.report.mismatches {
            0 => CheckOutcome::Ok,
            _ => CheckOutcome::Failed,
        };
        let mismatches = self.report.mismatches;
        self.check("content", outcome, format!("{detail}; {mismatches} differ"));
    }

    /// Checks a dump by what the host's configuration says.
    fn recipe(
        &mut self,
        allowed: &Allowed,
        scratch: &Scratch,
        opened: &Opened,
        room: u64,
    ) -> Result<(), Failure> {
        let name = self.volume.source.command.as_ref();
        let program = name.and_then(|name| allowed.programs.get(&name.program));
        let Some(program) = program else {
            let detail = "backup.toml does not have its program any more".to_owned();
            self.check("recipe", CheckOutcome::Skipped, detail);
            return Ok(());
        };
        let dump = Dump {
            program,
            control: &self.control,
            scratch,
            counted: opened.manifest.counted.as_ref(),
            room,
            has_names: self.volume.is_catalog_visible,
        };
        let Found {
            checks,
            tools,
            load_ms,
        } = self.runtime.block_on(dump.check())?;
        self.report.checks.extend(checks);
        self.report.tools.extend(tools);
        self.report.restore_ms += load_ms;
        Ok(())
    }

    fn check(&mut self, name: &str, outcome: CheckOutcome, detail: String) {
        self.report.checks.push(DrillCheck {
            name: name.to_owned(),
            outcome,
            detail,
        });
    }

    /// What ends the drill: somebody, the collector's absence, or what can't be restored.
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    fn unread(&self, error: anyhow::Error) -> Failure {
        if let Some(cause) = self.control.cause() {
            return cause;
        }
        let reason = match error.downcast_ref::<RestoreError>() {
            Some(RestoreError::DiskFull { .. }) => reason::DISK_FULL,
            Some(RestoreError::Target { .. }) => reason::INTERNAL,
            Some(RestoreError::Chunk(ChunkError::Gone(_))) => reason::COLLECTOR_AWAY,
            Some(_) => reason::NOT_RESTORABLE,
            None => match error.downcast_ref::<SourceError>() {
                Some(SourceError::Gone(_)) => reason::COLLECTOR_AWAY,
                Some(SourceError::Unreadable { .. }) | None => reason::NOT_RESTORABLE,
            },
        };
        Failure::new(reason, format!("{error:#}"))
    }

    fn verdict(&self) -> Result<(), Failure> {
        if let Some(cause) = self.control.cause() {
            return Err(cause);
        }
        let report = &self.report;
        if report.mismatches > 0 {
            let detail = format!(
                "{} entries are not as the snapshot has them",
                report.mismatches
            );
            return Err(Failure::new(reason::NOT_RESTORABLE, detail));
        }
        let is_failed = |check: &&DrillCheck| check.outcome == CheckOutcome::Failed;
        match report.checks.iter().find(is_failed) {
            Some(check) => {
                let detail = format!("{}: {}", check.name, check.detail);
                Err(Failure::new(reason::CHECK_FAILED, detail))
            }
            None => Ok(()),
        }
    }

    fn end(&self, done: Result<(), Failure>) -> EndDrill {
        let failure = done.err();
        let outcome = match &failure {
            None => Outcome::Ok,
            Some(failure) if failure.reason == reason::CANCELLED => Outcome::Cancelled,
            Some(_) => Outcome::Failed,
        };
        EndDrill {
            drill: self.id,
            volume: self.volume.id,
            started_at: self.started_at,
            ended_at: self.host.clock.now(),
            outcome,
            reason: failure.as_ref().map(|failure| failure.reason.to_owned()),
            detail: failure.map(|failure| cut(failure.detail)),
            report: self.report.clone(),
        }
    }

    fn tell(&mut self, end: &EndDrill) {
        let Self {
            runtime, collector, ..
        } = self;
        let control = Pipeline::control(END.min(self.host.patience));
        let told = persist(&control, async || collector.end_drill(end).await);
        if let Err(error) = runtime.block_on(told) {
            tracing::error!(%error, "the collector is not told how the drill ended");
        }
    }
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
