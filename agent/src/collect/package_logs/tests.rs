//! Logs on a host that are written, rotated, packed and damaged while they are read.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::files::LogFile;
use super::*;
use crate::collect::fixture;

/// 2026-11-22T14:00:00Z, and what every log here is of.
const NOW: i64 = 1_795_356_000_000;
const DAY: i64 = 24 * 3600 * 1000;
const DPKG: &str = "var/log/dpkg.log";
const HISTORY: &str = "var/log/apt/history.log";

struct Host {
    keep: TempDir,
    root: Root,
    logs: PackageLogs,
    saved: Vec<u8>,
}

impl Host {
    fn new(files: &[(&str, &str)]) -> Self {
        let (keep, root) = fixture::host(&[("var/log/apt/term.log", "")]);
        let host = Self {
            logs: PackageLogs::resume(root.clone(), None),
            saved: Vec::new(),
            keep,
            root,
        };
        for (path, text) in files {
            host.append(path, text);
        }
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.keep.path().join(path)
    }

    fn append(&self, path: &str, text: &str) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.path(path))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
        written(&self.path(path), NOW);
    }

    /// Reads until there is no more; what is told is durable.
    fn told_at(&mut self, now: i64) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..1000 {
            let reading = self.logs.read(UnixMillis(now));
            told.extend(reading.transactions.iter().map(names));
            self.saved = reading.saved;
            if reading.again_ms != Some(PAUSE_MS) {
                return told;
            }
        }
        panic!("there is always more");
    }

    fn told(&mut self) -> Vec<String> {
        self.told_at(NOW)
    }

    /// The agent ends after its place was saved, and begins again.
    fn restart(&mut self) {
        self.logs = PackageLogs::resume(self.root.clone(), Some(&self.saved));
    }
}

fn written(path: &Path, at_ms: i64) {
    let at = UNIX_EPOCH + Duration::from_millis(at_ms.unsigned_abs());
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(at).unwrap();
}

fn names(transaction: &PackageTransaction) -> String {
    let names = transaction
        .changes
        .iter()
        .map(|change| change.name.as_str());
    let end = if transaction.ended_at.is_some() {
        ""
    } else {
        "?"
    };
    names.collect::<Vec<_>>().join(" ") + end
}

/// A run of dpkg that installs something at a minute past 13 o'clock.
fn run(minute: u32, name: &str) -> String {
    let time = format!("2026-11-22 13:{minute:02}:00");
    format!(
        "{time} startup archives install\n{time} install {name}:all <none> 1.0\n{time} status unpacked {name}:all 1.0\n\
         {time} status installed {name}:all 1.0\n"
    )
}

fn pack(from: &Path, to: &Path) {
    let bytes = fs::read(from).unwrap();
    let mut packed = GzEncoder::new(File::create(to).unwrap(), Compression::fast());
    packed.write_all(&bytes).unwrap();
    packed.finish().unwrap();
    let at = fs::metadata(from).unwrap().modified().unwrap();
    File::options()
        .write(true)
        .open(to)
        .unwrap()
        .set_modified(at)
        .unwrap();
    fs::remove_file(from).unwrap();
}

#[test]
fn each_transaction_is_told_once_also_after_a_restart() {
    let mut host = Host::new(&[(DPKG, &run(1, "one"))]);
    assert_eq!(host.told(), ["one"]);
    assert!(host.told().is_empty());
    host.restart();
    assert!(host.told().is_empty());
    host.append(DPKG, &run(2, "two"));
    host.append(DPKG, &run(2, "three"));
    assert_eq!(host.told(), ["two", "three"]);
    // What was read and is not durable comes again.
    host.append(DPKG, &run(3, "four"));
    let lost = host.logs.read(UnixMillis(NOW));
    assert_eq!(lost.transactions.len(), 1);
    host.restart();
    assert_eq!(host.told(), ["four"]);
}

#[test]
fn a_transaction_under_way_waits_for_its_end_also_over_a_restart() {
    let start = "\nStart-Date: 2026-11-22  13:59:50\nCommandline: apt install one\n";
    let mut host = Host::new(&[(HISTORY, start), (DPKG, &run(2, "zero"))]);
    assert_eq!(host.told(), ["zero"]);
    host.append(HISTORY, "Install: one:amd64 (1.0)\n");
    assert!(host.told().is_empty());
    host.restart();
    assert!(host.told().is_empty());
    host.append(HISTORY, "End-Date: 2026-11-22  13:59:5");
    assert!(host.told().is_empty());
    host.append(HISTORY, "9\n");
    let reading = host.logs.read(UnixMillis(NOW));
    let [told] = reading.transactions.as_slice() else {
        panic!("{reading:?}");
    };
    assert_eq!(told.command.as_deref(), Some("apt install one"));
    assert_eq!(told.ended_at, Some(UnixMillis(NOW - 1000)));
}

#[test]
fn what_never_ends_is_told_after_ten_minutes() {
    let start = "Start-Date: 2026-11-22  13:59:50\nInstall: one:amd64 (1.0)\n";
    let mut host = Host::new(&[(HISTORY, start)]);
    assert!(host.told().is_empty());
    assert!(host.told_at(NOW + 580_000).is_empty());
    assert_eq!(host.told_at(NOW + 591_000), ["one?"]);
    host.append(HISTORY, "End-Date: 2026-11-22  14:20:00\n");
    assert!(host.told_at(NOW + DAY).is_empty());
}

#[test]
fn a_rotated_log_is_read_to_its_end_first_whether_it_is_packed_or_not() {
    for (is_packed, is_restarted) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut host = Host::new(&[(DPKG, &run(1, "one"))]);
        assert_eq!(host.told(), ["one"]);
        // While the agent is down, or in the moment: two rotations.
        host.append(DPKG, &run(2, "two"));
        fs::rename(host.path(DPKG), host.path("var/log/dpkg.log.2")).unwrap();
        host.append("var/log/dpkg.log.1", &run(3, "three"));
        if is_packed {
            for number in ["2", "1"] {
                let from = host.path(&format!("var/log/dpkg.log.{number}"));
                pack(&from, &host.path(&format!("var/log/dpkg.log.{number}.gz")));
            }
        }
        host.append(DPKG, &run(4, "four"));
        if is_restarted {
            host.restart();
        }
        assert_eq!(host.told(), ["two", "three", "four"], "packed: {is_packed}");
        host.restart();
        assert!(host.told().is_empty());
        host.append(DPKG, &run(5, "five"));
        assert_eq!(host.told(), ["five"]);
    }
}

#[test]
fn a_writer_may_stay_in_the_rotated_log_until_the_next_begins() {
    let mut host = Host::new(&[(DPKG, &run(1, "one"))]);
    assert_eq!(host.told(), ["one"]);
    fs::rename(host.path(DPKG), host.path("var/log/dpkg.log.1")).unwrap();
    host.append(DPKG, "");
    assert!(host.told().is_empty());
    host.append("var/log/dpkg.log.1", &run(2, "two"));
    assert_eq!(host.told(), ["two"]);
    host.append("var/log/dpkg.log.1", &run(3, "three"));
    host.append(DPKG, &run(4, "four"));
    host.restart();
    assert_eq!(host.told(), ["three", "four"]);
}

#[test]
fn a_log_that_was_copied_and_truncated_is_read_on_in_its_copy() {
    let mut host = Host::new(&[(DPKG, &run(1, "one"))]);
    assert_eq!(host.told(), ["one"]);
    host.append(DPKG, &run(2, "two"));
    fs::copy(host.path(DPKG), host.path("var/log/dpkg.log.1")).unwrap();
    File::options()
        .write(true)
        .truncate(true)
        .open(host.path(DPKG))
        .unwrap();
    // Longer than before, so that its length tells nothing.
    for (minute, name) in [(3, "three"), (4, "four"), (5, "five")] {
        host.append(DPKG, &run(minute, name));
    }
    assert_eq!(host.told(), ["two", "three", "four", "five"]);
    host.restart();
    assert!(host.told().is_empty());
}

#[test]
fn a_log_that_was_emptied_begins_anew() {
    let mut host = Host::new(&[(DPKG, &(run(1, "one") + &run(2, "two")))]);
    assert_eq!(host.told(), ["one", "two"]);
    File::options()
        .write(true)
        .truncate(true)
        .open(host.path(DPKG))
        .unwrap();
    assert!(host.told().is_empty());
    host.append(DPKG, &run(3, "three"));
    assert_eq!(host.told(), ["three"]);
    // And one that is another, of which a part was told: by its time.
    fs::remove_file(host.path(DPKG)).unwrap();
    host.append(DPKG, &(run(2, "two") + &run(3, "three") + &run(4, "four")));
    assert_eq!(host.told(), ["four"]);
}

#[test]
fn the_first_run_tells_what_is_a_month_old_at_most() {
    let old = run(1, "old").replace("2026-11-22", "2026-10-22");
    let month = run(1, "month").replace("2026-11-22", "2026-10-24");
    let mut host = Host::new(&[
        (
            "var/log/dpkg.log.3",
            &run(1, "older").replace("2026-11-22", "2026-09-22"),
        ),
        ("var/log/dpkg.log.2", &(old + &month)),
        ("var/log/dpkg.log.1", &run(2, "two")),
        (DPKG, &run(3, "three")),
    ]);
    written(&host.path("var/log/dpkg.log.3"), NOW - 60 * DAY);
    written(&host.path("var/log/dpkg.log.2"), NOW - 29 * DAY);
    assert_eq!(host.told(), ["month", "two", "three"]);
    host.restart();
    assert!(host.told().is_empty());
}

#[test]
fn a_great_log_is_read_in_portions_and_a_great_line_is_read_over() {
    let mut text = String::new();
    for number in 0..2000 {
        text += &run(number / 60 % 60, &format!("p{number}"));
    }
    let mut host = Host::new(&[(DPKG, &text)]);
    let first = host.logs.read(UnixMillis(NOW));
    assert!((1..2000).contains(&first.transactions.len()));
    assert_eq!(first.again_ms, Some(PAUSE_MS));
    assert_eq!(first.transactions.len() + host.told().len(), 2000);

    let long = "x".repeat(3 * cut::LINE_BYTES);
    host.append(DPKG, &long);
    let mut reads = 0;
    while host.logs.read(UnixMillis(NOW)).again_ms == Some(PAUSE_MS) {
        reads += 1;
    }
    assert!(reads > 3, "in portions");
    host.append(DPKG, &("x\n".to_owned() + &run(50, "after")));
    assert_eq!(host.told(), ["after"]);
}

#[test]
fn what_is_no_file_or_no_text_is_told_and_stops_no_other() {
    let mut host = Host::new(&[("var/log/dnf.rpm.log", "\u{fffd}\0\n9999-99-99 nothing\n")]);
    mkfifo(&host.path(DPKG), Mode::from_bits_truncate(0o600)).unwrap();
    std::os::unix::fs::symlink("dnf5.log", host.path("var/log/dnf5.log")).unwrap();
    fs::create_dir(host.path("var/log/zypp")).unwrap();
    fs::create_dir(host.path("var/log/zypp/history")).unwrap();
    host.append(HISTORY, "Start-Date: 2026-11-22  13:59:50\nInstall: one:amd64 (1.0)\nEnd-Date: 2026-11-22  13:59:51\n");
    fs::write(
        host.path("var/log/dpkg.log.1.gz"),
        "no gzip, and never read for it",
    )
    .unwrap();
    let reading = host.logs.read(UnixMillis(NOW));
    assert_eq!(
        reading.transactions.iter().map(names).collect::<Vec<_>>(),
        ["one"]
    );
    assert_eq!(reading.problems.len(), 3, "{:?}", reading.problems);
    assert_eq!(reading.problems[0], "/var/log/dpkg.log: is no file");

    let fact = fixture::json(&collect(&host.root).unwrap())["logs"].take();
    let state = |place: usize| fact[place]["state"].as_str().unwrap().to_owned();
    assert_eq!(
        (state(0).as_str(), state(1).as_str()),
        ("read", "is no file")
    );
    assert_eq!((state(2).as_str(), state(3).as_str()), ("missing", "read"));
    assert!(state(4).contains("symbolic link"), "{}", state(4));
    assert_eq!(fact[0]["newest_at_ms"], NOW - 9000);
}

#[test]
fn a_rotated_log_that_is_packed_in_a_way_that_is_not_read_is_told() {
    let host = Host::new(&[(DPKG, ""), ("var/log/dpkg.log.2.lzma", "")]);
    let fact = fixture::json(&collect(&host.root).unwrap())["logs"].take();
    assert_eq!(fact[1]["unread"][0], "/var/log/dpkg.log.2.lzma");
}

#[test]
fn who_only_looks_at_packages_changes_no_fact() {
    let line = |text: &str| format!("2026-11-22T13:26:20+0000 {text}\n");
    let host = Host::new(&[
        ("var/log/dnf.log", &line("DDEBUG RPM transaction over.")),
        (
            "var/log/dnf.rpm.log",
            &line("SUBDEBUG Installed: one-1-1.noarch"),
        ),
    ]);
    let before = collect(&host.root).unwrap();
    let later = line("INFO --- logging initialized ---").replace("13:26", "13:59");
    host.append("var/log/dnf.rpm.log", &later);
    let command = line("DDEBUG Command: dnf makecache").replace("13:26", "13:59");
    host.append("var/log/dnf.log", &(later + &command));
    assert_eq!(collect(&host.root).unwrap(), before);
    let logs = &fixture::json(&before)["logs"];
    assert_eq!(logs[2]["newest_at_ms"], 1_795_353_980_000_i64);
    assert_eq!(logs[3]["newest_at_ms"], 1_795_353_980_000_i64);
}

#[test]
fn a_damaged_place_is_as_none() {
    let mut host = Host::new(&[(DPKG, &run(1, "one"))]);
    host.saved = b"{\"dpkg\": 7}".to_vec();
    host.restart();
    assert_eq!(host.told(), ["one"]);
}

#[test]
fn of_a_damaged_rotated_log_what_can_be_read_is_told_once_and_what_follows_it() {
    let mut text = String::new();
    for number in 0..5000 {
        text += &run(1, &format!("p{}", number * 7919 % 5000));
    }
    let mut host = Host::new(&[("var/log/dpkg.log.1", &text), (DPKG, &run(2, "after"))]);
    let packed = host.path("var/log/dpkg.log.1.gz");
    pack(&host.path("var/log/dpkg.log.1"), &packed);
    let half = fs::metadata(&packed).unwrap().len() / 2;
    File::options()
        .write(true)
        .open(&packed)
        .unwrap()
        .set_len(half)
        .unwrap();
    written(&packed, NOW);
    let told = host.told();
    assert!((100..4900).contains(&told.len()), "{} are told", told.len());
    assert_eq!(told.last().unwrap(), "after");
    let once: std::collections::BTreeSet<_> = told.iter().collect();
    assert_eq!(once.len(), told.len(), "some came twice");
    host.restart();
    assert!(host.told().is_empty());
}

fn packed(name: &str) -> Vec<u8> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/packed");
    fs::read(place.join(name)).unwrap()
}

/// Two streams, one after the other, as xz and bzip2 have made them.
#[test]
fn a_rotated_log_may_be_packed_by_xz_or_bzip2() {
    for packing in ["xz", "bz2"] {
        let mut host = Host::new(&[(DPKG, &run(3, "after"))]);
        let rotated = host.path(&format!("var/log/dpkg.log.1.{packing}"));
        fs::write(&rotated, packed(&format!("two-streams.{packing}"))).unwrap();
        written(&rotated, NOW);
        assert_eq!(host.told(), ["one", "two", "after"], "{packing}");
        host.restart();
        assert!(host.told().is_empty());
    }
}

#[test]
fn what_is_packed_to_be_endless_is_read_for_so_long_and_no_longer() {
    let host = Host::new(&[(DPKG, "")]);
    for packing in ["xz", "bz2"] {
        let path = format!("var/log/dpkg.log.1.{packing}");
        fs::write(host.path(&path), packed(&format!("endless.{packing}"))).unwrap();
        let file = LogFile::find(&host.root, &path).unwrap();
        let mut read = file.read_from(&host.root, 0).unwrap();
        let read = std::io::copy(&mut read, &mut std::io::sink()).unwrap();
        assert_eq!(read, 64 * 1024 * 1024, "of twice as much: {packing}");
    }
}

#[test]
fn what_takes_too_much_memory_to_unpack_is_passed_over() {
    let mut host = Host::new(&[(DPKG, &run(3, "after"))]);
    let path = "var/log/dpkg.log.1.xz";
    fs::write(host.path(path), packed("large-dictionary.xz")).unwrap();
    let file = LogFile::find(&host.root, path).unwrap();
    let mut bytes = Vec::new();
    let refused = file.read_from(&host.root, 0).unwrap();
    let refused = refused.take(1).read_to_end(&mut bytes).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::OutOfMemory, "{refused}");
    assert_eq!(host.told(), ["after"]);
}

#[test]
fn of_a_log_without_years_what_is_a_month_old_is_told_and_what_is_a_year_old_is_not() {
    let log = "var/log/yum.log";
    let old =
        "Nov 20 10:00:00 Installed: old-1-1.noarch\nMar  1 10:00:00 Updated: later-1-1.noarch\n";
    let mut host = Host::new(&[(log, old)]);
    host.append(log, "Nov 21 10:00:00 Installed: one-1-1.noarch\n");
    host.append(log, "Nov 22 13:00:00 Erased: two\n");
    written(&host.path(log), NOW);
    assert_eq!(host.told(), ["one", "two"]);
    host.restart();
    assert!(host.told().is_empty());
    host.append(log, "Nov 22 13:30:00 Updated: three-1-1.noarch\n");
    written(&host.path(log), NOW);
    assert_eq!(host.told(), ["three"]);
    let fact = fixture::json(&collect(&host.root).unwrap())["logs"].take();
    assert_eq!(fact[6]["newest_at_ms"], NOW - 30 * 60 * 1000);
}
