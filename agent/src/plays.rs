//! Ships the plays of Ansible that a callback left on this host: docs/formats/ansible-ingest.md.
//!
//! A task beside the run loop with a connection of its own, one request at a time, so that no heartbeat waits for it. What asks
//! the disk does so in a thread that may wait. A play is in its file until the collector has committed its end.

mod acked;
mod folder;
mod lock;
mod run;
mod sender;
mod shelf;

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::clock::Clock;
use crate::config::Config;
use crate::watch::Arrivals;
use sender::Sender;
use shelf::{Next, Shelf};

/// Where there is nothing it is looked again after this, if the kernel tells nothing before.
const LOOK: Duration = Duration::from_secs(60);
/// While plays go on.
const GROWS: Duration = Duration::from_secs(1);
/// Between two requests: less than a host may send.
const PACE: Duration = Duration::from_millis(300);

/// The task; ends when it is dropped.
#[derive(Debug)]
pub struct Plays {
    task: JoinHandle<()>,
}

impl Plays {
    /// Ships what is left in `config.plays_dir`, unless that is empty.
    pub fn start(config: &Config, clock: Clock) -> Option<Self> {
        let folder = config.plays_dir.clone();
        if folder.as_os_str().is_empty() {
            return None;
        }
        let task = Task {
            shelf: Shelf::new(folder.clone(), clock.clone()),
            sender: Sender::new(config.state_dir.clone(), config.endpoints.clone()),
            arrivals: None,
            folder,
            clock,
        };
        let task = tokio::spawn(task.run());
        Some(Self { task })
    }
}

impl Drop for Plays {
    /// What was under way is sent again after the next start.
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    shelf: Shelf,
    sender: Sender,
    /// Tells that something has come into the folder.
    arrivals: Option<Arrivals>,
    folder: PathBuf,
    clock: Clock,
}

impl Task {
    async fn run(mut self) {
        loop {
            sleep_until(self.sender.not_before()).await;
            // Before the look, so that nothing comes between.
            if self.arrivals.is_none() {
                self.arrivals = Arrivals::of(&self.folder).ok();
            }
            match self.on_disk(Shelf::next).await {
                Next::Send(plays) => {
                    let begun = Instant::now();
                    let answer = self.sender.send(&plays).await;
                    drop(plays);
                    self.on_disk(move |shelf| shelf.answered(answer)).await;
                    sleep_until(begun + PACE).await;
                }
                Next::Waiting => sleep(GROWS).await,
                Next::Nothing => {
                    self.sender.hang_up();
                    self.arrival().await;
                }
                Next::NoFolder => {
                    self.sender.hang_up();
                    self.arrivals = None;
                    sleep(LOOK).await;
                }
            }
        }
    }

    /// In a thread that may wait.
    async fn on_disk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Shelf) -> T + Send + 'static,
    ) -> T {
        let empty = Shelf::new(self.folder.clone(), self.clock.clone());
        let mut shelf = std::mem::replace(&mut self.shelf, empty);
        let done = spawn_blocking(move || {
            let done = work(&mut shelf);
            (shelf, done)
        });
        let (shelf, done) = done.await.expect("the work does not panic");
        self.shelf = shelf;
        done
    }

    async fn arrival(&mut self) {
        let Some(arrivals) = &mut self.arrivals else {
            return sleep(LOOK).await;
        };
        if let Ok(Err(error)) = timeout(LOOK, arrivals.next()).await {
            tracing::debug!(%error, "plays are looked for every minute");
            self.arrivals = None;
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests;
