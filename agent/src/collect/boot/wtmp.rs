//! `/var/log/wtmp`: glibc's `struct utmp`, one record after another, of which boots and shutdowns are wanted (utmp(5),
//! `systemd-update-utmp`). Each names the kernel.

use std::io::{Read, Seek, SeekFrom};

use crate::collect::{Reason, Root};

const WTMP: &str = "var/log/wtmp";
/// Read of its end: a busy host writes some hundred records a day.
const END_RECORDS: u64 = 4_096;
/// The clock may be set after the record was written; it is off by no more than a time zone then.
const MARGIN_S: i64 = 15 * 3600;

const USER: (usize, usize) = (44, 32);
const HOST: (usize, usize) = (76, 256);
const RUN_LEVEL: i16 = 1;
const BOOT_TIME: i16 = 2;

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Shut down or rebooted.
    InOrder,
    /// Nothing was written at its end.
    CutOff,
}

/// The layout differs by what a `long` was when an architecture was young.
struct Layout {
    bytes: usize,
    time: usize,
}

const LAYOUT: Option<Layout> = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
    Some(Layout {
        bytes: 384,
        time: 340,
    })
} else if cfg!(target_arch = "aarch64") {
    Some(Layout {
        bytes: 400,
        time: 344,
    })
} else {
    None
};

/// How the boot before this one ended, and the kernel it ran.
pub(super) fn read(
    root: &Root,
    kernel: Option<&str>,
    booted_at_s: i64,
) -> Result<(Ended, Option<String>), Reason> {
    let layout = LAYOUT.ok_or("wtmp's form on this architecture is not known")?;
    let said = |error: std::io::Error| format!("/{WTMP}: {error}");
    let (mut file, found) = root.open_file(WTMP).map_err(said)?;
    let record = layout.bytes as u64;
    if found.len() % record != 0 {
        return Err(format!("/{WTMP}: has another form"));
    }
    let most = END_RECORDS * record;
    file.seek(SeekFrom::Start(found.len().saturating_sub(most)))
        .map_err(said)?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(said)?;
    judge(&bytes, &layout, kernel, booted_at_s)
}

fn judge(
    bytes: &[u8],
    layout: &Layout,
    kernel: Option<&str>,
    booted_at_s: i64,
) -> Result<(Ended, Option<String>), Reason> {
    let records = bytes.chunks_exact(layout.bytes).rev();
    let mut marks = records.filter_map(|record| Mark::read(record, layout));
    // What was written since, on the way down or by a clock that jumped, is not looked for.
    let boot = marks.find(|mark| mark.is_boot);
    let boot = boot.ok_or_else(|| format!("/{WTMP} has no boot"))?;
    let is_this = (boot.at_s - booted_at_s).abs() <= MARGIN_S
        && kernel.is_none_or(|kernel| boot.kernel == kernel);
    if !is_this {
        return Err(format!("/{WTMP}: its newest boot is not this one"));
    }
    let before = marks.next();
    let before = before.ok_or_else(|| format!("/{WTMP} has no boot before this one"))?;
    let ended = if before.is_boot {
        Ended::CutOff
    } else {
        Ended::InOrder
    };
    let kernel = Some(before.kernel).filter(|kernel| !kernel.is_empty());
    Ok((ended, kernel))
}

/// A boot or a shutdown.
struct Mark {
    is_boot: bool,
    at_s: i64,
    kernel: String,
}

impl Mark {
    fn read(record: &[u8], layout: &Layout) -> Option<Self> {
        let kind = i16::from_ne_bytes(*record.first_chunk()?);
        let is_boot = kind == BOOT_TIME;
        let is_shutdown = kind == RUN_LEVEL && text(record, USER)? == "shutdown";
        if !is_boot && !is_shutdown {
            return None;
        }
        // Of the 64 bits that some have, the lower half is enough on what is little-endian.
        let at = record.get(layout.time..)?.first_chunk()?;
        Some(Self {
            is_boot,
            at_s: i64::from(u32::from_ne_bytes(*at)),
            kernel: text(record, HOST)?,
        })
    }
}

/// A text that ends with its first NUL or its place.
fn text(record: &[u8], (from, bytes): (usize, usize)) -> Option<String> {
    let bytes = record.get(from..from + bytes)?;
    let text = bytes.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOTED: i64 = 1_800_000_000;
    const OLD: &str = "6.1.0-27-amd64";
    const NEW: &str = "6.1.0-28-amd64";
    const X86_64: Layout = Layout {
        bytes: 384,
        time: 340,
    };

    fn record(kind: i16, user: &str, host: &str, at_s: i64) -> Vec<u8> {
        let mut record = vec![0; X86_64.bytes];
        let mut put = |at: usize, bytes: &[u8]| {
            record[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &kind.to_ne_bytes());
        put(USER.0, user.as_bytes());
        put(HOST.0, host.as_bytes());
        put(X86_64.time, &u32::try_from(at_s).unwrap().to_ne_bytes());
        record
    }

    fn told(records: &[Vec<u8>]) -> Result<(Ended, Option<String>), Reason> {
        judge(&records.concat(), &X86_64, Some(NEW), BOOTED)
    }

    fn boot(kernel: &str, at_s: i64) -> Vec<u8> {
        record(BOOT_TIME, "reboot", kernel, at_s)
    }

    #[test]
    fn a_boot_that_follows_a_shutdown_was_to_be_expected() {
        let login = record(7, "anna", "192.0.2.1", BOOTED - 500);
        let level = record(RUN_LEVEL, "runlevel", OLD, BOOTED - 900);
        let down = record(RUN_LEVEL, "shutdown", OLD, BOOTED - 30);
        let before = [boot(OLD, BOOTED - 1000), level, login];
        let this = [boot(NEW, BOOTED + 2), record(7, "anna", "", BOOTED + 60)];
        let in_order = [&before[..], &[down], &this].concat();
        let kernel = Some(OLD.to_owned());
        assert_eq!(told(&in_order), Ok((Ended::InOrder, kernel.clone())));
        let cut_off = [&before[..], &this].concat();
        assert_eq!(told(&cut_off), Ok((Ended::CutOff, kernel)));
    }

    #[test]
    fn what_is_not_of_this_boot_says_nothing() {
        let down = record(RUN_LEVEL, "shutdown", OLD, BOOTED - 30);
        let reason = |records: &[Vec<u8>]| told(records).unwrap_err();
        assert_eq!(reason(&[]), "/var/log/wtmp has no boot");
        let rotated = [boot(NEW, BOOTED)];
        assert_eq!(
            reason(&rotated),
            "/var/log/wtmp has no boot before this one"
        );
        let other = "/var/log/wtmp: its newest boot is not this one";
        assert_eq!(reason(&[down.clone(), boot(OLD, BOOTED)]), other);
        let long_ago = boot(NEW, BOOTED - 2 * MARGIN_S);
        assert_eq!(reason(&[down, long_ago]), other);
    }

    #[test]
    fn any_bytes_are_read_over() {
        for length in [0, 1, 383, 384, 385, 4000] {
            let bytes = vec![2; length];
            assert!(judge(&bytes, &X86_64, None, BOOTED).is_err(), "{length}");
        }
    }
}
