//! `/var/log/yum.log` of yum 3 (`yum/rpmtrans.py`, `yum/__init__.py`): `Nov 22 09:57:04 Installed: 1:name-version-release.arch`, in the
//! host's zone and without a year. Nothing tells where a run begins or ends, nor the version before: lines that are far apart
//! are of two runs.

use infratrack_shared::wire::event::{PackageAction, PackageChange};

use super::super::field;
use super::rpm::Nevra;
use super::{Parser, Said, Stamp};

/// Longer than the script of a package takes.
const APART_MS: i64 = 10 * 60 * 1000;

/// See the module.
#[derive(Debug, Default)]
pub struct Log {
    /// When the line before was written, in a year of no meaning.
    before: Option<i64>,
}

impl Parser for Log {
    fn line(&mut self, line: &str, said: &mut Vec<(Stamp, Said)>) {
        let Some((stamp, text)) = Stamp::yearless(line) else {
            return;
        };
        let Some((word, package)) = text.trim_start().split_once(": ") else {
            return;
        };
        let action = match word {
            "Installed" => PackageAction::Installed,
            "Updated" => PackageAction::Upgraded,
            "Erased" | "Obsoleted" => PackageAction::Removed,
            _ => return,
        };
        let Some(change) = change(action, package) else {
            return;
        };
        let at = stamp.as_utc().0;
        let before = self.before.replace(at);
        if before.is_none_or(|before| (at - before).abs() > APART_MS) {
            said.push((stamp, Said::Run));
        }
        said.push((stamp, Said::Change(change)));
    }
}

/// Of what is erased, some versions of yum write the name alone.
fn change(action: PackageAction, text: &str) -> Option<PackageChange> {
    let text = text.trim();
    // Its epoch stands before the name, dnf's before the version.
    let (epoch, rest) = match text.split_once(':') {
        Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => (epoch, rest),
        _ => ("", text),
    };
    let is_removed = action == PackageAction::Removed;
    let Some(package) = Nevra::read(rest) else {
        let is_name = is_removed && !rest.is_empty() && !rest.contains(' ');
        return is_name.then(|| PackageChange {
            action,
            name: field(rest),
            ..PackageChange::default()
        });
    };
    let version = match epoch {
        "" | "0" => package.version,
        epoch => field(&format!("{epoch}:{}", package.version)),
    };
    let (from, to) = if is_removed {
        (Some(version), None)
    } else {
        (None, Some(version))
    };
    Some(PackageChange {
        action,
        name: package.name,
        arch: package.arch,
        from,
        to,
        ..PackageChange::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_package() {
        let text = "Feb 15 10:00:44 Updated: ibus-1.5.5-1.fc20.x86_64\n\
            Feb 15 10:00:45 Installed: 1:openssl-1.0.2k-16.el7.x86_64\n\
            Feb 15 10:00:46 Erased: telnet\n\
            Feb 15 11:00:47 Erased: 0:one-1.0-1.noarch\n\
            Feb 15 10:00:48 one-1.0-1.noarch: 100\nFeb 30 10:00:48 Erased: no-day\nInstalled: no-time-1-1.noarch\n";
        let mut said = Vec::new();
        let mut log = Log::default();
        for line in text.lines() {
            log.line(line, &mut said);
        }
        let told: Vec<_> = said
            .into_iter()
            .map(|(_, said)| {
                let Said::Change(change) = said else {
                    return format!("{said:?}");
                };
                let PackageChange {
                    action,
                    name,
                    arch,
                    from,
                    to,
                    ..
                } = change;
                let version = from.or(to).unwrap_or_default();
                format!("{action:?} {name} {arch} {version}")
            })
            .collect();
        let expected = [
            "Run",
            "Upgraded ibus x86_64 1.5.5-1.fc20",
            "Installed openssl x86_64 1:1.0.2k-16.el7",
            "Removed telnet  ",
            "Run",
            "Removed one noarch 1.0-1",
        ];
        assert_eq!(told, expected);
    }
}
