//! `facts.os`: the distribution, from os-release(5).
//!
//! Also asked by others who must know the family (`reboot`).

use serde::Serialize;

use super::fact::to_value;
use super::{Reason, Root};

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Facts {
    id: String,
    /// Distributions it is derived from, nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    id_like: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pretty_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    codename: Option<String>,
    /// Debian's point release, which os-release does not have: `12.5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    point_release: Option<String>,
}

/// The body of `facts.os`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let text = root
        .read("etc/os-release")
        .or_else(|_| root.read("usr/lib/os-release"))
        .map_err(|error| format!("/etc/os-release: {error}"))?;
    let mut facts = parse(&text);
    if facts.id == "debian" {
        facts.point_release = root.find("etc/debian_version");
    }
    to_value(&facts)
}

fn parse(text: &str) -> Facts {
    let mut facts = Facts {
        // What os-release(5) says where there is no ID.
        id: "linux".to_owned(),
        ..Facts::default()
    };
    for line in text.lines() {
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let value = unquote(value.trim());
        if value.is_empty() {
            continue;
        }
        match name.trim() {
            "ID" => facts.id = value,
            "ID_LIKE" => facts.id_like = value.split_whitespace().map(str::to_owned).collect(),
            "NAME" => facts.name = Some(value),
            "PRETTY_NAME" => facts.pretty_name = Some(value),
            "VERSION_ID" => facts.version = Some(value),
            "VERSION_CODENAME" => facts.codename = Some(value),
            _ => {}
        }
    }
    facts
}

/// Undoes the shell's quotes and backslashes as far as os-release(5) allows them.
fn unquote(value: &str) -> String {
    let inner = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value);
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::fixture;

    fn told(files: &[(&str, &str)]) -> serde_json::Value {
        let (_keep, root) = fixture::host(files);
        fixture::json(&collect(&root).unwrap())
    }

    #[test]
    fn debian_has_its_point_release() {
        let text = include_str!("../../tests/fixtures/os-release-debian");
        let expected = json!({
            "id": "debian", "name": "Debian GNU/Linux", "version": "12", "codename": "bookworm",
            "pretty_name": "Debian GNU/Linux 12 (bookworm)", "point_release": "12.5",
        });
        assert_eq!(
            told(&[("etc/os-release", text), ("etc/debian_version", "12.5\n")]),
            expected
        );
    }

    #[test]
    fn alma_names_what_it_is_like() {
        let text = include_str!("../../tests/fixtures/os-release-alma");
        let expected = json!({
            "id": "almalinux", "id_like": ["rhel", "centos", "fedora"], "name": "AlmaLinux",
            "version": "9.4", "pretty_name": "AlmaLinux 9.4 (Seafoam Ocelot)",
        });
        assert_eq!(told(&[("usr/lib/os-release", text)]), expected);
    }

    #[test]
    fn alpine_does_without_quotes() {
        let text = include_str!("../../tests/fixtures/os-release-alpine");
        let expected = json!({
            "id": "alpine", "name": "Alpine Linux", "version": "3.20.1",
            "pretty_name": "Alpine Linux v3.20",
        });
        assert_eq!(told(&[("etc/os-release", text)]), expected);
    }

    #[test]
    fn quotes_are_undone_and_a_broken_one_is_kept() {
        assert_eq!(unquote(r#""a \"b\" \$c""#), r#"a "b" $c"#);
        assert_eq!(unquote(r#""a"#), r#""a"#);
        assert_eq!(unquote(r"'a\"), r"'a");
        assert_eq!(parse("# comment\nID=\nnonsense\n").id, "linux");
    }
}
