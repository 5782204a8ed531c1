//! `/var/log/dpkg.log` (dpkg(1), `--log`): `DATE TIME startup|status|ACTION …`, in the host's zone. A run of dpkg begins with
//! `startup`; nothing tells its end.

use infratrack_shared::version::deb::Version;
use infratrack_shared::wire::event::{PackageAction, PackageChange};

use super::super::field;
use super::{Parser, Said, Stamp};

/// See the module.
#[derive(Debug, Default)]
pub struct Log;

impl Parser for Log {
    fn line(&mut self, line: &str, said: &mut Vec<(Stamp, Said)>) {
        said.extend(parse(line));
    }
}

fn parse(line: &str) -> Option<(Stamp, Said)> {
    let (stamp, rest) = Stamp::local(line)?;
    let mut words = rest.split_ascii_whitespace();
    let action = words.next()?;
    if action == "startup" {
        return Some((stamp, Said::Run));
    }
    if action == "status" {
        let state = field(words.next()?);
        let (name, arch) = name_and_arch(words.next()?)?;
        let version = version(words.next()).unwrap_or_default();
        return Some((
            stamp,
            Said::State {
                name,
                arch,
                version,
                state,
            },
        ));
    }
    let is_known = [
        "install",
        "upgrade",
        "remove",
        "disappear",
        "purge",
        "configure",
    ];
    if !is_known.contains(&action) {
        return None;
    }
    let (name, arch) = name_and_arch(words.next()?)?;
    let (from, to) = (version(words.next()), version(words.next()));
    let (action, from, to) = match action {
        // What was before, where there was anything, was its configuration files.
        "install" => (PackageAction::Installed, None, to),
        "upgrade" => (replaced(from.as_deref(), to.as_deref()), from, to),
        "remove" | "disappear" => (PackageAction::Removed, from, None),
        "purge" => (PackageAction::Purged, from, None),
        // Of what an earlier run has unpacked; the version after is of the last time it was configured.
        _ => (PackageAction::Other, None, from),
    };
    let change = PackageChange {
        action,
        name,
        arch,
        from,
        to,
        ..PackageChange::default()
    };
    Some((stamp, Said::Change(change)))
}

/// What became of a package by its versions before and after.
pub(super) fn replaced(from: Option<&str>, to: Option<&str>) -> PackageAction {
    let (Some(from), Some(to)) = (from, to) else {
        return PackageAction::Upgraded;
    };
    let (from, to) = (
        Version::split(from).sort_key(),
        Version::split(to).sort_key(),
    );
    match from.cmp(&to) {
        std::cmp::Ordering::Less => PackageAction::Upgraded,
        std::cmp::Ordering::Equal => PackageAction::Reinstalled,
        std::cmp::Ordering::Greater => PackageAction::Downgraded,
    }
}

/// `name:arch`, or the name alone.
pub(super) fn name_and_arch(text: &str) -> Option<(String, String)> {
    let (name, arch) = text.split_once(':').unwrap_or((text, ""));
    let (name, arch) = (field(name), field(arch));
    (!name.is_empty()).then_some((name, arch))
}

fn version(word: Option<&str>) -> Option<String> {
    word.filter(|word| *word != "<none>").map(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Said> {
        parse(line).map(|(_, said)| said)
    }

    fn change(action: PackageAction, from: Option<&str>, to: Option<&str>) -> Said {
        Said::Change(PackageChange {
            action,
            name: "one".to_owned(),
            arch: "all".to_owned(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            ..PackageChange::default()
        })
    }

    #[test]
    fn a_line_is_an_action_a_state_or_nothing() {
        let cases = [
            ("startup archives install", Some(Said::Run)),
            (
                "install one:all <none> 1.0",
                Some(change(PackageAction::Installed, None, Some("1.0"))),
            ),
            (
                "install one:all 0.9 1.0",
                Some(change(PackageAction::Installed, None, Some("1.0"))),
            ),
            (
                "upgrade one:all 1.0 2.0",
                Some(change(PackageAction::Upgraded, Some("1.0"), Some("2.0"))),
            ),
            (
                "upgrade one:all 1:1.0 2.0~rc1",
                Some(change(
                    PackageAction::Downgraded,
                    Some("1:1.0"),
                    Some("2.0~rc1"),
                )),
            ),
            (
                "upgrade one:all 1.0 1.0",
                Some(change(PackageAction::Reinstalled, Some("1.0"), Some("1.0"))),
            ),
            (
                "remove one:all 1.0 <none>",
                Some(change(PackageAction::Removed, Some("1.0"), None)),
            ),
            (
                "purge one:all 1.0 <none>",
                Some(change(PackageAction::Purged, Some("1.0"), None)),
            ),
            (
                "configure one:all 1.0 <none>",
                Some(change(PackageAction::Other, None, Some("1.0"))),
            ),
            (
                "status half-installed one:all 1.0",
                Some(Said::State {
                    name: "one".to_owned(),
                    arch: "all".to_owned(),
                    version: "1.0".to_owned(),
                    state: "half-installed".to_owned(),
                }),
            ),
            ("trigproc man-db:amd64 2.11.2-2 <none>", None),
            ("conffile /etc/one.conf install", None),
            ("status installed", None),
            ("upgrade :all 1 2", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let line = format!("2026-11-22 13:26:19 {text}");
            assert_eq!(read(&line), expected, "{text}");
        }
        assert_eq!(read("dpkg: warning: no time"), None);
    }
}
