//! The private Postgres: initialised and supervised below the data directory where no database is configured.
//!
//! On a unix socket only, let in by `peer`, and as an unprivileged user even where the collector was started
//! by root. Its durability settings are Postgres' own: what is committed survives power loss.

mod binaries;
mod cluster;
mod orphans;
mod place;

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Executor, PgConnection};
use thiserror::Error;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use binaries::Binaries;
use place::Place;

/// The database and its role.
const NAME: &str = "infratrack";
/// Recovery after a crash may replay gigabytes of log.
const START: Duration = Duration::from_secs(120);
/// A fast shutdown writes a checkpoint.
const STOP: Duration = Duration::from_secs(60);
/// An immediate shutdown writes nothing.
const QUIT: Duration = Duration::from_secs(10);
/// A server that ran this long is not one that fails at once.
const STEADY: Duration = Duration::from_secs(60);
/// Starts in a row that may fail.
const FAILURES: u32 = 10;
/// Between two looks at a server that starts or stops.
const LOOK: Duration = Duration::from_millis(50);
/// The log begins anew above this, in bytes.
const LOG_BYTES: u64 = 16 * 1024 * 1024;

/// Why there is no private Postgres.
#[derive(Debug, Error)]
pub enum PostgresError {
    #[error(
        "no Postgres 15 or newer was found (looked in PATH, pg_config --bindir and the usual places); \
         install it, on Debian and Ubuntu with: apt-get install postgresql"
    )]
    NotInstalled,
    #[error("cannot {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{program} failed: {detail}")]
    Program {
        program: &'static str,
        detail: String,
    },
    #[error(
        "{} was made by Postgres {needs}, and installed is only {}; install Postgres {needs}, on \
         Debian and Ubuntu with: apt-get install postgresql-{needs}",
        cluster.display(),
        binaries::list(found)
    )]
    OtherMajor {
        cluster: PathBuf,
        needs: u32,
        found: Vec<u32>,
    },
    #[error("{} holds {}", holder(*pid), data_dir.display())]
    Held { data_dir: PathBuf, pid: Option<u32> },
    #[error(
        "Postgres' user can't reach {}: a folder on the way lets it not through; let it (chmod o+x)",
        .0.display()
    )]
    Unreachable(PathBuf),
    #[error("there is no user to run Postgres as, and none could be made: {0}")]
    User(String),
    #[error("Postgres ended while it started; see {}", log.display())]
    Ended { log: PathBuf },
    #[error("Postgres did not answer within {START:?}; see {}", log.display())]
    Slow { log: PathBuf },
    #[error("the private database could not be made")]
    Database(#[source] sqlx::Error),
}

/// A running server.
#[derive(Debug)]
pub struct PrivatePostgres {
    binaries: Binaries,
    place: Place,
    settings: Vec<String>,
    server: Child,
    /// Held as long as this lives: a second collector must not take the server for an orphan.
    _lock: File,
}

impl PrivatePostgres {
    /// Starts the server of `data_dir`, making it where there is none. A server that a killed collector
    /// left behind is stopped first. `settings` are `name=value` of postgresql.conf.
    pub async fn start(data_dir: &Path, settings: &[&str]) -> Result<Self, PostgresError> {
        let place = place::prepare(data_dir).await?;
        let lock = cluster::lock(data_dir).await?;
        orphans::stop_server(&place).await?;
        let binaries = binaries::find(&place.cluster(), cluster::major(&place)?).await?;
        cluster::make(&binaries, &place).await?;
        cluster::admit(&place)?;
        let settings: Vec<String> = settings
            .iter()
            .map(|setting| (*setting).to_owned())
            .collect();
        let server = spawn(&binaries, &place, &settings)?;
        let mut postgres = Self {
            binaries,
            place,
            settings,
            server,
            _lock: lock,
        };
        postgres.wait_ready().await?;
        postgres.create_database().await?;
        Ok(postgres)
    }

    /// How to connect.
    pub fn connect_options(&self) -> PgConnectOptions {
        options(&self.place).database(NAME)
    }

    /// A program beside the server, such as `pg_basebackup`; where the server is a link, beside what it
    /// points to.
    pub fn program(&self, name: &str) -> PathBuf {
        let server = self.binaries.path("postgres");
        let server = std::fs::canonicalize(&server).unwrap_or(server);
        server.with_file_name(name)
    }

    /// The server's process.
    pub fn pid(&self) -> Option<u32> {
        self.server.id()
    }

    /// Starts the server again whenever it ends by itself. Returns only on an error that lasts.
    pub async fn supervise(&mut self) -> PostgresError {
        let mut failures = 0_u32;
        let mut ready_at = Instant::now();
        loop {
            let ended = self.server.wait().await;
            tracing::error!(status = ?ended.ok(), "the private Postgres ended; starting it again");
            if ready_at.elapsed() > STEADY {
                failures = 0;
            }
            let most = Duration::from_secs(1 << failures.min(5));
            tokio::time::sleep(most.mul_f64(rand::random())).await;
            failures = failures.saturating_add(1);
            match self.start_again().await {
                Ok(()) => ready_at = Instant::now(),
                Err(error) if failures >= FAILURES => return error,
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "Postgres does not start"
                ),
            }
        }
    }

    async fn start_again(&mut self) -> Result<(), PostgresError> {
        orphans::stop_server(&self.place).await?;
        self.server = spawn(&self.binaries, &self.place, &self.settings)?;
        self.wait_ready().await
    }

    /// Stops the server in order: clients are cut, a checkpoint is written.
    pub async fn stop(mut self) {
        for (signal, limit) in [(Signal::SIGINT, STOP), (Signal::SIGQUIT, QUIT)] {
            let Some(pid) = self.server.id().and_then(|pid| i32::try_from(pid).ok()) else {
                return;
            };
            kill(Pid::from_raw(pid), signal).ok();
            if tokio::time::timeout(limit, self.server.wait())
                .await
                .is_ok()
            {
                return;
            }
        }
        drop(self.server.kill().await);
    }

    async fn wait_ready(&mut self) -> Result<(), PostgresError> {
        let deadline = Instant::now() + START;
        loop {
            let connected =
                PgConnection::connect_with(&options(&self.place).database("postgres")).await;
            if let Ok(connection) = connected {
                drop(connection.close().await);
                return Ok(());
            }
            if let Ok(Some(_)) = self.server.try_wait() {
                return Err(PostgresError::Ended {
                    log: self.place.log(),
                });
            }
            if Instant::now() > deadline {
                return Err(PostgresError::Slow {
                    log: self.place.log(),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn create_database(&self) -> Result<(), PostgresError> {
        let pool = PgPoolOptions::new().max_connections(1);
        let pool = pool
            .connect_with(options(&self.place).database("postgres"))
            .await
            .map_err(PostgresError::Database)?;
        let made = pool.execute("create database infratrack").await;
        pool.close().await;
        match made {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_database_error()
                    .and_then(sqlx::error::DatabaseError::code)
                    .as_deref()
                    == Some("42P04") =>
            {
                Ok(())
            }
            Err(error) => Err(PostgresError::Database(error)),
        }
    }
}

/// Who has the lock, as far as it says so.
fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another collector".to_owned(),
        |pid| format!("another collector (process {pid})"),
    )
}

/// How to connect to the private Postgres of `data_dir` that another process runs.
pub async fn private_connect_options(data_dir: &Path) -> Result<PgConnectOptions, PostgresError> {
    let place = place::prepare(data_dir).await?;
    Ok(options(&place).database(NAME))
}

fn options(place: &Place) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(&place.socket_dir)
        .username(NAME)
}

fn spawn(binaries: &Binaries, place: &Place, settings: &[String]) -> Result<Child, PostgresError> {
    let log_path = place.log();
    let failed = |doing: &'static str| {
        let path = log_path.clone();
        move |source| PostgresError::File {
            doing,
            path,
            source,
        }
    };
    if std::fs::metadata(&log_path).is_ok_and(|log| log.len() > LOG_BYTES) {
        std::fs::rename(&log_path, log_path.with_extension("log.old")).map_err(failed("rename"))?;
    }
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(failed("open"))?;
    let mut command = Command::new(binaries.path("postgres"));
    command.arg("-D").arg(place.cluster());
    command.arg("-k").arg(&place.socket_dir);
    let ours = [
        "listen_addresses=",
        "unix_socket_permissions=0770",
        "max_connections=100",
        "shared_buffers=128MB",
        "max_wal_size=2GB",
        "wal_compression=on",
        "jit=off",
        "timezone=UTC",
        "log_timezone=UTC",
    ];
    for setting in ours.into_iter().chain(settings.iter().map(String::as_str)) {
        command.arg("-c").arg(setting);
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed("open"))?)
        .stderr(log);
    // A Ctrl-C at the terminal is the collector's alone: it stops Postgres last.
    command.as_std_mut().process_group(0);
    place.run_as(command.as_std_mut());
    command.spawn().map_err(|source| PostgresError::File {
        doing: "start",
        path: binaries.path("postgres"),
        source,
    })
}

/// Runs a program to its end; its last words are the error's.
async fn run(program: &'static str, mut command: Command) -> Result<String, PostgresError> {
    let failed = |detail: String| PostgresError::Program { program, detail };
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(START, command.output())
        .await
        .map_err(|_| failed(format!("it took longer than {START:?}")))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}
