//! A child process that a test kills, pauses and starts again, and that ends with the test.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(10);

/// A running child; killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`; what it logs is appended to `log`, what it prints goes to `out`.
    pub fn start(command: &mut Command, log: &Path, out: Stdio) -> anyhow::Result<Self> {
        let program = command.get_program().to_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(append(log)?);
        let child = child
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).ok();
    }

    /// SIGKILL; answers whether it was that which ended it.
    pub async fn kill(&mut self) -> anyhow::Result<bool> {
        use std::os::unix::process::ExitStatusExt;
        self.signal(Signal::SIGKILL);
        let status = self.ended(Duration::from_secs(10)).await?;
        Ok(status.signal() == Some(Signal::SIGKILL as i32))
    }

    /// Waits for its end, at most for `limit`.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            let pid = self.pid();
            anyhow::ensure!(
                Instant::now() < deadline,
                "{pid} has not ended in {limit:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it has ended, by itself or not.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Its established connections to or from a port, by the kernel's number of each.
    pub fn connections(&self, port: u16) -> anyhow::Result<HashSet<u64>> {
        let held = self.sockets()?;
        // proc(5): local and remote address, state, …, inode; of the process' network namespace.
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.pid()))?;
        let port = format!(":{port:04X}");
        let of_port = table.lines().filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (ends, state) = (fields.get(1..3)?, *fields.get(3)?);
            let is_it = state == "01" && ends.iter().any(|end| end.ends_with(&port));
            is_it.then(|| fields.get(9)?.parse().ok()).flatten()
        });
        Ok(of_port.filter(|inode| held.contains(inode)).collect())
    }

    /// The sockets it holds, those of connections that are dead too.
    pub fn sockets(&self) -> anyhow::Result<HashSet<u64>> {
        let held = std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?;
        let inode = |entry: std::io::Result<std::fs::DirEntry>| {
            let target = std::fs::read_link(entry.ok()?.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            inode.strip_suffix(']')?.parse().ok()
        };
        Ok(held.filter_map(inode).collect())
    }

    /// The CPU time its threads have had.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_whitespace().next();
            nanos += first.context("a number")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// A size of proc(5), `VmRSS` or `VmHWM`, in bytes.
    pub fn memory_bytes(&self, field: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|rest| rest.strip_prefix(':')?.trim().strip_suffix(" kB"));
        Ok(kib.context("a line of /proc/PID/status")?.parse::<u64>()? * 1024)
    }

    /// The state of proc(5): `T` is stopped.
    pub fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn append(log: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(log);
    file.with_context(|| format!("cannot open {}", log.display()))
}
