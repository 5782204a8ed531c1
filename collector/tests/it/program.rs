//! The collector as a process of its own, with a configuration file, for what only a process has: an environment, an
//! exit code, a log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use infratrack_testkit::postgres::TestDatabase;
use infratrack_testkit::process::Process;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{eventually, eventually_within};

/// A directory with a configuration, and what was logged there.
pub(crate) struct Program {
    pub(crate) dir: TempDir,
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) format: &'static str,
}

/// Where a running one listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listening {
    pub(crate) agents: SocketAddr,
    pub(crate) enroll: SocketAddr,
    pub(crate) operators: SocketAddr,
}

impl Program {
    /// With this configuration, to which listeners and directory are added.
    pub(crate) fn new(config: &str) -> Self {
        let dir = infratrack_testkit::postgres::reachable_tempdir().unwrap();
        let program = Self {
            dir,
            environment: Vec::new(),
            format: "json",
        };
        program.configure(config);
        program
    }

    /// Replaces the configuration.
    pub(crate) fn configure(&self, config: &str) {
        let data_dir = self.path("data").display().to_string();
        std::fs::create_dir_all(&data_dir).unwrap();
        let (head, tables) = config.split_once("\n[").unwrap_or((config, ""));
        let mut text = format!("data_dir = {data_dir:?}\n{head}\n");
        if !tables.is_empty() {
            text.push('[');
            text.push_str(tables);
        }
        for section in ["agents", "enroll", "operators"] {
            let listen = "listen = \"127.0.0.1:0\"\n";
            let header = format!("[{section}]\n");
            if text.contains(&header) {
                text = text.replace(&header, &format!("{header}{listen}"));
            } else {
                text.extend(["\n", &header, listen]);
            }
        }
        std::fs::write(self.path("collector.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of mode 0600 and answers its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        infratrack_collector::ca::write_secret(&path, content).unwrap();
        path.display().to_string()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infratrack-collector"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path("collector.toml"))
            .env("INFRATRACK_LOG_FORMAT", self.format)
            .env("RUST_LOG", "infratrack_collector=debug,info,sqlx=warn")
            .env_remove("DATABASE_URL")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A subcommand, to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn serve(&self) -> Process {
        let out = std::fs::File::create(self.path("out")).unwrap();
        Process::start(&mut self.command(&["serve"]), &self.path("log"), out.into()).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Where it listens, once it does.
    pub(crate) async fn listening(&self) -> Listening {
        let within = Duration::from_secs(60);
        eventually_within(within, "the collector to listen", async || {
            let log = self.log();
            let line = log
                .lines()
                .find(|line| line.contains("collector started"))?;
            let address = |name: &str| {
                if let Ok(line) = serde_json::from_str::<Value>(line) {
                    return line[name].as_str()?.parse().ok();
                }
                // Without escapes of colour.
                let plain: String = line
                    .split('\u{1b}')
                    .map(|part| part.split_once('m').map_or(part, |(_, rest)| rest))
                    .collect();
                let (_, rest) = plain.split_once(&format!("{name}="))?;
                rest.split_whitespace().next()?.parse().ok()
            };
            Some(Listening {
                agents: address("agents")?,
                enroll: address("enroll")?,
                operators: address("operators")?,
            })
        })
        .await
    }
}

/// The URL of a test's database, with a password that its server does not ask for.
pub(crate) fn url(database: &TestDatabase, password: &str) -> String {
    let options = database.connect_options();
    let socket = options.get_socket().cloned().unwrap_or_default();
    format!(
        "postgres://{}:{password}@localhost:{}/{}?host={}",
        options.get_username(),
        options.get_port(),
        options.get_database().unwrap(),
        socket.display()
    )
}

/// The processes below one.
pub(crate) async fn children(pid: u32) -> Vec<u32> {
    eventually("its children to be there", async || {
        let mut found = Vec::new();
        let mut open = vec![pid];
        while let Some(pid) = open.pop() {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            for task in tasks.filter_map(Result::ok) {
                let text = std::fs::read_to_string(task.path().join("children"));
                let text = text.unwrap_or_default();
                let these = text.split_whitespace().filter_map(|pid| pid.parse().ok());
                let these: Vec<u32> = these.collect();
                found.extend(&these);
                open.extend(these);
            }
        }
        (!found.is_empty()).then_some(found)
    })
    .await
}

/// A file of proc(5) as text.
pub(crate) fn proc(pid: u32, name: &str) -> String {
    let bytes = std::fs::read(Path::new("/proc").join(pid.to_string()).join(name));
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let program = Program::new("");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = program.command(&["config", "show"]);
    let done = command
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.is_empty(), "{said}");
}
