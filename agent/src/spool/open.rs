//! Opening: whatever state the files are in, the spool opens, and what is gone is counted.
//!
//! A child reads everything first. Where it finds damage, sled's snapshots are moved away and it
//! reads again (a damaged snapshot alone loses nothing). Where that fails too, what can be read is
//! copied to a fresh store, the damaged one is moved aside, and new records join a new stream; the
//! saved ones keep their stream and numbers and drain first, the rest is `lost{damaged}`.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use infratrack_shared::ids::StreamId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::{Class, LostReason};
use infratrack_shared::wire::event::{DamagedClass, SpoolDamaged};
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::backend::{Backend, BackendError, Key};
use super::lane::Lane;
use super::ledger::{Ledger, Section};
use super::probe::{self, Salvaged, Verdict};
use super::queue::{CLASSES, Queue};
use super::rebuild::Chunk;
use super::sled::Disk;
use super::{OpenReport, SpoolConfig, SpoolError, files};

/// How long the child may take to read everything, which happens twice at most.
const PROBE: Duration = Duration::from_secs(20);
/// How long it may take to save what it can. All three stay below systemd's 90 s for a start.
const SALVAGE: Duration = Duration::from_secs(40);
/// How long a process that is about to end may still hold the spool.
const HELD: Duration = Duration::from_secs(5);
/// After this many openings in a row that did not come to their end, nothing is believed.
const ATTEMPTS: u32 = 2;

/// See the module.
pub(super) async fn open(
    config: &SpoolConfig,
    now: UnixMillis,
) -> Result<(Queue, OpenReport), SpoolError> {
    let root = config.dir.as_path();
    files::create_dir(root).map_err(io_error("make its directory"))?;
    let lock = lock(root).await?;
    if files::is_fresh(root).map_err(io_error("read its directory"))? {
        return Ok(fresh(config, lock, now)?);
    }
    let attempts = files::begin_opening(root).map_err(io_error("write its marker"))?;
    let mut verdict = Verdict::default();
    if attempts < ATTEMPTS {
        verdict = check(config).await?;
    }
    if !verdict.sound && attempts < 2 * ATTEMPTS {
        drop_snapshots(root)?;
        verdict = check(config).await?;
    }
    let mut opened = None;
    if verdict.sound {
        opened = resume(config, &lock, &verdict)?;
    }
    let opened = match opened {
        Some(opened) => opened,
        None => quarantine(config, lock, verdict, now).await?,
    };
    files::end_opening(root).map_err(io_error("remove its marker"))?;
    if let Err(error) = files::hold_reserve(root) {
        tracing::warn!(%error, "spool: no reserve on the disk");
    }
    Ok(opened)
}

fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> SpoolError {
    move |source| BackendError::io(doing, source).into()
}

async fn lock(root: &Path) -> Result<Arc<File>, SpoolError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(root.join("lock"))
        .map_err(io_error("open its lock"))?;
    let deadline = Instant::now() + HELD;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Arc::new(file)),
            Err(TryLockError::Error(source)) => return Err(io_error("take its lock")(source)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(SpoolError::Held {
                    dir: root.to_owned(),
                });
            }
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(20)).await,
        }
    }
}

fn fresh(
    config: &SpoolConfig,
    lock: Arc<File>,
    now: UnixMillis,
) -> Result<(Queue, OpenReport), BackendError> {
    let ledger = Ledger::new(StreamId::at(now));
    let mut disk = Disk::open(&config.dir, ledger.generation, lock)?;
    disk.apply(Vec::new(), Some(&ledger))?;
    disk.sync()?;
    disk.store_ledger(&ledger)?;
    if let Err(error) = files::hold_reserve(&config.dir) {
        tracing::warn!(%error, "spool: no reserve on the disk");
    }
    let report = OpenReport {
        fresh: true,
        ..OpenReport::default()
    };
    Ok((
        Queue::new(Box::new(disk), ledger, config.quota_bytes),
        report,
    ))
}

/// Reads everything, in a child where there is a binary for it.
async fn check(config: &SpoolConfig) -> Result<Verdict, SpoolError> {
    probe::forget_verdict(&config.dir);
    if run_child(config, &[], PROBE).await.is_some() {
        return Ok(probe::load_verdict(&config.dir).unwrap_or_default());
    }
    let root = config.dir.clone();
    spawn_blocking(move || probe::inspect(&root))
        .await
        .map_err(|_| SpoolError::Closed)
}

async fn save(config: &SpoolConfig) -> Result<(), SpoolError> {
    if run_child(config, &["--salvage"], SALVAGE).await.is_none() {
        let root = config.dir.clone();
        let saved = spawn_blocking(move || probe::save(&root)).await;
        saved
            .map_err(|_| SpoolError::Closed)?
            .map_err(io_error("write what is salvaged"))?;
    }
    Ok(())
}

/// Runs the probe to its end or its time limit. `None`: there is no binary to run.
async fn run_child(config: &SpoolConfig, extra: &[&str], limit: Duration) -> Option<()> {
    let mut child = Command::new(config.probe.as_ref()?)
        .arg("spool-probe")
        .arg(&config.dir)
        .args(extra)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .inspect_err(|error| tracing::warn!(%error, "spool: the probe can't be run"))
        .ok()?;
    if timeout(limit, child.wait()).await.is_err() {
        tracing::warn!("spool: the probe took too long");
        // Reaped here, or its lock on the store would be in the way.
        if let Err(error) = child.kill().await {
            tracing::warn!(%error, "spool: the probe can't be ended");
        }
    }
    Some(())
}

fn drop_snapshots(root: &Path) -> Result<(), SpoolError> {
    for generation in files::generations(root).map_err(io_error("read its directory"))? {
        let dir = files::generation_dir(root, generation);
        files::drop_snapshots(&dir).map_err(io_error("move its snapshots"))?;
    }
    Ok(())
}

/// Opens a sound spool. `None` where it turns out not to be.
fn resume(
    config: &SpoolConfig,
    lock: &Arc<File>,
    verdict: &Verdict,
) -> Result<Option<(Queue, OpenReport)>, SpoolError> {
    let Some(ledger) = &verdict.ledger else {
        return Ok(None);
    };
    remove_other_generations(&config.dir, ledger.generation)?;
    let resume = || {
        let disk = Disk::open(&config.dir, ledger.generation, Arc::clone(lock))?;
        Queue::resume(Box::new(disk), ledger.clone(), config.quota_bytes)
    };
    let mut resumed = resume();
    if matches!(resumed, Err(BackendError::Full)) && files::release_reserve(&config.dir) {
        resumed = resume();
    }
    let report = OpenReport {
        unread_records: verdict.unread_records,
        ..OpenReport::default()
    };
    match resumed {
        Ok(queue) => Ok(Some((queue, report))),
        Err(BackendError::Damaged(detail)) => {
            tracing::warn!(detail, "spool: damaged, though its probe found nothing");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// What a rotation left that did not come to its end.
fn remove_other_generations(root: &Path, generation: u64) -> Result<(), SpoolError> {
    for other in files::generations(root).map_err(io_error("read its directory"))? {
        if other != generation {
            fs::remove_dir_all(files::generation_dir(root, other))
                .map_err(io_error("remove an old generation"))?;
        }
    }
    Ok(())
}

async fn quarantine(
    config: &SpoolConfig,
    lock: Arc<File>,
    verdict: Verdict,
    now: UnixMillis,
) -> Result<(Queue, OpenReport), SpoolError> {
    let root = config.dir.clone();
    let quota_bytes = config.quota_bytes;
    let ledger = verdict.ledger.or_else(|| files::load_ledger(&root));
    if let Some(ledger) = &ledger {
        files::store_ledger(&root, ledger).map_err(io_error("write its watermark"))?;
        save(config).await?;
    }
    let detail = verdict.detail;
    let work = move || start_over(&root, lock, ledger, detail, quota_bytes, now);
    spawn_blocking(work).await.map_err(|_| SpoolError::Closed)?
}

/// A fresh generation with what was saved, and the damaged one aside.
fn start_over(
    root: &Path,
    lock: Arc<File>,
    ledger: Option<Ledger>,
    detail: String,
    quota_bytes: u64,
    now: UnixMillis,
) -> Result<(Queue, OpenReport), SpoolError> {
    let generations = files::generations(root).map_err(io_error("read its directory"))?;
    let damaged = ledger
        .as_ref()
        .map(|ledger| ledger.generation)
        .or(generations.last().copied());
    let generation = generations.last().map_or(1, |last| last + 1);
    let mut disk = Disk::open(root, generation, lock)?;
    let mut report = OpenReport::default();
    let mut target = Ledger::new(StreamId::at(now));
    if let Some(old) = ledger {
        target = salvage(&mut disk, root, old, target, detail, &mut report)?;
    } else {
        report.damaged.push(SpoolDamaged {
            stream: None,
            detail,
            classes: Vec::new(),
        });
    }
    target.generation = generation;
    disk.apply(Vec::new(), Some(&target))?;
    disk.sync()?;
    disk.store_ledger(&target)?;
    if let Some(damaged) = damaged.map(|damaged| files::generation_dir(root, damaged))
        && damaged.exists()
    {
        let moved = files::move_aside(root, &damaged, now.0.div_euclid(1000));
        report.moved_to = Some(moved.map_err(io_error("move a damaged spool aside"))?);
    }
    remove_other_generations(root, generation)?;
    // Only there after a salvage; the next one overwrites it.
    let _ = fs::remove_file(probe::salvage_path(root));
    tracing::warn!(moved_to = ?report.moved_to, "spool: damaged, begun anew");
    Ok((Queue::new(Box::new(disk), target, quota_bytes), report))
}

fn salvage(
    disk: &mut Disk,
    root: &Path,
    old: Ledger,
    mut target: Ledger,
    mut detail: String,
    report: &mut OpenReport,
) -> Result<Ledger, BackendError> {
    target.revision = old.revision + 1;
    target.current.slot = old.next_slot;
    target.next_slot = old.next_slot + 1;
    target.heartbeats_reserved = old.heartbeats_reserved;
    target.unread = old.unread;
    let mut found = Found::default();
    let mut chunk = Chunk::default();
    for (key, value) in Salvaged::open(root) {
        found.0.insert(key.clone(), value.len() as u64);
        chunk.push(disk, (key, Some(value)))?;
    }
    disk.apply(chunk.writes, None)?;
    for name in &old.values {
        if found.0.contains_key(&Key::value(name)) {
            target.values.insert(name.clone());
        } else {
            detail = format!("{detail}; value {name} is lost");
        }
    }
    for mut section in old.old.into_iter().chain([old.current]) {
        let mut classes = Vec::new();
        for class in CLASSES {
            let slot = section.slot;
            let (expected, salvaged) = found.settle(slot, class, section.lane_mut(class));
            classes.push(DamagedClass {
                class,
                expected,
                salvaged,
            });
        }
        report.damaged.push(SpoolDamaged {
            stream: Some(section.stream),
            detail: detail.clone(),
            classes,
        });
        if !Section::drained(&section) {
            target.old.push(section);
        }
    }
    Ok(target)
}

/// The keys that were saved, with their values' sizes.
#[derive(Default)]
struct Found(std::collections::BTreeMap<Key, u64>);

impl Found {
    /// Closes a lane: what was not saved of it is lost. Answers how many records it should have had
    /// and how many it has.
    fn settle(&self, slot: u32, class: Class, lane: &mut Lane) -> (u64, u64) {
        let runs = probe::unsent(lane);
        lane.next = lane.next.max(lane.reserved);
        lane.acknowledge_for_good(lane.acked);
        lane.bytes = 0;
        let (mut expected, mut salvaged) = (0, 0);
        for (from, to) in runs {
            for seq in from..=to {
                expected += 1;
                if let Some(bytes) = self.0.get(&Key::record(slot, class, seq)) {
                    salvaged += 1;
                    lane.bytes += bytes;
                } else {
                    lane.lose(seq, seq, LostReason::Damaged);
                }
            }
        }
        lane.durable = lane.next;
        lane.reserved = lane.next;
        (expected, salvaged)
    }
}
