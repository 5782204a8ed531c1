//! Hosts that really boot: systemd as PID 1, own disk, own network, from one Debian image. For `make e2e`.
//!
//! A thin wrapper of `testkit/rigs/systemd-hosts.sh`. Needs root. Dropping it takes every host down.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, ensure};
use nix::unistd::Uid;

/// The image of all hosts, made once.
const IMAGE: &str = "target/testkit/image";
/// Their disks and keys.
const STATE: &str = "target/testkit/hosts";

/// The network of hub and hosts: 198.18.0.0/15 is for tests of devices (RFC 2544).
const NET: &str = "198.18.77";

/// Hosts h1, h2 …, and the hub they are reached from.
#[derive(Debug)]
pub struct Rig {
    script: PathBuf,
    state: PathBuf,
    image: PathBuf,
    aliases: String,
}

impl Rig {
    /// Boots a host for each name; the first is h1. `None`, and a word about it, where this is not root.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    pub fn up(names: &[&str]) -> anyhow::Result<Option<Self>> {
        if !Uid::effective().is_root() {
            eprintln!("SKIPPED: booting hosts needs root");
            return Ok(None);
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let root = root.context("the crate lies in no workspace")?;
        let aliases: Vec<_> = (1..)
            .zip(names)
            .map(|(number, name)| format!("h{number}={name}"))
            .collect();
        let rig = Self {
            script: root.join("testkit/rigs/systemd-hosts.sh"),
            state: root.join(STATE),
            image: root.join(IMAGE),
            aliases: aliases.join(" "),
        };
        std::fs::create_dir_all(&rig.image)?;
        if rig.state.exists() {
            // A run that was killed has left its hosts behind.
            rig.run(&["down"])?;
            std::fs::remove_dir_all(&rig.state)?;
        }
        std::fs::create_dir(&rig.state)?;
        rig.run(&["up", &names.len().to_string()])?;
        Ok(Some(rig))
    }

    /// Where keys and known hosts are.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The root file system that all hosts begin with.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// A command of the script, to be started.
    pub fn script(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.script);
        command
            .args(words)
            .env("STATE", &self.state)
            .env("NET", NET)
            .env("IMAGE", &self.image)
            .env("ALIASES", &self.aliases)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of the script: `cut h1`, `heal h1`, `powerloss h1`.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<()> {
        said(&mut self.script(words)).map(drop)
    }

    /// Runs a command as root inside of a host; answers what it printed.
    pub fn exec(&self, host: &str, command: &[&str]) -> anyhow::Result<String> {
        said(&mut self.script(&[&["exec", host], command].concat()))
    }

    /// Likewise, whether it succeeds or not.
    pub fn try_exec(&self, host: &str, command: &[&str]) -> anyhow::Result<Output> {
        let mut script = self.script(&[&["exec", host], command].concat());
        script.output().context("cannot run the rig")
    }

    /// The hub's address, which all hosts reach.
    pub fn hub_address(&self) -> String {
        format!("{NET}.1")
    }

    /// A command in the hub, to be started.
    pub fn hub(&self, program: &str) -> Command {
        let mut command = self.script(&["hub"]);
        command.arg(program);
        command
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Whatever failed before is worth more than this.
        drop(self.script(&["down"]).status());
        drop(std::fs::remove_dir_all(&self.state));
    }
}

/// Runs a command; answers its output, or fails with all it said.
pub fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
