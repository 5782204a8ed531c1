//! The order of versions beside that of libapt, librpm and dpkg themselves, which the tests call (`make test` installs them).

use std::cmp::Ordering;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Command, Stdio};
use std::thread;

use infratrack_shared::version::{deb, rpm};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Pairs that the libraries compare in their process, and those that the `dpkg` program compares.
const PAIRS: usize = 1_000_000;
const PAIRS_OF_DPKG: usize = 10_000;
/// Texts that versions are made of.
const NUMBERS: [&str; 14] = [
    "0",
    "00",
    "1",
    "01",
    "2",
    "9",
    "10",
    "010",
    "99",
    "100",
    "2024",
    "20240131",
    "4294967296",
    "18446744073709551616",
];
const WORDS: [&str; 16] = [
    "a", "b", "z", "A", "Z", "rc", "beta", "alpha", "git", "deb", "ubuntu", "el", "fc", "bpo",
    "build", "dfsg",
];
const DEB_SIGNS: [&str; 7] = [".", "+", "~", "~~", "-", "..", "+~"];
const RPM_SIGNS: [&str; 9] = [".", "+", "~", "~~", "^", "_", "..", "^~", "^."];

fn text(random: &mut StdRng, signs: &[&str]) -> String {
    let mut text = String::new();
    for _ in 0..random.random_range(1..7) {
        let part = match random.random_range(0..5) {
            0 | 1 => NUMBERS.choose(random),
            2 => WORDS.choose(random),
            _ => signs.choose(random),
        };
        text.push_str(part.copied().unwrap_or_default());
    }
    text
}

/// Another text, or one that differs in little: takes a piece away, or puts one in.
fn near(random: &mut StdRng, one: &str, signs: &[&str]) -> String {
    if random.random_range(0..4) == 0 {
        return text(random, signs);
    }
    let at = random.random_range(0..=one.len());
    let to = (at + random.random_range(0..3)).min(one.len());
    let put = match random.random_range(0..4) {
        0 => NUMBERS.choose(random),
        1 => WORDS.choose(random),
        2 => signs.choose(random),
        _ => None,
    };
    format!(
        "{}{}{}",
        &one[..at],
        put.copied().unwrap_or_default(),
        &one[to..]
    )
}

/// As dpkg accepts them: an upstream version that begins with a digit, and no empty revision.
fn deb_pair(random: &mut StdRng) -> (String, String) {
    let whole = |random: &mut StdRng, rest: &str| {
        let epoch = ["", "", "", "0:", "1:", "01:", "2:", "10:"].choose(random);
        let text = format!("{}1{rest}", epoch.copied().unwrap_or_default());
        if text.ends_with('-') {
            format!("{text}1")
        } else {
            text
        }
    };
    let one = text(random, &DEB_SIGNS);
    let other = near(random, &one, &DEB_SIGNS);
    (whole(random, &one), whole(random, &other))
}

/// As rpm prints them; neither version nor release is empty, or has a `-`.
fn rpm_pair(random: &mut StdRng) -> (String, String) {
    let (version, release) = (text(random, &RPM_SIGNS), text(random, &RPM_SIGNS));
    let mut other = [version.clone(), release.clone()];
    let changed = random.random_range(0..2);
    other[changed] = near(random, &other[changed], &RPM_SIGNS);
    let mut whole = |version: &str, release: &str| {
        let epoch = random.random_range(0..20_u32) / 18;
        let or_one = |text: &str| {
            if text.is_empty() {
                "1".to_owned()
            } else {
                text.to_owned()
            }
        };
        format!("{epoch}:{}-{}", or_one(version), or_one(release))
    };
    (whole(&version, &release), whole(&other[0], &other[1]))
}

fn deb_order(one: &str, other: &str) -> Ordering {
    let key = |text| {
        let version = deb::Version::parse(text).unwrap_or_else(|error| panic!("{text:?} {error}"));
        version.sort_key()
    };
    key(one).cmp(&key(other))
}

fn rpm_order(one: &str, other: &str) -> Ordering {
    let key = |text| {
        let (epoch, version, release) = rpm::split(text);
        rpm::sort_key(epoch, version, release)
    };
    key(one).cmp(&key(other))
}

/// Has a library order pairs in one process, and compares.
fn is_as_of_library(
    kind: &str,
    pair: impl Fn(&mut StdRng) -> (String, String) + Send + 'static,
    order: impl Fn(&str, &str) -> Ordering,
) {
    let seed: u64 = rand::random();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/versions/order.py");
    // The distribution's: that one has the libraries.
    let mut python = Command::new("/usr/bin/python3")
        .args([script, kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("/usr/bin/python3 runs");
    let pairs = move || {
        let mut random = StdRng::seed_from_u64(seed);
        std::iter::repeat_with(move || pair(&mut random)).take(PAIRS)
    };
    let pairs: Vec<_> = pairs().collect();
    let mut input = BufWriter::new(python.stdin.take().expect("it is piped"));
    let sent = pairs.clone();
    let writer = thread::spawn(move || {
        for (one, other) in sent {
            writeln!(input, "{one}\t{other}").expect("it reads");
        }
    });
    let answers = BufReader::new(python.stdout.take().expect("it is piped")).lines();
    let mut count = 0;
    for (answer, (one, other)) in answers.zip(&pairs) {
        let ours = match order(one, other) {
            Ordering::Less => "<",
            Ordering::Equal => "=",
            Ordering::Greater => ">",
        };
        assert_eq!(
            ours,
            answer.expect("it answers in UTF-8"),
            "{one} {other} (seed {seed})"
        );
        count += 1;
    }
    writer.join().expect("all is written");
    assert!(python.wait().expect("it ends").success());
    assert_eq!(count, PAIRS);
}

#[test]
fn debian_versions_are_ordered_as_libapt_does() {
    is_as_of_library("deb", deb_pair, deb_order);
}

#[test]
fn rpm_versions_are_ordered_as_librpm_does() {
    is_as_of_library("rpm", rpm_pair, rpm_order);
}

#[test]
fn debian_versions_are_ordered_as_dpkg_does() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..PAIRS_OF_DPKG {
        let (one, other) = deb_pair(&mut random);
        let word = match deb_order(&one, &other) {
            Ordering::Less => "lt",
            Ordering::Equal => "eq",
            Ordering::Greater => "gt",
        };
        let found = Command::new("dpkg")
            .args(["--compare-versions", &one, word, &other])
            .status()
            .expect("dpkg runs");
        assert!(found.success(), "{one} {word} {other} (seed {seed})");
    }
}
