//! A run's spool: a header, and a line a record, numbered without a hole. docs/formats/ansible-ingest.md has the format.
//!
//! The file is open for one visit; what is known of it is kept between them, as long as it is the same file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use infratrack_shared::limits;
use infratrack_shared::time::UnixMillis;

use super::{acked, lock};

/// Of a request, records with what is between them. One record of the largest size always finds room.
const BATCH_BYTES: usize = 256 * 1024;
/// Of a record.
const RECORD_BYTES: usize = limits::STRING_BYTES;
/// Read at once where lines are only counted.
const CHUNK: usize = 1 << 20;
/// The longest header, and more than the last record of a run has.
const LINE_BYTES: usize = 256;
/// A file without a header is about to get one, so many milliseconds long.
const HEADER_MS: i64 = 10_000;
const MAGIC: &str = "infratrack-ansible-spool 1";
const END: &[u8] = b"{\"kind\":\"end\"";

/// What is known of a run between two visits.
#[derive(Debug)]
pub(super) struct Place {
    /// The file that it is about: shortened, it is another.
    inode: u64,
    /// Where the first record begins.
    start: u64,
    /// The first record's number, less one.
    base: u64,
    acked: u64,
    /// The collector may have got everything up to here.
    sent: u64,
    /// Where the record after `acked` begins, if that is known.
    offset: Option<u64>,
    /// Lengths of the records that are under way.
    handed_out: Vec<u64>,
    /// What the collector does not take, and the status it said so with.
    rejected: BTreeMap<u64, u16>,
    most_records: usize,
}

impl Place {
    /// By the file's header and what is remembered beside it; none where there is no header.
    fn begin(file: &File, name: &str, state: &Path) -> io::Result<Option<Self>> {
        let Some((start, base)) = header(&read_at(file, 0, LINE_BYTES)?, name) else {
            return Ok(None);
        };
        let (acked, sent) = acked::read(state).unwrap_or((base, base));
        Ok(Some(Self {
            inode: file.metadata()?.ino(),
            start,
            base,
            acked: acked.max(base),
            sent: sent.max(base),
            offset: None,
            handed_out: Vec::new(),
            rejected: BTreeMap::new(),
            most_records: limits::PLAYS_RECORDS,
        }))
    }

    /// The number of the first record that is under way.
    pub(super) fn next(&self) -> u64 {
        self.acked + 1
    }

    /// The collector has everything up to `acked`, perhaps less than was sent, perhaps more.
    pub(super) fn advance(&mut self, acked: u64) {
        let count = acked.checked_sub(self.acked);
        let count = count.and_then(|count| usize::try_from(count).ok());
        let passed = count.and_then(|count| self.handed_out.get(..count));
        self.offset = match (self.offset, passed) {
            (Some(offset), Some(passed)) if self.acked >= self.base => {
                Some(offset + passed.iter().sum::<u64>())
            }
            (Some(_) | None, Some(_) | None) => None,
        };
        self.acked = acked;
        self.handed_out.clear();
        self.rejected.retain(|seq, _| *seq > acked);
        self.most_records = limits::PLAYS_RECORDS;
    }

    /// Remembers how far the collector is, and what it may have got.
    pub(super) fn note(&self, state: &Path, is_shared: bool) {
        let sent = self.sent.max(self.acked);
        if let Err(error) = acked::write(state, self.acked, sent, is_shared) {
            // Sending goes on: it is what makes room on a full disk.
            tracing::debug!(%error, path = %state.display(), "how far a play was sent is not kept");
        }
    }

    /// A gap comes in this record's place. Answers whether there was none yet.
    pub(super) fn reject(&mut self, seq: u64, status: u16) -> bool {
        self.rejected.insert(seq, status).is_none()
    }

    /// Something in the request is not taken, and the collector does not say what: fewer at once. Answers whether that is
    /// possible.
    pub(super) fn halve(&mut self, records: usize) -> bool {
        self.most_records = (records / 2).max(1);
        records > 1
    }
}

/// How a run stands that has nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its play goes on.
    Live,
    /// There is something to send after all.
    HasMore,
    /// The collector has its end.
    Delivered,
}

/// What a file turned out to be.
#[derive(Debug)]
pub(super) enum Opened {
    Run(Box<Run>),
    /// Its header is under way.
    NotYet,
    NoSpool,
}

/// A run whose file is open.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    /// `RUN.acked`.
    state: PathBuf,
    is_shared: bool,
    now: UnixMillis,
    place: Place,
}

impl Run {
    pub(super) fn open(
        file: File,
        name: &str,
        (state, is_shared): (PathBuf, bool),
        known: Option<Place>,
        now: UnixMillis,
    ) -> io::Result<Opened> {
        let found = file.metadata()?;
        let known = known.filter(|place| place.inode == found.ino());
        let place = match known {
            Some(place) => Some(place),
            None => Place::begin(&file, name, &state)?,
        };
        let Some(place) = place else {
            let written = UnixMillis(found.mtime().saturating_mul(1000));
            let has_header = read_at(&file, 0, LINE_BYTES)?.contains(&b'\n');
            let is_new = !has_header && now.millis_since(written) < HEADER_MS;
            return Ok(if is_new {
                Opened::NotYet
            } else {
                Opened::NoSpool
            });
        };
        Ok(Opened::Run(Box::new(Self {
            file,
            state,
            is_shared,
            now,
            place,
        })))
    }

    /// The place to come back to.
    pub(super) fn close(self) -> Place {
        self.place
    }

    /// The records to send now, after `place.acked`; none where there are none yet.
    pub(super) fn take(&mut self) -> io::Result<Vec<String>> {
        self.place.handed_out.clear();
        if self.place.acked < self.place.base {
            // A collector that forgot what it had, and it is kept no longer.
            let missing = usize::try_from(self.place.base - self.place.acked);
            let count = missing.map_or(self.place.most_records, |missing| {
                missing.min(self.place.most_records)
            });
            return Ok(vec![self.gap("not_kept"); count]);
        }
        let offset = self.offset()?;
        let data = read_at(&self.file, offset, BATCH_BYTES + RECORD_BYTES)?;
        let mut lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
        let rest = lines.pop().unwrap_or_default();
        if lines.is_empty() && rest.len() > RECORD_BYTES {
            return self.endless(offset);
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (line, seq) in lines.iter().zip(self.place.next()..) {
            let record = self.record(seq, line);
            bytes += record.len() + 1;
            let is_full = bytes > BATCH_BYTES || records.len() == self.place.most_records;
            if is_full && !records.is_empty() {
                break;
            }
            records.push(record);
            self.place.handed_out.push(line.len() as u64 + 1);
        }
        Ok(records)
    }

    fn record(&self, seq: u64, line: &[u8]) -> String {
        if let Some(status) = self.place.rejected.get(&seq) {
            return self.gap(&format!("rejected_{status}"));
        }
        if line.contains(&0) || !line.starts_with(b"{\"kind\":\"") || !line.ends_with(b"}") {
            return self.gap("damaged");
        }
        if line.len() > RECORD_BYTES {
            return self.gap("too_large");
        }
        match str::from_utf8(line) {
            Ok(text) => text.to_owned(),
            Err(_) => self.gap("damaged"),
        }
    }

    /// One record of a line that is longer than any.
    fn endless(&mut self, begin: u64) -> io::Result<Vec<String>> {
        let mut offset = begin;
        loop {
            let data = read_at(&self.file, offset, CHUNK)?;
            if data.is_empty() {
                return Ok(Vec::new());
            }
            if let Some(at) = data.iter().position(|byte| *byte == b'\n') {
                self.place.handed_out = vec![offset + at as u64 + 1 - begin];
                return Ok(vec![self.gap("damaged")]);
            }
            offset += data.len() as u64;
        }
    }

    /// Remembers that so many records are about to leave.
    pub(super) fn note(&mut self, records: usize) {
        self.place.sent = self.place.sent.max(self.place.acked + records as u64);
        self.place.note(&self.state, self.is_shared);
    }

    /// How it stands when everything was sent. A run whose play is dead gets its end here.
    pub(super) fn finish(&mut self) -> io::Result<Standing> {
        let offset = self.offset()?;
        let (size, tail) = self.tail()?;
        if offset == size && last_line(&tail).starts_with(END) {
            return Ok(Standing::Delivered);
        }
        if !lock::take(&self.file, self.now)? {
            return Ok(Standing::Live);
        }
        // What was written between our look and its end.
        let (size, tail) = self.tail()?;
        if size > offset && tail.ends_with(b"\n") {
            return Ok(Standing::HasMore);
        }
        let is_whole = size == self.place.start || tail.ends_with(b"\n");
        // The NUL makes half a line a damaged one.
        let torn = if is_whole { "" } else { "\0\n" };
        let at = stamp(self.now);
        let end =
            format!("{torn}{{\"kind\":\"end\",\"at\":\"{at}\",\"outcome\":\"interrupted\"}}\n");
        self.file.write_all(end.as_bytes())?;
        Ok(Standing::HasMore)
    }

    /// Size and last bytes.
    fn tail(&self) -> io::Result<(u64, Vec<u8>)> {
        let size = self.file.metadata()?.len();
        let from = size.saturating_sub(LINE_BYTES as u64).max(self.place.start);
        Ok((size, read_at(&self.file, from, LINE_BYTES)?))
    }

    /// Where the next record begins: looked for where it is not known.
    fn offset(&mut self) -> io::Result<u64> {
        if let Some(offset) = self.place.offset {
            return Ok(offset);
        }
        let mut offset = self.place.start;
        let mut skip = self.place.acked.saturating_sub(self.place.base);
        while skip > 0 {
            let data = read_at(&self.file, offset, CHUNK)?;
            let ends = data.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            let most = usize::try_from(skip).unwrap_or(usize::MAX);
            let (mut lines, mut end) = (0, 0);
            for (at, _) in ends.take(most) {
                lines += 1;
                end = at as u64 + 1;
            }
            if lines == 0 {
                break;
            }
            skip -= lines;
            offset += end;
        }
        // A collector may have more than is written: then there is nothing to send, and perhaps there will be.
        self.place.acked -= skip;
        self.place.offset = Some(offset);
        Ok(offset)
    }

    fn gap(&self, reason: &str) -> String {
        let at = stamp(self.now);
        format!("{{\"kind\":\"gap\",\"count\":1,\"reason\":\"{reason}\",\"at\":\"{at}\"}}")
    }
}

/// Where the first record begins, and its number less one.
fn header(head: &[u8], name: &str) -> Option<(u64, u64)> {
    let end = head.iter().position(|byte| *byte == b'\n')?;
    let line = str::from_utf8(head.get(..end)?).ok()?;
    let rest = line.strip_prefix(MAGIC)?.strip_prefix(' ')?;
    let mut words = rest.strip_prefix(name)?.strip_prefix(' ')?.split(' ');
    Some((end as u64 + 1, words.next()?.parse().ok()?))
}

fn last_line(tail: &[u8]) -> &[u8] {
    let whole = tail.strip_suffix(b"\n").unwrap_or_default();
    whole
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default()
}

/// Up to so many bytes from there, fewer at the file's end.
fn read_at(file: &File, offset: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut data = vec![0; most];
    let mut filled = 0;
    while let Some(free) = data.get_mut(filled..).filter(|free| !free.is_empty()) {
        match file.read_at(free, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    data.truncate(filled);
    Ok(data)
}

/// RFC 3339 in UTC with milliseconds.
fn stamp(at: UnixMillis) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    format!("{at:.3}")
}
