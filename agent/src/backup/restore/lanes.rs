//! Questions over a network from threads that are not asynchronous: each over a connection with a runtime of its own, asked again
//! with waits while that may help.
//!
//! Where nobody answers for longer than the caller has patience, nothing more is asked; what is answered with an error for a while
//! is missing alone.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use super::source::SourceError;
use crate::backoff::{self, Backoff};

/// For one that answers and cannot read what is asked for: its store may be away, or the object damaged.
pub(super) const UNREADABLE: Duration = Duration::from_secs(120);
/// The longest wait before something is asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may be asked again, in so long.
    Again(Option<Duration>, io::Error),
    /// Likewise: but it may be this question alone that has no answer.
    Unreadable(Option<Duration>, io::Error),
    /// Asking again never helps.
    Never(io::Error),
}

/// What is asked for, and how long for.
pub(super) struct Question {
    pub(super) what: String,
    /// While it is answered, with errors.
    pub(super) unreadable: Duration,
}

impl Question {
    pub(super) fn new(what: impl Into<String>, unreadable: Duration) -> Self {
        let what = what.into();
        Self { what, unreadable }
    }
}

/// Connections of one kind: as many as there are threads that ask.
pub(super) struct Lanes<C> {
    /// Those that nobody uses now.
    free: Mutex<Vec<(Runtime, C)>>,
    patience: Duration,
    /// Why nothing more is asked.
    gone: Mutex<Option<String>>,
}

impl<C> Lanes<C> {
    /// They give up when nobody answered for so long.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            free: Mutex::default(),
            patience,
            gone: Mutex::default(),
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Asks until there is an answer or none is to be had. Not to be called from within a runtime.
    pub(super) fn ask<T>(
        &self,
        question: &Question,
        new: impl FnOnce() -> C,
        mut ask: impl AsyncFnMut(&mut C) -> Result<T, Trouble>,
    ) -> Result<T, SourceError> {
        self.goes_on()?;
        let free = locked(&self.free).pop();
        let (runtime, mut connection) = match free {
            Some(lane) => lane,
            None => (runtime(question)?, new()),
        };
        let asking = self.persist(question, async || ask(&mut connection).await);
        let asked = runtime.block_on(asking);
        locked(&self.free).push((runtime, connection));
        asked
    }

    async fn persist<T>(
        &self,
        question: &Question,
        mut ask: impl AsyncFnMut() -> Result<T, Trouble>,
    ) -> Result<T, SourceError> {
        let mut backoff = Backoff::default();
        let begun = Instant::now();
        loop {
            let trouble = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            let (asked, error) = match trouble {
                Trouble::Never(error) => return Err(unreadable(question, error)),
                Trouble::Unreadable(_, error) if begun.elapsed() >= question.unreadable => {
                    return Err(unreadable(question, error));
                }
                Trouble::Again(asked, error) | Trouble::Unreadable(asked, error) => (asked, error),
            };
            if begun.elapsed() >= self.patience {
                let why = format!("{:#}", anyhow::Error::from(error));
                let why = locked(&self.gone).get_or_insert(why).clone();
                return Err(SourceError::Gone(why));
            }
            tracing::warn!(error = %anyhow::Error::from(error), "{} is asked for again", question.what);
            let wait = match asked {
                Some(asked) => backoff::retry_after(asked),
                None => backoff.after_failure(),
            };
            sleep(wait.min(LONGEST_WAIT)).await;
            self.goes_on()?;
        }
    }

    fn goes_on(&self) -> Result<(), SourceError> {
        match &*locked(&self.gone) {
            Some(why) => Err(SourceError::Gone(why.clone())),
            None => Ok(()),
        }
    }
}

fn runtime(question: &Question) -> Result<Runtime, SourceError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreadable(question, error))
}

fn unreadable(question: &Question, source: io::Error) -> SourceError {
    SourceError::Unreadable {
        what: question.what.clone(),
        source,
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
