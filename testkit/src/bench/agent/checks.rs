//! One check for updates as its unit runs it, beside what apt alone takes for its two answers to the same question.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use infratrack_agent::updates::Answer;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use tokio::time::sleep;

use super::alone::{self, Cost};

/// Between two looks at a process that grows.
const LOOK: Duration = Duration::from_millis(1);

/// Medians over the rounds.
#[derive(Clone, Debug)]
pub struct Checks {
    /// With the programs that it starts.
    pub check: Cost,
    /// Its own process.
    pub own: Cost,
    pub simulation: Cost,
    pub list: Cost,
    pub pending: usize,
    pub installed: usize,
}

/// Asks `rounds` times in turns, after one round that only warms the disk's cache.
pub async fn measure(agent: &Path, work: &Path, rounds: usize) -> anyhow::Result<Checks> {
    let results = work.join("results");
    fs::create_dir_all(&results)?;
    let mut check = Command::new(agent);
    check
        .arg("check-updates")
        .env("RUNTIME_DIRECTORY", &results)
        .env("MALLOC_ARENA_MAX", "1");
    let mut simulation = Command::new("apt-get");
    simulation.args(["--simulate", "dist-upgrade"]);
    let mut list = Command::new("apt");
    list.args(["list", "--upgradable"]);
    let mut costs: [Vec<Cost>; 4] = Default::default();
    for round in 0..=rounds {
        let these = [
            alone::run(&check, "apt")?,
            own(&mut check).await?,
            alone::run(&simulation, "")?,
            alone::run(&list, "")?,
        ];
        if round > 0 {
            for (costs, this) in costs.iter_mut().zip(these) {
                costs.push(this);
            }
        }
    }
    let answer: Answer = serde_json::from_slice(&fs::read(results.join("apt.json"))?)?;
    if let Some(reason) = answer.check.unknown {
        anyhow::bail!("apt could not be asked: {reason}");
    }
    let [check, own, simulation, list] = costs.map(|costs| Cost::middle(&costs));
    Ok(Checks {
        check: check.context("no round")?,
        own: own.context("no round")?,
        simulation: simulation.context("no round")?,
        list: list.context("no round")?,
        pending: answer.pending.len(),
        installed: super::inventory::installed_here()?,
    })
}

/// The process of a check without those that it starts, looked at until it ends.
async fn own(check: &mut Command) -> anyhow::Result<Cost> {
    let begun = Instant::now();
    let mut child = check
        .stdin(alone::said("apt")?)
        .stdout(Stdio::null())
        .spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak_bytes = 0;
    loop {
        let text = fs::read_to_string(&status)?;
        // One that has ended, and was not waited for, has no memory.
        let Some(peak) = text.lines().find_map(|line| line.strip_prefix("VmHWM:")) else {
            break;
        };
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse()?;
        peak_bytes = peak_bytes.max(kib * 1024);
        sleep(LOOK).await;
    }
    let wall = begun.elapsed();
    let clock = clock_getcpuclockid(Pid::from_raw(child.id().cast_signed()))?;
    let cpu = Duration::from(clock_gettime(clock)?);
    let status = child.wait()?;
    ensure!(status.success(), "the check for updates failed: {status}");
    Ok(Cost {
        wall,
        cpu,
        peak_bytes,
        ..Cost::default()
    })
}
