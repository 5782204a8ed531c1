//! A collector's process: its addresses and configuration stay when it is started again.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use infratrack_collector::config::Config;

use crate::operators::Operators;
use crate::postgres::binary;
use crate::process::Process;

/// See the module.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) process: Process,
    pub(super) agents: SocketAddr,
    pub(super) enroll: SocketAddr,
    pub(super) operators: SocketAddr,
    config: PathBuf,
}

impl Node {
    /// Starts one of several that share a database and a CA below `dir`.
    pub(super) fn start(
        dir: &Path,
        index: usize,
        address: IpAddr,
        database: SocketAddr,
        change: fn(&mut Config),
    ) -> anyhow::Result<Self> {
        let mut config = Config {
            data_dir: dir.join("collector"),
            ..Config::default()
        };
        let [agents, enroll, operators] = free_addresses(address)?;
        config.agents.listen = agents;
        config.enroll.listen = enroll;
        config.operators.listen = operators;
        config.ingest.host_batches_per_second = 1000;
        config.ingest.host_batches_burst = 1000;
        change(&mut config);
        let path = dir.join(format!("collector-{index}.toml"));
        std::fs::write(&path, toml::to_string(&config)?)?;
        let process = spawn(dir, index, database, &path, None)?;
        Ok(Self {
            process,
            agents,
            enroll,
            operators,
            config: path,
        })
    }

    /// Starts it again, perhaps to end at a named point; it has ended.
    pub(super) fn restart(
        &mut self,
        dir: &Path,
        index: usize,
        database: SocketAddr,
        failpoints: Option<&str>,
    ) -> anyhow::Result<()> {
        self.process = spawn(dir, index, database, &self.config, failpoints)?;
        Ok(())
    }

    /// Its program with its configuration and database, without a subcommand.
    pub(super) fn command(&self, database: SocketAddr) -> anyhow::Result<Command> {
        command(database, &self.config)
    }

    /// Whether it can do its work.
    pub(super) async fn is_up(&self) -> bool {
        let anybody = Operators {
            address: self.operators,
            token: String::new(),
        };
        let asked = anybody.get("/health/ready").await;
        asked.is_ok_and(|(status, _)| status.is_success())
    }
}

fn command(database: SocketAddr, config: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(binary("infratrack-collector")?);
    let url = format!("postgres://infratrack@{database}/infratrack?sslmode=disable");
    command.arg("--config").arg(config).env("DATABASE_URL", url);
    Ok(command)
}

fn spawn(
    dir: &Path,
    index: usize,
    database: SocketAddr,
    config: &Path,
    failpoints: Option<&str>,
) -> anyhow::Result<Process> {
    let mut command = command(database, config)?;
    command
        .arg("serve")
        .env("FAILPOINTS", failpoints.unwrap_or_default());
    let log = dir.join(format!("collector-{index}.log"));
    Process::start(&mut command, &log, Stdio::null())
}

/// Ports of it that were free a moment ago.
pub(crate) fn free_addresses(on: IpAddr) -> anyhow::Result<[SocketAddr; 3]> {
    let listener = || TcpListener::bind((on, 0));
    let listeners = [listener()?, listener()?, listener()?];
    let mut addresses = [SocketAddr::new(on, 0); 3];
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}
