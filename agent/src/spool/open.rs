//! Opening: whatever state the files are in, the spool opens, and what is gone is counted.
//!
//! A child reads everything first, in a copy: sled writes as it opens a file, and power lost in the
//! middle of that, or damage it takes for the end of its log, costs what was there. Where the child finds
//! damage, it reads another copy, without sled's snapshot and settings (damage to these alone loses
//! nothing). What was read takes the original's place when it is on the disk. Where neither is sound,
//! what can be read is put into a fresh store, the original is moved aside, and new records join a new
//! stream; the saved ones keep their stream and numbers and drain first, the rest is `lost{damaged}`.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use infratrack_shared::ids::StreamId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::event::SpoolDamaged;
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::backend::{Backend, BackendError};
use super::disk::{Disk, Place};
use super::ledger::Ledger;
use super::newer;
use super::probe::{self, Verdict};
use super::queue::Queue;
use super::salvage::salvage;
use super::{OpenReport, SpoolConfig, SpoolError, files};
use crate::failpoint::reach;

/// How long the child may take to read everything, which happens twice at most.
const PROBE: Duration = Duration::from_secs(20);
/// How long it may take to save what it can, twice too. All stay below systemd's 90 s for a start.
const SALVAGE: Duration = Duration::from_secs(20);
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
    let place = Place {
        root: root.to_owned(),
        lock: lock(root).await?,
        program: config.program.clone(),
        idle: config.idle,
    };
    let newer =
        newer::put_aside(root, now).map_err(io_error("put a newer version's files aside"))?;
    let (mut queue, mut report) = open_own(config, place, now).await?;
    report.newer = newer;
    newer::resend(config, &mut queue).await?;
    Ok((queue, report))
}

/// Opens what this version wrote, or an older one.
async fn open_own(
    config: &SpoolConfig,
    place: Place,
    now: UnixMillis,
) -> Result<(Queue, OpenReport), SpoolError> {
    let root = config.dir.as_path();
    if files::is_fresh(root).map_err(io_error("read its directory"))? {
        return Ok(fresh(config, &place, now)?);
    }
    let mut begun = files::begin_opening(root);
    if begun.is_err() && files::release_reserve(root) {
        begun = files::begin_opening(root);
    }
    let attempts = begun.map_err(io_error("write its marker"))?;
    let mut verdict = Verdict::default();
    if attempts < ATTEMPTS {
        verdict = check_any(config, Copied::Whole).await?;
    }
    if !verdict.sound && attempts < 2 * ATTEMPTS {
        verdict = check_any(config, Copied::WithoutDerived).await?;
    }
    reach("spool::opening-checked");
    let mut opened = None;
    if verdict.sound {
        opened = resume(config, &place, &verdict)?;
    }
    let opened = match opened {
        Some(opened) => opened,
        None => quarantine(config, place, verdict, now).await?,
    };
    files::end_opening(root).map_err(io_error("remove its marker"))?;
    hold_reserve(root);
    Ok(opened)
}

pub(super) fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> SpoolError {
    move |source| BackendError::io(doing, source).into()
}

/// Now, and not in the middle of the first append.
fn hold_reserve(root: &Path) {
    if let Err(error) = files::hold_reserve(root) {
        tracing::warn!(%error, "spool: no reserve on the disk");
    }
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
    place: &Place,
    now: UnixMillis,
) -> Result<(Queue, OpenReport), BackendError> {
    let ledger = Ledger::new(StreamId::at(now));
    let mut disk = Disk::open(place, ledger.generation)?;
    disk.apply(Vec::new(), Some(&ledger))?;
    disk.sync()?;
    disk.store_ledger(&ledger)?;
    hold_reserve(&config.dir);
    let report = OpenReport {
        fresh: true,
        ..OpenReport::default()
    };
    Ok((
        Queue::new(Box::new(disk), ledger, config.quota_bytes),
        report,
    ))
}

/// How a generation is copied.
#[derive(Clone, Copy)]
enum Copied {
    Whole,
    /// Without sled's snapshot and settings, which it can do without, and which may be what is damaged.
    WithoutDerived,
}

/// Checks the generation of the watermark, or without one the latest that has a copy of it.
async fn check_any(config: &SpoolConfig, copied: Copied) -> Result<Verdict, SpoolError> {
    let root = config.dir.as_path();
    let generations = match files::load_ledger(root) {
        Some(ledger) => vec![ledger.generation],
        None => files::generations(root).map_err(io_error("read its directory"))?,
    };
    let mut verdict = Verdict::default();
    for generation in generations.into_iter().rev() {
        copy(root, generation, copied).await?;
        verdict = check(config, generation).await?;
        if verdict.ledger.is_some() {
            break;
        }
    }
    Ok(verdict)
}

async fn copy(root: &Path, generation: u64, copied: Copied) -> Result<(), SpoolError> {
    let root = root.to_owned();
    let work = move || {
        if !files::generation_dir(&root, generation).exists() {
            return files::forget_copy(&root);
        }
        if let Err(error) = files::copy_generation(&root, generation) {
            tracing::warn!(%error, "spool: no room for a copy, its files are opened themselves");
        }
        match copied {
            Copied::Whole => Ok(()),
            Copied::WithoutDerived => files::drop_derived(&files::working_dir(&root, generation)),
        }
    };
    let copied = spawn_blocking(work).await.map_err(|_| SpoolError::Closed)?;
    copied.map_err(io_error("copy its files"))
}

/// Reads everything, in a child where there is a binary for it.
async fn check(config: &SpoolConfig, generation: u64) -> Result<Verdict, SpoolError> {
    probe::forget_verdict(&config.dir);
    if run_child(config, &config.dir, generation, &[], PROBE)
        .await
        .is_some()
    {
        return Ok(probe::load_verdict(&config.dir).unwrap_or_default());
    }
    let root = config.dir.clone();
    spawn_blocking(move || probe::inspect(&root, generation))
        .await
        .map_err(|_| SpoolError::Closed)
}

/// Saves what can be read with sled's snapshot, and what can be without.
pub(super) async fn save(
    config: &SpoolConfig,
    root: &Path,
    generation: u64,
) -> Result<(), SpoolError> {
    probe::forget_saved(root);
    for copied in [Copied::Whole, Copied::WithoutDerived] {
        copy(root, generation, copied).await?;
        let extra = ["--salvage"];
        if run_child(config, root, generation, &extra, SALVAGE)
            .await
            .is_none()
        {
            let root = root.to_owned();
            let saved = spawn_blocking(move || probe::save(&root)).await;
            saved
                .map_err(|_| SpoolError::Closed)?
                .map_err(io_error("write what is salvaged"))?;
        }
    }
    Ok(())
}

/// Runs the probe to its end or its time limit. `None`: there is no binary to run.
async fn run_child(
    config: &SpoolConfig,
    root: &Path,
    generation: u64,
    extra: &[&str],
    limit: Duration,
) -> Option<()> {
    let mut child = Command::new(config.program.as_ref()?)
        .arg("spool-probe")
        .arg(root)
        .arg(generation.to_string())
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

/// Opens a sound spool. `None` where it turns out not to be.
fn resume(
    config: &SpoolConfig,
    place: &Place,
    verdict: &Verdict,
) -> Result<Option<(Queue, OpenReport)>, SpoolError> {
    let Some(mut ledger) = verdict.ledger.clone() else {
        return Ok(None);
    };
    // The copy takes the place of what it is a copy of when the ledger that names it is stored.
    let adopted = files::adopt_copy(&config.dir).map_err(io_error("take its copy"))?;
    reach("spool::opening-adopted");
    ledger.generation = adopted.unwrap_or(ledger.generation);
    let generation = ledger.generation;
    let resume = || {
        let mut disk = Disk::open(place, ledger.generation)?;
        // Its copy of the ledger names the generation it is a copy of.
        disk.apply(Vec::new(), Some(&ledger))?;
        Queue::resume(Box::new(disk), ledger.clone(), config.quota_bytes)
    };
    let mut resumed = resume();
    if matches!(resumed, Err(BackendError::Full)) && files::release_reserve(&config.dir) {
        resumed = resume();
    }
    let report = OpenReport {
        unread_records: verdict.unread_records,
        damaged: ledger.untold.clone(),
        ..OpenReport::default()
    };
    match resumed {
        Ok(queue) => {
            remove_other_generations(&config.dir, generation)?;
            Ok(Some((queue, report)))
        }
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
    place: Place,
    verdict: Verdict,
    now: UnixMillis,
) -> Result<(Queue, OpenReport), SpoolError> {
    let root = config.dir.clone();
    let quota_bytes = config.quota_bytes;
    let ledger = verdict.ledger.or_else(|| files::load_ledger(&root));
    if let Some(ledger) = &ledger {
        files::store_ledger(&root, ledger).map_err(io_error("write its watermark"))?;
        save(config, &root, ledger.generation).await?;
    }
    files::forget_copy(&root).map_err(io_error("remove its copy"))?;
    let detail = verdict.detail;
    let work = move || start_over(&place, ledger, detail, quota_bytes, now);
    spawn_blocking(work).await.map_err(|_| SpoolError::Closed)?
}

/// A fresh generation with what was saved, and the damaged one aside.
fn start_over(
    place: &Place,
    ledger: Option<Ledger>,
    detail: String,
    quota_bytes: u64,
    now: UnixMillis,
) -> Result<(Queue, OpenReport), SpoolError> {
    let root = place.root.as_path();
    let generations = files::generations(root).map_err(io_error("read its directory"))?;
    let damaged = ledger
        .as_ref()
        .map(|ledger| ledger.generation)
        .or(generations.last().copied());
    let generation = generations.last().map_or(1, |last| last + 1);
    let mut disk = Disk::open(place, generation)?;
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
    // Kept until it is told: the events that tell of it are appended after this.
    target.untold.clone_from(&report.damaged);
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
    probe::forget_saved(root);
    tracing::warn!(moved_to = ?report.moved_to, "spool: damaged, begun anew");
    Ok((Queue::new(Box::new(disk), target, quota_bytes), report))
}
