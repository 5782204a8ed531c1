//! Lines of one or two logs, in the order of their times, made into transactions.
//!
//! The front's log (apt's history, dnf.log) has the beginning and the end of what a person asked for; the log of dpkg or rpm
//! what was done. A run of dpkg without a front is a transaction of its own. One that is not told yet remembers
//! where its first lines are: from there its reader begins anew after a restart.

use infratrack_shared::wire::event::PackageTransaction;
use infratrack_shared::wire::packages::Manager;

use super::Said;
use super::open::Open;

/// Of a front, and of what it runs.
pub const LOGS: usize = 2;
pub const FRONT: usize = 0;
pub const RUNS: usize = 1;
/// One that nothing was written of for so long has been cut off.
pub const CUT_OFF_MS: i64 = 10 * 60 * 1000;

/// Where a line begins: the reader's number of the file, and the offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    pub file: u32,
    pub offset: u64,
}

/// Whose logs they are.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub manager: Manager,
    /// As it is told.
    pub source: &'static str,
    /// A run of which nothing is under way has ended when nothing was written for so long.
    pub quiet_ms: i64,
}

/// A transaction that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    pub transaction: PackageTransaction,
    /// The time of its last line.
    pub last_at: i64,
}

/// See the module.
#[derive(Debug)]
pub struct Transactions {
    settings: Settings,
    front: Option<Open>,
    run: Option<Open>,
    over: Vec<Over>,
}

impl Transactions {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            front: None,
            run: None,
            over: Vec::new(),
        }
    }

    /// Takes what a line of `log` says, which is `at` that time and read `now`.
    pub fn add(&mut self, log: usize, spot: Spot, at: i64, now: i64, said: Said) {
        if said == Said::End {
            if let Some(front) = self.front.take() {
                self.tell(front, Some(at));
            }
            return;
        }
        if said == Said::Begin {
            self.begin(at);
        }
        if self.front.is_none() {
            if said == Said::Run {
                self.end_run();
            }
            if self.run.is_none() && matches!(said, Said::Run | Said::Change(_)) {
                self.run = Some(Open::new(at));
            }
        }
        let target = self.front.as_mut().or(self.run.as_mut());
        // What belongs to nothing is of one that was cut off, or of before the first line that is read.
        let Some(open) = target else {
            return;
        };
        if let Some(from) = open.from.get_mut(log) {
            *from = from.or(Some(spot));
        }
        // A clock that was ahead must not keep it open for as long.
        open.last_at = at.min(now);
        open.add(said, self.settings.manager);
    }

    /// All that there is has been read: what is over without a word of it is told.
    pub fn rest(&mut self, now: i64) {
        let is_due = |due: Option<i64>| due.is_some_and(|due| now >= due);
        if is_due(self.front_due())
            && let Some(front) = self.front.take()
        {
            self.tell(front, None);
        }
        if is_due(self.run_due()) {
            self.end_run();
        }
    }

    /// When [`Transactions::rest`] is to be asked again.
    pub fn due(&self) -> Option<i64> {
        self.front_due().into_iter().chain(self.run_due()).min()
    }

    /// Where the first line of `log` is that is part of what is not over.
    pub fn held(&self, log: usize) -> Option<Spot> {
        let opens = self.front.iter().chain(&self.run);
        opens.filter_map(|open| *open.from.get(log)?).min()
    }

    /// What is over since this was asked before.
    pub fn take(&mut self) -> Vec<Over> {
        std::mem::take(&mut self.over)
    }

    /// Whether the next run is of another transaction: dnf runs rpm once, apt runs dpkg as often as it takes.
    pub(super) fn has_one_run(&self) -> bool {
        let has_changes = self.front.as_ref().is_some_and(Open::has_changes);
        has_changes && self.settings.manager == Manager::Rpm
    }

    fn begin(&mut self, at: i64) {
        if let Some(front) = self.front.take() {
            self.tell(front, None);
        }
        // The log of what it runs may have been read further than its own.
        let its = self.run.take_if(|run| run.started_at >= at);
        self.end_run();
        let mut front = its.unwrap_or_default();
        front.started_at = at;
        self.front = Some(front);
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            let ended_at = run.is_settled().then_some(run.last_at);
            self.tell(run, ended_at);
        }
    }

    fn tell(&mut self, open: Open, ended_at: Option<i64>) {
        let last_at = ended_at.unwrap_or(open.last_at);
        let told = open.finish(&self.settings, ended_at);
        self.over.extend(told.map(|transaction| Over {
            transaction,
            last_at,
        }));
    }

    fn front_due(&self) -> Option<i64> {
        let front = self.front.as_ref()?;
        Some(front.last_at.saturating_add(CUT_OFF_MS))
    }

    fn run_due(&self) -> Option<i64> {
        let run = self.run.as_ref()?;
        let after = if run.is_settled() && run.has_changes() {
            self.settings.quiet_ms
        } else {
            CUT_OFF_MS
        };
        Some(run.last_at.saturating_add(after))
    }
}

#[cfg(test)]
mod tests;
