//! `/var/log/zypp/history` (libzypp, "Libzypp History File"): `DATE TIME|ACTION|…`, in the host's zone. `command` begins what one
//! program does; nothing tells its end, and an upgrade is an `install` like any other, without the version before.

use infratrack_shared::wire::event::{PackageAction, PackageChange};

use super::super::{field, said as some};
use super::apt::command;
use super::{Parser, Said, Stamp};

/// See the module.
#[derive(Debug, Default)]
pub struct History;

impl Parser for History {
    fn line(&mut self, line: &str, said: &mut Vec<(Stamp, Said)>) {
        if let Some(comment) = line.strip_prefix("# ") {
            said.extend(failed(comment));
            return;
        }
        let Some((stamp, rest)) = Stamp::local(line) else {
            return;
        };
        let mut fields = rest.trim_start_matches('|').split('|').map(str::trim);
        let action = fields.next().unwrap_or_default();
        if action == "command" {
            let user = fields.next().unwrap_or_default();
            let user = some(user.split_once('@').map_or(user, |(user, _)| user));
            said.push((stamp, Said::Run));
            said.extend(
                fields
                    .next()
                    .map(|text| (stamp, Said::Command(command(text)))),
            );
            said.extend(user.map(|user| (stamp, Said::RequestedBy(user))));
            return;
        }
        let [Some(name), Some(version), Some(arch)] = [fields.next(), fields.next(), fields.next()]
        else {
            return;
        };
        let version = some(version);
        let (action, from, to) = match action {
            "install" => (PackageAction::Installed, None, version),
            "remove" => (PackageAction::Removed, version, None),
            _ => return,
        };
        if name.is_empty() {
            return;
        }
        let change = PackageChange {
            action,
            name: field(name),
            arch: field(arch),
            from,
            to,
            ..PackageChange::default()
        };
        said.push((stamp, Said::Change(change)));
    }
}

/// `# 2024-05-06 07:08:09 one-1.0-1.x86_64.rpm install failed`.
fn failed(comment: &str) -> Option<(Stamp, Said)> {
    let (stamp, text) = Stamp::local(comment)?;
    text.ends_with(" failed")
        .then(|| (stamp, Said::Error(field(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_and_what_it_did() {
        // As zypper 1.14 writes it, shortened; the first line and the last after libzypp's documentation and source.
        let text = "2008-09-24 11:50:02|radd   |packman|http://packman.iu-bremen.de/suse/11.0\n\
            2026-11-22 14:05:26|command|root@vm|'zypper' '--non-interactive' 'in' 'two' 'one-1.0'|\n\
            # 2026-11-22 14:05:26 one-1.0-1.noarch.rpm installed ok\n# Additional rpm output:\n# rpm: warning\n# \n\
            2026-11-22 14:05:26|install|one|1.0-1|noarch|root@vm|l|78828619404bc507363d8b7acab40399|\n\
            2026-11-22 14:05:27|remove |two|1.0-1|noarch|root@vm|\n\
            # 2026-11-22 14:05:28 xine-1.rpm install failed\n";
        let mut said = Vec::new();
        for line in text.lines() {
            History.line(line, &mut said);
        }
        let said: Vec<_> = said.into_iter().map(|(_, said)| said).collect();
        let [
            Said::Run,
            Said::Command(command),
            Said::RequestedBy(user),
            Said::Change(one),
            Said::Change(other),
            Said::Error(error),
        ] = said.as_slice()
        else {
            panic!("{said:?}");
        };
        assert_eq!(
            (command.as_str(), user.as_str()),
            ("'zypper' '--non-interactive' 'in' 'two' 'one-1.0'", "root")
        );
        assert_eq!(
            (one.action, one.name.as_str(), one.to.as_deref()),
            (PackageAction::Installed, "one", Some("1.0-1"))
        );
        assert_eq!(
            (other.action, other.arch.as_str(), other.from.as_deref()),
            (PackageAction::Removed, "noarch", Some("1.0-1"))
        );
        assert_eq!(error, "xine-1.rpm install failed");
    }
}
