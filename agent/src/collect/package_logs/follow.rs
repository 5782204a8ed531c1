//! One log, read on from where reading it ended before: through what it was rotated to meanwhile, into what it is now.
//!
//! The place is a file and an offset in it. The file is known by its inode and by what it begins with, so that it is found again
//! when it was renamed, copied and truncated, or packed. Where it is gone for good, all that may be later is read, and
//! what was told before is told by its time.

use std::collections::BTreeMap;
use std::io::{self, Read};

use infratrack_shared::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::cut::Cutter;
use super::files::{Identity, LogFile, rotated};
use super::years::Years;
use super::zone::Zone;
use crate::collect::{Reason, Root};
use crate::packages::log::Parser;
use crate::packages::log::merge::{Line, Waiting};
use crate::packages::log::source::Log;
use crate::packages::log::transactions::Spot;

/// Read at once, but for the end of a line.
const READ_BYTES: usize = 256 * 1024;
const PIECE_BYTES: usize = 32 * 1024;

/// Where to read on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    file: Identity,
    offset: u64,
    /// In the middle of a line that is too long to be kept.
    #[serde(default)]
    is_over: bool,
    /// When the line before was written.
    #[serde(default)]
    previous: Option<i64>,
}

/// See the module.
pub(super) struct Follower {
    path: &'static str,
    parser: Box<dyn Parser>,
    names_years: bool,
    place: Option<Place>,
    /// The number of the place's file, for [`Spot::file`].
    number: u32,
    /// Of files whose lines may still be held.
    files: BTreeMap<u32, Identity>,
    /// Rotated logs that can't be read, and are not told of again.
    unread: Vec<String>,
}

/// A file that is to be read, and from where.
struct Step {
    file: LogFile,
    offset: u64,
    is_over: bool,
    /// It is where reading ended before.
    is_known: bool,
}

impl Step {
    fn whole(file: LogFile) -> Self {
        Self {
            file,
            offset: 0,
            is_over: false,
            is_known: false,
        }
    }
}

/// What is read, and when.
pub(super) struct Here<'a> {
    pub root: &'a Root,
    pub zone: &'a Zone,
    pub now: UnixMillis,
}

/// How far reading came.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// The place was lost, or there was none: what was told before comes again.
    pub is_lost: bool,
}

impl Follower {
    pub(super) fn new(log: Log, names_years: bool, place: Option<Place>) -> Self {
        Self {
            path: log.path,
            parser: log.parser,
            names_years,
            place,
            number: 0,
            files: BTreeMap::new(),
            unread: Vec::new(),
        }
    }

    /// Reads some of what is new. Without a place, what was written since `since_ms`.
    pub(super) fn read(
        &mut self,
        here: &Here<'_>,
        since_ms: i64,
        waiting: &mut Waiting,
    ) -> Result<Followed, Reason> {
        waiting.has_more = false;
        let (steps, is_lost) = self
            .steps(here.root, since_ms)
            .map_err(|error| format!("/{}: {error}", self.path))?;
        let mut room = READ_BYTES;
        for (index, step) in steps.iter().enumerate() {
            let later = steps.get(index + 1..).unwrap_or_default();
            // What rotates a log may leave its writer in the old one, until there is something in the new one.
            let is_last = later.iter().all(|step| step.file.len == 0);
            let has_more = match self.read_file(here, step, is_last, &mut room, waiting) {
                Ok(has_more) => has_more,
                Err(error) if is_last => return Err(format!("/{}: {error}", step.file.path)),
                Err(error) => {
                    // Damaged, perhaps: what is after it in its place is lost, and what follows is not.
                    let path = &step.file.path;
                    tracing::warn!(%error, path, "the rest of a rotated log is not read");
                    false
                }
            };
            if has_more || (room == 0 && !is_last) {
                waiting.has_more = true;
                break;
            }
            if is_last {
                break;
            }
        }
        Ok(Followed { is_lost })
    }

    /// What is to be saved, when lines from `held` on are to come again after a restart.
    pub(super) fn saved(&self, held: Option<Spot>) -> Option<Place> {
        let Some(held) = held else {
            return self.place.clone();
        };
        Some(Place {
            file: self.files.get(&held.file)?.clone(),
            offset: held.offset,
            is_over: false,
            previous: None,
        })
    }

    /// No line before `held` is asked for again.
    pub(super) fn forget(&mut self, held: Option<Spot>) {
        let from = held.map_or(self.number, |held| held.file.min(self.number));
        self.files = self.files.split_off(&from);
    }

    /// The files to read, and whether that is because the place is not known.
    fn steps(&mut self, root: &Root, since_ms: i64) -> io::Result<(Vec<Step>, bool)> {
        let live = match LogFile::find(root, self.path) {
            Ok(live) => Some(live),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let (Some(place), Some(live)) = (&self.place, &live)
            && live.is(&place.file, place.offset, root)
            && (live.dev, live.ino) == (place.file.dev, place.file.ino)
        {
            let step = Step::known(live.clone(), place);
            return Ok((vec![step], false));
        }
        let mut files = self.readable(root, since_ms);
        files.extend(live);
        if let Some(place) = &self.place {
            let is_same = |file: &&LogFile| {
                (file.dev, file.ino) == (place.file.dev, place.file.ino)
                    && file.is(&place.file, place.offset, root)
            };
            let by_inode = files.iter().position(|file| is_same(&file));
            let found = by_inode.or_else(|| {
                let mut files = files.iter();
                files.position(|file| file.is(&place.file, place.offset, root))
            });
            if let Some(found) = found {
                let mut steps: Vec<_> = files.drain(found..).map(Step::whole).collect();
                if let Some(first) = steps.first_mut() {
                    *first = Step::known(first.file.clone(), place);
                }
                return Ok((steps, false));
            }
        }
        files.retain(|file| file.modified_ms >= since_ms);
        let steps: Vec<_> = files.into_iter().map(Step::whole).collect();
        let is_lost = !steps.is_empty();
        Ok((steps, is_lost))
    }

    /// The rotated logs but for those that can't be read, which must not keep the others from being read.
    fn readable(&mut self, root: &Root, since_ms: i64) -> Vec<LogFile> {
        let mut files = rotated(root, self.path);
        files.retain(|file| {
            let Err(error) = file.identity(root) else {
                return true;
            };
            if file.modified_ms >= since_ms && !self.unread.contains(&file.path) {
                tracing::warn!(%error, path = file.path, "a rotated log is not read");
                self.unread.push(file.path.clone());
            }
            false
        });
        files
    }

    /// Answers whether there is more in it.
    fn read_file(
        &mut self,
        here: &Here<'_>,
        step: &Step,
        is_last: bool,
        room: &mut usize,
        waiting: &mut Waiting,
    ) -> io::Result<bool> {
        let identity = step.file.identity(here.root)?;
        let mut reader = step.file.read_from(here.root, step.offset)?;
        if !step.is_known {
            self.number += 1;
        }
        self.files.insert(self.number, identity.clone());
        let mut previous = self.place.as_ref().and_then(|place| place.previous);
        let mut cutter = Cutter::new(step.offset, step.is_over);
        let mut said = Vec::new();
        let years = if self.names_years {
            None
        } else {
            Some(Years::read(&step.file, step.offset, here.root)?)
        };
        let (number, parser) = (self.number, &mut self.parser);
        let mut line = |offset: u64, line: &[u8]| {
            parser.line(&String::from_utf8_lossy(line), &mut said);
            for (stamp, said) in said.drain(..) {
                let stamp = match &years {
                    Some(years) => years.dated(stamp, offset),
                    None => stamp,
                };
                let at = here.zone.at(stamp, previous, here.now);
                previous = Some(at);
                let spot = Spot {
                    file: number,
                    offset,
                };
                waiting.lines.push_back(Line { spot, at, said });
            }
        };
        let mut piece = vec![0; PIECE_BYTES];
        let (mut is_at_end, mut failed) = (false, None);
        while !is_at_end && (*room > 0 || cutter.is_within()) {
            match read_some(&mut reader, &mut piece) {
                Ok(read) => {
                    is_at_end = read == 0;
                    *room = room.saturating_sub(read);
                    cutter.push(piece.get(..read).unwrap_or_default(), &mut line);
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if is_at_end && !is_last {
            cutter.finish(&mut line);
        }
        let (offset, is_over) = cutter.place();
        self.place = Some(Place {
            file: identity,
            offset,
            is_over,
            previous,
        });
        // After the place has moved: what was read before must not come again.
        failed.map_or(Ok(!is_at_end), Err)
    }
}

impl Step {
    fn known(file: LogFile, place: &Place) -> Self {
        Self {
            file,
            offset: place.offset,
            is_over: place.is_over,
            is_known: true,
        }
    }
}

fn read_some(reader: &mut dyn Read, piece: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
