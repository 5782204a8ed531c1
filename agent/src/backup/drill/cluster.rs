//! A throwaway cluster of PostgreSQL in a drill's scratch, made and run as the dump's own user by the host's server of the same
//! release. It listens on a socket in a directory that is that user's alone, and syncs nothing.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use infratrack_shared::backup::Counted;
use infratrack_shared::wire::backup::reason;
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use tokio::time::sleep;

use super::recipe::{Dump, Format};
use crate::backup::command::{Last, succeeded};
use crate::backup::config::Program;
use crate::backup::control::Failure;
use crate::backup::counted::{COUNT, PSQL, parsed};
use crate::backup::process::{Ended, Input, Launch, Running};

/// Where distributions keep the servers of a major release.
const HOMES: [(&str, &str); 2] = [("/usr/lib/postgresql/", "/bin"), ("/usr/pgsql-", "/bin")];
/// Nobody of the dump has this name.
const SUPERUSER: &str = "infratrack_drill";
const DATABASE: &str = "infratrack_drill";
const STARTS: u32 = 300;
const STARTING: Duration = Duration::from_millis(200);
const GRACE: Duration = Duration::from_secs(10);
const OUTPUT_BYTES: usize = 8 * 1024 * 1024;
/// For a database that nobody needs afterwards, within the little memory of a backup.
const SETTINGS: [&str; 13] = [
    // Whatever the dump's environment says.
    "port=5432",
    // Nobody reads it.
    "log_min_messages=panic",
    "listen_addresses=",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "autovacuum=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=256MB",
    "max_connections=10",
    "shared_buffers=32MB",
    "maintenance_work_mem=64MB",
];

/// A server that is installed.
pub(super) struct Server {
    bin: PathBuf,
    pub(super) version: String,
}

impl Server {
    /// The host's own of the same major release as `version`.
    pub(super) fn find(program: &Program, version: &str) -> Option<Self> {
        let major = version.split('.').next()?;
        major.parse::<u16>().ok()?;
        let own = program.argv.first().map(Path::new);
        let own = own.and_then(|path| path.canonicalize().ok());
        let own = own.and_then(|path| Some(path.parent()?.to_owned()));
        let homes = HOMES.map(|(before, after)| PathBuf::from(format!("{before}{major}{after}")));
        let has_all = |bin: &PathBuf| {
            let names = ["initdb", "postgres", "psql", "pg_restore"];
            names.iter().all(|name| bin.join(name).exists())
        };
        let mut bins = own.into_iter().chain(homes).filter(has_all);
        bins.find_map(|bin| {
            let version = version_of(&bin.join("postgres"))?;
            let is_same = version.split('.').next() == Some(major);
            is_same.then_some(Self { bin, version })
        })
    }

    fn program(&self, name: &str) -> String {
        self.bin.join(name).display().to_string()
    }
}

/// Of `postgres (PostgreSQL) 17.2 (Debian 17.2-1)`, the third word.
fn version_of(postgres: &Path) -> Option<String> {
    let said = std::process::Command::new(postgres)
        .arg("--version")
        .env_clear()
        .output()
        .ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    text.split_ascii_whitespace().nth(2).map(str::to_owned)
}

/// What became of a dump.
pub(super) enum Loaded {
    Whole,
    /// Why not.
    Broken(String),
}

/// One that runs.
pub(super) struct Cluster<'a> {
    dump: &'a Dump<'a>,
    server: &'a Server,
    socket: PathBuf,
    running: Running,
}

impl<'a> Cluster<'a> {
    /// Makes and starts it.
    pub(super) async fn start(dump: &'a Dump<'a>, server: &'a Server) -> Result<Self, Failure> {
        let socket = folder(dump)?;
        let data = socket.join("data").display().to_string();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let initdb = server.program("initdb");
        let argv: Vec<String> = words(&[
            &initdb,
            "-D",
            &data,
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]);
        let launch = Launch::from(dump.program);
        let made = launch.with(&argv, Input::Nothing);
        let ended = made.run(dump.control, &mut Last::of(0)).await?;
        succeeded(&ended, reason::CANNOT_START)?;
        let mut argv: Vec<String> = words(&[
            &server.program("postgres"),
            "-D",
            &data,
            "-k",
            &socket.display().to_string(),
        ]);
        for setting in SETTINGS {
            argv.extend(["-c".to_owned(), setting.to_owned()]);
        }
        let mut running = launch.with(&argv, Input::Nothing).start()?;
        // It writes to nobody: a pipe that nobody reads would stop it.
        running.child.stdout.take();
        running.child.stderr.take();
        let mut cluster = Self {
            dump,
            server,
            socket,
            running,
        };
        match cluster.prepare().await {
            Ok(()) => Ok(cluster),
            Err(failure) => {
                cluster.stop().await;
                Err(failure)
            }
        }
    }

    /// Waits for it, and makes the database and the roles that the dump's own database had.
    async fn prepare(&mut self) -> Result<(), Failure> {
        let mut script = format!("create database {DATABASE} template template0;\n");
        let counted = self.dump.counted;
        for role in counted.into_iter().flat_map(|counted| &counted.roles) {
            let role = role.replace('"', "\"\"");
            let _ = writeln!(script, "create role \"{role}\" superuser login;");
        }
        for _ in 0..STARTS {
            let (ended, _) = self.sql("postgres", "select 1;\n").await?;
            if ended.code == 0 {
                let (ended, _) = self.sql("postgres", &script).await?;
                return succeeded(&ended, reason::CANNOT_START);
            }
            if !matches!(self.running.child.try_wait(), Ok(None)) {
                break;
            }
            sleep(STARTING).await;
        }
        let detail = "the throwaway cluster does not start";
        Err(Failure::new(reason::CANNOT_START, detail))
    }

    /// Loads a dump; the first error ends it.
    pub(super) async fn load(&self, format: Format, file: &File) -> Result<Loaded, Failure> {
        let mut argv = match format {
            Format::Archive => {
                let mut argv = vec![self.server.program("pg_restore")];
                argv.extend(["--exit-on-error", "--no-tablespaces", "-w"].map(str::to_owned));
                if self.dump.counted.is_none() {
                    argv.extend(["--no-owner", "--no-privileges"].map(str::to_owned));
                }
                argv
            }
            Format::Sql => self.psql(),
        };
        argv.extend(self.connection(DATABASE));
        let launch = Launch::from(self.dump.program);
        let launch = launch.with(&argv, Input::File(file));
        let ended = launch.run(self.dump.control, &mut Last::of(0)).await?;
        Ok(match succeeded(&ended, reason::CHECK_FAILED) {
            Ok(()) => Loaded::Whole,
            Err(failure) => Loaded::Broken(failure.detail),
        })
    }

    /// What is in it; `None` where it can't be counted.
    pub(super) async fn count(&self) -> Option<Counted> {
        let (ended, output) = self.sql(DATABASE, COUNT).await.ok()?;
        let text = String::from_utf8(output).ok()?;
        (ended.code == 0).then(|| parsed(&text)).flatten()
    }

    pub(super) async fn stop(mut self) {
        // At once, with all of its processes: nobody needs what it has.
        self.running.end_by(Signal::SIGQUIT, GRACE).await;
    }

    fn psql(&self) -> Vec<String> {
        let mut argv = vec![self.server.program("psql")];
        argv.extend(PSQL.map(str::to_owned));
        argv
    }

    fn connection(&self, database: &str) -> [String; 8] {
        let socket = self.socket.display().to_string();
        ["-h", &socket, "-p", "5432", "-U", SUPERUSER, "-d", database].map(str::to_owned)
    }

    async fn sql(&self, database: &str, script: &str) -> Result<(Ended, Vec<u8>), Failure> {
        let broken = |error: std::io::Error| Failure::of(reason::INTERNAL, error);
        let path = self.dump.scratch.path().join("script.sql");
        let mut file = File::create(&path).map_err(broken)?;
        file.write_all(script.as_bytes()).map_err(broken)?;
        let file = File::open(&path).map_err(broken)?;
        let mut argv = self.psql();
        argv.extend(self.connection(database));
        let mut output = Last::of(OUTPUT_BYTES);
        let launch = Launch::from(self.dump.program);
        let launch = launch.with(&argv, Input::File(&file));
        let ended = launch.run(self.dump.control, &mut output).await?;
        fs::remove_file(&path).map_err(broken)?;
        Ok((ended, output.kept))
    }
}

/// A directory of the scratch that is the program's user's alone.
fn folder(dump: &Dump<'_>) -> Result<PathBuf, Failure> {
    let make = || -> std::io::Result<PathBuf> {
        let path = dump.scratch.path().join("cluster");
        DirBuilder::new().mode(0o700).create(&path)?;
        if geteuid().is_root()
            && let Some(name) = &dump.program.user
        {
            let user = User::from_name(name)?;
            let user = user.ok_or_else(|| std::io::Error::other(format!("no user {name}")))?;
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            chown(&path, Some(uid), Some(gid))?;
        }
        Ok(path)
    };
    make().map_err(|error| Failure::of(reason::INTERNAL, error))
}
