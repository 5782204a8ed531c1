//! The states that a release is tried in, each undone before the next.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use infratrack_agent::clock::Clock;
use infratrack_agent::updates::Answer;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::packages::{BlockedWhy, PendingUpdate};

use super::{PATH, ROOT, ReleaseRoot, compare, host, inside};
use crate::state::{ask, run, write};

const LISTS: &str = "var/lib/apt/lists";
const LANGUAGES: [(&str, &str); 3] = [("de_DE", "de"), ("fr_FR", "fr"), ("ja_JP", "ja")];
const TWO_MONTHS_MS: i64 = 60 * 24 * 3600 * 1000;
const IN_A_LANGUAGE: &str = "releases::a_root_in_the_language_of_the_caller";
/// Takes the locks of apt and dpkg as they take them, and has them until its input ends.
const LOCKER: &str = "
import fcntl, sys
held = [open(path, 'w') for path in sys.argv[1:]]
for lock in held:
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
print('locked', flush=True)
sys.stdin.read()
";

/// Tries each; answers what was tried, and what could not be.
pub(super) fn all(root: &ReleaseRoot, plain: &Answer) -> Vec<String> {
    let path = root.path();
    let mut tried = vec!["plain".to_owned()];
    let open = plain.pending.iter().find(|one| one.blocked.is_none());
    match open {
        Some(open) => {
            held(&path, open);
            pinned(&path, open);
            tried.extend(["held".to_owned(), "pinned".to_owned()]);
        }
        None => tried.push("not held nor pinned, nothing is pending".to_owned()),
    }
    broken(&path);
    locked(&path, plain);
    no_lists(&path);
    let expired = stale(&path, plain);
    tried.extend(["broken", "locked", "no lists"].map(str::to_owned));
    tried.push(format!("stale lists ({expired} expired)"));
    tried.extend(languages(&path));
    tried
}

fn blocked(answer: &Answer, name: &str) -> Option<BlockedWhy> {
    let mut pending = answer.pending.iter();
    let found = pending.find(|one| one.name == name).unwrap();
    found.blocked.as_ref().map(|blocked| blocked.why)
}

fn held(root: &Path, open: &PendingUpdate) {
    run(inside(root, "apt-mark").args(["hold", &open.name]), &[]);
    let answer = compare(&host(root), root);
    assert_eq!(blocked(&answer, &open.name), Some(BlockedWhy::Held));
    run(inside(root, "apt-mark").args(["unhold", &open.name]), &[]);
}

fn pinned(root: &Path, open: &PendingUpdate) {
    let place = root.join("etc/apt/preferences.d/pinned");
    let PendingUpdate {
        name, installed, ..
    } = open;
    let pin = format!("Package: {name}\nPin: version {installed}\nPin-Priority: 1001\n");
    write(&place, &pin);
    let answer = compare(&host(root), root);
    assert_eq!(blocked(&answer, name), Some(BlockedWhy::Pinned));
    fs::remove_file(place).unwrap();
}

fn broken(root: &Path) {
    let status = root.join("var/lib/dpkg/status");
    let before = fs::read_to_string(&status).unwrap();
    let entry = "Package: needs-more\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\
                 Maintainer: Nobody <nobody@infratrack.example>\nDescription: a package\nDepends: not-there-at-all\n\n";
    fs::write(&status, format!("{before}\n{entry}")).unwrap();
    let refused = inside(root, "apt-get")
        .args(["--simulate", "dist-upgrade"])
        .output();
    assert_eq!(refused.unwrap().status.code(), Some(100));
    let answer = ask(&host(root), "apt");
    let why = answer.check.unknown.unwrap();
    assert!(why.contains("Unmet dependencies"), "{why}");
    assert!(
        why.contains("needs-more : Depends: not-there-at-all"),
        "{why}"
    );
    assert!(answer.pending.is_empty());
    fs::write(&status, before).unwrap();
}

fn locked(root: &Path, plain: &Answer) {
    let locks = ["dpkg/lock", "dpkg/lock-frontend", "apt/lists/lock"];
    let locks = locks.map(|lock| root.join("var/lib").join(lock));
    let mut locker = Command::new("python3");
    locker.args(["-c", LOCKER]).args(locks);
    let locker = locker.arg(root.join("var/cache/apt/archives/lock"));
    let pipes = locker.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut locker = pipes.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(locker.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line.trim(), "locked");
    let refused = inside(root, "apt-get")
        .args(["--yes", "--no-download", "dist-upgrade"])
        .output();
    let refused = String::from_utf8_lossy(&refused.unwrap().stderr).into_owned();
    assert!(refused.contains("Could not get lock"), "{refused}");
    assert_eq!(compare(&host(root), root).pending, plain.pending);
    drop(locker.stdin.take());
    locker.wait().unwrap();
}

fn no_lists(root: &Path) {
    let (lists, beside) = (root.join(LISTS), root.join("var/lib/apt/beside"));
    fs::rename(&lists, &beside).unwrap();
    fs::create_dir_all(lists.join("partial")).unwrap();
    let answer = ask(&host(root), "apt");
    let why = answer.check.unknown.unwrap();
    assert!(why.starts_with("no package lists: "), "{why}");
    fs::remove_dir_all(&lists).unwrap();
    fs::rename(&beside, &lists).unwrap();
}

/// Answers how many lists have expired by then: not every archive says when its do.
fn stale(root: &Path, plain: &Answer) -> usize {
    let mut host = host(root);
    let later = Clock::system().now().0 + TWO_MONTHS_MS;
    host.clock = Clock::from_fn(move || UnixMillis(later));
    let answer = compare(&host, root);
    assert_eq!(answer.pending, plain.pending);
    let warnings = answer.check.warnings.iter();
    let told = warnings
        .filter(|one| one.contains(" were valid until "))
        .count();
    let entries = fs::read_dir(root.join(LISTS)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let releases = paths.filter(|path| path.to_str().unwrap().ends_with("Release"));
    let expiring = releases.filter(|path| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().any(|line| line.starts_with("Valid-Until:"))
    });
    assert_eq!(told, expiring.count(), "{:?}", answer.check.warnings);
    told
}

/// Answers in which of them apt speaks otherwise than in English.
fn languages(root: &Path) -> Vec<String> {
    let mut tried = Vec::new();
    for (locale, language) in LANGUAGES {
        let name = format!("{locale}.UTF-8");
        let mut localedef = inside(root, "localedef");
        run(localedef.args(["-i", locale, "-f", "UTF-8", &name]), &[1]);
        write(&root.join("etc/default/locale"), &format!("LANG={name}\n"));
        let in_language = |command: &mut Command| {
            command
                .env("LANG", &name)
                .env("LC_ALL", &name)
                .env("LANGUAGE", language);
        };
        let mut help = inside(root, "apt-get");
        in_language(help.arg("--help"));
        let help = run(&mut help, &[]).stdout;
        let is_english = String::from_utf8_lossy(&help).contains("Most used commands");
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--include-ignored", "--exact", IN_A_LANGUAGE]);
        again.env("PATH", PATH).env(ROOT, root);
        in_language(&mut again);
        let said = run(&mut again, &[]).stdout;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("1 passed"), "{said}");
        assert!(!is_english, "apt speaks no {language}");
        tried.push(locale.to_owned());
    }
    tried
}
