//! Many crashes of many runs, counted, each of which can be had again from its seed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use infratrack_shared::ids::StreamId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use super::history::History;
use super::judge::judge;
use super::mark::{Mark, Marks};
use super::workload::{Plan, Recording, Scenario, command, record};

/// SIGABRT, which ends a process at a failpoint.
const ABORTED: i32 = 6;

/// See the module.
#[derive(Debug)]
pub struct Campaign {
    /// The program that runs a plan.
    binary: PathBuf,
    scratch: TempDir,
    tally: Tally,
}

/// What was done, so that a campaign that tested nothing can be told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub crashes: usize,
    /// Crashes in which something unsynced was there to be lost.
    pub with_unsynced: usize,
    pub slowest: Duration,
}

impl Campaign {
    pub fn new(binary: impl Into<PathBuf>) -> anyhow::Result<Self> {
        Ok(Self {
            binary: binary.into(),
            scratch: scratch()?,
            tally: Tally::default(),
        })
    }

    /// Runs `plan`; see [`record`].
    pub fn record(
        &self,
        plan: Plan,
        crashed: Option<(&Path, &[Mark])>,
    ) -> anyhow::Result<Recording> {
        let place = tempfile::tempdir_in(self.scratch.path())?.keep();
        let recorded = record(&self.binary, plan, &place, crashed);
        match recorded {
            Ok(recording) => {
                fs::remove_dir_all(&place)?;
                Ok(recording)
            }
            Err(error) => {
                let kept = self.keep(&place)?;
                Err(error.context(format!("{plan:?} itself, kept in {}", kept.display())))
            }
        }
    }

    /// Crashes a run `count` times and judges each; half of the crashes come right after a promise.
    pub async fn crash(&mut self, run: &Recording, count: usize) -> anyhow::Result<()> {
        let mut random = StdRng::seed_from_u64(run.plan.seed);
        let promises = run.journal.promises();
        let excused = run.after.damage();
        for _ in 0..count {
            let at = if random.random() {
                promises[random.random_range(0..promises.len())]
            } else {
                random.random_range(1..=run.journal.end())
            };
            self.crash_at(run, at, random.random(), &excused).await?;
        }
        Ok(())
    }

    /// Runs on what a crash in the middle of a run left, and crashes that.
    pub async fn crash_twice(&mut self, plan: Plan, count: usize) -> anyhow::Result<()> {
        let first = self.record(plan, None)?;
        let mut random = StdRng::seed_from_u64(plan.seed);
        let promises = first.journal.promises();
        let at = promises[random.random_range(promises.len() / 2..promises.len())];
        let crashed = self.place("first")?;
        first.journal.crash(at, random.random(), &crashed)?;
        let marks = first.marks(at);
        let again = Plan {
            seed: plan.seed + 1,
            ..plan
        };
        let second = self.record(again, Some((&crashed, &marks)))?;
        self.crash(&second, count).await
    }

    /// Ends the process of `plan` when it comes by a failpoint for the `times`th time, and judges what it
    /// left. Answers whether it ever came by that often. Not for plans with damage: what that may cost is
    /// known only by who gets to the end.
    pub async fn kill(&mut self, plan: Plan, point: &str, times: u32) -> anyhow::Result<bool> {
        let place = tempfile::tempdir_in(self.scratch.path())?.keep();
        let (root, marks) = (place.join("spool"), place.join("marks"));
        let done = command(&self.binary, plan, &root, &marks)?
            .env("FAILPOINTS", format!("{point}={}*off->return", times - 1))
            .stderr(Stdio::null())
            .status()?;
        if done.success() {
            fs::remove_dir_all(place)?;
            return Ok(false);
        }
        ensure!(
            done.signal() == Some(ABORTED),
            "{plan:?} failed before {point}: {done}"
        );
        let mut history = History::default();
        for mark in Marks::read(&marks)? {
            history.step(&mark)?;
        }
        let judged = judge(&root, plan.scenario, history, &BTreeSet::new()).await;
        judged.with_context(|| {
            format!("{plan:?} killed at {point} {times}, in {}", place.display())
        })?;
        fs::remove_dir_all(place)?;
        Ok(true)
    }

    async fn crash_at(
        &mut self,
        run: &Recording,
        at: usize,
        seed: u64,
        excused: &BTreeSet<(StreamId, u64)>,
    ) -> anyhow::Result<()> {
        let target = self.place("crashed")?;
        let (fate, unsynced) = run.journal.crash(at, seed, &target)?;
        let history = run.history(at)?;
        let start = Instant::now();
        let judged = judge(&target, run.plan.scenario, history, excused).await;
        self.tally.crashes += 1;
        self.tally.with_unsynced += usize::from(unsynced > 0);
        self.tally.slowest = self.tally.slowest.max(start.elapsed());
        if let Err(error) = judged {
            let again = self.place("again")?;
            run.journal.crash(at, seed, &again)?;
            fs::write(
                again.join("story"),
                run.journal.describe(at.saturating_sub(200), at),
            )?;
            let kept = self.keep(&again)?.display().to_string();
            return Err(error.context(format!(
                "{:?} crashed at line {at} with seed {seed} ({fate}, {unsynced} unsynced), kept in {kept}",
                run.plan
            )));
        }
        fs::remove_dir_all(target)?;
        Ok(())
    }

    fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        let place = self.scratch.path().join(name);
        fs::create_dir(&place).with_context(|| place.display().to_string())?;
        Ok(place)
    }

    /// Takes a directory out of what is deleted at the end.
    fn keep(&self, directory: &Path) -> anyhow::Result<PathBuf> {
        let scratch = self.scratch.path();
        let name = scratch.file_name().context("a name")?.to_string_lossy();
        let kept = scratch.with_file_name(format!("infratrack-power-{name}"));
        fs::rename(directory, &kept)?;
        Ok(kept)
    }

    /// Answers what was done; fails where that is next to nothing.
    pub fn finish(self, least: usize) -> anyhow::Result<Tally> {
        let tally = self.tally;
        ensure!(tally.crashes >= least, "only {tally:?}");
        ensure!(
            tally.with_unsynced > least / 2,
            "nothing to lose: {tally:?}"
        );
        Ok(tally)
    }
}

/// Every scenario with this seed.
pub fn plans(seed: u64, steps: u32) -> [Plan; 4] {
    let scenarios = [
        Scenario::Plain,
        Scenario::Quota,
        Scenario::Idle,
        Scenario::Damage,
    ];
    scenarios.map(|scenario| Plan {
        scenario,
        seed,
        steps,
    })
}

/// A directory on a disk of memory where there is one: what the disk would do is modelled here, and
/// a real one only takes its time.
fn scratch() -> anyhow::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(scratch) = TempDir::new_in(memory)
    {
        return Ok(scratch);
    }
    Ok(TempDir::new()?)
}
