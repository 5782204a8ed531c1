//! `/var/log/apt/history.log`: a paragraph a run, of lines `Key: value`. apt writes all up to the list of what it is about to do
//! before it starts dpkg, and `Error:` and `End-Date:` when it is done (apt, `apt-pkg/deb/dpkgpm.cc`). Times are of the host's zone.

use infratrack_shared::wire::event::{PackageAction, PackageChange};

use super::super::{field, said as some};
use super::dpkg::name_and_arch;
use super::{COMMAND_BYTES, MOST_CHANGES, Parser, Said, Stamp};

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    /// The time of the paragraph; its other lines have none.
    at: Option<Stamp>,
}

impl Parser for History {
    fn line(&mut self, line: &str, said: &mut Vec<(Stamp, Said)>) {
        let Some((key, value)) = line.split_once(':') else {
            return;
        };
        let value = value.trim();
        if key == "Start-Date" {
            self.at = Stamp::local(value).map(|(stamp, _)| stamp);
            said.extend(self.at.map(|at| (at, Said::Begin)));
            return;
        }
        let Some(at) = self.at else {
            return;
        };
        let planned = match key {
            "Commandline" => {
                said.push((at, Said::Command(command(value))));
                return;
            }
            "Requested-By" => {
                said.extend(requested_by(value).map(|user| (at, Said::RequestedBy(user))));
                return;
            }
            "Error" => {
                said.push((at, Said::Error(field(value))));
                return;
            }
            "End-Date" => {
                said.extend(Stamp::local(value).map(|(at, _)| (at, Said::End)));
                self.at = None;
                return;
            }
            "Install" => PackageAction::Installed,
            "Reinstall" => PackageAction::Reinstalled,
            "Upgrade" => PackageAction::Upgraded,
            "Downgrade" => PackageAction::Downgraded,
            "Remove" => PackageAction::Removed,
            "Purge" => PackageAction::Purged,
            _ => return,
        };
        // Of a line that was too long to be read whole, the last entry is not whole either.
        let whole = match value.strip_suffix(')') {
            Some(list) => list,
            None => value.rsplit_once("), ").map_or("", |(list, _)| list),
        };
        let changes = whole.split("), ").take(MOST_CHANGES);
        let changes = changes.filter_map(|text| change(planned, text));
        said.extend(changes.map(|change| (at, Said::Planned(change))));
    }
}

/// A command line as it is kept: without passwords in addresses, of a proxy, say.
pub(super) fn command(text: &str) -> String {
    let mut text = without_passwords(&text.trim().replace('\0', " "));
    text.truncate(text.floor_char_boundary(COMMAND_BYTES));
    text
}

/// `scheme://user:password@host` (RFC 3986, 3.2.1) with the password left out.
fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str("://");
        let end = part.find(|c: char| c.is_whitespace() || "/'\"".contains(c));
        let authority = part.get(..end.unwrap_or(part.len())).unwrap_or(part);
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        match user.split_once(':') {
            Some((name, _)) => {
                kept.push_str(name);
                kept.push_str(":***");
                kept.push_str(part.get(user.len()..).unwrap_or_default());
            }
            None => kept.push_str(part),
        }
    }
    kept
}

/// `alice (1000)`.
fn requested_by(value: &str) -> Option<String> {
    let (name, uid) = value.split_once('(').unwrap_or((value, ""));
    let uid = uid.trim_end_matches(')').trim();
    some(name).or_else(|| some(uid).map(|uid| format!("uid {uid}")))
}

/// `name:arch (1.0`, `name:arch (1.0, automatic`, `name:arch (1.0, 2.0`: the list is split at what ends an entry.
fn change(action: PackageAction, text: &str) -> Option<PackageChange> {
    let (name, versions) = text.trim().split_once(" (")?;
    let (name, arch) = name_and_arch(name)?;
    let mut change = PackageChange {
        action,
        name,
        arch,
        ..PackageChange::default()
    };
    let mut versions = versions.split(", ").map(str::trim);
    let first = some(versions.next()?);
    let mut second = None;
    for word in versions {
        if word == "automatic" {
            change.automatic = true;
        } else {
            second = some(word);
        }
    }
    (change.from, change.to) = match action {
        PackageAction::Installed => (None, first),
        PackageAction::Reinstalled => (first.clone(), first),
        PackageAction::Upgraded | PackageAction::Downgraded => (first, second),
        PackageAction::Removed | PackageAction::Purged | PackageAction::Other => (first, None),
    };
    Some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Said> {
        let (mut history, mut said) = (History::default(), Vec::new());
        for line in text.lines() {
            history.line(line, &mut said);
        }
        said.into_iter().map(|(_, said)| said).collect()
    }

    #[test]
    fn a_command_line_keeps_no_password_of_an_address() {
        let told = command(
            "apt-get -o Acquire::http::Proxy='http://anna:se:cret@proxy:3128/' install a b@c",
        );
        assert_eq!(
            told,
            "apt-get -o Acquire::http::Proxy='http://anna:***@proxy:3128/' install a b@c"
        );
        assert_eq!(
            command("x https://h/a:b@c http://u@h"),
            "x https://h/a:b@c http://u@h"
        );
    }

    #[test]
    fn a_paragraph_of_the_history_is_a_run_with_what_it_was_to_do() {
        // As apt 2.6 of Debian 12 writes it, shortened.
        let text = "\nStart-Date: 2026-11-22  08:58:44\nCommandline: apt-get install -qq rpm dnf\nRequested-By: alice (1000)\n\
            Install: rpm:amd64 (4.18.0+dfsg-1+deb12u1), debugedit:amd64 (1:5.0-5, automatic)\n\
            Upgrade: apt:amd64 (2.6.1, 2.6.2), libapt-pkg6.0:amd64 (2.6.1, 2.6.2)\nReinstall: vim:amd64 (2:9.0.1378-2)\n\
            Downgrade: x:i386 (2, 1)\nRemove: y:amd64 (3)\nPurge: z:amd64 (4, automatic)\n\
            Error: Sub-process /usr/bin/dpkg returned an error code (1)\nEnd-Date: 2026-11-22  08:58:51\n";
        let said = read(text);
        assert_eq!(said[0], Said::Begin);
        assert_eq!(
            said[1],
            Said::Command("apt-get install -qq rpm dnf".to_owned())
        );
        assert_eq!(said[2], Said::RequestedBy("alice".to_owned()));
        let changes: Vec<_> = said
            .iter()
            .filter_map(|said| {
                let Said::Planned(c) = said else {
                    return None;
                };
                let version = |version: &Option<String>| version.clone().unwrap_or_default();
                let (from, to) = (version(&c.from), version(&c.to));
                let (name, arch, is_automatic) = (&c.name, &c.arch, c.automatic);
                Some(format!(
                    "{:?} {name}:{arch} [{from}] [{to}] {is_automatic}",
                    c.action
                ))
            })
            .collect();
        assert_eq!(
            changes,
            [
                "Installed rpm:amd64 [] [4.18.0+dfsg-1+deb12u1] false",
                "Installed debugedit:amd64 [] [1:5.0-5] true",
                "Upgraded apt:amd64 [2.6.1] [2.6.2] false",
                "Upgraded libapt-pkg6.0:amd64 [2.6.1] [2.6.2] false",
                "Reinstalled vim:amd64 [2:9.0.1378-2] [2:9.0.1378-2] false",
                "Downgraded x:i386 [2] [1] false",
                "Removed y:amd64 [3] [] false",
                "Purged z:amd64 [4] [] true",
            ]
        );
        assert_eq!(
            said[said.len() - 2..],
            [
                Said::Error("Sub-process /usr/bin/dpkg returned an error code (1)".to_owned()),
                Said::End
            ]
        );
    }

    #[test]
    fn lines_outside_of_a_paragraph_say_nothing_and_a_cut_list_has_its_whole_entries() {
        assert_eq!(
            read("Install: a:amd64 (1)\nEnd-Date: 2026-11-22  08:58:51\n"),
            []
        );
        assert_eq!(read("Start-Date: yesterday\nInstall: a:amd64 (1)\n"), []);
        let cut = read("Start-Date: 2026-11-22  08:58:44\nInstall: a:amd64 (1), b:amd64 (2.");
        assert_eq!(cut.len(), 2);
        let user = read("Start-Date: 2026-11-22  08:58:44\nRequested-By:  (1000)\n");
        assert_eq!(user[1], Said::RequestedBy("uid 1000".to_owned()));
    }
}
