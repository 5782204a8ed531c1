//! Advisories and the packages that they come with: the JSON of dnf 5, its table where it has no JSON, and the list of dnf 4
//! and yum. An id is taken as it is: every distribution and every mirror of one has its own form.

use serde::Deserialize;

use crate::updates::rpm::order;

/// Of one update.
pub(super) const MOST: usize = 50;
/// The words of publishers, the worst first.
const SEVERITIES: [&str; 8] = [
    "critical",
    "urgent",
    "important",
    "high",
    "moderate",
    "medium",
    "low",
    "minor",
];

/// An advisory and one package of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advisory {
    pub(super) id: String,
    is_security: bool,
    severity: Option<String>,
    pub(super) name: String,
    pub(super) arch: String,
    /// Of the version that has the fix.
    pub(super) order: Vec<u8>,
}

impl Advisory {
    fn new(id: &str, is_security: bool, severity: &str, package: &str) -> Option<Self> {
        let (rest, arch) = package.rsplit_once('.')?;
        let mut parts = rest.rsplitn(3, '-');
        let (release, version, name) = (parts.next()?, parts.next()?, parts.next()?);
        let severity = severity.trim().to_ascii_lowercase();
        let is_said = !["", "none", "unknown", "n/a"].contains(&severity.as_str());
        Some(Self {
            id: id.to_owned(),
            is_security,
            severity: is_said.then_some(severity),
            name: name.to_owned(),
            arch: arch.to_owned(),
            order: order(&format!("{version}-{release}")),
        })
    }
}

/// Whether any of them mends a vulnerability, and how bad the worst is.
pub(super) fn verdict(advisories: &[&Advisory]) -> (bool, Option<String>) {
    let security = advisories.iter().filter(|one| one.is_security);
    let rank = |severity: &&String| {
        let known = SEVERITIES.iter().position(|word| word == severity);
        known.unwrap_or(SEVERITIES.len())
    };
    let worst = security.clone().filter_map(|one| one.severity.as_ref());
    (security.count() > 0, worst.min_by_key(rank).cloned())
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    severity: String,
    nevra: String,
}

/// What any of them has listed.
pub(super) fn parse(text: &str) -> Vec<Advisory> {
    if let Ok(listed) = serde_json::from_str::<Vec<Listed>>(text.trim()) {
        let known = listed.iter().filter_map(|one| {
            let is_security = one.kind.eq_ignore_ascii_case("security");
            Advisory::new(&one.name, is_security, &one.severity, &one.nevra)
        });
        return known.collect();
    }
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Advisory> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words.as_slice() {
        // dnf 5: Name Type Severity Package Issued, of which the last is a date and a time.
        [id, kind, severity, package, _, ..] => {
            Advisory::new(id, kind.eq_ignore_ascii_case("security"), severity, package)
        }
        // dnf 4 and yum: `ID Important/Sec. PACKAGE`, `ID bugfix PACKAGE`.
        [id, label, package] => {
            let severity = label.strip_suffix("/Sec.");
            Advisory::new(
                id,
                severity.is_some(),
                severity.unwrap_or_default(),
                package,
            )
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(String, bool, String, String)> {
        let all = parse(text).into_iter();
        all.map(|one| {
            (
                one.id,
                one.is_security,
                one.severity.unwrap_or_default(),
                one.name,
            )
        })
        .collect()
    }

    #[test]
    fn lists_of_every_distribution_are_read() {
        let text = "RHSA-2024:1234  Important/Sec. openssl-libs-1:3.0.7-27.el9.x86_64
RLSA-2024:2 Unknown/Sec. foo-2.0-1.el9.noarch
ELBA-2024-3 bugfix bar-1.1-1.el8.x86_64
FEDORA-EPEL-2024-4b5 Low/Sec. baz-1.1-1.el8.x86_64
Last metadata expiration check: 0:01:04 ago on Sun Nov 22 13:26:41 2026.
";
        let row = |id: &str, security, severity: &str, name: &str| {
            (
                id.to_owned(),
                security,
                severity.to_owned(),
                name.to_owned(),
            )
        };
        let expected = [
            row("RHSA-2024:1234", true, "important", "openssl-libs"),
            row("RLSA-2024:2", true, "", "foo"),
            row("ELBA-2024-3", false, "", "bar"),
            row("FEDORA-EPEL-2024-4b5", true, "low", "baz"),
        ];
        assert_eq!(told(text), expected);
        let table = "Name Type Severity Package Issued
FEDORA-2024-1 security Moderate flac-1.3.3-8.fc29.x86_64 2024-01-01 00:00:00
";
        assert_eq!(
            told(table),
            [row("FEDORA-2024-1", true, "moderate", "flac")]
        );
        let json = r#"[{"name":"ALSA-2024:1","type":"security","severity":"Critical","nevra":"flac-1.3.3-8.el9.x86_64","buildtime":1}]"#;
        assert_eq!(told(json), [row("ALSA-2024:1", true, "critical", "flac")]);
    }

    #[test]
    fn the_worst_of_several_counts() {
        let all = parse("a-1 Low/Sec. p-1-1.x\na-2 Critical/Sec. p-1-1.x\na-3 bugfix p-1-1.x\n");
        let all: Vec<_> = all.iter().collect();
        assert_eq!(verdict(&all), (true, Some("critical".to_owned())));
        assert_eq!(verdict(&all[2..]), (false, None));
        assert_eq!(verdict(&[]), (false, None));
    }
}
