//! What a program wrote, checked: by a program that reads it, or, where it is PostgreSQL's dump, by loading it into a throwaway
//! cluster and counting its rows.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use infratrack_shared::backup::Counted;
use infratrack_shared::wire::backup::reason;
use infratrack_shared::wire::drill::{CheckOutcome, DrillCheck};

use super::cluster::{Cluster, Loaded, Server};
use super::millis;
use super::scratch::Scratch;
use crate::backup::command::Last;
use crate::backup::config::{Check, Program};
use crate::backup::control::{Control, Failure};
use crate::backup::counted::beside;
use crate::backup::process::{Ended, Input, Launch};

/// Of a list, the beginning is enough; of other output, the end.
const OUTPUT_BYTES: usize = 8 * 1024 * 1024;
/// Where plain SQL says what it is of.
const HEAD_BYTES: u64 = 64 * 1024;
/// A cluster takes so many times its dump, at the least so much.
const TIMES: u64 = 3;
const CLUSTER_BYTES: u64 = 256 * 1024 * 1024;
const NAMED: usize = 10;

/// A dump that was restored.
pub(super) struct Dump<'a> {
    pub(super) program: &'a Program,
    pub(super) control: &'a Control,
    pub(super) scratch: &'a Scratch,
    pub(super) counted: Option<&'a Counted>,
    /// Bytes that may still be taken.
    pub(super) room: u64,
    /// Names of tables may be told.
    pub(super) has_names: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) checks: Vec<DrillCheck>,
    pub(super) tools: Vec<(String, String)>,
    /// To load it.
    pub(super) load_ms: u64,
}

impl Found {
    fn say(&mut self, name: &str, outcome: CheckOutcome, detail: impl Into<String>) {
        self.checks.push(DrillCheck {
            name: name.to_owned(),
            outcome,
            detail: detail.into(),
        });
    }
}

/// How `pg_dump` wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `pg_restore` reads it.
    Archive,
    Sql,
}

impl Dump<'_> {
    pub(super) async fn check(&self) -> Result<Found, Failure> {
        let mut found = Found::default();
        if self.program.check == Some(Check::PgDump) {
            self.postgres(&mut found).await?;
        } else if self.program.check_argv.is_empty() {
            let detail = "backup.toml has no check of its program";
            found.say("recipe", CheckOutcome::Skipped, detail);
        } else {
            self.own(&mut found).await?;
        }
        Ok(found)
    }

    /// The host's own check.
    async fn own(&self, found: &mut Found) -> Result<(), Failure> {
        let begun = Instant::now();
        let (ended, _) = self.run(&self.program.check_argv).await?;
        found.load_ms = millis(begun);
        let outcome = if ended.code == 0 {
            CheckOutcome::Ok
        } else {
            CheckOutcome::Failed
        };
        let detail = format!("it ended with {}; {}", ended.code, ended.complaint);
        found.say("check_argv", outcome, detail);
        Ok(())
    }

    async fn postgres(&self, found: &mut Found) -> Result<(), Failure> {
        let (format, head) = self.look()?;
        let version = match format {
            Format::Sql => server_version(&head),
            Format::Archive => match self.list(found).await? {
                Some(version) => Some(version),
                None => return Ok(()),
            },
        };
        let skip = |found: &mut Found, why: String| {
            found.say("throwaway_cluster", CheckOutcome::Skipped, why);
        };
        let Some(version) = version else {
            skip(
                found,
                "the dump does not say of which version it is".to_owned(),
            );
            return Ok(());
        };
        let Some(server) = Server::find(self.program, &version) else {
            let why = format!("this host has no server of PostgreSQL {version}");
            skip(found, why);
            return Ok(());
        };
        if let Err(why) = self.may_load(format) {
            skip(found, why);
            return Ok(());
        }
        found
            .tools
            .push(("postgres".to_owned(), server.version.clone()));
        let cluster = Cluster::start(self, &server).await?;
        let begun = Instant::now();
        let loaded = cluster.load(format, &self.file()?).await;
        found.load_ms = millis(begun);
        let counted = match &loaded {
            Ok(Loaded::Whole) => cluster.count().await,
            Ok(Loaded::Broken(_)) | Err(_) => None,
        };
        cluster.stop().await;
        match loaded? {
            Loaded::Broken(why) => found.say("throwaway_cluster", CheckOutcome::Failed, why),
            Loaded::Whole => {
                let detail = format!("loaded by PostgreSQL {}", server.version);
                found.say("throwaway_cluster", CheckOutcome::Ok, detail);
                self.compare(found, counted.as_ref());
            }
        }
        Ok(())
    }

    /// What `pg_restore` says is in it: the server's version where it could be read.
    async fn list(&self, found: &mut Found) -> Result<Option<String>, Failure> {
        let argv = [beside(self.program, "pg_restore"), "--list".to_owned()];
        let (ended, output) = self.run(&argv).await?;
        let text = String::from_utf8_lossy(&output);
        let is_entry = |line: &&str| !line.is_empty() && !line.starts_with(';');
        let entries = text.lines().filter(is_entry).count();
        if ended.code != 0 || entries == 0 {
            let (code, complaint) = (ended.code, ended.complaint);
            let detail = format!("it ended with {code} and {entries} entries; {complaint}");
            found.say("pg_restore_list", CheckOutcome::Failed, detail);
            return Ok(None);
        }
        let version = server_version(&text);
        found.say(
            "pg_restore_list",
            CheckOutcome::Ok,
            format!("{entries} entries"),
        );
        let unknown = || "unknown".to_owned();
        if let Some(dumper) = after(&text, "Dumped by pg_dump version: ") {
            found.tools.push(("pg_dump".to_owned(), dumper));
        }
        Ok(Some(version.unwrap_or_else(unknown)))
    }

    /// Whether it can be loaded here; else why not.
    fn may_load(&self, format: Format) -> Result<(), String> {
        let dump = self
            .path()
            .and_then(fs::metadata)
            .map_err(|e| e.to_string())?;
        let wanted = dump.len().saturating_mul(TIMES).max(CLUSTER_BYTES);
        if wanted > self.room {
            return Err(format!(
                "a cluster may take {wanted} bytes, and {} may be taken",
                self.room
            ));
        }
        if nix::unistd::geteuid().is_root() && self.program.user.is_none() {
            return Err("its program has no user, and a cluster is not root's".to_owned());
        }
        let creates = |word: &String| word == "-C" || word == "--create";
        if format == Format::Sql && self.program.argv.iter().any(creates) {
            return Err("plain SQL that creates its database".to_owned());
        }
        if format == Format::Sql && self.counted.is_none() {
            return Err("plain SQL, and its roles were not recorded".to_owned());
        }
        Ok(())
    }

    /// The rows of what was loaded with those that the dump's own transaction had.
    fn compare(&self, found: &mut Found, loaded: Option<&Counted>) {
        let name = "row_counts";
        let Some(counted) = self.counted else {
            let detail = "the rows were not counted when the dump was made";
            found.say(name, CheckOutcome::Skipped, detail);
            return;
        };
        let Some(loaded) = loaded else {
            found.say(
                name,
                CheckOutcome::Failed,
                "what was loaded can't be counted",
            );
            return;
        };
        let differing = differing(counted, loaded);
        let tables = counted.rows.len();
        if differing.is_empty() {
            let rows: u64 = counted.rows.iter().map(|(_, _, rows)| rows).sum();
            let detail = format!("{rows} rows in {tables} tables, all as they were dumped");
            found.say(name, CheckOutcome::Ok, detail);
            return;
        }
        let mut detail = format!("{} of {tables} tables have other rows", differing.len());
        if self.has_names {
            let first: Vec<_> = differing.into_iter().take(NAMED).collect();
            detail = format!("{detail}: {}", first.join(", "));
        }
        found.say(name, CheckOutcome::Failed, detail);
    }

    /// Runs a program as the dump's own, with the dump as its input.
    async fn run(&self, argv: &[String]) -> Result<(Ended, Vec<u8>), Failure> {
        let file = self.file()?;
        let mut output = Last::of(OUTPUT_BYTES);
        let launch = Launch::from(self.program);
        let launch = launch.with(argv, Input::File(&file));
        let ended = launch.run(self.control, &mut output).await?;
        Ok((ended, output.kept))
    }

    fn look(&self) -> Result<(Format, String), Failure> {
        let mut head = Vec::new();
        let read = self.file()?.take(HEAD_BYTES).read_to_end(&mut head);
        read.map_err(|error| Failure::of(reason::INTERNAL, error))?;
        let is_tar = head.get(257..262) == Some(b"ustar");
        let format = if head.starts_with(b"PGDMP") || is_tar {
            Format::Archive
        } else {
            Format::Sql
        };
        Ok((format, String::from_utf8_lossy(&head).into_owned()))
    }

    fn file(&self) -> Result<File, Failure> {
        let opened = self.path().and_then(File::open);
        opened.map_err(|error| Failure::of(reason::INTERNAL, error))
    }

    /// The only file that was restored.
    fn path(&self) -> std::io::Result<PathBuf> {
        let mut entries = fs::read_dir(self.scratch.files())?;
        let first = entries.next().transpose()?;
        let missing = || std::io::Error::other("nothing was restored");
        Ok(first.ok_or_else(missing)?.path())
    }
}

/// The version of the server that a dump is of.
fn server_version(text: &str) -> Option<String> {
    let version = after(text, "Dumped from database version")?;
    let version = version.trim_start_matches(':').trim_start();
    Some(version.to_owned())
}

/// The rest of the line after some words, up to a bracket.
fn after(text: &str, words: &str) -> Option<String> {
    let (_, rest) = text.split_once(words)?;
    let line = rest.lines().next()?;
    let line = line.split('(').next()?.trim();
    Some(line.to_owned())
}

/// Tables whose rows are not those that were counted.
fn differing(counted: &Counted, loaded: &Counted) -> Vec<String> {
    let rows = |counted: &Counted| -> std::collections::BTreeMap<(String, String), u64> {
        let rows = counted.rows.iter();
        rows.map(|(schema, table, rows)| ((schema.clone(), table.clone()), *rows))
            .collect()
    };
    let (was, is) = (rows(counted), rows(loaded));
    let mut differing = Vec::new();
    for ((schema, table), rows) in &was {
        let found = is.get(&(schema.clone(), table.clone()));
        if found != Some(rows) {
            let found = found.map_or_else(|| "none".to_owned(), u64::to_string);
            differing.push(format!("{schema}.{table}: {rows} dumped, {found} loaded"));
        }
    }
    let added = is.keys().filter(|name| !was.contains_key(*name));
    differing.extend(added.map(|(schema, table)| format!("{schema}.{table}: not dumped")));
    differing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_lists_and_from_sql() {
        let list = ";     Dumped from database version: 15.3 (Debian 15.3-1)\n;     Dumped by pg_dump version: 17.1\n";
        assert_eq!(server_version(list).unwrap(), "15.3");
        assert_eq!(after(list, "Dumped by pg_dump version: ").unwrap(), "17.1");
        let sql = "--\n-- Dumped from database version 16.2\n-- Dumped by";
        assert_eq!(server_version(sql).unwrap(), "16.2");
        assert_eq!(server_version("select 1"), None);
    }

    #[test]
    fn a_table_that_is_missing_added_or_shorter_differs() {
        let counted = |rows: &[(&str, u64)]| Counted {
            roles: Vec::new(),
            rows: rows
                .iter()
                .map(|(table, rows)| ("public".to_owned(), (*table).to_owned(), *rows))
                .collect(),
        };
        let was = counted(&[("a", 1), ("b", 2), ("c", 3)]);
        assert!(differing(&was, &was).is_empty());
        let is = counted(&[("a", 1), ("b", 1), ("d", 3)]);
        assert_eq!(
            differing(&was, &is),
            [
                "public.b: 2 dumped, 1 loaded",
                "public.c: 3 dumped, none loaded",
                "public.d: not dumped"
            ]
        );
    }
}
