//! The documents of advisories, without a database: OSV, Debian's security tracker, OVAL. Each becomes the same
//! statements: what an advisory says of a package in a distribution.
//!
//! Read from a stream, within limits; a document that breaks one, or its format, is refused as a whole, with the place.
//! Knows no other part of the collector, for `fuzz/` takes these files in by their path.

pub mod distributions;
mod osv;
mod oval;
mod tracker;

use std::cell::Cell;
use std::fmt;
use std::io::{Error, Read};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a feed's documents may have together, unpacked.
pub const MOST_BYTES: u64 = 1024 * 1024 * 1024;
/// One record of it: what is in memory at once.
pub const RECORD_BYTES: u64 = 32 * 1024 * 1024;
/// Of one feed, all its documents together.
pub const MOST_ADVISORIES: usize = 1_000_000;
pub const MOST_STATEMENTS: usize = 4_000_000;
/// Of one advisory: a kernel's update names many packages, and many vulnerabilities.
pub const MOST_CVES: usize = 2_000;
/// Elements within each other, and JSON.
pub const DEPTH: usize = 32;
/// Names and versions; a statement with a longer one is left out, and counted.
pub const NAME_BYTES: usize = 255;
/// Summaries and notes are cut here.
pub const TEXT_CHARS: usize = 500;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// <https://ossf.github.io/osv-schema/>: one object, an array of them, or one after the other.
    Osv,
    /// The JSON of Debian's security tracker.
    DebianTracker,
    /// OVAL definitions of Debian, Ubuntu, Red Hat, `AlmaLinux`, Rocky Linux, Oracle Linux, SUSE and openSUSE.
    Oval,
}

impl Format {
    /// As the configuration and the API call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Osv => "osv",
            Self::DebianTracker => "debian-tracker",
            Self::Oval => "oval",
        }
    }
}

/// What an advisory's package names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Applies {
    /// What packages are built from.
    Source,
    /// What is installed.
    Binary,
    /// The publisher does not say which.
    Either,
}

/// What is said of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// From the fixed version on it is mended.
    Fixed,
    NoFix,
    NotAffected,
    /// The publisher has not found out.
    Unknown,
}

impl State {
    /// As the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::NoFix => "no_fix",
            Self::NotAffected => "not_affected",
            Self::Unknown => "unknown",
        }
    }
}

/// Whose packages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Distribution {
    /// `debian:12`, as hosts are told apart.
    pub name: String,
    /// `dpkg`, `rpm`, `apk`.
    pub manager: &'static str,
    /// What its publisher's documents name.
    pub applies: Applies,
    /// For subscribers, beside what everybody gets (Ubuntu Pro).
    pub is_extra: bool,
}

/// What an advisory says of a package in a distribution.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Statement {
    pub distribution: Distribution,
    pub package: String,
    pub applies: Applies,
    pub state: State,
    /// The distribution's own version that has the fix, backported or not.
    pub fixed_version: Option<String>,
    /// Older ones are not affected.
    pub first_affected: Option<String>,
    /// Without a fix: newer ones are not affected.
    pub last_affected: Option<String>,
    /// In the publisher's words.
    pub note: Option<String>,
}

/// An advisory, or a part of it: one document may name it in several places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advisory {
    pub id: String,
    /// Vulnerabilities, by the names of CVE; sorted.
    pub cves: Vec<String>,
    /// In the publisher's words, in lower case.
    pub severity: Option<String>,
    pub summary: String,
    pub statements: Vec<Statement>,
}

/// Why a document is not taken, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Refused {
    pub place: String,
    pub detail: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.detail)
        } else {
            write!(f, "{}: {}", self.place, self.detail)
        }
    }
}

impl Refused {
    pub fn at(place: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            detail: detail.into(),
        }
    }

    /// JSON that is none, or another.
    fn json(of: &str, error: &serde_json::Error) -> Self {
        let place = if error.line() == 0 {
            of.to_owned()
        } else {
            format!("{of}line {}, column {}", error.line(), error.column())
        };
        Self::at(place, format!("is refused: {error}"))
    }
}

/// Takes what is read; counts it, and holds it to the limits.
pub struct Sink<'a> {
    take: &'a mut dyn FnMut(Advisory) -> Result<(), Refused>,
    pub advisories: usize,
    pub statements: usize,
    /// What was left out: of distributions that are not known here, of ranges by commits, or with impossible names.
    pub skipped: usize,
    left: Rc<Cell<u64>>,
}

impl<'a> Sink<'a> {
    pub fn new(take: &'a mut dyn FnMut(Advisory) -> Result<(), Refused>) -> Self {
        Self {
            take,
            advisories: 0,
            statements: 0,
            skipped: 0,
            left: Rc::new(Cell::new(MOST_BYTES)),
        }
    }

    /// Passes an advisory on, if it says anything.
    fn push(&mut self, mut advisory: Advisory) -> Result<(), Refused> {
        let before = advisory.statements.len();
        advisory.statements.retain(Statement::is_sound);
        self.skipped += before - advisory.statements.len();
        if advisory.statements.is_empty() {
            return Ok(());
        }
        advisory.statements.sort();
        advisory.statements.dedup();
        if !is_name(&advisory.id) {
            self.skipped += advisory.statements.len();
            return Ok(());
        }
        advisory.cves.retain(|cve| is_name(cve));
        advisory.cves.sort();
        advisory.cves.dedup();
        advisory.cves.truncate(MOST_CVES);
        advisory.summary = cut(&advisory.summary);
        advisory.severity = advisory
            .severity
            .map(|text| cut(&text).to_lowercase())
            .filter(|text| !text.is_empty());
        self.advisories += 1;
        self.statements += advisory.statements.len();
        if self.advisories > MOST_ADVISORIES || self.statements > MOST_STATEMENTS {
            let detail = format!(
                "says more than {MOST_ADVISORIES} advisories or {MOST_STATEMENTS} statements"
            );
            return Err(Refused::at("", detail));
        }
        (self.take)(advisory)
    }
}

impl Statement {
    fn is_sound(&self) -> bool {
        let versions = [
            &self.fixed_version,
            &self.first_affected,
            &self.last_affected,
        ];
        let mut versions = versions.into_iter().flatten();
        is_name(&self.package)
            && is_name(&self.distribution.name)
            && versions.all(|version| is_name(version))
            && (self.state == State::Fixed) == self.fixed_version.is_some()
    }
}

/// Reads one document.
pub fn read(format: Format, reader: impl Read, sink: &mut Sink<'_>) -> Result<(), Refused> {
    let meter = Meter::default();
    meter.begin();
    let reader = std::io::BufReader::new(Bounded {
        reader,
        left: Rc::clone(&sink.left),
        record: meter.clone(),
    });
    match format {
        Format::Osv => osv::read(reader, &meter, sink),
        Format::DebianTracker => tracker::read(reader, &meter, sink),
        Format::Oval => oval::read(reader, &meter, sink),
    }
}

/// Counts what one record takes.
#[derive(Clone, Default)]
struct Meter(Rc<Cell<u64>>);

impl Meter {
    /// The next record begins.
    fn begin(&self) {
        self.0.set(RECORD_BYTES);
    }
}

/// A stream that ends in an error where it, or one record of it, is longer than it may be.
struct Bounded<R> {
    reader: R,
    left: Rc<Cell<u64>>,
    record: Meter,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(into)?;
        let over = |left: u64, limit: u64, of: &str| {
            let left = left.checked_sub(read as u64);
            left.ok_or_else(|| Error::other(format!("{of} has more than {limit} bytes")))
        };
        self.left
            .set(over(self.left.get(), MOST_BYTES, "the feed")?);
        let record = over(self.record.0.get(), RECORD_BYTES, "one record")?;
        self.record.0.set(record);
        Ok(read)
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES).contains(&text.len())
        && !text.contains(|char: char| char.is_control() || char.is_whitespace())
}

/// One line, not too long.
fn cut(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    let line = words.join(" ");
    let kept = line.chars().filter(|char| !char.is_control());
    kept.take(TEXT_CHARS).collect()
}

fn cut_some(text: &str) -> Option<String> {
    Some(cut(text)).filter(|text| !text.is_empty())
}

/// Whether it is a name of CVE.
fn is_cve(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let rest = text
        .strip_prefix("CVE-")
        .and_then(|rest| rest.split_once('-'));
    rest.is_some_and(|(year, number)| year.len() == 4 && digits(year) && digits(number))
}

#[cfg(test)]
mod tests;
