//! [`PackageLogs`] on a thread of its own, with a time limit.

use std::time::Duration;

use infratrack_shared::time::UnixMillis;

use super::{PackageLogs, Reading};
use crate::collect::bounded::Bounded;
use crate::collect::{Reason, Root};

/// Of one reading: a quarter of a megabyte of each log.
const LIMIT: Duration = Duration::from_secs(10);

/// See the module.
pub struct LogReader {
    root: Root,
    /// What is durable.
    saved: Option<Vec<u8>>,
    /// None where what was read is not durable, or still hangs: it is read again from `saved`.
    logs: Option<PackageLogs>,
    bounded: Bounded,
}

impl LogReader {
    /// Goes on where `saved` says.
    pub fn new(root: Root, saved: Option<Vec<u8>>) -> Self {
        Self {
            root,
            saved,
            logs: None,
            bounded: Bounded::default(),
        }
    }

    /// Reads some of what is new. Until [`LogReader::keep`] it comes again.
    pub async fn read(&mut self, now: UnixMillis) -> Result<(PackageLogs, Reading), Reason> {
        let saved = self.saved.as_deref();
        let root = &self.root;
        let logs = self.logs.take();
        let mut logs = logs.unwrap_or_else(|| PackageLogs::resume(root.clone(), saved));
        let work = move || {
            let reading = logs.read(now);
            (logs, reading)
        };
        self.bounded.run("package logs", LIMIT, work).await
    }

    /// What [`LogReader::read`] answered is durable, or there was nothing in it to lose.
    pub fn keep(&mut self, logs: PackageLogs, saved: Option<Vec<u8>>) {
        self.logs = Some(logs);
        self.saved = saved.or(self.saved.take());
    }

    /// What is durable.
    pub fn saved(&self) -> Option<&[u8]> {
        self.saved.as_deref()
    }
}
