//! A standby that streams from a Postgres, to take its place without its last commits.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use infratrack_collector::postgres::PrivatePostgres;
use nix::sys::signal::Signal;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::time::Instant;

use crate::process::Process;

/// A copy is made, and a server starts, within this.
const LIMIT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Replica {
    dir: PathBuf,
    options: PgConnectOptions,
    /// The server's program, and as whom it runs.
    server: PathBuf,
    owner: (u32, u32),
    process: Process,
}

impl Replica {
    /// Copies the `primary`, whose cluster is in `cluster`, to `dir` and streams from it.
    pub(super) async fn start(
        primary: &PrivatePostgres,
        cluster: &Path,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let options = primary.connect_options();
        let socket = options.get_socket().context("a unix socket")?.clone();
        // Who reaches the socket is the cluster's user or root.
        std::fs::write(
            cluster.join("pg_hba.conf"),
            "local all,replication all trust\n",
        )?;
        let mut connection = options.connect().await?;
        connection.execute("select pg_reload_conf()").await?;
        connection.close().await?;
        let owner = std::fs::metadata(cluster)?;
        let owner = (owner.uid(), owner.gid());
        std::fs::create_dir(dir)?;
        std::os::unix::fs::chown(dir, Some(owner.0), Some(owner.1))?;
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700))?;
        let mut copy = Command::new(primary.program("pg_basebackup"));
        copy.arg("--pgdata")
            .arg(dir.join("cluster"))
            .arg("--host")
            .arg(&socket);
        copy.args([
            "--username",
            "infratrack",
            "--write-recovery-conf",
            "--checkpoint",
            "fast",
        ]);
        let log = dir.join("log");
        let mut copying = Process::start(run_as(&mut copy, owner), &log, Stdio::null())?;
        let copied = copying.ended(LIMIT).await?;
        anyhow::ensure!(
            copied.success(),
            "pg_basebackup failed; see {}",
            log.display()
        );
        let server = primary.program("postgres");
        let replica = Self {
            process: spawn(&server, owner, dir)?,
            options: options.socket(dir),
            dir: dir.to_owned(),
            server,
            owner,
        };
        replica.until_ready().await?;
        Ok(replica)
    }

    /// Falls behind by what the primary commits from here on.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGINT);
        self.process.ended(LIMIT).await.map(drop)
    }

    /// Starts as a primary of its own, with what it had.
    pub(super) async fn promote(&mut self) -> anyhow::Result<()> {
        std::fs::remove_file(self.dir.join("cluster/standby.signal"))?;
        self.process = spawn(&self.server, self.owner, &self.dir)?;
        self.until_ready().await
    }

    pub(super) fn connect_options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.options.connect().await {
                Ok(connection) => return Ok(connection.close().await?),
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

fn spawn(server: &Path, owner: (u32, u32), dir: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(server);
    command
        .arg("-D")
        .arg(dir.join("cluster"))
        .arg("-k")
        .arg(dir);
    // As many as the primary: with fewer a standby does not start.
    command.args(["-c", "listen_addresses=", "-c", "max_connections=100"]);
    Process::start(run_as(&mut command, owner), &dir.join("log"), Stdio::null())
}

fn run_as(command: &mut Command, owner: (u32, u32)) -> &mut Command {
    command.current_dir("/");
    // Postgres refuses to run as root.
    if nix::unistd::Uid::effective().is_root() {
        command.uid(owner.0).gid(owner.1);
    }
    command
}
