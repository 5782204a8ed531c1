//! OSV: records of vulnerabilities and of advisories, with ranges of versions by ecosystem.
//!
//! What a range of commits or of no distribution says is left out, and counted; a record that was withdrawn says nothing.

use std::cell::RefCell;
use std::fmt;
use std::io::BufRead;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value;

use super::{
    Advisory, Distribution, Meter, Refused, Sink, State, Statement, cut_some, distributions, is_cve,
};

#[derive(Deserialize)]
struct Record {
    id: String,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    details: String,
    #[serde(default)]
    withdrawn: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    upstream: Vec<String>,
    #[serde(default)]
    related: Vec<String>,
    #[serde(default)]
    severity: Vec<Severity>,
    #[serde(default)]
    affected: Vec<Affected>,
    #[serde(default)]
    database_specific: Option<Value>,
}

#[derive(Deserialize)]
struct Severity {
    #[serde(rename = "type")]
    kind: String,
    score: String,
}

#[derive(Deserialize)]
struct Affected {
    #[serde(default)]
    package: Option<Package>,
    #[serde(default)]
    ranges: Vec<Range>,
    #[serde(default)]
    severity: Vec<Severity>,
    #[serde(default)]
    ecosystem_specific: Option<Value>,
    #[serde(default)]
    database_specific: Option<Value>,
}

#[derive(Deserialize)]
struct Package {
    ecosystem: String,
    name: String,
}

#[derive(Deserialize)]
struct Range {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    introduced: Option<String>,
    #[serde(default)]
    fixed: Option<String>,
    #[serde(default)]
    last_affected: Option<String>,
}

/// Reads a document: an array, or one record after the other.
pub(super) fn read(
    mut reader: impl BufRead,
    meter: &Meter,
    sink: &mut Sink<'_>,
) -> Result<(), Refused> {
    let io = |error: std::io::Error| Refused::at("", format!("can't be read: {error}"));
    let first = loop {
        let bytes = reader.fill_buf().map_err(io)?;
        match bytes.iter().position(|byte| !byte.is_ascii_whitespace()) {
            Some(at) => break bytes.get(at).copied(),
            None if bytes.is_empty() => break None,
            None => {
                let blank = bytes.len();
                reader.consume(blank);
            }
        }
    };
    let mut json = serde_json::Deserializer::from_reader(reader);
    match first {
        None => Err(Refused::at("", "is empty")),
        Some(b'[') => {
            let refused = RefCell::new(None);
            let records = Records {
                sink,
                meter,
                refused: &refused,
            };
            let read = records.deserialize(&mut json).and_then(|()| json.end());
            match (refused.into_inner(), read) {
                (Some(refused), _) => Err(refused),
                (None, read) => read.map_err(|error| Refused::json("", &error)),
            }
        }
        Some(_) => {
            for (number, record) in (1..).zip(json.into_iter::<Record>()) {
                let of = format!("record {number}, ");
                let record = record.map_err(|error| Refused::json(&of, &error))?;
                meter.begin();
                push(record, sink)?;
            }
            Ok(())
        }
    }
}

/// An array, record by record.
struct Records<'a, 'b> {
    sink: &'a mut Sink<'b>,
    meter: &'a Meter,
    /// What the sink said: an error of JSON can't carry it.
    refused: &'a RefCell<Option<Refused>>,
}

impl<'de> DeserializeSeed<'de> for Records<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Records<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("records of OSV")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<(), A::Error> {
        while let Some(record) = all.next_element::<Record>()? {
            self.meter.begin();
            if let Err(refused) = push(record, self.sink) {
                *self.refused.borrow_mut() = Some(refused);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

fn push(record: Record, sink: &mut Sink<'_>) -> Result<(), Refused> {
    if record.withdrawn.is_some() {
        return Ok(());
    }
    let id = known_as(&record.id).to_owned();
    let mut statements = Vec::new();
    for affected in &record.affected {
        let distribution = affected.package.as_ref().and_then(|package| {
            let distribution = distributions::of_ecosystem(&package.ecosystem)?;
            Some((package, distribution))
        });
        let Some((package, distribution)) = distribution else {
            sink.skipped += 1;
            continue;
        };
        let found = of_package(affected, &package.name, &distribution);
        sink.skipped += usize::from(found.is_empty());
        statements.extend(found);
    }
    let others = [&record.aliases, &record.upstream, &record.related];
    let names = others.into_iter().flatten().map(|name| known_as(name));
    let names = names.chain([id.as_str()]).filter(|name| is_cve(name));
    let cves = names.map(str::to_owned).collect();
    let severity = severity(&record);
    let summary = if record.summary.is_empty() {
        record.details
    } else {
        record.summary
    };
    sink.push(Advisory {
        id,
        cves,
        severity,
        summary,
        statements,
    })
}

/// Distributions' records of one vulnerability have it in their own names: `DEBIAN-CVE-2024-1234`.
fn known_as(id: &str) -> &str {
    let cve = id.find("CVE-").and_then(|at| id.get(at..));
    cve.filter(|cve| is_cve(cve)).unwrap_or(id)
}

fn of_package(affected: &Affected, package: &str, distribution: &Distribution) -> Vec<Statement> {
    let urgency = word(affected.ecosystem_specific.as_ref(), "urgency");
    let urgency = urgency.filter(|urgency| *urgency != "not yet assigned");
    let statement = |state| Statement {
        distribution: distribution.clone(),
        package: package.to_owned(),
        applies: distribution.applies,
        state,
        fixed_version: None,
        first_affected: None,
        last_affected: None,
        note: urgency.and_then(cut_some),
    };
    let mut statements = Vec::new();
    let ranges = affected.ranges.iter();
    for range in ranges.filter(|range| range.kind == "ECOSYSTEM") {
        let mut open = None;
        for event in &range.events {
            if let Some(first) = &event.introduced {
                open = Some(Statement {
                    first_affected: Some(first.clone()).filter(|first| first != "0"),
                    ..statement(State::NoFix)
                });
            }
            if let Some(fixed) = &event.fixed {
                let before = open.take().unwrap_or_else(|| statement(State::NoFix));
                statements.push(Statement {
                    state: State::Fixed,
                    fixed_version: Some(fixed.clone()),
                    ..before
                });
            }
            if let Some(last) = &event.last_affected {
                let before = open.take().unwrap_or_else(|| statement(State::NoFix));
                statements.push(Statement {
                    last_affected: Some(last.clone()),
                    ..before
                });
            }
        }
        statements.extend(open);
    }
    statements
}

/// In words; a vector of CVSS is none.
fn severity(record: &Record) -> Option<String> {
    let of_affected = record.affected.iter().flat_map(|one| &one.severity);
    let mut all = record.severity.iter().chain(of_affected);
    let named = all.find(|severity| !severity.kind.starts_with("CVSS"));
    if let Some(named) = named {
        return Some(named.score.clone());
    }
    let of = |one: &Affected| {
        word(one.ecosystem_specific.as_ref(), "severity")
            .or_else(|| word(one.database_specific.as_ref(), "severity"))
            .map(str::to_owned)
    };
    let whole = word(record.database_specific.as_ref(), "severity").map(str::to_owned);
    whole.or_else(|| record.affected.iter().find_map(of))
}

fn word<'a>(value: Option<&'a Value>, name: &str) -> Option<&'a str> {
    value?.get(name)?.as_str()
}
