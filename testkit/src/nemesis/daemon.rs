//! A real agent, enrolled with a world's collector and run as on a host.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use infratrack_agent::config::Config;
use infratrack_agent::identity::Identity;
use infratrack_shared::ids::HostId;

use super::points::{armed, ended_at_point};
use super::world::World;
use crate::operators::Operators;
use crate::postgres::binary;
use crate::process::Process;

/// First contact takes no longer.
const ENROLL: Duration = Duration::from_secs(60);

/// See the module. Its process ends with it.
#[derive(Debug)]
pub struct Daemon {
    pub host: HostId,
    dir: PathBuf,
    process: Option<Process>,
}

impl World {
    /// Enrolls this machine as a host; it does not run yet.
    pub async fn daemon(&self) -> anyhow::Result<Daemon> {
        let dir = self.dir.path().join("daemon");
        std::fs::create_dir(&dir)?;
        let config = Config {
            state_dir: dir.join("state"),
            facts_dir: dir.join("facts.d"),
            endpoints: vec![self.network.address().to_string()],
            ..Config::default()
        };
        std::fs::write(dir.join("agent.toml"), toml::to_string(&config)?)?;
        let token = self
            .operators_api()?
            .create("/api/v1/enroll-tokens", &serde_json::json!({}))
            .await?;
        let token = token["token"].as_str().context("a token")?;
        std::fs::write(dir.join("token"), token)?;
        let enroll = self.collectors[self.current].enroll.to_string();
        let mut command = agent(&dir)?;
        command
            .args(["enroll", "--collector", &enroll, "--token-file"])
            .arg(dir.join("token"));
        let mut enrolling = Process::start(&mut command, &dir.join("log"), Stdio::null())?;
        let status = enrolling.ended(ENROLL).await?;
        anyhow::ensure!(status.success(), "the agent did not enroll: {status}");
        let host = Identity::open(&config.state_dir)?.current()?.host;
        Ok(Daemon {
            host,
            dir,
            process: None,
        })
    }

    /// The operators' listener of the collector that agents talk to, as an administrator.
    pub fn operators_api(&self) -> anyhow::Result<Operators> {
        Ok(Operators {
            address: self.operators(),
            token: std::fs::read_to_string(self.dir.path().join("admin_token"))?,
        })
    }
}

impl Daemon {
    /// Where it keeps identity and spool.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// What it logs.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Its command, for a test that runs it in its own way.
    pub fn command(&self) -> anyhow::Result<Command> {
        let mut command = agent(&self.dir)?;
        command.arg("run");
        Ok(command)
    }

    /// Starts it, perhaps to end at a named point when it comes by for the first time.
    pub fn start(&mut self, point: Option<&str>) -> anyhow::Result<()> {
        let mut command = self.command()?;
        command.env(
            "FAILPOINTS",
            point.map(|point| armed(point, 0.0)).unwrap_or_default(),
        );
        self.process = Some(Process::start(&mut command, &self.log(), Stdio::null())?);
        Ok(())
    }

    /// Waits until it has ended. Answers whether that was at its point.
    pub async fn ended_at_point(&mut self) -> anyhow::Result<bool> {
        let mut process = self.process.take().context("it runs")?;
        ended_at_point(&mut process).await
    }

    /// Ends it in order.
    pub async fn ended_in_order(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("it runs")?;
        process.signal(nix::sys::signal::Signal::SIGTERM);
        process.ended(ENROLL).await.map(drop)
    }
}

fn agent(dir: &std::path::Path) -> anyhow::Result<Command> {
    let mut command = Command::new(binary("infratrack-agent")?);
    command.arg("--config").arg(dir.join("agent.toml"));
    Ok(command)
}
