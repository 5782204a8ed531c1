//! From the folder to a collector that is only a list: each record once, in its order, whatever stands in the way.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::SystemTime;

use infratrack_shared::ids::RunId;
use infratrack_shared::time::UnixMillis;
use tempfile::TempDir;

use super::*;
use shelf::Answered;

/// 2026-11-22T14:00:00Z.
const NOW: UnixMillis = UnixMillis(1_795_356_000_000);
const START: &str = r#"{"kind":"start"}"#;
const END: &str = r#"{"kind":"end","at":"2026-11-22T14:00:00.000Z","outcome":"ok"}"#;
const INTERRUPTED: &str =
    r#"{"kind":"end","at":"2026-11-22T14:00:00.000Z","outcome":"interrupted"}"#;

struct Spools(TempDir);

impl Spools {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn shelf(&self) -> Shelf {
        Shelf::new(self.0.path().to_owned(), Clock::from_fn(|| NOW))
    }

    fn path(&self, run: RunId) -> PathBuf {
        self.0.path().join(format!("{run}.spool"))
    }

    /// A run with these lines. The play holds its lock while the file is open.
    fn begin(&self, base: u64, lines: &[&str]) -> (RunId, File) {
        let run = RunId::random();
        let mut file = File::options()
            .create_new(true)
            .append(true)
            .open(self.path(run))
            .unwrap();
        assert!(lock::take(&file, NOW).unwrap());
        writeln!(file, "infratrack-ansible-spool 1 {run} {base}").unwrap();
        for line in lines {
            writeln!(file, "{line}").unwrap();
        }
        (run, file)
    }

    fn write(&self, lines: &[&str]) -> RunId {
        self.begin(0, lines).0
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.contains(".lock"))
            .collect();
        names.sort();
        names
    }
}

/// What the collector has.
#[derive(Default)]
struct Collected {
    runs: BTreeMap<RunId, Vec<String>>,
    order: Vec<RunId>,
    requests: usize,
}

impl Collected {
    fn take(&mut self, plays: &infratrack_shared::wire::plays::Plays) -> Answered {
        self.requests += 1;
        let bytes: usize = plays.records.iter().map(|record| record.len() + 1).sum();
        assert!(plays.records.len() <= 500 && (bytes <= 256 * 1024 || plays.records.len() == 1));
        let known = self.runs.entry(plays.run).or_default();
        let acked = known.len() as u64;
        if plays.first_seq <= acked + 1 {
            let skip = usize::try_from(acked + 1 - plays.first_seq).unwrap();
            known.extend(plays.records.iter().skip(skip).cloned());
            self.order.push(plays.run);
        }
        Answered::Acked(known.len() as u64)
    }

    /// Takes all that the shelf has to give now.
    fn drain(&mut self, shelf: &mut Shelf) -> Next {
        for _ in 0..200 {
            match shelf.next() {
                Next::Send(plays) => {
                    let answer = self.take(&plays);
                    shelf.answered(answer);
                }
                other @ (Next::NoFolder | Next::Nothing | Next::Waiting) => return other,
            }
        }
        panic!("it never ends");
    }

    fn kinds(&self, run: RunId) -> Vec<String> {
        let words = |record: &String| {
            let record: serde_json::Value = serde_json::from_str(record).unwrap();
            let word = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            let words = [word("kind"), word("reason"), word("outcome")];
            words.join(" ").trim().replace("  ", " ")
        };
        self.runs[&run].iter().map(words).collect()
    }
}

fn sent(shelf: &mut Shelf) -> infratrack_shared::wire::plays::Plays {
    match shelf.next() {
        Next::Send(plays) => plays,
        other @ (Next::NoFolder | Next::Nothing | Next::Waiting) => panic!("{other:?}"),
    }
}

#[test]
fn the_oldest_comes_first_and_each_record_once_whatever_is_lost_on_the_way() {
    let spools = Spools::new();
    let many: Vec<_> = (0..1200)
        .map(|n| format!(r#"{{"kind":"x","n":{n}}}"#))
        .collect();
    let mut lines = vec![START];
    lines.extend(many.iter().map(String::as_str));
    lines.push(END);
    let young = spools.write(&lines);
    let old = spools.write(&[START, END]);
    let hour_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let file = File::options().append(true).open(spools.path(old)).unwrap();
    file.set_modified(hour_ago).unwrap();

    let mut collected = Collected::default();
    let mut shelf = spools.shelf();
    let first = sent(&mut shelf);
    assert_eq!((first.run, first.first_seq), (old, 1));
    // The answer is lost, and the agent starts again.
    collected.take(&first);
    drop(shelf);
    let mut shelf = spools.shelf();
    for _ in 0..2 {
        let plays = sent(&mut shelf);
        let answer = collected.take(&plays);
        shelf.answered(answer);
    }
    let noted = fs::read_to_string(spools.path(young).with_extension("acked")).unwrap();
    assert_eq!(noted, "500 500\n");
    drop(shelf);
    let left = collected.drain(&mut spools.shelf());
    assert!(matches!(left, Next::Nothing), "{left:?}");
    assert_eq!(collected.runs[&old], [START, END]);
    assert_eq!(collected.runs[&young], lines);
    assert_eq!(spools.names(), [""; 0]);
}

#[test]
fn a_play_that_goes_on_is_followed_and_one_that_died_gets_its_end() {
    let spools = Spools::new();
    let (run, mut play) = spools.begin(0, &[START]);
    let (mut shelf, mut collected) = (spools.shelf(), Collected::default());
    play.write_all(br#"{"kind":"host""#).unwrap();
    for _ in 0..2 {
        assert!(matches!(collected.drain(&mut shelf), Next::Waiting));
        assert_eq!(collected.runs[&run], [START]);
    }
    play.write_all(b",\"number\":0}\n{\"kind\":\"ha").unwrap();
    assert!(matches!(collected.drain(&mut shelf), Next::Waiting));
    assert_eq!(collected.kinds(run), ["start", "host"]);
    drop(play);
    assert!(matches!(collected.drain(&mut shelf), Next::Nothing));
    assert_eq!(
        collected.kinds(run),
        ["start", "host", "gap damaged", "end interrupted"]
    );
    assert_eq!(collected.runs[&run].last().unwrap(), INTERRUPTED);
    assert_eq!(spools.names(), [""; 0]);
}

#[test]
fn damaged_lines_are_gaps() {
    let spools = Spools::new();
    let long = format!(r#"{{"kind":"{}"}}"#, "x".repeat(70_000));
    let endless = format!(r#"{{"kind":"{}"}}"#, "x".repeat(900_000));
    let (run, mut play) = spools.begin(0, &[START, "{\"kind\":\"x\0\"}", "[]", &long, &endless]);
    play.write_all(b"{\"kind\":\"\xff\"}\n").unwrap();
    writeln!(play, "{END}").unwrap();
    drop(play);
    let mut collected = Collected::default();
    collected.drain(&mut spools.shelf());
    let (damaged, large) = ("gap damaged", "gap too_large");
    assert_eq!(
        collected.kinds(run),
        ["start", damaged, damaged, large, damaged, damaged, "end ok"]
    );
}

#[test]
fn a_shortened_run_goes_on_with_its_own_numbers() {
    let spools = Spools::new();
    let (run, play) = spools.begin(0, &[START, r#"{"kind":"a"}"#, r#"{"kind":"b"}"#]);
    let (mut shelf, mut collected) = (spools.shelf(), Collected::default());
    assert!(matches!(collected.drain(&mut shelf), Next::Waiting));
    drop(play);
    // Shortened meanwhile: another file of that name.
    let gap = r#"{"kind":"gap","count":7,"reason":"spool_limit"}"#;
    let text = format!("infratrack-ansible-spool 1 {run} 3 trimmed\n{gap}\n{END}\n");
    fs::write(spools.path(run).with_extension("part"), text).unwrap();
    fs::rename(spools.path(run).with_extension("part"), spools.path(run)).unwrap();
    collected.drain(&mut shelf);
    assert_eq!(collected.runs[&run][3..], [gap, END]);

    // A collector that forgot all of it.
    let (run, _) = spools.begin(2, &[r#"{"kind":"c"}"#, END]);
    collected.drain(&mut shelf);
    let lost = "gap not_kept";
    assert_eq!(collected.kinds(run), [lost, lost, "c", "end ok"]);
    // One that has more than is here.
    let run = spools.write(&[START, END]);
    collected.runs.insert(run, vec![START.to_owned(); 9]);
    assert!(matches!(collected.drain(&mut shelf), Next::Nothing));
    assert_eq!(collected.runs[&run].len(), 9);
}

#[test]
fn what_is_refused_becomes_a_gap_and_keeps_nobody_waiting() {
    let spools = Spools::new();
    let bad = r#"{"kind":"bad"}"#;
    let named = spools.write(&[START, bad, END]);
    let unnamed = spools.write(&[START, bad, r#"{"kind":"x"}"#, END]);
    let not_ours = spools.write(&[START, END]);
    let hopeless = spools.write(&[r#"{"kind":"hopeless"}"#, END]);
    let (mut shelf, mut collected) = (spools.shelf(), Collected::default());
    for _ in 0..60 {
        let Next::Send(plays) = shelf.next() else {
            break;
        };
        let bad = plays.records.iter().position(|record| record == bad);
        let answer = match bad {
            _ if plays.run == not_ours => Answered::NotOurs,
            _ if plays.run == hopeless => Answered::Rejected {
                seq: 1,
                status: 422,
            },
            Some(index) if plays.run == named => Answered::Rejected {
                seq: plays.first_seq + index as u64,
                status: 413,
            },
            Some(_) => Answered::Refused { status: 400 },
            None => collected.take(&plays),
        };
        shelf.answered(answer);
    }
    assert_eq!(
        collected.kinds(named),
        ["start", "gap rejected_413", "end ok"]
    );
    assert_eq!(
        collected.kinds(unnamed),
        ["start", "gap rejected_400", "x", "end ok"]
    );
    let mut left = [
        format!("{hopeless}.damaged"),
        format!("{not_ours}.acked"),
        format!("{not_ours}.spool"),
    ];
    left.sort();
    assert_eq!(spools.names(), left);
    assert!(matches!(shelf.next(), Next::Nothing));
}

#[test]
fn what_was_set_aside_goes_a_month_later_and_nothing_else_does() {
    let spools = Spools::new();
    let run = RunId::random();
    let damaged = format!("{run}.damaged");
    let others = [
        "notes.damaged".to_owned(),
        format!("{}.damaged.kept", RunId::random()),
        format!("{}.txt", RunId::random()),
    ];
    for name in others.iter().chain([&damaged]) {
        fs::write(spools.0.path().join(name), "x").unwrap();
    }
    let file = File::options()
        .append(true)
        .open(spools.0.path().join(&damaged))
        .unwrap();
    // The play was long over when it was set aside.
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let folder = format!("{}.damaged", RunId::random());
    fs::create_dir(spools.0.path().join(&folder)).unwrap();
    let now = file.metadata().unwrap().ctime();
    let after_days = |days: i64| {
        let then = UnixMillis((now + days * 86_400) * 1000);
        let mut shelf = Shelf::new(spools.0.path().to_owned(), Clock::from_fn(move || then));
        assert!(matches!(shelf.next(), Next::Nothing));
        spools.names()
    };
    assert!(after_days(29).contains(&damaged));
    let mut left: Vec<_> = others.into_iter().chain([folder]).collect();
    left.sort();
    assert_eq!(after_days(31), left);
}

#[test]
fn what_is_no_spool_of_those_who_may_write_here_is_left_alone() {
    let spools = Spools::new();
    let run = spools.write(&[START, END]);
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("target");
    fs::write(&target, "").unwrap();
    symlink(&target, spools.path(RunId::random())).unwrap();
    let linked = spools.write(&[START, END]);
    fs::hard_link(spools.path(linked), spools.0.path().join("other")).unwrap();
    let pipe = spools.path(RunId::random());
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let huge = spools.write(&[START, END]);
    let file = File::options()
        .append(true)
        .open(spools.path(huge))
        .unwrap();
    file.set_len(300 << 20).unwrap();
    fs::write(spools.0.path().join("x.spool"), "").unwrap();
    fs::write(spools.path(RunId::random()), "something else\n").unwrap();
    let below = spools.0.path().join("to-0123456789ab-0");
    fs::create_dir(&below).unwrap();
    fs::write(below.join(format!("{}.spool", RunId::random())), "").unwrap();
    let before = spools.names().len();
    let mut collected = Collected::default();
    assert!(matches!(
        collected.drain(&mut spools.shelf()),
        Next::Nothing
    ));
    assert_eq!(collected.order, [run]);
    assert_eq!(spools.names().len(), before - 1);
    assert_eq!(fs::read(&target).unwrap(), b"");

    fs::set_permissions(spools.0.path(), Permissions::from_mode(0o777)).unwrap();
    let run = spools.write(&[START, END]);
    assert!(matches!(spools.shelf().next(), Next::NoFolder));
    assert!(spools.path(run).exists());
}

#[test]
fn in_a_groups_folder_the_group_reads_how_far_it_is_and_one_at_a_time_ships() {
    let spools = Spools::new();
    fs::set_permissions(spools.0.path(), Permissions::from_mode(0o2770)).unwrap();
    let (run, _play) = spools.begin(0, &[START]);
    let (mut shelf, mut other) = (spools.shelf(), spools.shelf());
    let plays = sent(&mut shelf);
    // Under way: nobody else ships or shortens meanwhile.
    assert!(matches!(other.next(), Next::Waiting));
    let mode = |name: &str| fs::metadata(spools.0.path().join(name)).unwrap().mode() & 0o777;
    assert_eq!(mode("forwarder.lock"), 0o660);
    assert_eq!(mode(&format!("{run}.acked")), 0o640);
    assert_eq!(plays.first_seq, 1);
    shelf.answered(Answered::Nothing);
    assert_eq!(sent(&mut other).first_seq, 1);
}
