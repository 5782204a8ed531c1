//! The form of a state, and how an answer is written down in one.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use infratrack_agent::updates::{self, Answer, Host};
use infratrack_shared::wire::packages::PendingUpdate;

const EXPECTED: &str = "expected";

/// A state: sections by their headings, in their order.
pub(crate) struct State {
    path: PathBuf,
    pub(crate) name: String,
    sentence: String,
    pub(crate) sections: Vec<(String, String)>,
}

impl State {
    /// The states of a folder.
    pub(crate) fn all(folder: &str) -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/states")
            .join(folder);
        let entries = fs::read_dir(&folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
            .collect();
        paths.sort();
        paths.into_iter().map(Self::read).collect()
    }

    /// Each of a folder, two at a time: most of the time goes into programs that start.
    pub(crate) fn each(folder: &str, least: usize, check: impl Fn(&Self) -> Answer + Sync) {
        let states = Self::all(folder);
        assert!(states.len() >= least, "{} states", states.len());
        let (one, other) = states.split_at(states.len() / 2);
        let all = |states: &[Self]| {
            for state in states {
                state.expect(&check(state));
            }
        };
        std::thread::scope(|scope| {
            let half = scope.spawn(|| all(one));
            all(other);
            half.join().unwrap();
        });
    }

    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut parts = text.split("\n--- ");
        let sentence = parts.next().unwrap().to_owned();
        let sections = parts.map(|part| {
            let (heading, body) = part.split_once('\n').unwrap_or((part, ""));
            (heading.to_owned(), body.to_owned())
        });
        Self {
            name,
            sentence,
            sections: sections.collect(),
            path,
        }
    }

    pub(crate) fn section(&self, heading: &str) -> Option<&str> {
        let mut sections = self.sections.iter();
        let (_, body) = sections.find(|(name, _)| name == heading)?;
        Some(body)
    }

    /// The sections `KIND NAME`, by their names.
    pub(crate) fn named(&self, kind: &str) -> Vec<(&str, &str)> {
        let named = self.sections.iter().filter_map(|(heading, body)| {
            let name = heading.strip_prefix(kind)?.strip_prefix(' ')?;
            Some((name, body.as_str()))
        });
        named.collect()
    }

    /// Writes the sections whose headings are paths below `root`.
    pub(crate) fn write_files(&self, root: &Path) {
        for (heading, body) in &self.sections {
            if heading.contains('/') && !heading.contains(' ') {
                write(&root.join(heading), body);
            }
        }
    }

    /// Compares the answer with the one that is expected.
    pub(crate) fn expect(&self, answer: &Answer) {
        let told = told(answer);
        if std::env::var_os("INFRATRACK_RECORD").is_some() {
            let mut text = self.sentence.clone();
            for (heading, body) in &self.sections {
                if heading != EXPECTED {
                    write!(text, "\n--- {heading}\n{}", body.trim_end_matches('\n')).unwrap();
                }
            }
            write!(text, "\n--- {EXPECTED}\n{told}").unwrap();
            fs::write(&self.path, text).unwrap();
            return;
        }
        let expected = self.section(EXPECTED).unwrap_or_default();
        assert_eq!(told.trim(), expected.trim(), "{}", self.path.display());
    }
}

/// What a tool answers of this host, through the form in which the unit stores it.
pub(crate) fn ask(host: &Host, name: &str) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stored = runtime.block_on(updates::answer(host, name)).unwrap();
    // Roots have other names each time.
    let stored = String::from_utf8(stored).unwrap();
    let stored = stored.replace(host.scratch.to_str().unwrap(), "ROOT");
    serde_json::from_str(&stored).unwrap()
}

/// An answer as lines.
fn told(answer: &Answer) -> String {
    let mut text = String::new();
    let check = &answer.check;
    writeln!(text, "{:?} {}", check.manager, check.tool).unwrap();
    if let Some(unknown) = &check.unknown {
        writeln!(text, "unknown: {unknown}").unwrap();
    }
    let has_metadata = check.metadata_at_s.is_some();
    assert!(
        has_metadata || check.unknown.is_some(),
        "metadata has an age"
    );
    for warning in &check.warnings {
        writeln!(text, "warning: {warning}").unwrap();
    }
    for update in &answer.pending {
        writeln!(text, "{}", line(update)).unwrap();
    }
    text
}

fn line(update: &PendingUpdate) -> String {
    let PendingUpdate {
        name,
        arch,
        installed,
        candidate,
        ..
    } = update;
    let mut text = format!("{name} {arch} {installed} -> {candidate}");
    if let Some(source) = &update.source {
        write!(text, ", built from {source}").unwrap();
    }
    match update.security {
        Some(true) => text.push_str(", security"),
        Some(false) => {}
        None => text.push_str(", security unknown"),
    }
    if let Some(severity) = &update.severity {
        write!(text, " {severity}").unwrap();
    }
    if !update.advisories.is_empty() {
        write!(text, " by {}", update.advisories.join(" ")).unwrap();
    }
    if let Some(repository) = &update.repository {
        write!(text, ", of {repository}").unwrap();
    }
    if let Some(blocked) = &update.blocked {
        write!(text, ", {:?}", blocked.why).unwrap();
        if let Some(detail) = &blocked.detail {
            write!(text, " ({detail})").unwrap();
        }
    }
    text
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Runs a program that must end well, or with one of `codes`.
pub(crate) fn run(command: &mut Command, codes: &[i32]) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; make deps-updates installs it"));
    let code = output.status.code().unwrap();
    assert!(
        code == 0 || codes.contains(&code),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
