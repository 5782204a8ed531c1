//! `/etc/infratrack/backup.toml`: what this host's root allows backups to do. Which paths may be read, what is run under which
//! name, and for whom keys are wrapped stand here alone: a collector can choose among them and add nothing.
//!
//! It is root's, and so is its folder, or nothing is done: who could write it could read every file and run any program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::Uid;
use serde::Deserialize;
use thiserror::Error;

use super::keys::Recipient;

/// Where it is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/infratrack/backup.toml";
/// Fewer can be lost together.
pub const LEAST_RECIPIENTS: usize = 2;
/// Much more than anybody writes.
const MAX_BYTES: u64 = 1024 * 1024;
const MAX_RECIPIENTS: usize = 20;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allowed {
    /// Public keys for whom the volumes' keys are wrapped: `age1…`, `ssh-ed25519 …`, `ssh-rsa …`.
    pub recipients: Vec<String>,
    /// Nothing outside of them is read.
    pub allowed_paths: Vec<PathBuf>,
    /// By the names that volumes use.
    pub programs: BTreeMap<String, Program>,
    pub hooks: BTreeMap<String, Hook>,
    /// What a restore drill may take of the disk at most; however much that is, a tenth of the file system stays free.
    pub drill_max_bytes: Option<u64>,
}

/// What makes a volume's content, or does a backup of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The program, absolute, and its arguments. No shell reads them.
    pub argv: Vec<String>,
    #[serde(default = "hours_6", with = "humantime_serde")]
    pub timeout: Duration,
    /// Less is no backup.
    #[serde(default = "one")]
    pub min_bytes: u64,
    /// So much less than the last time is no backup.
    #[serde(default = "half")]
    pub max_shrink_percent: u8,
    /// As whom it runs; root where it is not said.
    #[serde(default)]
    pub user: Option<String>,
    /// Beside `PATH`, `HOME` and `LANG`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it runs.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// How a drill finds out whether what it wrote is good.
    #[serde(default)]
    pub check: Option<Check>,
    /// Likewise: a program that has it as its standard input, and ends with 0 where it is good.
    #[serde(default)]
    pub check_argv: Vec<String>,
}

/// A check that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The program is `pg_dump`: its rows are counted as it runs, and again when its dump was loaded into a throwaway cluster.
    PgDump,
}

/// What is run before a volume is read, or after.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    pub argv: Vec<String>,
    #[serde(default = "minutes_10", with = "humantime_serde")]
    pub timeout: Duration,
}

fn hours_6() -> Duration {
    Duration::from_secs(6 * 3600)
}

fn minutes_10() -> Duration {
    Duration::from_secs(600)
}

fn one() -> u64 {
    1
}

fn half() -> u8 {
    50
}

/// Why nothing is allowed.
#[derive(Debug, Error)]
pub enum AllowedError {
    #[error("cannot {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is not trusted: {why}", path.display())]
    NotTrusted { path: PathBuf, why: String },
    #[error("{} is not valid", path.display())]
    Invalid {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("{}: {key} {what}", path.display())]
    Value {
        path: PathBuf,
        key: String,
        what: String,
    },
}

impl Allowed {
    /// Reads it.
    pub fn load(path: &Path) -> Result<Self, AllowedError> {
        let text = read_trusted(path)?;
        let allowed: Self = toml::from_str(&text).map_err(|source| AllowedError::Invalid {
            path: path.to_owned(),
            source: source.into(),
        })?;
        allowed.check().map_err(|(key, what)| AllowedError::Value {
            path: path.to_owned(),
            key,
            what,
        })?;
        Ok(allowed)
    }

    /// For whom keys are wrapped; `None` where they are too few for a backup.
    pub fn recovery(&self) -> Option<Vec<Recipient>> {
        let parsed = self.recipients.iter().map(|text| text.parse());
        let parsed: Vec<Recipient> = parsed.collect::<Result<_, _>>().ok()?;
        (parsed.len() >= LEAST_RECIPIENTS).then_some(parsed)
    }

    /// What is wrong, and at which key.
    fn check(&self) -> Result<(), (String, String)> {
        if self.recipients.len() > MAX_RECIPIENTS {
            let what = format!("has more than {MAX_RECIPIENTS} recipients");
            return Err(("recipients".to_owned(), what));
        }
        let mut known = BTreeSet::new();
        for (at, text) in self.recipients.iter().enumerate() {
            let key = || format!("recipients[{at}]");
            let recipient: Recipient = text.parse().map_err(|error| (key(), format!("{error}")))?;
            if !known.insert(recipient.to_string()) {
                return Err((key(), "is there twice".to_owned()));
            }
        }
        for (at, path) in self.allowed_paths.iter().enumerate() {
            absolute(path).map_err(|what| (format!("allowed_paths[{at}]"), what))?;
        }
        for (name, program) in &self.programs {
            let key = format!("programs.{name}");
            runnable(&key, name, &program.argv, program.timeout)?;
            if program.max_shrink_percent > 100 {
                let key = format!("{key}.max_shrink_percent");
                return Err((key, "is over 100".to_owned()));
            }
            if let Some(directory) = &program.directory {
                absolute(directory).map_err(|what| (format!("{key}.directory"), what))?;
            }
            checkable(&key, program)?;
            for (name, value) in &program.env {
                if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                    let what = "is no name or has no value of an environment".to_owned();
                    return Err((format!("{key}.env.{name}"), what));
                }
            }
        }
        for (name, hook) in &self.hooks {
            runnable(&format!("hooks.{name}"), name, &hook.argv, hook.timeout)?;
        }
        Ok(())
    }
}

fn runnable(
    key: &str,
    name: &str,
    argv: &[String],
    timeout: Duration,
) -> Result<(), (String, String)> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(is_name) {
        let what = "has to be named with letters, digits and -_.".to_owned();
        return Err((key.to_owned(), what));
    }
    let program = argv.first().map(Path::new);
    let program = program.ok_or((format!("{key}.argv"), "is empty".to_owned()))?;
    absolute(program).map_err(|what| (format!("{key}.argv[0]"), what))?;
    if let Some(at) = argv.iter().position(|word| word.contains('\0')) {
        return Err((format!("{key}.argv[{at}]"), "has a NUL".to_owned()));
    }
    if !(SHORTEST..=LONGEST).contains(&timeout) {
        let what = "is not from 1 s to 7 days".to_owned();
        return Err((format!("{key}.timeout"), what));
    }
    Ok(())
}

fn checkable(key: &str, program: &Program) -> Result<(), (String, String)> {
    if program.check.is_some() && !program.check_argv.is_empty() {
        let what = "is there beside check".to_owned();
        return Err((format!("{key}.check_argv"), what));
    }
    let name = program
        .argv
        .first()
        .map(Path::new)
        .and_then(Path::file_name);
    if program.check == Some(Check::PgDump) && name.is_none_or(|name| name != "pg_dump") {
        let what = "is pg_dump, and argv[0] is not".to_owned();
        return Err((format!("{key}.check"), what));
    }
    if let Some(checker) = program.check_argv.first() {
        absolute(Path::new(checker)).map_err(|what| (format!("{key}.check_argv[0]"), what))?;
    }
    if let Some(at) = program
        .check_argv
        .iter()
        .position(|word| word.contains('\0'))
    {
        return Err((format!("{key}.check_argv[{at}]"), "has a NUL".to_owned()));
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<(), String> {
    if path.is_absolute() {
        Ok(())
    } else {
        Err(format!("is not absolute: {}", path.display()))
    }
}

/// The text of a file that nobody but root, or who runs this, could have written.
fn read_trusted(path: &Path) -> Result<String, AllowedError> {
    let failed = |doing| {
        move |source| AllowedError::File {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    let not_trusted = |path: &Path, why: String| AllowedError::NotTrusted {
        path: path.to_owned(),
        why,
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let folder = fs::metadata(parent).map_err(failed("look at the folder of"))?;
    whose(&folder).map_err(|why| not_trusted(parent, why))?;
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(failed("open"))?;
    let metadata = file.metadata().map_err(failed("look at"))?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        let why = format!("it is no file of at most {MAX_BYTES} bytes");
        return Err(not_trusted(path, why));
    }
    whose(&metadata).map_err(|why| not_trusted(path, why))?;
    let mut text = String::new();
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(failed("read"))?;
    Ok(text)
}

fn whose(metadata: &fs::Metadata) -> Result<(), String> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != 0 && owner != Uid::effective().as_raw() {
        return Err(format!("it belongs to the user {owner}, not to root"));
    }
    if mode & 0o022 != 0 {
        return Err(format!("its mode {mode:o} lets others write it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ONE: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    const SSH: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";

    fn load(text: &str) -> Result<Allowed, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Allowed::load(&path).map_err(|error| match &error {
            AllowedError::Value { key, what, .. } => format!("{key} {what}"),
            AllowedError::Invalid { source, .. } => source.to_string(),
            AllowedError::File { .. } | AllowedError::NotTrusted { .. } => error.to_string(),
        })
    }

    #[test]
    fn a_whole_configuration_is_read_and_an_empty_one_allows_nothing() {
        let allowed = load(&format!(
            r#"
            recipients = ["{ONE}", "{SSH} of the vault"]
            allowed_paths = ["/etc", "/srv"]
            [programs.db]
            argv = ["/usr/bin/pg_dump", "-Fc", "-Z0", "shop"]
            timeout = "2h"
            user = "postgres"
            env = {{ PGHOST = "/run/postgresql" }}
            [hooks.freeze]
            argv = ["/usr/local/sbin/freeze"]
            "#
        ))
        .unwrap();
        assert_eq!(allowed.recovery().unwrap().len(), 2);
        let program = &allowed.programs["db"];
        assert_eq!((program.min_bytes, program.max_shrink_percent), (1, 50));
        assert_eq!(program.timeout, Duration::from_secs(7200));
        assert_eq!(allowed.hooks["freeze"].timeout, minutes_10());
        let empty = load("").unwrap();
        assert!(empty.recovery().is_none() && empty.allowed_paths.is_empty());
        assert!(
            load(&format!("recipients = [\"{ONE}\"]"))
                .unwrap()
                .recovery()
                .is_none()
        );
    }

    #[test]
    fn every_recipe_of_the_documentation_is_valid() {
        let document = include_str!("../../../docs/backup-programs.md");
        let blocks: Vec<_> = document.split("```toml\n").skip(1).collect();
        assert!(blocks.len() > 5);
        for block in blocks {
            let (block, _) = block.split_once("```").unwrap();
            let block = block.replace("age1…", ONE);
            let block = block.replace("ssh-ed25519 AAAA… vault", SSH);
            load(&block).unwrap_or_else(|error| panic!("{block}: {error}"));
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let cases = [
            ("recipient = []", "unknown field `recipient`"),
            ("recipients = [\"nobody\"]", "recipients[0] "),
            (
                &format!("recipients = [\"{SSH} a\", \"{SSH} b\"]"),
                "recipients[1] is there twice",
            ),
            (
                "allowed_paths = [\"/a\", \"b\"]",
                "allowed_paths[1] is not absolute: b",
            ),
            ("[programs.a]\nargv = []", "programs.a.argv is empty"),
            (
                "[programs.a]\nargv = [\"sh\"]",
                "programs.a.argv[0] is not absolute: sh",
            ),
            (
                "[programs.a]\nargv = [\"/a\"]\nmax_shrink_percent = 101",
                "programs.a.max_shrink_percent is over 100",
            ),
            (
                "[programs.a]\nargv = [\"/a\"]\ntimeout = \"0s\"",
                "programs.a.timeout is not from",
            ),
            (
                "[programs.a]\nargv = [\"/a\"]\nenv = { \"B=C\" = \"\" }",
                "programs.a.env.B=C ",
            ),
            (
                "[programs.a]\nargv = [\"/a\"]\ndirectory = \"b\"",
                "programs.a.directory is not absolute: b",
            ),
            (
                "[programs.a]\nargv = [\"/a\"]\nshell = true",
                "unknown field `shell`",
            ),
            (
                "[programs.\"../a\"]\nargv = [\"/a\"]",
                "programs.../a has to be named",
            ),
            (
                "[hooks.a]\nargv = [\"a\"]",
                "hooks.a.argv[0] is not absolute: a",
            ),
            (
                "[programs.a]\nargv = [\"/a\"]\ncheck = \"pg_dump\"",
                "programs.a.check is pg_dump",
            ),
            (
                "[programs.a]\nargv = [\"/a\"]\ncheck_argv = [\"b\"]",
                "programs.a.check_argv[0] is not absolute: b",
            ),
        ];
        for (text, expected) in cases {
            let error = load(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_or_folder_that_others_can_write_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup.toml");
        fs::write(&path, "").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let refused = || Allowed::load(&path).unwrap_err().to_string();
        for bad in [0o620, 0o602] {
            mode(&path, bad);
            assert!(refused().contains(&format!("its mode {bad:o} lets others")));
        }
        mode(&path, 0o600);
        mode(dir.path(), 0o770);
        assert!(refused().contains("its mode 770 lets others"));
        mode(dir.path(), 0o700);
        assert!(Allowed::load(&path).is_ok());
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Allowed::load(&link).is_err());
        if Uid::effective().is_root() {
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            assert!(refused().contains("belongs to the user 12345"));
        }
    }
}
