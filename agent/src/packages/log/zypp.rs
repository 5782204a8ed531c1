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
        // After the example of libzypp's documentation; `command` as zypper 1.14 writes it.
        let text = "2008-09-24 11:50:02|radd   |packman|http://packman.iu-bremen.de/suse/11.0\n\
            2008-09-24 11:53:09|command|root@kompost|'zypper' 'in' 'amarok'|\n\
            2008-09-24 11:53:10|install|amarok-yauap|1.4.10-25|x86_64||factory|4421dfa7\n\
            # Additional rpm output:\n# warning: amarok-1.4.10-100.pm.1.x86_64.rpm: Header V3 DSA signature\n#\n\
            2008-09-24 11:53:45|remove |amarok|1.4.10-100.pm.1|x86_64|root@kompost|\n\
            # 2008-09-24 11:53:46 xine-1.rpm install failed\n";
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
            ("'zypper' 'in' 'amarok'", "root")
        );
        assert_eq!(
            (one.action, one.name.as_str(), one.to.as_deref()),
            (PackageAction::Installed, "amarok-yauap", Some("1.4.10-25"))
        );
        assert_eq!(
            (other.action, other.arch.as_str(), other.from.as_deref()),
            (PackageAction::Removed, "x86_64", Some("1.4.10-100.pm.1"))
        );
        assert_eq!(error, "xine-1.rpm install failed");
    }
}
