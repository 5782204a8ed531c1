//! Which run's turn it is, what of it is sent, and what becomes of it then: all that asks the disk.
//!
//! Runs take turns, the oldest first, a request each; one that the collector does not take keeps nobody waiting. From a request
//! to its answer the folder's lock is held, so that nobody shortens a run meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use infratrack_shared::ids::RunId;
use infratrack_shared::wire::PROTOCOL;
use infratrack_shared::wire::plays::Plays;
use tokio::time::Instant;

use super::folder::Folder;
use super::run::{Opened, Place, Run, Standing};
use crate::backoff;
use crate::clock::Clock;

/// A run that the collector does not take at all is offered again after this, and up to twice that.
const REFUSED: Duration = Duration::from_secs(3600);
/// After a file could not be read or written.
const TROUBLE: Duration = Duration::from_secs(60);
/// Looks at a run in a row: each but the last finds something.
const LOOKS: usize = 4;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Next {
    /// There is no folder that can be used.
    NoFolder,
    /// There are no runs, or all of them rest.
    Nothing,
    /// All was sent of runs that go on, or somebody else has the lock.
    Waiting,
    Send(Plays),
}

/// What came of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answered {
    Acked(u64),
    /// This record is never taken.
    Rejected {
        seq: u64,
        status: u16,
    },
    /// Some record is never taken.
    Refused {
        status: u16,
    },
    /// Nothing of this run is.
    NotOurs,
    /// Nobody knows.
    Nothing,
}

/// The runs.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: Folder,
    clock: Clock,
    known: BTreeMap<String, Known>,
    /// Whose turn comes in this round.
    round: VecDeque<String>,
    /// While a request is under way.
    lock: Option<File>,
    /// The run of that request, and how many records.
    under_way: Option<(String, usize)>,
}

#[derive(Debug, Default)]
struct Known {
    place: Option<Place>,
    rests_until: Option<Instant>,
}

/// What came of a look at a run.
enum Seen {
    Records(RunId, u64, Vec<String>),
    /// Nothing, perhaps later.
    Quiet,
    Gone,
}

impl Shelf {
    pub(super) fn new(folder: PathBuf, clock: Clock) -> Self {
        Self {
            folder: Folder::new(folder),
            clock,
            known: BTreeMap::new(),
            round: VecDeque::new(),
            lock: None,
            under_way: None,
        }
    }

    /// Looks for what is to be sent, and remembers that it may be with the collector from here on.
    pub(super) fn next(&mut self) -> Next {
        let mut has_looked = false;
        loop {
            while let Some(name) = self.round.pop_front() {
                if self.lock.is_none() {
                    self.lock = self.folder.lock(self.clock.now());
                }
                if self.lock.is_none() {
                    self.round.push_front(name);
                    return Next::Waiting;
                }
                if let Some(request) = self.look_at(&name) {
                    return Next::Send(request);
                }
            }
            if has_looked {
                break;
            }
            if !self.begin_round() {
                return Next::NoFolder;
            }
            has_looked = true;
        }
        self.lock = None;
        let now = Instant::now();
        if self.known.values().any(|known| !known.rests(now)) {
            Next::Waiting
        } else {
            Next::Nothing
        }
    }

    fn begin_round(&mut self) -> bool {
        let Some(runs) = self.folder.runs(self.clock.now()) else {
            self.lock = None;
            self.known.clear();
            return false;
        };
        let mut before = std::mem::take(&mut self.known);
        let now = Instant::now();
        for name in runs {
            let known = before.remove(&name).unwrap_or_default();
            if !known.rests(now) {
                self.round.push_back(name.clone());
            }
            self.known.insert(name, known);
        }
        true
    }

    fn look_at(&mut self, name: &str) -> Option<Plays> {
        match self.see(name) {
            Ok(Seen::Records(run, first_seq, records)) => {
                self.under_way = Some((name.to_owned(), records.len()));
                Some(Plays {
                    protocol: PROTOCOL,
                    run,
                    first_seq,
                    records,
                })
            }
            Ok(Seen::Quiet) => None,
            Ok(Seen::Gone) => {
                self.known.remove(name);
                None
            }
            Err(error) => {
                self.folder.pass_over(name, &error.to_string());
                self.rest(name, TROUBLE);
                None
            }
        }
    }

    fn see(&mut self, name: &str) -> io::Result<Seen> {
        let Some(file) = self.folder.open(name) else {
            // Passed over, which was said, or gone: then the next round does not find it.
            self.rest(name, TROUBLE);
            return Ok(Seen::Quiet);
        };
        let Ok(id) = name.parse() else {
            return Ok(Seen::Gone);
        };
        let place = self
            .known
            .get_mut(name)
            .and_then(|known| known.place.take());
        let state = self.folder.file(name, "acked");
        let shared = self.folder.is_shared();
        let mut run = match Run::open(file, name, (state, shared), place, self.clock.now())? {
            Opened::Run(run) => run,
            Opened::NotYet => return Ok(Seen::Quiet),
            Opened::NoSpool => return Err(io::Error::other("is no spool")),
        };
        let mut seen = Seen::Quiet;
        for _ in 0..LOOKS {
            let records = run.take()?;
            if !records.is_empty() {
                run.note(records.len());
                seen = Seen::Records(id, 0, records);
                break;
            }
            match run.finish()? {
                Standing::HasMore => {}
                Standing::Live => break,
                Standing::Delivered => {
                    self.remove(name)?;
                    return Ok(Seen::Gone);
                }
            }
        }
        let place = run.close();
        if let Seen::Records(_, first_seq, _) = &mut seen {
            *first_seq = place.next();
        }
        self.known.entry(name.to_owned()).or_default().place = Some(place);
        Ok(seen)
    }

    /// The play first: what is left of it alone would be sent again.
    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.file(name, "spool"))?;
        // It may never have been written.
        fs::remove_file(self.folder.file(name, "acked")).ok();
        Ok(())
    }

    /// Takes the answer to the last request.
    pub(super) fn answered(&mut self, answer: Answered) {
        let Some((name, records)) = self.under_way.take() else {
            return;
        };
        let place = self.known.get_mut(&name);
        let Some(place) = place.and_then(|known| known.place.as_mut()) else {
            self.lock = None;
            return;
        };
        let next = place.next();
        match answer {
            Answered::Acked(acked) => {
                place.advance(acked);
                place.note(&self.folder.file(&name, "acked"), self.folder.is_shared());
            }
            Answered::Rejected { seq, status } => {
                if !place.reject(seq, status) {
                    self.set_aside(&name, status);
                }
            }
            Answered::Refused { status } => {
                if !place.halve(records) && !place.reject(next, status) {
                    self.set_aside(&name, status);
                }
            }
            Answered::NotOurs => {
                self.folder
                    .pass_over(&name, "the collector has it of somebody else");
                self.rest(&name, REFUSED + backoff::up_to(REFUSED));
            }
            Answered::Nothing => {}
        }
        self.lock = None;
    }

    /// Not even a gap is taken in a record's place: it is kept where nobody trips over it.
    fn set_aside(&mut self, name: &str, status: u16) {
        let why = format!("the collector refuses it ({status}); it is kept as {name}.damaged");
        self.folder.pass_over(name, &why);
        let from = self.folder.file(name, "spool");
        if let Err(error) = fs::rename(from, self.folder.file(name, "damaged")) {
            self.folder.pass_over(name, &error.to_string());
            self.rest(name, REFUSED);
            return;
        }
        fs::remove_file(self.folder.file(name, "acked")).ok();
        self.known.remove(name);
    }

    fn rest(&mut self, name: &str, how_long: Duration) {
        let known = self.known.entry(name.to_owned()).or_default();
        known.rests_until = Some(Instant::now() + how_long);
    }
}

impl Known {
    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }
}
