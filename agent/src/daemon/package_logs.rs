//! What package managers did, as critical records: read from their logs when they change, in a task beside the run loop.
//!
//! The records and the place that the logs are read to are made durable in one commit, so a transaction is told once, whenever
//! the agent dies. Where they can't be kept, nothing has moved: it is read again.

use std::sync::Arc;
use std::time::Duration;

use infratrack_shared::ids::BootId;
use infratrack_shared::wire::batch::Body;
use infratrack_shared::wire::event::{Event, PackageTransaction};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::collect::{self, LogReader, Reading, Root};
use crate::spool::{NewRecord, Spool, SpoolError};
use crate::watch::Changes;

/// The value in the spool.
const NAME: &str = "package_logs";
/// Where the kernel tells nothing of a change, it is found by looking.
const LOOK: Duration = Duration::from_secs(600);
/// After what could not be read or kept.
const RETRY: Duration = Duration::from_secs(30);

/// The task; ends when it is dropped.
pub(super) struct PackageLogs {
    told: Arc<Notify>,
    task: JoinHandle<()>,
}

impl PackageLogs {
    pub(super) fn start(
        root: Root,
        spool: Spool,
        clock: Clock,
        boot_id: BootId,
        changes: Changes,
    ) -> Self {
        let told = Arc::new(Notify::new());
        let task = Task {
            spool,
            clock,
            boot_id,
            told: Arc::clone(&told),
            problems: Vec::new(),
        };
        let task = tokio::spawn(task.run(root, changes));
        Self { told, task }
    }

    /// What it has not told is told after the next start.
    pub(super) fn stop(&self) {
        self.task.abort();
    }

    /// Waits for records that it has put into the spool.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }
}

impl Drop for PackageLogs {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Task {
    spool: Spool,
    clock: Clock,
    boot_id: BootId,
    told: Arc<Notify>,
    /// Logged once.
    problems: Vec<String>,
}

impl Task {
    async fn run(mut self, root: Root, mut changes: Changes) {
        let saved = loop {
            match self.spool.get(NAME).await {
                Ok(saved) => break saved,
                Err(SpoolError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "logs of package managers wait for the spool");
                    sleep(RETRY).await;
                }
            }
        };
        let mut reader = LogReader::new(root, saved.map(|saved| saved.to_vec()));
        loop {
            let wait = self.turn(&mut reader).await;
            // In a moment there is more: what changed meanwhile is read with it.
            timeout(wait, changes.next()).await.ok();
        }
    }

    /// Reads some and keeps it. Answers when to come again, if nothing changes.
    async fn turn(&mut self, reader: &mut LogReader) -> Duration {
        let read = reader.read(self.clock.now()).await;
        let (logs, reading) = match read {
            Ok(read) => read,
            Err(reason) => {
                self.tell_problems(vec![reason]);
                return RETRY;
            }
        };
        let again = reading.again_ms.and_then(|again| u64::try_from(again).ok());
        let again = again.map_or(LOOK, Duration::from_millis).min(LOOK);
        self.tell_problems(reading.problems.clone());
        match self.keep(&reading, reader.saved()).await {
            Ok(is_saved) => {
                reader.keep(logs, is_saved.then_some(reading.saved));
                again
            }
            Err(error) => {
                tracing::warn!(%error, "transactions of package managers wait for the spool");
                RETRY
            }
        }
    }

    /// Answers whether the place is durable.
    async fn keep(&self, reading: &Reading, saved: Option<&[u8]>) -> Result<bool, SpoolError> {
        let place = reading.saved.clone().into();
        if reading.transactions.is_empty() {
            let is_due = reading.is_at_rest && saved != Some(&reading.saved);
            if is_due {
                self.spool.put(NAME, place).await?;
            }
            return Ok(is_due);
        }
        let records = reading.transactions.iter().cloned();
        let records = records.filter_map(|transaction| self.record(transaction));
        self.spool
            .append_with(records.collect(), NAME, place)
            .await?;
        self.told.notify_one();
        Ok(true)
    }

    /// Filed under the time at which it happened, which may be of an earlier boot: which one is not known then.
    fn record(&self, transaction: PackageTransaction) -> Option<NewRecord> {
        let now = self.clock.now();
        let at = transaction.ended_at.unwrap_or(transaction.started_at);
        let at = at.min(now);
        let age_ms = u64::try_from(now.millis_since(at)).ok()?;
        let mono_ms = collect::mono_ms().checked_sub(age_ms);
        let event = Event::PackageTransaction(transaction);
        Some(NewRecord {
            at,
            mono_ms: mono_ms.unwrap_or_default(),
            boot_id: mono_ms.map_or(BootId::default(), |_| self.boot_id),
            kind: event.kind()?.to_owned(),
            body: Body::Event(event.to_body().ok()?),
        })
    }

    fn tell_problems(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|it| !self.problems.contains(it)) {
            tracing::warn!(problem, "a log of a package manager can't be read");
        }
        self.problems = problems;
    }
}

#[cfg(test)]
mod tests;
