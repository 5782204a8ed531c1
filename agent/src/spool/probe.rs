//! Reading a spool that may be damaged: is all there that the ledger names, and what can be saved.
//!
//! Runs in a child process (`spool-probe`), because sled may panic, hang or allocate without end
//! over a damaged file. Answers in files beside the spool: `verdict`, `salvage`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::sled::Db;
use bytes::Bytes;
use infratrack_shared::codec;
use infratrack_shared::ids::BootId;
use serde::{Deserialize, Serialize};

use super::backend::{BackendError, Key};
use super::files;
use super::lane::Lane;
use super::ledger::{self, Ledger};
use super::queue::CLASSES;
use super::record::{self, Stored};
use super::sled::{caught, get, open_db};

const VERDICT: &str = "verdict";
const SALVAGE: &str = "salvage";
/// Above what one stored value can be.
const FRAME_BYTES: usize = 1024 * 1024;
/// Heartbeat numbers skipped where the watermark is lost: the copy's may be behind.
const HEARTBEATS_UNKNOWN: u64 = 1_000_000;

/// What a look at the whole spool found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Verdict {
    pub sound: bool,
    /// What is wrong, for people.
    pub detail: String,
    /// The later of watermark and copy.
    pub ledger: Option<Ledger>,
    /// Records of a newer version.
    pub unread_records: u64,
}

impl Verdict {
    fn unsound(detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            ..Self::default()
        }
    }
}

/// Entry of the hidden subcommand `spool-probe DIR GENERATION [--salvage]`: 0 where the spool is sound, or
/// where what could be saved is in `DIR/salvage`.
pub fn probe_main(dir: &Path, generation: u64, salvage: bool) -> ExitCode {
    let done = if salvage {
        save(dir).is_ok()
    } else {
        let verdict = inspect(dir, generation);
        store_verdict(dir, &verdict).is_ok() && verdict.sound
    };
    if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

pub(super) fn forget_verdict(root: &Path) {
    // Missing is what it should be.
    let _ = fs::remove_file(root.join(VERDICT));
}

pub(super) fn load_verdict(root: &Path) -> Option<Verdict> {
    codec::decode(&fs::read(root.join(VERDICT)).ok()?, &ledger::LIMITS).ok()
}

fn store_verdict(root: &Path, verdict: &Verdict) -> io::Result<()> {
    let bytes = codec::encode(verdict).map_err(io::Error::other)?;
    files::replace(root, VERDICT, &bytes)
}

/// Opens the copy of a generation and reads everything its ledger names.
pub(super) fn inspect(root: &Path, generation: u64) -> Verdict {
    let watermark = files::load_ledger(root);
    let dir = files::working_dir(root, generation);
    let known = watermark.clone();
    let unsound = |detail: String| Verdict {
        ledger: known.clone(),
        ..Verdict::unsound(detail)
    };
    if !dir.join("db").exists() {
        return unsound("the store's file is missing".to_owned());
    }
    let checked = caught(|| {
        let db = open_db(&dir)?;
        let copy = get(&db, &Key::ledger()).ok().flatten();
        let copy = copy
            .and_then(|bytes| Ledger::decode(&bytes))
            .filter(|copy| copy.generation == generation);
        let ledger = match (watermark, copy) {
            (Some(watermark), Some(copy)) if copy.revision > watermark.revision => copy,
            (Some(watermark), _) => watermark,
            (None, Some(mut copy)) => {
                copy.heartbeats_reserved += HEARTBEATS_UNKNOWN;
                copy
            }
            (None, None) => {
                return Ok(Verdict::unsound(
                    "there is no watermark, and the store has no copy of it",
                ));
            }
        };
        let mut verdict = Verdict {
            ledger: Some(ledger.clone()),
            ..Verdict::default()
        };
        match read_all(&db, &ledger) {
            Ok(unread) => {
                verdict.sound = true;
                verdict.unread_records = unread + ledger.unread;
            }
            Err(error) => verdict.detail = error.to_string(),
        }
        Ok(verdict)
    });
    checked.unwrap_or_else(|error| unsound(error.to_string()))
}

/// Answers how many records are of a newer version.
fn read_all(db: &Db, ledger: &Ledger) -> Result<u64, BackendError> {
    let mut unread = 0;
    for section in ledger.sections() {
        for class in CLASSES {
            let lane = section.lane(class);
            let to = lane.reserved.max(lane.next) - 1;
            for (from, to) in lane.present(lane.kept_from, to) {
                for seq in from..=to {
                    let value = get(db, &Key::record(section.slot, class, seq))?;
                    if value.is_none() && seq >= lane.durable {
                        continue;
                    }
                    match value.map(|value| record::decode(&value, seq, BootId::default())) {
                        Some(Stored::Record(_)) => {}
                        Some(Stored::Newer) => unread += 1,
                        Some(Stored::Damaged) | None => {
                            let detail = format!("record {seq} of {class:?} is not what was kept");
                            return Err(BackendError::Damaged(detail));
                        }
                    }
                }
            }
        }
    }
    for name in &ledger.values {
        if get(db, &Key::value(name))?.is_none() {
            return Err(BackendError::Damaged(format!("value {name} is missing")));
        }
    }
    Ok(unread)
}

/// Adds what can be read of everything the ledger names to a file, in the ledger's order. Every
/// key is asked for: an iterator would stop for good at the first damaged page.
pub(super) fn save(root: &Path) -> io::Result<()> {
    let out = OpenOptions::new()
        .append(true)
        .create(true)
        .open(salvage_path(root))?;
    let mut out = BufWriter::new(out);
    let Some(ledger) = files::load_ledger(root) else {
        return Ok(());
    };
    let dir = files::working_dir(root, ledger.generation);
    if dir.join("db").exists()
        && let Ok(db) = open_db(&dir)
    {
        for (key, is_record) in worth_saving(&ledger) {
            let Ok(Some(value)) = caught(|| get(&db, &key)) else {
                continue;
            };
            let damaged = is_record
                && matches!(
                    record::decode(&value, 0, BootId::default()),
                    Stored::Damaged
                );
            if !damaged {
                write_frame(&mut out, key.as_bytes(), &value)?;
            }
        }
    }
    out.flush()
}

/// Keys, and whether each is a record's.
fn worth_saving(ledger: &Ledger) -> impl Iterator<Item = (Key, bool)> {
    let records = ledger.sections().flat_map(|section| {
        CLASSES.into_iter().flat_map(move |class| {
            unsent(section.lane(class))
                .into_iter()
                .flat_map(|(from, to)| from..=to)
                .map(move |seq| (Key::record(section.slot, class, seq), true))
        })
    });
    let values = ledger.values.iter().map(|name| (Key::value(name), false));
    let unread = (0..ledger.unread).map(|number| (Key::unread(number), false));
    // Small values first: they are few, and matter most should the file be cut.
    values.chain(unread).chain(records)
}

/// The numbers that may have a record which is not acknowledged.
pub(super) fn unsent(lane: &Lane) -> Vec<(u64, u64)> {
    lane.present(lane.acked + 1, lane.reserved.max(lane.next) - 1)
}

pub(super) fn forget_saved(root: &Path) {
    // Missing is what it should be.
    let _ = fs::remove_file(salvage_path(root));
}

fn salvage_path(root: &Path) -> PathBuf {
    root.join(SALVAGE)
}

fn write_frame(out: &mut impl Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let key_bytes = u32::try_from(key.len()).map_err(too_long)?;
    let value_bytes = u32::try_from(value.len()).map_err(too_long)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), value);
    for number in [key_bytes, value_bytes, crc] {
        out.write_all(&number.to_be_bytes())?;
    }
    out.write_all(key)?;
    out.write_all(value)
}

/// What a child saved, up to where it died.
pub(super) struct Salvaged {
    file: Option<BufReader<File>>,
}

impl Salvaged {
    pub(super) fn open(root: &Path) -> Self {
        let file = File::open(salvage_path(root)).ok();
        Self {
            file: file.map(BufReader::new),
        }
    }

    fn frame(&mut self) -> Option<(Key, Bytes)> {
        let file = self.file.as_mut()?;
        let mut number = || {
            let mut bytes = [0; 4];
            file.read_exact(&mut bytes).ok()?;
            Some(u32::from_be_bytes(bytes))
        };
        let (key_bytes, value_bytes, crc) = (number()?, number()?, number()?);
        let key = Self::take(file, key_bytes)?;
        let value = Self::take(file, value_bytes)?;
        let intact = crc32c::crc32c_append(crc32c::crc32c(&key), &value) == crc;
        intact.then(|| (Key::from_bytes(&key), Bytes::from(value)))
    }

    fn take(file: &mut impl Read, bytes: u32) -> Option<Vec<u8>> {
        let bytes = usize::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= FRAME_BYTES)?;
        let mut taken = vec![0; bytes];
        file.read_exact(&mut taken).ok()?;
        Some(taken)
    }
}

impl Iterator for Salvaged {
    type Item = (Key, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        self.frame()
    }
}
