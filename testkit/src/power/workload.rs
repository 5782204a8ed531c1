//! The run that is recorded: a seeded day of a spool in a few seconds, every step marked.
//!
//! A run may begin on what a crash of another one left; then it knows that one's marks too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use infratrack_agent::spool::{Budget, Spool, SpoolConfig};
use infratrack_shared::ids::{BootId, StreamId};
use infratrack_shared::wire::answer::{Cursor, Expected};
use infratrack_shared::wire::batch::Class;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::Journal;
use super::history::History;
use super::mark::{self, Mark, Marks, NOW, VALUE};
use super::{strace, trace};

/// What a run does beside appending, sending and being told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Restarts, forks, a collector that loses its last commits.
    Plain,
    /// A quota so small that files rotate and old records yield all the time.
    Quota,
    /// The store's process ends between any two uses.
    Idle,
    /// Records are garbled, so that the spool is moved aside and begun anew.
    Damage,
}

/// A run that can be repeated. What sled's own threads do in the meantime can't.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub scenario: Scenario,
    pub seed: u64,
    pub steps: u32,
}

/// A run and everything it did to its directory.
#[derive(Debug)]
pub struct Recording {
    pub plan: Plan,
    pub journal: Journal,
    /// What was known before it.
    pub before: History,
    /// What was known after it.
    pub after: History,
}

impl Recording {
    /// What was known when line `at` of the trace was about to happen.
    pub fn history(&self, at: usize) -> anyhow::Result<History> {
        let mut history = self.before.clone();
        for (_, mark) in self.journal.marks().take_while(|(line, _)| *line < at) {
            history.step(mark)?;
        }
        Ok(history)
    }

    /// The marks up to there, to begin another run with.
    pub fn marks(&self, at: usize) -> Vec<Mark> {
        let marks = self.journal.marks().take_while(|(line, _)| *line < at);
        marks.map(|(_, mark)| mark.clone()).collect()
    }
}

/// Runs `plan` with `binary` under strace, in a directory of its own below `place`: from nothing, or from
/// a crash of another run, which is given by its directory and its marks.
pub fn record(
    binary: &Path,
    plan: Plan,
    place: &Path,
    crashed: Option<(&Path, &[Mark])>,
) -> anyhow::Result<Recording> {
    let place = place.canonicalize()?;
    let root = place.join("spool");
    let (marks, log) = (place.join("marks"), place.join("strace"));
    let mut program = command(binary, plan, &root, &marks)?;
    let mut before = History::default();
    if let Some((directory, earlier)) = crashed {
        let file = place.join("earlier");
        fs::write(&file, serde_json::to_vec(earlier)?)?;
        program.arg("--earlier").arg(file);
        fs::rename(directory, &root)?;
        for mark in earlier {
            before.step(mark)?;
        }
    }
    let base = place.join("before");
    if root.exists() {
        copy(&root, &base)?;
    }
    strace::run(&mut program, &log)?;
    let text = fs::read_to_string(&log)?;
    let events = trace::read(&text, &root, &marks)?;
    let journal = Journal::new(&root, base.exists().then_some(base.as_path()), events)?;
    let mut recording = Recording {
        plan,
        journal,
        after: before.clone(),
        before,
    };
    ensure!(recording.journal.end() > 0, "the run left no trace");
    recording.after = recording.history(usize::MAX)?;
    Ok(recording)
}

/// The process that runs `plan` in `root`.
pub fn command(binary: &Path, plan: Plan, root: &Path, marks: &Path) -> anyhow::Result<Command> {
    let mut program = Command::new(binary);
    program.arg("run").arg(root).arg(marks);
    let scenario = plan.scenario.to_possible_value().context("a name")?;
    program.args(["--scenario", scenario.get_name()]);
    program.args(["--seed", &plan.seed.to_string()]);
    program.args(["--steps", &plan.steps.to_string()]);
    Ok(program)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// How the spool of a scenario is opened.
pub fn config(scenario: Scenario, directory: &Path, program: Option<PathBuf>) -> SpoolConfig {
    let quota_bytes = match scenario {
        Scenario::Quota => 1024 * 1024,
        Scenario::Plain | Scenario::Idle | Scenario::Damage => 128 * 1024 * 1024,
    };
    let default = SpoolConfig::new(directory);
    let idle = match scenario {
        Scenario::Idle => Duration::ZERO,
        Scenario::Plain | Scenario::Quota | Scenario::Damage => default.idle,
    };
    SpoolConfig {
        quota_bytes,
        program,
        idle,
        ..default
    }
}

/// The run itself, inside the traced process.
pub async fn run(
    plan: Plan,
    directory: &Path,
    marks: Marks,
    earlier: &[Mark],
    program: PathBuf,
) -> anyhow::Result<()> {
    let mut history = History::default();
    for mark in earlier {
        history.step(mark)?;
    }
    let config = config(plan.scenario, directory, Some(program));
    let (spool, report) = Spool::open(config.clone(), NOW).await?;
    let mut run = Run {
        scenario: plan.scenario,
        spool: Some(spool),
        config,
        marks,
        history,
        random: StdRng::seed_from_u64(plan.seed),
    };
    run.opened(!report.damaged.is_empty()).await?;
    for _ in 0..plan.steps {
        run.step().await?;
    }
    // To its end, so that every loss is told: what damage on purpose may cost.
    while run.send(500, true).await? {}
    if let Some(spool) = run.spool.take() {
        spool.close().await?;
    }
    Ok(())
}

struct Run {
    scenario: Scenario,
    config: SpoolConfig,
    /// `None` only between a close and the next open.
    spool: Option<Spool>,
    marks: Marks,
    /// The run holds the spool to the same rules as the judge after a crash.
    history: History,
    random: StdRng,
}

impl Run {
    fn spool(&self) -> anyhow::Result<&Spool> {
        self.spool.as_ref().context("the spool is open")
    }

    fn mark(&mut self, mark: &Mark) -> anyhow::Result<()> {
        self.marks.put(mark)?;
        self.history.step(mark)
    }

    async fn opened(&mut self, damaged: bool) -> anyhow::Result<()> {
        let stream = self.spool()?.stream();
        self.mark(&Mark::Opened { stream, damaged })?;
        if damaged {
            self.spool()?.damage_told().await?;
            self.mark(&Mark::Told)?;
        }
        Ok(())
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        match self.random.random_range(40..140) {
            40..50 => self.append(Class::Beat).await,
            50..75 => {
                let records = self.random.random_range(1..40);
                let is_answered = self.random.random_ratio(4, 5);
                self.send(records, is_answered).await.map(drop)
            }
            75..80 => self.heartbeat().await,
            80..85 => self.put().await,
            85..90 if self.scenario == Scenario::Plain => self.forget().await,
            90..93 if self.scenario == Scenario::Plain => self.fork().await,
            93..95 => self.reopen().await,
            95..97 if self.scenario == Scenario::Damage => self.damage().await,
            _ => self.append(Class::Critical).await,
        }
    }

    async fn append(&mut self, class: Class) -> anyhow::Result<()> {
        let from = self.history.fresh;
        let count = match self.scenario {
            Scenario::Quota => self.random.random_range(1..20),
            Scenario::Plain | Scenario::Idle | Scenario::Damage => self.random.random_range(1..6),
        };
        self.mark(&Mark::Append { class, from, count })?;
        let records = (from..from + count).map(mark::record).collect();
        let last = self.spool()?.append(class, records).await?;
        let stream = self.spool()?.stream();
        self.mark(&Mark::Appended { stream, last })
    }

    /// Answers whether there was anything to send.
    async fn send(&mut self, records: usize, is_answered: bool) -> anyhow::Result<bool> {
        let budget = Budget {
            records,
            bytes: 4 << 20,
            items: 100_000,
        };
        let next = self.spool()?.next(budget, BootId::default()).await?;
        let Some(outgoing) = next else {
            return Ok(false);
        };
        let mut cursors = Vec::new();
        for part in &outgoing.parts {
            let known = self.history.cursor(outgoing.stream, part.class);
            if part.first_seq > known + 1 {
                self.rewind(outgoing.stream, part.class).await?;
                return Ok(true);
            }
            let sent = mark::sent(outgoing.stream, part).context("a record is not its own")?;
            self.mark(&sent)?;
            let accounted = part.records.len() as u64;
            let lost = part.lost.iter().map(|lost| lost.to - lost.from + 1);
            cursors.push(Cursor {
                stream: outgoing.stream,
                class: part.class,
                acked_seq: (part.first_seq + accounted + lost.sum::<u64>() - 1).max(known),
            });
        }
        if !is_answered {
            return Ok(true);
        }
        for cursor in &cursors {
            self.mark(&Mark::Committed {
                stream: cursor.stream,
                class: cursor.class,
                to: cursor.acked_seq,
            })?;
        }
        self.spool()?.acknowledge(&cursors, NOW).await?;
        Ok(true)
    }

    async fn heartbeat(&mut self) -> anyhow::Result<()> {
        let number = self.spool()?.heartbeat_number().await?;
        self.mark(&Mark::Heartbeat { number })
    }

    async fn put(&mut self) -> anyhow::Result<()> {
        let value = self.random.random();
        self.mark(&Mark::Put { value })?;
        let bytes = value.to_be_bytes().to_vec();
        self.spool()?.put(VALUE, bytes.into()).await?;
        self.mark(&Mark::HasPut { value })
    }

    async fn forget(&mut self) -> anyhow::Result<()> {
        let stream = self.spool()?.stream();
        let class = Class::Critical;
        let back = self.random.random_range(1..10);
        let to = self.history.cursor(stream, class).saturating_sub(back);
        self.mark(&Mark::Forgot { stream, class, to })?;
        self.rewind(stream, class).await
    }

    /// Takes the spool back to where the collector stands.
    async fn rewind(&mut self, stream: StreamId, class: Class) -> anyhow::Result<()> {
        let seq = self.history.cursor(stream, class) + 1;
        let expected = [Expected { stream, class, seq }];
        self.spool()?.rewind(&expected, NOW).await?;
        Ok(())
    }

    async fn fork(&mut self) -> anyhow::Result<()> {
        self.mark(&Mark::Fork)?;
        let stream = self.spool()?.stream();
        self.spool()?.fork(stream, NOW).await?;
        let stream = self.spool()?.stream();
        self.mark(&Mark::Forked { stream })
    }

    async fn reopen(&mut self) -> anyhow::Result<()> {
        if let Some(spool) = self.spool.take() {
            spool.close().await?;
        }
        let (spool, report) = Spool::open(self.config.clone(), NOW).await?;
        self.spool = Some(spool);
        let opened = self.opened(!report.damaged.is_empty()).await;
        opened.with_context(|| format!("{report:?}"))
    }

    /// Garbles a record behind the spool's back, synced as a bad disk would be.
    async fn damage(&mut self) -> anyhow::Result<()> {
        if let Some(spool) = self.spool.take() {
            spool.close().await?;
        }
        self.mark(&Mark::Damage)?;
        let near = self.random.random_range(1..12);
        garble(&self.config.dir, self.history.fresh.saturating_sub(near))?;
        self.reopen().await
    }
}

/// Flips a bit in every copy of a record below `directory`.
fn garble(directory: &Path, number: u64) -> anyhow::Result<()> {
    use std::os::unix::fs::FileExt;

    let needle = mark::needle(number);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            garble(&entry.path(), number)?;
            continue;
        }
        let content = fs::read(entry.path())?;
        let windows = content.windows(needle.len()).enumerate();
        let hits = windows.filter(|(_, window)| *window == needle.as_bytes());
        let file = fs::OpenOptions::new().write(true).open(entry.path())?;
        for (at, window) in hits {
            file.write_all_at(&[window[0] ^ 1], at as u64)?;
        }
        file.sync_all()?;
    }
    Ok(())
}
