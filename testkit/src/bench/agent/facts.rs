//! A full collection of facts, beside those of facter and ansible: wall and CPU time, in turns.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};

use super::super::rounds::median;

/// Of one program, medians over the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub wall: Duration,
    pub cpu: Duration,
}

/// The agent's, facter's and ansible's.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub agent: Took,
    pub facter: Took,
    pub ansible: Took,
}

/// Runs each program once a round, `rounds` times, after one round that only warms the disk's cache.
pub fn measure(agent: &Path, dir: &Path, rounds: usize) -> anyhow::Result<Facts> {
    let mut collect = Command::new(agent);
    collect.arg("facts");
    let mut facter = Command::new("facter");
    facter.arg("--json");
    let mut ansible = Command::new("ansible");
    ansible
        .args(["localhost", "-m", "setup"])
        .env("ANSIBLE_HOME", dir.join("ansible"))
        .env("ANSIBLE_LOCAL_TEMP", dir.join("ansible/local"))
        .env("ANSIBLE_REMOTE_TEMP", dir.join("ansible/remote"))
        .env("ANSIBLE_LOCALHOST_WARNING", "false");
    let mut programs = [collect, facter, ansible];
    let mut took: [Vec<Took>; 3] = Default::default();
    for round in 0..=rounds {
        for (program, took) in programs.iter_mut().zip(&mut took) {
            let this = run(program)?;
            if round > 0 {
                took.push(this);
            }
        }
    }
    let [agent, facter, ansible] = took.map(|took| middle(&took));
    Ok(Facts {
        agent: agent.context("no round")?,
        facter: facter.context("no round")?,
        ansible: ansible.context("no round")?,
    })
}

fn run(program: &mut Command) -> anyhow::Result<Took> {
    let name = program.get_program().to_owned();
    let (before, started) = (children_cpu()?, Instant::now());
    let output = program
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", name.display()))?;
    let took = Took {
        wall: started.elapsed(),
        cpu: children_cpu()?.saturating_sub(before),
    };
    // facter fails over a single fact it may not read, and prints the others.
    ensure!(
        output.stdout.len() > 1000,
        "{} printed no facts: {}",
        name.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took)
}

/// Of all children of this process that have ended.
fn children_cpu() -> anyhow::Result<Duration> {
    let usage: Usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let (user, system) = (usage.user_time(), usage.system_time());
    let micros = |seconds: i64, micros: i64| {
        Duration::new(seconds.unsigned_abs(), 0) + Duration::from_micros(micros.unsigned_abs())
    };
    Ok(micros(user.tv_sec(), user.tv_usec()) + micros(system.tv_sec(), system.tv_usec()))
}

fn middle(took: &[Took]) -> Option<Took> {
    let of = |part: fn(&Took) -> Duration| {
        let seconds: Vec<f64> = took.iter().map(|took| part(took).as_secs_f64()).collect();
        median(&seconds).map(Duration::from_secs_f64)
    };
    Some(Took {
        wall: of(|took| took.wall)?,
        cpu: of(|took| took.cpu)?,
    })
}
