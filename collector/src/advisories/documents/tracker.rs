//! The JSON of Debian's security tracker: source packages, their vulnerabilities, and each release's state.
//!
//! A fixed version of `0` says that no version of that release was ever affected.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::{Advisory, Meter, Refused, Sink, State, Statement, cut_some, distributions, is_cve};

#[derive(Deserialize)]
struct Issue {
    #[serde(default)]
    description: String,
    releases: BTreeMap<String, Release>,
}

#[derive(Deserialize)]
struct Release {
    status: String,
    #[serde(default)]
    fixed_version: Option<String>,
    #[serde(default)]
    urgency: Option<String>,
    /// Why there is no advisory of its own.
    #[serde(default)]
    nodsa: Option<String>,
    #[serde(default)]
    nodsa_reason: Option<String>,
}

/// Reads a document.
pub(super) fn read(
    reader: impl BufRead,
    meter: &Meter,
    sink: &mut Sink<'_>,
) -> Result<(), Refused> {
    let refused = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_reader(reader);
    let sources = Sources {
        sink,
        meter,
        refused: &refused,
    };
    let read = sources.deserialize(&mut json).and_then(|()| json.end());
    match (refused.into_inner(), read) {
        (Some(refused), _) => Err(refused),
        (None, read) => read.map_err(|error| Refused::json("", &error)),
    }
}

/// By the name of a source package.
struct Sources<'a, 'b> {
    sink: &'a mut Sink<'b>,
    meter: &'a Meter,
    /// What the sink said: an error of JSON can't carry it.
    refused: &'a RefCell<Option<Refused>>,
}

impl<'de> DeserializeSeed<'de> for Sources<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Sources<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("source packages as Debian's security tracker has them")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(package) = map.next_key::<String>()? {
            map.next_value_seed(Issues {
                package,
                sink: self.sink,
                meter: self.meter,
                refused: self.refused,
            })?;
        }
        Ok(())
    }
}

/// By the name of a vulnerability.
struct Issues<'a, 'b> {
    package: String,
    sink: &'a mut Sink<'b>,
    meter: &'a Meter,
    refused: &'a RefCell<Option<Refused>>,
}

impl<'de> DeserializeSeed<'de> for Issues<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Issues<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("vulnerabilities of a source package")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(id) = map.next_key::<String>()? {
            let issue: Issue = map.next_value()?;
            self.meter.begin();
            let taken = advisory(&self.package, id, issue).and_then(|one| self.sink.push(one));
            if let Err(refused) = taken {
                *self.refused.borrow_mut() = Some(refused);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

fn advisory(package: &str, id: String, issue: Issue) -> Result<Advisory, Refused> {
    let mut statements = Vec::new();
    let mut severity = None;
    for (codename, release) in issue.releases {
        let fixed = release.fixed_version.filter(|version| !version.is_empty());
        let (state, fixed) = match (release.status.as_str(), fixed) {
            ("resolved", Some(version)) if version == "0" => (State::NotAffected, None),
            ("resolved", Some(version)) => (State::Fixed, Some(version)),
            ("open", _) => (State::NoFix, None),
            ("resolved" | "undetermined", _) => (State::Unknown, None),
            (status, _) => {
                let place = format!("{package}, {id}, {codename}");
                let detail = format!("has the status {status:?}, which is not known here");
                return Err(Refused::at(place, detail));
            }
        };
        let urgency = release.urgency.as_deref().unwrap_or_default();
        let urgency = urgency.trim_end_matches('*');
        if ["unimportant", "low", "medium", "high"].contains(&urgency) {
            severity = severity.or_else(|| Some(urgency.to_owned()));
        }
        let mut notes = Vec::new();
        notes.extend((!urgency.is_empty() && urgency != "not yet assigned").then_some(urgency));
        notes.extend(
            release
                .nodsa_reason
                .as_deref()
                .filter(|text| !text.is_empty()),
        );
        notes.extend(release.nodsa.as_deref().filter(|text| !text.is_empty()));
        let distribution = distributions::debian(&codename);
        statements.push(Statement {
            applies: distribution.applies,
            distribution,
            package: package.to_owned(),
            state,
            fixed_version: fixed,
            first_affected: None,
            last_affected: None,
            note: cut_some(&notes.join(": ")),
        });
    }
    Ok(Advisory {
        cves: is_cve(&id).then(|| id.clone()).into_iter().collect(),
        id,
        severity,
        summary: issue.description,
        statements,
    })
}
