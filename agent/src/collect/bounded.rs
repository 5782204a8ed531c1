//! Blocking work with a time limit.
//!
//! A system call on a dead network mount can't be interrupted, only left behind on its thread. So
//! each piece of work has a name, and while one of that name still hangs no second is started: a
//! hung mount costs one thread, however long it hangs. Used by filesystems and facts.

use std::collections::HashMap;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Reason;

/// Enough for any source; the default of 2 MiB is only address space, yet counts in some limits.
const STACK_BYTES: usize = 512 * 1024;

/// The threads that were left behind, by the name of their work.
#[derive(Default)]
pub(super) struct Bounded {
    running: HashMap<String, JoinHandle<()>>,
}

impl Bounded {
    /// Runs `work` on a thread of its own and waits for it at most `limit`.
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        name: &str,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Reason> {
        self.running.retain(|_, thread| !thread.is_finished());
        if self.running.contains_key(name) {
            return Err("still hangs since an earlier reading".to_owned());
        }
        let (answer, answered) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("bounded".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // Nobody listens any more where the limit has passed.
                let _ = answer.send(work());
            })
            .map_err(|error| format!("no thread for it: {error}"))?;
        // Noted before the wait, so that a caller that stops waiting leaves a trace too.
        self.running.insert(name.to_owned(), thread);
        match timeout(limit, answered).await {
            Ok(answer) => {
                self.running.remove(name);
                answer.map_err(|_| "its reader panicked".to_owned())
            }
            Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn hung_work_is_left_behind_and_not_started_again_until_it_ends() {
        let mut bounded = Bounded::default();
        let (release, never) = mpsc::channel::<()>();
        let answer = bounded.run("a", SHORT, move || never.recv()).await;
        assert_eq!(answer, Err("no answer within 20 ms".to_owned()));

        let again = bounded
            .run("a", LONG, || unreachable!("started twice"))
            .await;
        assert_eq!(
            again,
            Err::<(), _>("still hangs since an earlier reading".to_owned())
        );
        assert_eq!(bounded.run("b", LONG, || 7).await, Ok(7));

        drop(release);
        while !bounded.running.values().all(JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        assert_eq!(bounded.run("a", LONG, || 8).await, Ok(8));
    }

    #[tokio::test]
    async fn a_panic_in_the_work_is_a_reason() {
        let mut bounded = Bounded::default();
        let panicked = bounded.run("a", LONG, || panic!("on purpose")).await;
        assert_eq!(panicked, Err::<(), _>("its reader panicked".to_owned()));
    }
}
