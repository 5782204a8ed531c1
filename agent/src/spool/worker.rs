//! The one thread that owns the store, and the bounded channel to it.
//!
//! Appends that wait together are committed together: one sync pays for all of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use infratrack_shared::wire::batch::Class;
use tokio::sync::{mpsc, oneshot};

use super::backend::BackendError;
use super::queue::Queue;
use super::{SpoolError, Status};

/// Commands that may wait.
const WAITING: usize = 64;
/// Appends that are committed together, at most.
const GROUP: usize = 50;

/// See the module.
#[derive(Clone)]
pub(super) struct Worker {
    commands: mpsc::Sender<Command>,
}

type Work = Box<dyn FnOnce(&mut Queue, &Mutex<Status>) + Send>;

enum Command {
    Append(Append),
    Run(Work),
    Close(oneshot::Sender<Result<(), BackendError>>),
}

struct Append {
    class: Class,
    values: Vec<Bytes>,
    answer: oneshot::Sender<Result<u64, SpoolError>>,
}

impl Worker {
    pub(super) fn start(queue: Queue, status: Arc<Mutex<Status>>) -> Result<Self, SpoolError> {
        let (commands, receiver) = mpsc::channel(WAITING);
        thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || serve(queue, receiver, &status))
            .map_err(|source| SpoolError::Io {
                doing: "start its thread",
                source,
            })?;
        Ok(Self { commands })
    }

    pub(super) async fn append(&self, class: Class, values: Vec<Bytes>) -> Result<u64, SpoolError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Append(Append {
            class,
            values,
            answer,
        }))
        .await?;
        answered.await.map_err(|_| SpoolError::Closed)?
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Queue) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Run(Box::new(move |queue, status| {
            let done = work(queue);
            // First: whoever has the answer sees what it changed.
            publish(queue, status);
            // A caller that went away needs no answer.
            let _ = answer.send(done);
        })))
        .await?;
        Ok(answered.await.map_err(|_| SpoolError::Closed)??)
    }

    pub(super) async fn close(&self) -> Result<(), SpoolError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Close(answer)).await?;
        Ok(answered.await.map_err(|_| SpoolError::Closed)??)
    }

    async fn send(&self, command: Command) -> Result<(), SpoolError> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| SpoolError::Closed)
    }
}

fn serve(mut queue: Queue, mut commands: mpsc::Receiver<Command>, status: &Mutex<Status>) {
    let mut next = None;
    while let Some(command) = next.take().or_else(|| commands.blocking_recv()) {
        match command {
            Command::Append(first) => {
                let mut group = vec![first];
                while group.len() < GROUP {
                    match commands.try_recv() {
                        Ok(Command::Append(append)) => group.push(append),
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                append(&mut queue, group, status);
            }
            Command::Run(work) => work(&mut queue, status),
            Command::Close(answer) => {
                let closed = queue.close();
                // The store is let go before the answer, so that the caller may open it again.
                drop(queue);
                let _ = answer.send(closed);
                return;
            }
        }
        queue.backend.rest();
    }
}

fn append(queue: &mut Queue, group: Vec<Append>, status: &Mutex<Status>) {
    let (mut batches, mut answers) = (Vec::new(), Vec::new());
    for append in group {
        batches.push((append.class, append.values));
        answers.push(append.answer);
    }
    let appended = queue.append(&batches);
    publish(queue, status);
    match appended {
        Ok(last) => {
            for (answer, last) in answers.into_iter().zip(last) {
                let _ = answer.send(Ok(last));
            }
        }
        Err(error) => {
            tracing::warn!(%error, "spool: records could not be taken");
            let full = matches!(error, BackendError::Full);
            let mut error = Some(error);
            for answer in answers {
                let own = error.take().unwrap_or(if full {
                    BackendError::Full
                } else {
                    BackendError::Pausing
                });
                let _ = answer.send(Err(own.into()));
            }
        }
    }
}

fn publish(queue: &mut Queue, status: &Mutex<Status>) {
    *status.lock().unwrap_or_else(PoisonError::into_inner) = Status::of(queue);
}
