//! A program of this host's configuration, run by its argv and never by a shell: in its own process group, with an environment of few
//! words, for a limited time. It ends with all that it started.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use infratrack_shared::wire::backup::reason;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::chunks::Stopped;
use super::config::{Hook, Program};
use super::control::{Control, Failure};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Its last words.
const TAIL_BYTES: usize = 4 * 1024;
/// From the request to end to the end.
const GRACE: Duration = Duration::from_secs(5);
/// Likewise where somebody waits for it.
const SHORT_GRACE: Duration = Duration::from_secs(1);
/// For pipes that were left to somebody else.
const SETTLE: Duration = Duration::from_secs(1);

/// Takes what a program writes.
pub(super) trait Taker {
    /// Where the next bytes belong.
    fn room(&mut self) -> &mut [u8];
    fn filled(&mut self, bytes: usize) -> Result<(), Stopped>;
}

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct Launch<'a> {
    argv: &'a [String],
    timeout: Duration,
    user: Option<&'a str>,
    env: Option<&'a BTreeMap<String, String>>,
    directory: Option<&'a PathBuf>,
    input: Input<'a>,
}

/// What a program reads from its standard input.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Input<'a> {
    #[default]
    Nothing,
    File(&'a File),
    /// What is written to it while it runs.
    Pipe,
}

impl<'a> From<&'a Program> for Launch<'a> {
    fn from(program: &'a Program) -> Self {
        Self {
            argv: &program.argv,
            timeout: program.timeout,
            user: program.user.as_deref(),
            env: Some(&program.env),
            directory: program.directory.as_ref(),
            input: Input::Nothing,
        }
    }
}

impl<'a> From<&'a Hook> for Launch<'a> {
    fn from(hook: &'a Hook) -> Self {
        Self {
            argv: &hook.argv,
            timeout: hook.timeout,
            user: None,
            env: None,
            directory: None,
            input: Input::Nothing,
        }
    }
}

/// How a program ended by itself, and the last that it complained of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) complaint: String,
}

impl<'a> Launch<'a> {
    /// Another program in place of this one: as its user, in its environment, for its time.
    pub(super) fn with(&self, argv: &'a [String], input: Input<'a>) -> Self {
        Self {
            argv,
            input,
            ..self.clone()
        }
    }

    /// Starts it; it goes on until it is ended.
    pub(super) fn start(&self) -> Result<Running, Failure> {
        let cannot = |error: io::Error| {
            let program = self.argv.first().map_or("", String::as_str);
            Failure::new(reason::CANNOT_START, format!("{program}: {error}"))
        };
        self.spawn().map(Running::new).map_err(cannot)
    }

    /// Runs it to its end. A timeout, a signal, or the run's end is a failure.
    pub(super) async fn run(
        &self,
        control: &Control,
        taker: &mut impl Taker,
    ) -> Result<Ended, Failure> {
        let mut running = self.start()?;
        let child = &mut running.child;
        let Some((output, complaint)) = child.stdout.take().zip(child.stderr.take()) else {
            return Err(Failure::new(reason::CANNOT_START, "it has no pipes"));
        };
        let (said, complaint_tail) = oneshot::channel();
        let reading = tokio::spawn(async move { said.send(tail(complaint).await).ok() });
        let ended = tokio::select! {
            biased;
            () = control.stopped() => Err(Failure::new(reason::CANCELLED, "the run was stopped")),
            ended = self.to_its_end(child, output, taker) => ended,
        };
        let status = match ended {
            Ok(status) => status,
            Err(failure) => {
                let is_slow = failure.reason == reason::TIMEOUT;
                running.end(if is_slow { GRACE } else { SHORT_GRACE }).await;
                reading.abort();
                return Err(control.cause().unwrap_or(failure));
            }
        };
        let complaint = timeout(SETTLE, complaint_tail).await;
        reading.abort();
        let complaint = complaint.ok().and_then(Result::ok).unwrap_or_default();
        match (status.code(), status.signal()) {
            (Some(code), _) => Ok(Ended { code, complaint }),
            (None, signal) => {
                let signal = signal.unwrap_or_default();
                let detail = format!("it was ended by signal {signal}; {complaint}");
                Err(Failure::new(reason::SIGNAL, detail))
            }
        }
    }

    async fn to_its_end(
        &self,
        child: &mut Child,
        mut output: ChildStdout,
        taker: &mut impl Taker,
    ) -> Result<ExitStatus, Failure> {
        let mut until = Instant::now() + self.timeout;
        let slow = |_| {
            let detail = format!("it did not end within {:?}", self.timeout);
            Failure::new(reason::TIMEOUT, detail)
        };
        let broken = |error: io::Error| Failure::of(reason::INTERNAL, error);
        loop {
            let read = timeout_at(until, output.read(taker.room())).await;
            let bytes = read.map_err(slow)?.map_err(broken)?;
            if bytes == 0 {
                break;
            }
            let taken = Instant::now();
            taker
                .filled(bytes)
                .map_err(|stopped| Failure::of(reason::CANCELLED, stopped))?;
            // That it had to wait for us is not its fault.
            until += taken.elapsed();
        }
        let status = timeout_at(until, child.wait()).await;
        status.map_err(slow)?.map_err(broken)
    }

    fn spawn(&self) -> io::Result<Child> {
        let (program, args) = self
            .argv
            .split_first()
            .ok_or_else(|| io::Error::other("there is no program"))?;
        let mut command = Command::new(program);
        let mut home = PathBuf::from("/");
        if let Some(name) = self.user {
            let user = User::from_name(name)?;
            let user = user.ok_or_else(|| io::Error::other(format!("there is no user {name}")))?;
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            home = user.dir;
        } else if let Some(user) = User::from_uid(nix::unistd::geteuid())? {
            home = user.dir;
        }
        let stdin = match self.input {
            Input::Nothing => Stdio::null(),
            Input::File(file) => file.try_clone()?.into(),
            Input::Pipe => Stdio::piped(),
        };
        let directory = self.directory.map_or(Path::new("/"), PathBuf::as_path);
        command
            .args(args)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", home)
            .env("LANG", "C.UTF-8")
            .envs(self.env.into_iter().flatten())
            .current_dir(directory)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// A program and all that it starts.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    group: Option<Pid>,
}

impl Running {
    fn new(child: Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let group = id.map(Pid::from_raw);
        Self { child, group }
    }

    /// Asks it to end, and after a while does not ask.
    async fn end(&mut self, grace: Duration) {
        self.end_by(Signal::SIGTERM, grace).await;
    }

    /// Likewise, with a signal of its own.
    pub(super) async fn end_by(&mut self, signal: Signal, grace: Duration) {
        self.signal(signal);
        drop(timeout(grace, self.child.wait()).await);
        // Where it has ended, what it left behind keeps the group; where nothing is left the number is nobody's so soon.
        self.signal(Signal::SIGKILL);
        self.group = None;
        drop(timeout(grace, self.child.wait()).await);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            killpg(group, signal).ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has an id until it was waited for.
        if self.child.id().is_some() {
            self.signal(Signal::SIGKILL);
        }
    }
}

/// The end of what there is to read, as text without what a terminal would act on.
async fn tail(mut from: impl AsyncRead + Unpin) -> String {
    let (mut last, mut piece) = (Vec::new(), vec![0; TAIL_BYTES]);
    while let Ok(bytes @ 1..) = from.read(&mut piece).await {
        keep_last(&mut last, &piece[..bytes], TAIL_BYTES);
    }
    clean(&last)
}

/// Appends, and forgets the beginning.
pub(super) fn keep_last(last: &mut Vec<u8>, piece: &[u8], most: usize) {
    let piece = &piece[piece.len().saturating_sub(most)..];
    let over = (last.len() + piece.len()).saturating_sub(most);
    last.drain(..over.min(last.len()));
    last.extend_from_slice(piece);
}

fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let visible = |letter: char| if letter.is_control() { ' ' } else { letter };
    let text: String = text.chars().map(visible).collect();
    text.trim().to_owned()
}
