//! Programs of others, run so that they can't harm whoever waits for them: in their own process group, with an empty
//! environment and the words of no language, for a limited time and with limited output, which is counted while it comes.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};

use super::Reason;
use crate::clock::Clock;
use crate::collect::Root;

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// More than any host has packages to tell of.
const OUTPUT_BYTES: u64 = 32 * 1024 * 1024;
/// Of what a program complains; the rest is read over.
const COMPLAINT_BYTES: u64 = 64 * 1024;
/// A package manager that takes longer is as good as hung.
const LIMIT: Duration = Duration::from_secs(90);

/// A host whose package managers are asked: this one in production, a made-up one in tests.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where its files are.
    pub root: Root,
    /// Where its programs are.
    pub programs: Vec<PathBuf>,
    /// What every program finds in its environment beside `PATH`, `HOME` and `LC_ALL`.
    pub env: Vec<(OsString, OsString)>,
    /// What a program of this name is told before all else.
    pub options: Vec<(&'static str, Vec<OsString>)>,
    /// How long all programs of one check may take together.
    pub limit: Duration,
    /// What one program may say.
    pub output_bytes: u64,
    /// The only place where programs may write.
    pub scratch: PathBuf,
    /// Tells whether lists have expired.
    pub clock: Clock,
}

impl Host {
    /// This host; programs write to `scratch`.
    pub fn here(scratch: impl Into<PathBuf>) -> Self {
        Self {
            root: Root::default(),
            programs: PATH.split(':').map(PathBuf::from).collect(),
            env: Vec::new(),
            options: Vec::new(),
            limit: LIMIT,
            output_bytes: OUTPUT_BYTES,
            scratch: scratch.into(),
            clock: Clock::system(),
        }
    }

    pub(super) fn find(&self, program: &str) -> Option<PathBuf> {
        let places = self.programs.iter().map(|place| place.join(program));
        places.into_iter().find(|path| path.is_file())
    }
}

/// What a program has said when it ended by itself.
pub(super) struct Output {
    pub(super) code: i32,
    pub(super) text: String,
    pub(super) complaint: String,
}

/// One check of a host: its programs share one deadline.
pub(super) struct Check<'a> {
    pub(super) host: &'a Host,
    until: Instant,
}

impl<'a> Check<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        let until = Instant::now() + host.limit;
        Self { host, until }
    }

    /// Runs it and takes what it says, whatever it ends with.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Output, Reason> {
        let path = self.host.find(program);
        let path = path.ok_or_else(|| format!("{program} is not there"))?;
        let child = self.start(program, &path, args);
        let mut child = Running(child.map_err(|error| format!("{}: {error}", path.display()))?);
        let (text, complaint) = timeout_at(self.until, child.ended(self.host.output_bytes))
            .await
            .map_err(|_| {
                let limit = self.host.limit.as_secs_f32();
                format!("{program} did not end within {limit} s")
            })?
            .map_err(|reason| format!("{program} {reason}"))?;
        // Whatever it left behind keeps no pipe open, and ends with the unit.
        let status = timeout_at(self.until, child.0.wait()).await;
        let status = status.map_err(|_| format!("{program} did not end in time"))?;
        let status = status.map_err(|error| format!("{program}: {error}"))?;
        let code = status.code();
        Ok(Output {
            code: code.ok_or_else(|| format!("{program} was ended by a signal: {status}"))?,
            text: String::from_utf8_lossy(&text).into_owned(),
            complaint: String::from_utf8_lossy(&complaint).into_owned(),
        })
    }

    fn start<A: AsRef<OsStr>>(
        &self,
        program: &str,
        path: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> std::io::Result<Child> {
        let host = self.host;
        let options = host.options.iter().filter(|(name, _)| *name == program);
        Command::new(path)
            .args(options.flat_map(|(_, options)| options))
            .args(args)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &host.scratch)
            .env("TMPDIR", &host.scratch)
            .env("LC_ALL", "C")
            .envs(host.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&host.scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// A program and all that it starts: they end together where nobody waits for it any more.
struct Running(Child);

impl Running {
    /// What it says and what it complains of, to the end of both.
    async fn ended(&mut self, output_bytes: u64) -> Result<(Vec<u8>, Vec<u8>), Reason> {
        let (output, complaint) = (self.0.stdout.take(), self.0.stderr.take());
        let output = async {
            let mut text = Vec::new();
            if let Some(output) = output {
                let mut output = output.take(output_bytes + 1);
                output.read_to_end(&mut text).await.map_err(said)?;
            }
            if text.len() as u64 > output_bytes {
                return Err(format!("said more than {output_bytes} bytes"));
            }
            Ok(text)
        };
        let complaint = async {
            match complaint {
                Some(complaint) => begin(complaint).await.map_err(said),
                None => Ok(Vec::new()),
            }
        };
        tokio::try_join!(output, complaint)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has an id until it was waited for, so the group is not another's.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id {
            // What can't be ended here ends with the unit.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// Its beginning; the rest is read, so that nobody waits for the pipe to be emptied.
async fn begin(mut from: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    (&mut from)
        .take(COMPLAINT_BYTES)
        .read_to_end(&mut text)
        .await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(text)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn said(error: std::io::Error) -> Reason {
    format!("can't be read: {error}")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A host with this script as its only program.
    fn host(script: &str) -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tool");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let host = Host {
            programs: vec![directory.path().to_owned()],
            limit: Duration::from_secs(20),
            ..Host::here(directory.path())
        };
        (directory, host)
    }

    async fn run(host: &Host) -> Result<Output, Reason> {
        Check::new(host).run("tool", ["a"]).await
    }

    #[tokio::test]
    async fn a_program_has_no_environment_but_ours() {
        let (_keep, host) =
            host("echo \"$1 $LC_ALL ${LANG-none} ${CARGO-none}\"; echo no >&2; exit 3");
        let output = run(&host).await.unwrap();
        let told = (output.code, output.text.as_str(), output.complaint.as_str());
        assert_eq!(told, (3, "a C none none\n", "no\n"));
    }

    #[tokio::test]
    async fn one_that_hangs_ends_with_all_that_it_started() {
        let (keep, mut host) = host("sleep 600 & echo $! >pid; wait");
        host.limit = Duration::from_millis(500);
        let reason = run(&host).await.err().unwrap();
        assert_eq!(reason, "tool did not end within 0.5 s");
        let pid = fs::read_to_string(keep.path().join("pid")).unwrap();
        let state = format!("/proc/{}/stat", pid.trim());
        let is_running = || fs::read_to_string(&state).is_ok_and(|text| !text.contains(" Z "));
        let until = Instant::now() + Duration::from_secs(20);
        while is_running() {
            assert!(Instant::now() < until, "it runs on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn one_that_never_stops_talking_is_stopped() {
        let (_keep, mut host) = host("exec yes");
        host.output_bytes = 1_000_000;
        let reason = run(&host).await.err().unwrap();
        assert_eq!(reason, "tool said more than 1000000 bytes");
        let (_keep, mut host) = self::host("exec yes >&2");
        host.limit = Duration::from_millis(500);
        let reason = run(&host).await.err().unwrap();
        assert_eq!(reason, "tool did not end within 0.5 s");
    }

    #[tokio::test]
    async fn one_that_is_not_there_or_was_killed_is_a_reason() {
        let (keep, host) = host("kill -9 $$");
        let reason = run(&host).await.err().unwrap();
        assert!(reason.contains("signal: 9"), "{reason}");
        fs::remove_file(keep.path().join("tool")).unwrap();
        let reason = run(&host).await.err().unwrap();
        assert_eq!(reason, "tool is not there");
    }
}
