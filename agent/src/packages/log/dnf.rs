//! The logs of dnf 4: `/var/log/dnf.log` tells whose transaction it is and when it ends, `/var/log/dnf.rpm.log` which packages.
//! A line is `TIME LEVEL TEXT`, the time with its offset from UTC.

use infratrack_shared::wire::event::{PackageAction, PackageChange};

use super::super::field;
use super::apt::command;
use super::rpm::Nevra;
use super::{Parser, Said, Stamp};

/// Processes that may be under way at once; more than one, and it can't be told which of them begins a transaction.
const PROCESSES: usize = 16;
/// One that says nothing more this long has died.
const DEAD_MS: i64 = 60 * 60 * 1000;

/// `dnf.log`.
#[derive(Debug, Default)]
pub struct Log {
    /// What has been started and has not ended: since when, and the command where it has one.
    processes: Vec<(i64, Option<String>)>,
}

impl Parser for Log {
    fn line(&mut self, line: &str, said: &mut Vec<(Stamp, Said)>) {
        let Some((stamp, text)) = read(line) else {
            return;
        };
        let at = stamp.as_utc().0;
        self.processes.retain(|(since, _)| at - since < DEAD_MS);
        match text {
            "--- logging initialized ---" if self.processes.len() < PROCESSES => {
                self.processes.push((at, None));
            }
            "RPM transaction start." => {
                said.push((stamp, Said::Begin));
                if let [(_, Some(command))] = self.processes.as_slice() {
                    said.push((stamp, Said::Command(command.clone())));
                }
            }
            "RPM transaction over." => said.push((stamp, Said::End)),
            "Cleaning up." => {
                self.processes.pop();
                // Which of several it was is not said.
                for (_, command) in &mut self.processes {
                    *command = None;
                }
            }
            _ => {
                if let Some(text) = text.strip_prefix("Command: ")
                    && let Some((_, last)) = self.processes.last_mut()
                {
                    *last = Some(command(text));
                }
            }
        }
    }
}

/// `dnf.rpm.log`.
#[derive(Debug, Default)]
pub struct RpmLog;

impl Parser for RpmLog {
    fn line(&mut self, line: &str, said: &mut Vec<(Stamp, Said)>) {
        let Some((stamp, text)) = read(line) else {
            return;
        };
        if text == "--- logging initialized ---" {
            said.push((stamp, Said::Run));
        } else if text.starts_with("Error ") {
            said.push((stamp, Said::Error(field(text))));
        } else if let Some((word, package)) = text.split_once(": ")
            && let Some(package) = Nevra::read(package)
        {
            said.extend(change(word, package).map(|change| (stamp, change)));
        }
    }
}

/// The words are dnf's `FILE_ACTIONS` (`dnf/transaction.py`): of two packages the first names the version after.
fn change(word: &str, package: Nevra) -> Option<Said> {
    let Nevra {
        name,
        arch,
        version,
    } = package;
    let (action, from, to) = match word {
        "Installed" => (PackageAction::Installed, None, Some(version)),
        "Upgrade" => (PackageAction::Upgraded, None, Some(version)),
        "Downgrade" => (PackageAction::Downgraded, None, Some(version)),
        "Reinstall" => (PackageAction::Reinstalled, None, Some(version)),
        "Erase" | "Obsoleted" => (PackageAction::Removed, Some(version), None),
        "Upgraded" | "Downgraded" | "Reinstalled" => {
            return Some(Said::Before {
                name,
                arch,
                version,
            });
        }
        _ => return None,
    };
    Some(Said::Change(PackageChange {
        action,
        name,
        arch,
        from,
        to,
        ..PackageChange::default()
    }))
}

/// The time, and the text after the level.
fn read(line: &str) -> Option<(Stamp, &str)> {
    let (stamp, rest) = Stamp::with_offset(line)?;
    let (_, text) = rest.trim_start().split_once(' ')?;
    Some((stamp, text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parser: &mut dyn Parser, text: &str) -> Vec<Said> {
        let mut said = Vec::new();
        for line in text.lines() {
            parser.line(line, &mut said);
        }
        said.into_iter().map(|(_, said)| said).collect()
    }

    #[test]
    fn a_transaction_has_the_command_of_the_only_process_there_is() {
        // As dnf 4.14 writes it, shortened.
        let one = "2026-11-22T13:26:20+0000 INFO --- logging initialized ---\n\
            2026-11-22T13:26:20+0000 DDEBUG timer: config: 0 ms\n\
            2026-11-22T13:26:20+0000 DDEBUG Command: dnf -y install two one-1.0\n\
            2026-11-22T13:26:20+0000 INFO Dependencies resolved.\n================\n Package\n\
            2026-11-22T13:26:20+0000 DDEBUG RPM transaction start.\n\
            2026-11-22T13:26:20+0000 DDEBUG RPM transaction over.\n\
            2026-11-22T13:26:20+0000 DDEBUG Cleaning up.\n";
        let expected = [
            Said::Begin,
            Said::Command("dnf -y install two one-1.0".to_owned()),
            Said::End,
        ];
        let mut log = Log::default();
        assert_eq!(read(&mut log, one), expected);
        assert_eq!(read(&mut log, one), expected);

        let meanwhile = "2026-11-22T13:26:20+0000 INFO --- logging initialized ---\n\
            2026-11-22T13:26:20+0000 DDEBUG Command: dnf makecache --timer\n";
        assert_eq!(read(&mut log, meanwhile), []);
        let end = "2026-11-22T13:26:20+0000 DDEBUG Cleaning up.\n";
        assert_eq!(
            read(&mut log, one),
            [Said::Begin, Said::End],
            "whose is it?"
        );
        assert_eq!(read(&mut log, end), []);
        assert_eq!(read(&mut log, one), expected);
    }

    #[test]
    fn packages_are_what_the_log_of_rpm_says() {
        let text = "2026-11-22T13:26:20+0000 INFO --- logging initialized ---\n\
            2026-11-22T13:26:20+0000 SUBDEBUG Upgrade: one-2.0-1.noarch\n\
            2026-11-22T13:26:20+0000 SUBDEBUG Upgraded: one-1.0-1.noarch\n\
            2026-11-22T13:26:21+0000 SUBDEBUG Erase: two-1.0-1.noarch\n\
            2026-11-22T13:26:21+0000 ERROR Error in POSTIN scriptlet in rpm package two\n\
            2026-11-22T13:26:21+0000 INFO warning: /etc/x saved as /etc/x.rpmsave\n";
        let said = read(&mut RpmLog, text);
        let [
            Said::Run,
            Said::Change(upgrade),
            Said::Before { version, .. },
            Said::Change(erase),
            Said::Error(error),
        ] = said.as_slice()
        else {
            panic!("{said:?}");
        };
        assert_eq!(
            (upgrade.action, upgrade.to.as_deref(), version.as_str()),
            (PackageAction::Upgraded, Some("2.0-1"), "1.0-1")
        );
        assert_eq!(
            (erase.action, erase.from.as_deref(), erase.to.as_deref()),
            (PackageAction::Removed, Some("1.0-1"), None)
        );
        assert_eq!(error, "Error in POSTIN scriptlet in rpm package two");
    }
}
