//! The answers of the unit that runs package managers (see [`crate::updates`]): asked for when what they stand on changed after
//! them, and read whenever somebody wants them. Until there is another one, the answer before stands.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use super::{Reason, Root};
use crate::updates::{RESULTS, SOCKET};

const LIMIT: Duration = Duration::from_secs(1);
/// An answer of the most packages that are told is smaller.
const BYTES: u64 = 64 * 1024 * 1024;

/// What can be asked.
pub(super) struct Question {
    /// One of the unit's names.
    pub(super) name: &'static str,
    /// What changes the answer. A directory's time is that of its last file that came or went; `*` is any one name.
    pub(super) inputs: &'static [&'static str],
}

impl Question {
    fn path(&self) -> String {
        format!("{RESULTS}/{}.json", self.name)
    }

    /// The answer's time is that of its question, so that nothing that changed in between is missed.
    pub(super) fn is_stale(&self, root: &Root) -> bool {
        let Some(answered) = changed(root, &self.path()) else {
            return true;
        };
        let newest = self.inputs.iter().filter_map(|input| newest(root, input));
        newest.max().is_some_and(|newest| newest >= answered)
    }

    /// The answer that is there.
    pub(super) fn answer<T: DeserializeOwned>(&self, root: &Root) -> Result<T, Reason> {
        let path = self.path();
        if !root.exists(&path) {
            return Err("asked for, and not answered yet".to_owned());
        }
        let said = |error: &dyn std::fmt::Display| format!("/{path}: {error}");
        let mut text = Vec::new();
        let mut file = root.open(&path, BYTES).map_err(|error| said(&error))?;
        file.read_to_end(&mut text).map_err(|error| said(&error))?;
        serde_json::from_slice(&text).map_err(|error| said(&error))
    }
}

/// Asks for new answers to those that are stale, all at once: the unit takes one connection at a time.
pub(super) fn ask(root: &Root, questions: &[&Question]) -> Result<(), Reason> {
    let stale = questions.iter().filter(|question| question.is_stale(root));
    let names: Vec<_> = stale.map(|question| question.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let said = |error: std::io::Error| {
        format!("/{SOCKET}: {error}; does systemctl status infratrack-updates.socket say why?")
    };
    let mut stream = UnixStream::connect(root.path(SOCKET)).map_err(said)?;
    stream.set_write_timeout(Some(LIMIT)).map_err(said)?;
    stream.write_all(names.join(" ").as_bytes()).map_err(said)
}

fn changed(root: &Root, path: &str) -> Option<SystemTime> {
    root.path(path).metadata().ok()?.modified().ok()
}

fn newest(root: &Root, path: &str) -> Option<SystemTime> {
    let Some((directory, rest)) = path.split_once("/*/") else {
        return changed(root, path);
    };
    let names = root.names(directory).ok()?;
    let all = names
        .iter()
        .map(|name| format!("{directory}/{name}/{rest}"));
    all.filter_map(|path| changed(root, &path)).max()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::collect::fixture;

    const APT: Question = Question {
        name: "apt",
        inputs: &["status", "cache/*/index"],
    };
    const RPM: Question = Question {
        name: "rpm",
        inputs: &[],
    };

    fn touch(root: &Root, path: &str, seconds: u64) {
        let file = File::options().write(true).open(root.path(path)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            .unwrap();
    }

    #[test]
    fn what_is_stale_is_asked_for_at_once_and_the_answer_before_stands() {
        let (keep, root) = fixture::host(&[
            ("status", ""),
            ("cache/a/index", ""),
            ("run/infratrack-updates/other", ""),
        ]);
        let without = ask(&root, &[&APT, &RPM]).unwrap_err();
        assert!(
            without.starts_with("/run/infratrack-updates.sock: "),
            "{without}"
        );
        let unit = UnixListener::bind(keep.path().join(SOCKET)).unwrap();
        unit.set_nonblocking(true).unwrap();
        let asked = || {
            ask(&root, &[&APT, &RPM]).unwrap();
            let mut names = String::new();
            unit.accept().ok()?.0.read_to_string(&mut names).ok()?;
            Some(names)
        };
        assert_eq!(asked().as_deref(), Some("apt rpm"));
        let answer = || APT.answer::<Vec<u8>>(&root);
        assert_eq!(answer().unwrap_err(), "asked for, and not answered yet");

        for name in ["apt", "rpm"] {
            let path = format!("{RESULTS}/{name}.json");
            fs::write(root.path(&path), "[1]").unwrap();
            touch(&root, &path, 4_000_000_000);
        }
        assert_eq!(asked(), None, "nothing changed since");
        touch(&root, "cache/a/index", 4_000_000_000);
        assert_eq!(
            asked().as_deref(),
            Some("apt"),
            "it may have changed while apt was asked"
        );
        assert_eq!(answer().unwrap(), [1]);
    }

    #[test]
    fn an_answer_that_is_none_is_a_reason() {
        let (_keep, root) = fixture::host(&[("run/infratrack-updates/apt.json", "{")]);
        let reason = APT.answer::<Vec<u8>>(&root).unwrap_err();
        assert!(
            reason.starts_with("/run/infratrack-updates/apt.json: "),
            "{reason}"
        );
    }
}
