//! `facts.updates`: what the package manager would upgrade, and which of it for security.
//!
//! The answer is another unit's (see [`crate::updates`]): asked for when the packages, their lists or their
//! sources changed after it, and read the next time facts are collected. Until then the one before stands.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use super::fact::to_value;
use super::{Reason, Root};
use crate::updates::{APT, RESULTS, SOCKET};

/// What changes the answer. A directory's time is that of its last file that came or went.
const INPUTS: &[&str] = &[
    "var/lib/dpkg/status",
    "var/lib/apt/lists",
    "var/lib/apt/extended_states",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d",
    "etc/apt/preferences",
    "etc/apt/preferences.d",
];
const APT_GET: &str = "usr/bin/apt-get";
const LIMIT: Duration = Duration::from_secs(1);

/// The body of `facts.updates`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    if !root.exists(APT_GET) {
        return Err("no apt here, and no other package manager is asked yet".to_owned());
    }
    let result = format!("{RESULTS}/{APT}.json");
    let changed = |path: &str| root.path(path).metadata().ok()?.modified().ok();
    let answered = changed(&result);
    let newest = INPUTS.iter().filter_map(|input| changed(input)).max();
    if is_stale(answered, newest) {
        let asked = ask(root);
        if answered.is_none() {
            asked?;
            return Err("asked for, and not answered yet".to_owned());
        }
    }
    let answer: serde_json::Value = serde_json::from_str(&root.text(&result)?)
        .map_err(|error| format!("/{result}: {error}"))?;
    to_value(&answer)
}

fn is_stale(answered: Option<SystemTime>, newest: Option<SystemTime>) -> bool {
    answered.is_none_or(|answered| newest.is_some_and(|newest| newest >= answered))
}

fn ask(root: &Root) -> Result<(), Reason> {
    let said = |error: std::io::Error| {
        format!("/{SOCKET}: {error}; does systemctl status infratrack-updates.socket say why?")
    };
    let mut stream = UnixStream::connect(root.path(SOCKET)).map_err(said)?;
    stream.set_write_timeout(Some(LIMIT)).map_err(said)?;
    stream.write_all(APT.as_bytes()).map_err(said)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::collect::fixture;

    #[test]
    fn the_unit_is_asked_once_its_answer_stands_until_packages_change() {
        let (keep, root) = fixture::host(&[
            ("usr/bin/apt-get", ""),
            ("var/lib/dpkg/status", ""),
            ("run/infratrack-updates/other", ""),
        ]);
        let told = || collect(&root).map(|body| fixture::json(&body));
        let without = told().unwrap_err();
        assert!(
            without.starts_with("/run/infratrack-updates.sock: "),
            "{without}"
        );
        let unit = UnixListener::bind(keep.path().join(SOCKET)).unwrap();
        unit.set_nonblocking(true).unwrap();
        let asked = || {
            let mut name = String::new();
            unit.accept().ok()?.0.read_to_string(&mut name).ok()?;
            Some(name)
        };
        assert_eq!(told().unwrap_err(), "asked for, and not answered yet");
        assert_eq!(asked().as_deref(), Some("apt"));

        let result = keep.path().join("run/infratrack-updates/apt.json");
        fs::write(&result, r#"{"manager":"apt","pending":0}"#).unwrap();
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        let file = fs::File::options().write(true).open(&result).unwrap();
        file.set_modified(later).unwrap();
        assert_eq!(told().unwrap()["pending"], 0);
        assert_eq!(asked(), None, "nothing changed since");

        let status = fs::File::options()
            .write(true)
            .open(keep.path().join("var/lib/dpkg/status"))
            .unwrap();
        status.set_modified(later + Duration::from_secs(1)).unwrap();
        assert_eq!(told().unwrap()["pending"], 0, "the answer before stands");
        assert_eq!(asked().as_deref(), Some("apt"));
    }

    #[test]
    fn an_answer_that_is_none_is_a_reason() {
        let (_keep, root) = fixture::host(&[
            ("usr/bin/apt-get", ""),
            ("run/infratrack-updates/apt.json", "{"),
        ]);
        let reason = collect(&root).unwrap_err();
        assert!(
            reason.starts_with("/run/infratrack-updates/apt.json: "),
            "{reason}"
        );
    }
}
