//! `infratrack-agent backup`.

use std::cell::Cell;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use infratrack_agent::backup::config;
use infratrack_agent::backup::remote::Collector;
use infratrack_agent::backup::run::{self, Host};
use infratrack_agent::cli::{Backup, BackupCommand, Began};
use infratrack_agent::clock::Clock;
use infratrack_agent::collect::{self, Root};
use infratrack_agent::config::Config;
use infratrack_shared::ids::VolumeId;
use infratrack_shared::wire::backup::{EndRun, Outcome, Progress, Trigger, Volume, reason};

use super::backup_restore;

mod drill;
mod keys;

/// For the line that says what to run.
const ASKED: Duration = Duration::from_secs(5);
const ASKED_BYTES: u64 = 128;
const INCOMPLETE: u8 = 3;
const BAD_CONFIG: u8 = 64;

/// Does what is asked, and says with which code to end.
pub(crate) fn run(config: &Config, arguments: &Backup) -> ExitCode {
    let host = host(config, arguments);
    let done = match &arguments.command {
        BackupCommand::Run { volume, trigger } => back_up(&host, volume, *trigger, arguments.json),
        BackupCommand::Drill {
            volume,
            mode,
            trigger,
        } => drill::rehearse(&host, volume, (*trigger, *mode), arguments.json),
        BackupCommand::List { volume } => {
            list(&host, volume.as_deref(), arguments.json).map(|()| ExitCode::SUCCESS)
        }
        BackupCommand::Keys(asked) => {
            keys::run(&host, asked, arguments.json).map(|()| ExitCode::SUCCESS)
        }
        BackupCommand::Read(read) => {
            backup_restore::run(Some(&host), arguments, read).map(|()| ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        super::complain(&error);
        ExitCode::FAILURE
    })
}

/// Runs the volume that the connection at standard input names. Which volume, and what began the run, is all that is taken from
/// there; the connection ends with the run, which is how the other end knows.
pub(crate) fn run_asked(config: &Config) -> ExitCode {
    let host = host_at(config, run::STATE_DIR.into(), config::DEFAULT_PATH.into());
    let done = asked().and_then(|asked| {
        if asked.is_drill {
            drill::rehearse(&host, &asked.volume, (asked.began, None), true)
        } else {
            back_up(&host, &asked.volume, asked.began, true)
        }
    });
    done.unwrap_or_else(|error| {
        super::complain(&error);
        ExitCode::FAILURE
    })
}

/// What the other end of the connection wants.
struct Asked {
    volume: String,
    began: Began,
    /// Not a run but a drill.
    is_drill: bool,
}

fn asked() -> anyhow::Result<Asked> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream
        .set_read_timeout(Some(ASKED))
        .context("standard input is not a connection")?;
    let mut line = String::new();
    stream.take(ASKED_BYTES).read_to_string(&mut line)?;
    let mut words = line.split_ascii_whitespace();
    let volume = words.next().unwrap_or_default();
    let volume: VolumeId = volume.parse().context("no volume is named")?;
    let began = words.next().unwrap_or_default();
    let began = Began::from_str(began, false).map_err(anyhow::Error::msg)?;
    let is_drill = match words.next() {
        None => false,
        Some("drill") => true,
        Some(_) => bail!("neither a run nor a drill is asked for"),
    };
    Ok(Asked {
        volume: volume.to_string(),
        began,
        is_drill,
    })
}

fn host(config: &Config, arguments: &Backup) -> Host {
    let or = |path: &Option<PathBuf>, default: &str| path.clone().unwrap_or_else(|| default.into());
    host_at(
        config,
        or(&arguments.backup_dir, run::STATE_DIR),
        or(&arguments.backup_config, config::DEFAULT_PATH),
    )
}

fn host_at(config: &Config, state_dir: PathBuf, allowed: PathBuf) -> Host {
    Host {
        collector: Collector::new(config.state_dir.clone(), config.endpoints.clone()),
        state_dir,
        allowed,
        hostname: collect::hostname(&Root::default()).unwrap_or_default(),
        clock: Clock::system(),
        patience: run::PATIENCE,
    }
}

fn trigger_of(began: Began) -> Trigger {
    match began {
        Began::Schedule => Trigger::Schedule,
        Began::Command => Trigger::Command,
        Began::Host => Trigger::Host,
    }
}

fn back_up(host: &Host, volume: &str, began: Began, is_json: bool) -> anyhow::Result<ExitCode> {
    let volume = find(host, volume)?;
    let trigger = trigger_of(began);
    let is_shown = !is_json && io::stderr().is_terminal();
    let begun = Instant::now();
    let shown = Shown::default();
    let ended = run::run(host, &volume, trigger, move |progress| {
        if is_shown {
            shown.show(&how_far(&progress, begun.elapsed()));
        }
    })?;
    if is_shown {
        writeln!(io::stderr()).ok();
    }
    if is_json {
        super::print(&serde_json::to_string(&ended)?);
    } else {
        super::print(&told(&volume.name, &ended));
    }
    Ok(code(&ended))
}

fn code(ended: &EndRun) -> ExitCode {
    match ended.outcome {
        Outcome::Ok => ExitCode::SUCCESS,
        Outcome::Incomplete => ExitCode::from(INCOMPLETE),
        Outcome::Failed | Outcome::Cancelled | Outcome::Other => {
            let ours = [
                reason::CONFIGURATION,
                reason::NO_RECIPIENTS,
                reason::UNKNOWN_PROGRAM,
            ];
            let is_ours = ended
                .reason
                .as_deref()
                .is_some_and(|reason| ours.contains(&reason));
            if is_ours {
                ExitCode::from(BAD_CONFIG)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn told(name: &str, ended: &EndRun) -> String {
    let outcome = match ended.outcome {
        Outcome::Ok => "ok",
        Outcome::Incomplete => "incomplete",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "cancelled",
        Outcome::Other => "unknown",
    };
    let Progress { files, bytes, .. } = ended.progress;
    let mut text = format!(
        "{name}: {outcome}, {files} files, {}, {} new",
        size(bytes),
        size(ended.new_bytes)
    );
    if let Some(snapshot) = ended.snapshot {
        text = format!("{text}, snapshot {snapshot}");
    }
    if let Some(reason) = &ended.reason {
        let detail = ended.detail.as_deref().unwrap_or_default();
        text = format!("{text}\n{reason}: {detail}");
    }
    text
}

/// One line: how much, how fast, and how long it still takes.
fn how_far(progress: &Progress, since: Duration) -> String {
    let (files, bytes) = (progress.files, progress.bytes);
    let sent = format!("{} sent", size(progress.sent_bytes));
    line((files, bytes), &sent, progress.bytes_expected, since)
}

/// Likewise of anything that goes through files; `also` is said of it too.
pub(super) fn line(
    (files, bytes): (u64, u64),
    also: &str,
    expected: Option<u64>,
    since: Duration,
) -> String {
    let rate = bytes / since.as_secs().max(1);
    let (read, fast) = (size(bytes), size(rate));
    let so_far = format!("{files} files, {read}, {also}, {fast}/s");
    let expected = expected.filter(|all| *all > bytes);
    let Some((all, left)) = expected.and_then(|all| Some((all, (all - bytes).checked_div(rate)?)))
    else {
        return so_far;
    };
    let percent = bytes.saturating_mul(100) / all;
    let left = Duration::from_secs(left);
    format!("{so_far}, {percent} %, {left:?} left")
}

/// Writes lines over one another, for who waits.
#[derive(Debug, Default)]
pub(super) struct Shown {
    widest: Cell<usize>,
}

impl Shown {
    pub(super) fn show(&self, line: &str) {
        let width = self.widest.get().max(line.len());
        self.widest.set(width);
        // Who can't read it has the result.
        write!(io::stderr(), "\r{line:width$}").ok();
    }
}

/// For people, in powers of 1,024.
pub(super) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut number = bytes as f64;
    let mut unit = 0;
    while number >= 1024.0 && unit + 1 < units.len() {
        number /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{number:.1} {}", units[unit])
    }
}

fn list(host: &Host, volume: Option<&str>, is_json: bool) -> anyhow::Result<()> {
    let Some(volume) = volume else {
        return list_volumes(host, is_json);
    };
    let volume = find(host, volume)?;
    let mut collector = host.collector.clone();
    let found = runtime()?.block_on(collector.snapshots(volume.id, None));
    let found = found.context("the collector does not say which snapshots there are")?;
    if is_json {
        super::print(&serde_json::to_string(&found.snapshots)?);
        return Ok(());
    }
    for snapshot in &found.snapshots {
        let at = jiff::Timestamp::from_millisecond(snapshot.at.0)?;
        let state = if snapshot.is_whole {
            "whole"
        } else {
            "incomplete"
        };
        let (id, files) = (snapshot.id, snapshot.files);
        super::print(&format!(
            "{id}  {at}  {state}  {files} files  {}",
            size(snapshot.bytes)
        ));
    }
    Ok(())
}

fn list_volumes(host: &Host, is_json: bool) -> anyhow::Result<()> {
    let volumes = volumes(host)?;
    if is_json {
        super::print(&serde_json::to_string(&volumes)?);
        return Ok(());
    }
    for volume in &volumes {
        let schedule = match &volume.schedule {
            Some(_) if volume.is_paused => "paused",
            Some(schedule) => schedule,
            None => "on command",
        };
        super::print(&format!("{}  {}  {schedule}", volume.id, volume.name));
    }
    Ok(())
}

pub(super) fn find(host: &Host, wanted: &str) -> anyhow::Result<Volume> {
    let is_it = |volume: &Volume| volume.name == wanted || volume.id.to_string() == wanted;
    let found = volumes(host)?.into_iter().find(is_it);
    let Some(volume) = found else {
        bail!("this host has no volume {wanted}; `infratrack-agent backup list` says which it has");
    };
    Ok(volume)
}

fn volumes(host: &Host) -> anyhow::Result<Vec<Volume>> {
    let mut collector = host.collector.clone();
    let answer = runtime()?.block_on(collector.volumes());
    let answer = answer.context("the collector does not say what this host is to protect")?;
    Ok(answer.volumes)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
