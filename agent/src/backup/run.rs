//! A run of a volume from its beginning to its end: the host's configuration, the key, the hooks, the source, the snapshot, and what
//! the collector is told. There is an end for every beginning, and where the collector can't be told it is left for the daemon.

mod snapshot;
mod source;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use infratrack_shared::backup::Unread;
use infratrack_shared::codec;
use infratrack_shared::ids::{BackupRunId, SnapshotId};
use infratrack_shared::limits::BACKUP_ERRORS;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::PROTOCOL;
use infratrack_shared::wire::backup::{
    BeginRun, Begun, EndRun, Outcome, Progress, Trigger, Volume, reason,
};
use nix::time::ClockId;
use thiserror::Error;
use tokio::runtime::Runtime;

use self::snapshot::Given;
use self::source::Way;
use super::chunks::Meter;
use super::config::Allowed;
use super::control::{Control, Failure};
use super::disk;
use super::files::Cache;
use super::keys::{Held, Keys};
use super::pipeline::{Pipeline, persist, progress_of};
use super::pulse::{Beating, Pulse};
use super::remote::{Collector, RunLane};
use super::volume_lock::VolumeLock;
use crate::clock::Clock;

/// Where keys, locks, caches and results are.
pub const STATE_DIR: &str = "/var/lib/infratrack-backup";
/// Without a word through to the collector for so long, a run has failed.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// For the collector to be told of the end: the daemon tells it later.
const END: Duration = Duration::from_secs(60);
const DETAIL_BYTES: usize = 8 * 1024;
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The host that runs are of.
#[derive(Clone, Debug)]
pub struct Host {
    pub collector: Collector,
    /// [`STATE_DIR`], or another's in tests.
    pub state_dir: PathBuf,
    /// The host's `backup.toml`.
    pub allowed: PathBuf,
    pub hostname: String,
    pub clock: Clock,
    pub patience: Duration,
}

/// Why there was no run at all.
#[derive(Debug, Error)]
pub enum NoRun {
    #[error("a run of this volume is under way")]
    UnderWay,
    #[error("a drill of this host is under way")]
    DrillUnderWay,
    #[error("cannot lock the volume")]
    Lock(#[source] std::io::Error),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot leave the result in {}", path.display())]
    Result {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// Runs a volume. `show` is told every second how far it is.
pub fn run(
    host: &Host,
    volume: &Volume,
    trigger: Trigger,
    show: impl Fn(Progress) + Send + 'static,
) -> Result<EndRun, NoRun> {
    let lock = VolumeLock::take(&host.state_dir, volume.id).map_err(NoRun::Lock)?;
    let _lock = lock.ok_or(NoRun::UnderWay)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NoRun::Runtime)?;
    let mut run = Run {
        host,
        runtime,
        collector: host.collector.clone(),
        id: BackupRunId::at(host.clock.now()),
        volume: volume.clone(),
        trigger,
        started_at: host.clock.now(),
        control: Pipeline::control(host.patience),
        meter: Arc::default(),
    };
    let done = run.go(show);
    let end = run.end(done);
    run.tell(&end)?;
    Ok(end)
}

/// One run.
struct Run<'a> {
    host: &'a Host,
    runtime: Runtime,
    collector: Collector,
    id: BackupRunId,
    volume: Volume,
    trigger: Trigger,
    started_at: UnixMillis,
    control: Arc<Control>,
    meter: Arc<Meter>,
}

/// A run that did not fail.
#[derive(Debug, Default)]
struct Good {
    snapshot: Option<SnapshotId>,
    /// Why not all is in it.
    lacks: Option<Failure>,
    errors: Vec<Unread>,
    errors_total: u64,
}

impl Run<'_> {
    fn go(&mut self, show: impl Fn(Progress) + Send + 'static) -> Result<Good, Failure> {
        let allowed = Allowed::load(&self.host.allowed);
        let allowed = allowed.map_err(|error| Failure::of(reason::CONFIGURATION, error))?;
        let host = self.collector.host();
        let host = host.map_err(|error| Failure::of(reason::CONFIGURATION, error))?;
        let held = self.key(&allowed)?;
        let mut cache = held.as_ref().and_then(|held| self.cache(held));
        let parent = cache.as_ref().and_then(Cache::parent);
        let begun = self.begin(held.as_ref(), parent)?;
        if let Some(cache) = &mut cache {
            // What a run left that had none to begin with is asked for when its snapshot is committed.
            if !begun.has_parent && parent.is_some() {
                cache.forget();
            }
            cache.distrust(begun.lost.clone());
        }
        self.volume = begun.volume.clone();
        let _pulse = self.pulse(&begun, show)?;
        let held = match (Way::of(&self.volume), held) {
            (Way::External(_), _) => return self.external(&allowed),
            (Way::Files(_) | Way::Command(_) | Way::Unknown, held) => held,
        };
        let held = held.ok_or_else(|| {
            Failure::new(reason::UNSUPPORTED, "the volume's kind changed meanwhile")
        })?;
        let given = Given {
            allowed: &allowed,
            begun: &begun,
            held: &held,
            host,
        };
        self.snapshot(&given, cache)
    }

    /// What is known of files since the last run.
    fn cache(&self, held: &Held) -> Option<Cache> {
        let Way::Files(_) = Way::of(&self.volume) else {
            return None;
        };
        let dir = self.host.state_dir.join("cache");
        Some(Cache::open(&dir, self.volume.id, held.wrapped.id))
    }

    /// A volume of chunks has a key, or nothing is read.
    fn key(&self, allowed: &Allowed) -> Result<Option<Held>, Failure> {
        match Way::of(&self.volume) {
            Way::External(_) => return Ok(None),
            Way::Unknown => {
                let detail = "this agent does not know the volume's kind";
                return Err(Failure::new(reason::UNSUPPORTED, detail));
            }
            Way::Files(_) | Way::Command(_) => {}
        }
        let recipients = allowed.recovery().ok_or_else(|| {
            let detail = "backup.toml names fewer than two recipients";
            Failure::new(reason::NO_RECIPIENTS, detail)
        })?;
        let keys = Keys::of(&self.host.state_dir, self.volume.id);
        let held = keys.for_recipients(&recipients);
        held.map(Some)
            .map_err(|error| Failure::of(reason::INTERNAL, error))
    }

    fn begin(&mut self, held: Option<&Held>, parent: Option<SnapshotId>) -> Result<Begun, Failure> {
        let begin = BeginRun {
            protocol: PROTOCOL,
            run: self.id,
            volume: self.volume.id,
            trigger: self.trigger,
            started_at: self.started_at,
            agent: VERSION.to_owned(),
            key: held.map(|held| held.wrapped.clone()),
            parent,
            has_lock: true,
        };
        let Self {
            runtime,
            collector,
            control,
            ..
        } = self;
        runtime.block_on(persist(control, async || collector.begin(&begin).await))
    }

    fn pulse(
        &self,
        begun: &Begun,
        show: impl Fn(Progress) + Send + 'static,
    ) -> Result<Pulse, Failure> {
        let beating = Beating {
            control: Arc::clone(&self.control),
            meter: Arc::clone(&self.meter),
            clock: self.host.clock.clone(),
            closed_windows: begun.volume.closed_windows.clone(),
            expected: Progress {
                files_expected: begun.last_ok.map(|last| last.files),
                bytes_expected: begun.last_ok.map(|last| last.bytes),
                ..Progress::default()
            },
        };
        Pulse::start(beating, self.lane(), show)
    }

    fn lane(&self) -> RunLane {
        RunLane {
            collector: self.collector.clone(),
            run: self.id,
        }
    }

    fn external(&mut self, allowed: &Allowed) -> Result<Good, Failure> {
        let done = self.with_hooks(allowed, |run| run.other_tool(allowed));
        let (lacks, after) = done?;
        Ok(Good {
            lacks: lacks.or(after),
            ..Good::default()
        })
    }

    fn end(&self, done: Result<Good, Failure>) -> EndRun {
        let (good, failure) = match done {
            Ok(good) => (good, None),
            Err(failure) => (Good::default(), Some(failure)),
        };
        let outcome = match (&failure, &good.lacks) {
            (Some(failure), _) if failure.reason == reason::CANCELLED => Outcome::Cancelled,
            (Some(_), _) => Outcome::Failed,
            (None, Some(_)) => Outcome::Incomplete,
            (None, None) => Outcome::Ok,
        };
        let told = if self.volume.is_catalog_visible {
            BACKUP_ERRORS
        } else {
            0
        };
        let error = |unread: &Unread| format!("{}: {}", unread.path, unread.what);
        let why = failure.or(good.lacks);
        EndRun {
            run: self.id,
            volume: self.volume.id,
            trigger: self.trigger,
            started_at: self.started_at,
            ended_at: self.host.clock.now(),
            outcome,
            reason: why.as_ref().map(|why| why.reason.to_owned()),
            detail: why.map(|why| cut(why.detail)),
            errors: good.errors.iter().take(told).map(error).collect(),
            errors_total: good.errors_total,
            progress: progress_of(&self.meter),
            new_bytes: self.meter.new_bytes.load(Ordering::Relaxed),
            snapshot: good.snapshot,
            cpu_ms: cpu_ms(),
        }
    }

    /// Tells the collector; or leaves it for the daemon, which tells it as a record.
    fn tell(&mut self, end: &EndRun) -> Result<(), NoRun> {
        let Self {
            runtime, collector, ..
        } = self;
        let control = Pipeline::control(END.min(self.host.patience));
        let told = runtime.block_on(async {
            let told = persist(&control, async || collector.end(end).await);
            tokio::time::timeout(END, told).await
        });
        match told {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => tracing::warn!(%error, "the collector is told later how it ended"),
            Err(_) => tracing::warn!("the collector is away, and is told later how it ended"),
        }
        let folder = self.host.state_dir.join("results");
        let path = folder.join(end.run.to_string());
        let left = DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&folder)
            .and_then(|()| {
                let document = codec::encode(end).map_err(std::io::Error::other)?;
                disk::write(&path, 0o640, &document)
            });
        left.map_err(|source| NoRun::Result { path, source })
    }
}

/// Both ends of a long text.
pub(super) fn cut(text: String) -> String {
    if text.len() <= DETAIL_BYTES {
        return text;
    }
    let half = DETAIL_BYTES / 2;
    let begin = &text[..text.floor_char_boundary(half)];
    let end = &text[text.ceil_char_boundary(text.len() - half)..];
    format!("{begin} … {end}")
}

fn cpu_ms() -> u64 {
    let used = ClockId::CLOCK_PROCESS_CPUTIME_ID.now().map(Duration::from);
    used.map_or(0, |used| {
        u64::try_from(used.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests;
