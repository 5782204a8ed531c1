//! What a program and all that it starts take: run by a process that has no other children, so that what the kernel keeps of
//! children that have ended is of these alone.
//!
//! Memory is that of the largest process among them, as it was at its most. The largest it can be wrong by is the runner itself,
//! whose size every process has for the moment between its fork and its own program.

use std::ffi::OsString;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use super::super::rounds::median;

/// Of one run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    pub wall: Duration,
    pub cpu: Duration,
    /// The part of it that the kernel's work is not in.
    #[serde(default)]
    pub user: Duration,
    /// Of the largest process.
    pub peak_bytes: u64,
}

impl Cost {
    /// The middle of each.
    pub fn middle(costs: &[Self]) -> Option<Self> {
        let of = |part: fn(&Self) -> f64| median(&costs.iter().map(part).collect::<Vec<_>>());
        let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "of sizes"
        )]
        Some(Self {
            wall: seconds(of(|cost| cost.wall.as_secs_f64())?)?,
            cpu: seconds(of(|cost| cost.cpu.as_secs_f64())?)?,
            user: seconds(of(|cost| cost.user.as_secs_f64())?)?,
            peak_bytes: of(|cost| cost.peak_bytes as f64)? as u64,
        })
    }
}

/// Runs a program by a process of this benchmark's, which calls [`run_here`].
pub fn run(command: &Command, says: &str) -> anyhow::Result<Cost> {
    let mut runner = Command::new(std::env::current_exe()?);
    runner.arg("--").arg(command.get_program());
    runner.args(command.get_args()).stdin(said(says)?);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => runner.env(name, value),
            None => runner.env_remove(name),
        };
    }
    let output = runner.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?} failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A standard input that says this, and is a connection.
pub fn said(words: &str) -> anyhow::Result<Stdio> {
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.write_all(words.as_bytes())?;
    ours.shutdown(Shutdown::Write)?;
    Ok(Stdio::from(OwnedFd::from(theirs)))
}

/// What the process that is started by [`run`] does.
pub fn run_here(command: &[OsString]) -> anyhow::Result<Cost> {
    let (program, arguments) = command.split_first().context("no program")?;
    let begun = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let wall = begun.elapsed();
    ensure!(status.success(), "{}: {status}", program.display());
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let (user, system) = (usage.user_time(), usage.system_time());
    let micros = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs())
            + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    Ok(Cost {
        wall,
        cpu: micros(user) + micros(system),
        user: micros(user),
        peak_bytes: usage.max_rss().unsigned_abs() * 1024,
    })
}
