//! The store in a process of its own: `spool-store DIR`, driven over its standard input.
//!
//! sled keeps seven threads and its memory until its process ends, so an idle agent lets that end. One
//! request is under way at a time; an answer to `Sync` says that it is on the disk, nothing else does. The child
//! has the spool's lock as its standard output: nobody else opens the spool while either of the two lives. It
//! ends when its input does, so also when the agent is killed.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use bytes::Bytes;
use infratrack_shared::codec::{self, Limits};
use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::backend::{BackendError, Key, Write};
use super::sled::Store;

/// How long the child may take for one request, with a disk that hangs.
const ANSWER: Duration = Duration::from_mins(1);
/// How long it may take to close the store.
const END: Duration = Duration::from_secs(5);
/// Above what one request can be: a chunk of a rotation, or the ledger.
const LIMITS: Limits = Limits {
    bytes: 64 * 1024 * 1024,
    items: 1024 * 1024,
    depth: 8,
    string_bytes: 64 * 1024 * 1024,
};

#[derive(Serialize, Deserialize)]
enum Request {
    Get(ByteBuf),
    Apply(Vec<(ByteBuf, Option<ByteBuf>)>),
    Sync,
}

/// What was read, where something was asked for.
type Reply = Result<Option<ByteBuf>, Failure>;

/// A [`BackendError`] on its way out of the child.
#[derive(Serialize, Deserialize)]
enum Failure {
    Full,
    Damaged(String),
    Io { os: Option<i32>, detail: String },
}

/// A running child. Dropping it closes the store and waits for that.
pub(super) struct Apart {
    child: Child,
    pipe: UnixStream,
}

impl Apart {
    /// Starts the child and waits until the store is open, or can't be. The outer error: there is no such child.
    pub(super) fn start(
        program: &Path,
        dir: &Path,
        lock: &File,
    ) -> io::Result<Result<Self, BackendError>> {
        let (pipe, its) = UnixStream::pair()?;
        pipe.set_read_timeout(Some(ANSWER))?;
        pipe.set_write_timeout(Some(ANSWER))?;
        let child = Command::new(program)
            .arg0("infratrack-agent")
            .arg("spool-store")
            .arg(dir)
            .stdin(OwnedFd::from(its))
            .stdout(lock.try_clone()?)
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut apart = Self { child, pipe };
        match receive::<Reply>(&mut apart.pipe) {
            Ok(Some(Ok(_))) => Ok(Ok(apart)),
            Ok(Some(Err(failure))) => Ok(Err(failure.into())),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Ok(Err(unreachable(error))),
        }
    }

    pub(super) fn get(&mut self, key: &Key) -> Result<Option<Bytes>, BackendError> {
        let value = self.ask(&Request::Get(ByteBuf::from(key.as_bytes())))?;
        Ok(value.map(|value| value.into_vec().into()))
    }

    pub(super) fn apply(&mut self, writes: Vec<Write>) -> Result<(), BackendError> {
        let bytes = |(key, value): (Key, Option<Bytes>)| {
            let value = value.map(|value| ByteBuf::from(value.to_vec()));
            (ByteBuf::from(key.as_bytes()), value)
        };
        let writes = writes.into_iter().map(bytes).collect();
        self.ask(&Request::Apply(writes)).map(drop)
    }

    pub(super) fn sync(&mut self) -> Result<(), BackendError> {
        self.ask(&Request::Sync).map(drop)
    }

    fn ask(&mut self, request: &Request) -> Result<Option<ByteBuf>, BackendError> {
        send(&mut self.pipe, request).map_err(unreachable)?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Option<ByteBuf>, BackendError> {
        let reply: Option<Reply> = receive(&mut self.pipe).map_err(unreachable)?;
        let gone = || unreachable(io::ErrorKind::UnexpectedEof.into());
        Ok(reply.ok_or_else(gone)??)
    }

    /// Closes the child's input and waits until it has closed its own end, which is when it ends.
    fn end(&mut self) -> io::Result<()> {
        self.pipe.shutdown(std::net::Shutdown::Write)?;
        self.pipe.set_read_timeout(Some(END))?;
        io::copy(&mut self.pipe, &mut io::sink()).map(drop)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "spool: its store does not close and is killed");
            // It may have ended by itself.
            let _ = self.child.kill();
        }
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "spool: its store's process can't be waited for");
        }
    }
}

fn unreachable(source: io::Error) -> BackendError {
    BackendError::io("reach its store's process", source)
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Full => Self::Full,
            BackendError::Damaged(detail) => Self::Damaged(detail),
            BackendError::Io { doing, source } => Self::Io {
                os: source.raw_os_error(),
                detail: format!("cannot {doing}: {source}"),
            },
            BackendError::Pausing => Self::Io {
                os: None,
                detail: error.to_string(),
            },
        }
    }
}

impl From<Failure> for BackendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full => Self::Full,
            Failure::Damaged(detail) => Self::Damaged(detail),
            Failure::Io { os, detail } => {
                let kind = os.map_or(io::ErrorKind::Other, |os| {
                    io::Error::from_raw_os_error(os).kind()
                });
                Self::io("use its store", io::Error::new(kind, detail))
            }
        }
    }
}

/// Entry of the hidden subcommand `spool-store DIR`.
pub fn store_main(dir: &Path) -> ExitCode {
    // Whoever stops the agent stops its processes too: this one is needed to the end of its input.
    let mut signals = SigSet::empty();
    signals.extend([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    let done = signals
        .thread_block()
        .map_err(io::Error::from)
        .and_then(|()| io::stdin().as_fd().try_clone_to_owned())
        .and_then(|input| serve(UnixStream::from(input), dir));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::warn!(%error, "spool: its store's process lost the agent");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut pipe: UnixStream, dir: &Path) -> io::Result<()> {
    let store = match Store::open(dir) {
        Ok(store) => store,
        Err(error) => return answer(&mut pipe, Err(error)),
    };
    answer(&mut pipe, Ok(None))?;
    while let Some(request) = receive(&mut pipe)? {
        let done = match request {
            Request::Get(key) => store.get(&Key::from_bytes(&key)),
            Request::Apply(writes) => {
                let bytes = |(key, value): (ByteBuf, Option<ByteBuf>)| {
                    let value = value.map(|value| Bytes::from(value.into_vec()));
                    (Key::from_bytes(&key), value)
                };
                let writes: Vec<Write> = writes.into_iter().map(bytes).collect();
                store.apply(&writes).map(|()| None)
            }
            Request::Sync => store.sync().map(|()| None),
        };
        answer(&mut pipe, done)?;
    }
    store.close();
    Ok(())
}

fn answer(pipe: &mut UnixStream, done: Result<Option<Bytes>, BackendError>) -> io::Result<()> {
    let reply: Reply = match done {
        Ok(value) => Ok(value.map(|value| ByteBuf::from(value.to_vec()))),
        Err(error) => Err(error.into()),
    };
    send(pipe, &reply)
}

/// One write for length and content.
fn send<T: Serialize>(pipe: &mut UnixStream, message: &T) -> io::Result<()> {
    let content = codec::encode(message).map_err(io::Error::other)?;
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    pipe.write_all(&[&length.to_be_bytes()[..], &content].concat())
}

/// `None` where the other side closed the pipe.
fn receive<T: serde::de::DeserializeOwned>(pipe: &mut UnixStream) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    let started = loop {
        match pipe.read(&mut length[..1]) {
            // A socket with a timeout is never restarted after a signal, such as a child's end; see signal(7).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read? > 0,
        }
    };
    if !started {
        return Ok(None);
    }
    pipe.read_exact(&mut length[1..])?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > LIMITS.bytes {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut content = vec![0; length];
    pipe.read_exact(&mut content)?;
    let message = codec::decode(&content, &LIMITS).map_err(io::Error::other)?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use nix::sys::pthread::{pthread_kill, pthread_self};
    use tokio::signal::unix::{SignalKind, signal};

    use super::*;

    #[tokio::test]
    async fn a_signal_does_not_end_the_wait_for_an_answer() {
        let _caught = signal(SignalKind::user_defined1()).unwrap();
        let (mut pipe, mut its) = UnixStream::pair().unwrap();
        pipe.set_read_timeout(Some(ANSWER)).unwrap();
        let (tell, told) = mpsc::channel();
        let waiting = thread::spawn(move || {
            tell.send(pthread_self()).unwrap();
            receive::<Reply>(&mut pipe)
        });
        let waiter = told.recv().unwrap();
        for _ in 0..50 {
            pthread_kill(waiter, Signal::SIGUSR1).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        send(&mut its, &Reply::Ok(None)).unwrap();
        assert!(matches!(waiting.join().unwrap(), Ok(Some(Ok(None)))));
    }
}
