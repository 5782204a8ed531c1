//! The years of a log whose lines name none: the last line is as old as the file at most, and going back from it, each time
//! that the day of the year is later than that of the line after, it is a year earlier.

use std::io::{self, Read};

use infratrack_shared::time::UnixMillis;
use time::OffsetDateTime;

use super::cut::Cutter;
use super::files::LogFile;
use crate::collect::Root;
use crate::packages::log::{Civil, Stamp};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// Lines a little out of order, and an hour that is repeated, begin no year.
const OUT_OF_ORDER_MS: i64 = 2 * DAY_MS;
/// No log is older.
const MOST: usize = 50;
const PIECE_BYTES: usize = 32 * 1024;

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Years {
    last: i32,
    /// Where the first line of a later year is, in their order.
    begins: Vec<u64>,
}

impl Years {
    /// Of the lines from `offset` on.
    pub(super) fn read(file: &LogFile, offset: u64, root: &Root) -> io::Result<Self> {
        let mut reader = file.read_from(root, offset)?;
        let mut cutter = Cutter::new(offset, false);
        let (mut begins, mut before): (Vec<u64>, Option<Civil>) = (Vec::new(), None);
        let mut line = |offset: u64, line: &[u8]| {
            let Some((Stamp::Yearless(civil), _)) = Stamp::yearless(&String::from_utf8_lossy(line))
            else {
                return;
            };
            let fell =
                before.is_some_and(|before| before.as_utc().0 - civil.as_utc().0 > OUT_OF_ORDER_MS);
            if fell {
                begins.push(offset);
                let excess = begins.len().saturating_sub(MOST);
                begins.drain(..excess);
            }
            before = Some(civil);
        };
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = match reader.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // What can be read of a damaged one is read.
                read => read.unwrap_or_default(),
            };
            if read == 0 {
                break;
            }
            cutter.push(piece.get(..read).unwrap_or_default(), &mut line);
        }
        cutter.finish(&mut line);
        let last = latest(before, file.modified_ms);
        Ok(Self { last, begins })
    }

    /// The stamp with the year of the line at `offset`.
    pub(super) fn dated(&self, stamp: Stamp, offset: u64) -> Stamp {
        let later = self.begins.iter().filter(|begin| **begin > offset).count();
        let back = i32::try_from(later).unwrap_or(i32::MAX);
        stamp.with_year(self.last.saturating_sub(back))
    }
}

/// The stamp of the last line of a file.
pub(super) fn dated_last(stamp: Stamp, modified_ms: i64) -> Stamp {
    match stamp {
        Stamp::Yearless(civil) => stamp.with_year(latest(Some(civil), modified_ms)),
        Stamp::Local(_) | Stamp::At(_) => stamp,
    }
}

/// The last year in which the line is not newer than its file. A day is for zones, and for clocks.
fn latest(line: Option<Civil>, modified_ms: i64) -> i32 {
    let newest = UnixMillis(modified_ms).plus_millis(DAY_MS);
    let at = OffsetDateTime::from_unix_timestamp(newest.0 / 1000);
    let year = at.map_or(1970, OffsetDateTime::year);
    let is_newer = line.is_some_and(|line| Civil { year, ..line }.as_utc() > newest);
    if is_newer { year - 1 } else { year }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    const LOG: &str = "var/log/yum.log";

    /// The years of the lines of a file that was written last at `modified_s`.
    fn years(text: &str, modified_s: u64) -> Vec<i32> {
        let (_keep, root) = fixture::host(&[(LOG, text)]);
        let file = std::fs::File::options()
            .write(true)
            .open(root.path(LOG))
            .unwrap();
        let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(modified_s);
        file.set_modified(modified).unwrap();
        let years = Years::read(&LogFile::find(&root, LOG).unwrap(), 0, &root).unwrap();
        let mut offset = 0;
        let mut told = Vec::new();
        for line in text.lines() {
            let (stamp, _) = Stamp::yearless(line).unwrap();
            let Stamp::Local(civil) = years.dated(stamp, offset) else {
                panic!("it has a year");
            };
            told.push(civil.year);
            offset += line.len() as u64 + 1;
        }
        told
    }

    #[test]
    fn years_are_counted_back_from_the_last_line() {
        // 2026-02-03T00:00:00Z.
        let february = 1_770_076_800;
        let text = "Nov 20 10:00:00 a\nMar  1 10:00:00 b\nDec 31 23:59:59 c\nJan  1 00:00:01 d\nFeb  2 10:00:00 e\n";
        assert_eq!(years(text, february), [2024, 2025, 2025, 2026, 2026]);
        // Written last long after its last line.
        assert_eq!(years("Nov 20 10:00:00 a\n", february), [2025]);
        // In a zone ahead of UTC; and out of order by a repeated hour.
        let text = "Feb  3 09:00:00 a\nFeb  3 08:00:00 b\n";
        assert_eq!(years(text, february), [2026, 2026]);
    }

    #[test]
    fn a_log_of_more_years_than_there_were_is_read_to_its_end() {
        let text = "Dec  1 00:00:00 a\nJan  1 00:00:00 b\n".repeat(500);
        let told = years(&text, 1_770_076_800);
        assert_eq!(told.last(), Some(&2026));
        assert_eq!(told.first(), Some(&(2026 - 50)));
    }
}
