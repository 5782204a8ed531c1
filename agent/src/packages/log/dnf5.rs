//! `/var/log/dnf5.log`: `TIME [PID] LEVEL TEXT`, in UTC. What rpm does is told as it calls back (libdnf5, `rpm/transaction.cpp`);
//! nothing tells that a transaction is over, but how many packages it has is said at its beginning.

use std::collections::{BTreeMap, BTreeSet};

use infratrack_shared::wire::event::{PackageAction, PackageChange};

use super::super::field;
use super::apt::command;
use super::rpm::Nevra;
use super::{MOST_CHANGES, Parser, Said, Stamp};

/// Processes remembered; the lowest ids are forgotten first.
const PROCESSES: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub struct Log {
    processes: BTreeMap<u32, Process>,
}

#[derive(Debug, Default)]
struct Process {
    command: Option<String>,
    /// Versions that rpm removes because another of the same package comes.
    replaced: BTreeSet<String>,
}

impl Parser for Log {
    fn line(&mut self, line: &str, said: &mut Vec<(Stamp, Said)>) {
        let Some((stamp, pid, text)) = read(line) else {
            return;
        };
        let mut add = |what| said.push((stamp, what));
        if let Some(rest) = text.strip_prefix("--- DNF5 launched with arguments: \"") {
            let text = rest.strip_suffix("\" ---").unwrap_or(rest);
            self.start(pid, command(text));
            return;
        }
        if let Some(rest) = text.strip_prefix("Implicitly added element ") {
            self.replace(pid, rest);
            return;
        }
        let Some(text) = text.strip_prefix("RPM callback ") else {
            return;
        };
        let process = self.processes.get(&pid);
        if let Some(total) = text.strip_prefix("transaction start, total ") {
            add(Said::Run);
            if let Some(command) = process.and_then(|process| process.command.clone()) {
                add(Said::Command(command));
            }
            add(Said::Elements(total.parse().unwrap_or_default()));
        } else if let Some(rest) = text.strip_prefix("install stop ") {
            let change = quoted(rest)
                .and_then(Nevra::read)
                .map(|package| PackageChange {
                    action: PackageAction::Installed,
                    name: package.name,
                    arch: package.arch,
                    to: Some(package.version),
                    ..PackageChange::default()
                });
            if let Some(change) = change {
                add(Said::Change(change));
            }
            add(Said::Element);
        } else if let Some(package) = text.strip_prefix("uninstall stop ").and_then(quoted) {
            let is_replaced = process.is_some_and(|process| process.replaced.contains(package));
            if let Some(package) = Nevra::read(package) {
                add(gone(package, is_replaced));
            }
            add(Said::Element);
        } else if text.starts_with("start ") && text.contains(" scriptlet ") {
            add(Said::ScriptStarts);
        } else if text.starts_with("stop ") && text.contains(" scriptlet ") {
            add(Said::ScriptEnds);
        } else if text.starts_with("error in ") || text.starts_with("unpack error ") {
            add(Said::Error(field(text)));
        }
    }
}

impl Log {
    fn start(&mut self, pid: u32, command: String) {
        let process = Process {
            command: Some(command),
            ..Process::default()
        };
        self.processes.insert(pid, process);
        if self.processes.len() > PROCESSES {
            self.processes.pop_first();
        }
    }

    /// `OLD type remove package (caused by NEW)`.
    fn replace(&mut self, pid: u32, text: &str) {
        let Some((old, rest)) = text.split_once(" type remove package (caused by ") else {
            return;
        };
        let names = [old, rest.trim_end_matches(')')].map(|it| Nevra::read(it).map(|it| it.name));
        let is_same = matches!(names, [Some(ref old), Some(ref new)] if old == new);
        if let Some(process) = self.processes.get_mut(&pid)
            && is_same
            && process.replaced.len() < MOST_CHANGES
        {
            process.replaced.insert(old.to_owned());
        }
    }
}

fn gone(package: Nevra, is_replaced: bool) -> Said {
    let Nevra {
        name,
        arch,
        version,
    } = package;
    if is_replaced {
        return Said::Before {
            name,
            arch,
            version,
        };
    }
    Said::Change(PackageChange {
        action: PackageAction::Removed,
        name,
        arch,
        from: Some(version),
        ..PackageChange::default()
    })
}

fn quoted(text: &str) -> Option<&str> {
    let (text, _) = text.strip_prefix('"')?.split_once('"')?;
    Some(text)
}

fn read(line: &str) -> Option<(Stamp, u32, &str)> {
    let (stamp, rest) = Stamp::with_offset(line)?;
    let (pid, rest) = rest.trim_start().strip_prefix('[')?.split_once("] ")?;
    let (_, text) = rest.split_once(' ')?;
    Some((stamp, pid.parse().ok()?, text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rpm_calls_back_is_a_run_of_a_command() {
        // After https://github.com/rpm-software-management/dnf5/issues/1949 and 1717, and libdnf5's source.
        let text = "2025-01-23T09:23:30+0000 [1217] INFO --- DNF5 launched with arguments: \"dnf upgrade alsa-sof-firmware\" ---\n\
            2025-01-23T09:23:30+0000 [1217] DEBUG Implicitly added element alsa-sof-firmware-0:2024.09.2-2.fc42.noarch type remove package (caused by alsa-sof-firmware-0:2024.09.2-3.fc42.noarch)\n\
            2025-01-23T09:23:30+0000 [1217] INFO RPM callback verify start, total 1\n\
            2025-01-23T09:23:30+0000 [1217] INFO RPM callback transaction start, total 2\n\
            2025-01-23T09:23:30+0000 [1217] INFO RPM callback transaction stop, total 2\n\
            2025-01-23T09:23:31+0000 [1217] INFO RPM callback install start \"alsa-sof-firmware-0:2024.09.2-3.fc42.noarch\" total 54172\n\
            2025-01-23T09:23:32+0000 [1217] INFO RPM callback install stop \"alsa-sof-firmware-0:2024.09.2-3.fc42.noarch\" amount 54172 total 54172\n\
            2025-01-23T09:23:32+0000 [1217] INFO RPM callback uninstall stop \"alsa-sof-firmware-0:2024.09.2-2.fc42.noarch\" amount 10 total 10\n\
            2025-01-23T09:23:32+0000 [1217] INFO RPM callback uninstall stop \"kernel-0:6.1-1.fc42.x86_64\" amount 10 total 10\n\
            2025-01-23T09:23:33+0000 [1217] INFO RPM callback start trigger-install scriptlet \"man-db-0:2.11.2-5.fc39.x86_64\"\n\
            2025-01-23T09:23:33+0000 [1217] ERROR RPM callback error in trigger-install scriptlet \"man-db-0:2.11.2-5.fc39.x86_64\" return code 1\n\
            2025-01-23T09:23:33+0000 [1217] INFO RPM callback stop trigger-install scriptlet \"man-db-0:2.11.2-5.fc39.x86_64\" return code 1\n";
        let (mut log, mut said) = (Log::default(), Vec::new());
        for line in text.lines() {
            log.line(line, &mut said);
        }
        let said: Vec<_> = said.into_iter().map(|(_, said)| said).collect();
        let package = |action, name: &str, arch: &str, from: Option<&str>, to: Option<&str>| {
            Said::Change(PackageChange {
                action,
                name: name.to_owned(),
                arch: arch.to_owned(),
                from: from.map(str::to_owned),
                to: to.map(str::to_owned),
                ..PackageChange::default()
            })
        };
        let alsa = "alsa-sof-firmware";
        assert_eq!(
            said,
            [
                Said::Run,
                Said::Command(format!("dnf upgrade {alsa}")),
                Said::Elements(2),
                package(PackageAction::Installed, alsa, "noarch", None, Some("2024.09.2-3.fc42")),
                Said::Element,
                Said::Before {
                    name: alsa.to_owned(),
                    arch: "noarch".to_owned(),
                    version: "2024.09.2-2.fc42".to_owned(),
                },
                Said::Element,
                package(PackageAction::Removed, "kernel", "x86_64", Some("6.1-1.fc42"), None),
                Said::Element,
                Said::ScriptStarts,
                Said::Error(
                    "error in trigger-install scriptlet \"man-db-0:2.11.2-5.fc39.x86_64\" return code 1".to_owned()
                ),
                Said::ScriptEnds,
            ]
        );
    }
}
