//! Rows of a database as its dump has them: counted in the transaction whose snapshot `pg_dump` is given, so that what is restored
//! has to have the same. Where they can't be counted there is a dump all the same, and the drill says so.

use std::path::Path;
use std::time::Duration;

use infratrack_shared::backup::Counted;
use infratrack_shared::wire::backup::reason;
use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdout;
use tokio::time::timeout;

use super::config::{Check, Program};
use super::control::{Control, Failure};
use super::process::{Input, Launch, Running};

/// For a connection and the snapshot's name.
const CONNECT: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(5);
/// Of what psql writes: a line for each table and role.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// More are not kept in the snapshot.
pub(super) const MAX_ENTRIES: usize = 20_000;

/// Tables whose rows a dump has: those of extensions come with these.
pub(super) const COUNT: &str = r"select format('select json_build_array(%L, %L, count(*)) from only %I.%I', n.nspname, c.relname, n.nspname, c.relname)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and not exists (select from pg_catalog.pg_depend d
                  where d.objid = c.oid and d.classid = 'pg_catalog.pg_class'::regclass and d.deptype = 'e')
order by n.nspname, c.relname \gexec
";
const BEGIN: &str = r"begin transaction isolation level repeatable read, read only;
set local search_path = pg_catalog;
select pg_export_snapshot();
select json_build_array(rolname) from pg_roles where rolname !~ '^pg_' order by rolname;
";
/// Nothing is read of the user's own, nobody is asked for a password, the first error ends it.
pub(super) const PSQL: [&str; 6] = ["-XqAt", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"];

/// A line: a role, or a table with its rows.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Table(String, String, u64),
    Role((String,)),
}

/// The transaction, while the dump is made. It counts when the dump is there: an error of it would end the snapshot.
#[derive(Debug)]
pub(super) struct Counting {
    running: Running,
    output: BufReader<ChildStdout>,
    timeout: Duration,
    /// What `pg_dump` is told to read.
    pub(super) snapshot: String,
}

impl Counting {
    /// Begins where the program is to be checked; `None` where it is not, or can't be.
    pub(super) async fn begin(program: &Program) -> Option<Self> {
        if program.check != Some(Check::PgDump) {
            return None;
        }
        let begun = timeout(CONNECT, Self::begin_checked(program)).await;
        let begun = begun.unwrap_or_else(|_| {
            Err(Failure::new(
                reason::TIMEOUT,
                "the database does not answer",
            ))
        });
        begun
            .inspect_err(|error| tracing::warn!(%error, "the rows of the dump are not counted"))
            .ok()
    }

    async fn begin_checked(program: &Program) -> Result<Self, Failure> {
        let wrong = |what: &str| Failure::new(reason::CONFIGURATION, what);
        let connection = Connection::of(&program.argv).map_err(wrong)?;
        let argv: Vec<String> = [beside(program, "psql")]
            .into_iter()
            .chain(PSQL.map(str::to_owned))
            .chain(connection.arguments)
            .collect();
        let launch = Launch::from(program);
        let mut running = launch.with(&argv, Input::Pipe).start()?;
        let broken = |error: std::io::Error| Failure::of(reason::INTERNAL, error);
        let child = &mut running.child;
        // What it complains of is in no report: its last words are those of the dump.
        drop(child.stderr.take());
        let (Some(input), Some(output)) = (child.stdin.as_mut(), child.stdout.take()) else {
            return Err(wrong("psql has no pipes"));
        };
        input.write_all(BEGIN.as_bytes()).await.map_err(broken)?;
        let mut output = BufReader::new(output);
        let mut snapshot = String::new();
        let mut first = (&mut output).take(256);
        first.read_line(&mut snapshot).await.map_err(broken)?;
        let snapshot = snapshot.trim().to_owned();
        if snapshot.is_empty() {
            return Err(wrong("psql gave no snapshot"));
        }
        Ok(Self {
            running,
            output,
            timeout: program.timeout,
            snapshot,
        })
    }

    /// What there was; `None` where it was not counted to its end.
    pub(super) async fn finish(mut self, control: &Control) -> Option<Counted> {
        let mut input = self.running.child.stdin.take()?;
        input.write_all(COUNT.as_bytes()).await.ok()?;
        // Its script is over when its input is.
        drop(input);
        let mut text = String::new();
        let mut rest = self.output.take(MAX_BYTES);
        let read = tokio::select! {
            () = control.stopped() => None,
            read = timeout(self.timeout, rest.read_to_string(&mut text)) => read.ok()?.ok(),
        };
        let status = match read {
            Some(_) => timeout(GRACE, self.running.child.wait()).await.ok()?.ok(),
            None => None,
        };
        if !status.is_some_and(|status| status.success()) {
            self.running.end_by(Signal::SIGTERM, GRACE).await;
            tracing::warn!("the rows of the dump were not counted to their end");
            return None;
        }
        parsed(&text)
    }
}

/// What psql wrote.
pub(super) fn parsed(text: &str) -> Option<Counted> {
    let mut counted = Counted::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match serde_json::from_str(line).ok()? {
            Line::Table(schema, table, rows) => counted.rows.push((schema, table, rows)),
            Line::Role((role,)) => counted.roles.push(role),
        }
    }
    (counted.rows.len() + counted.roles.len() <= MAX_ENTRIES).then_some(counted)
}

/// A program of the same installation.
pub(super) fn beside(program: &Program, name: &str) -> String {
    let own = program.argv.first().map(Path::new);
    let beside = own.and_then(Path::parent).map(|folder| folder.join(name));
    let path = beside.filter(|path| path.exists());
    path.map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

/// How `pg_dump` connects, as psql takes it too.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) arguments: Vec<String>,
}

impl Connection {
    /// Of the arguments of a dump of one whole database; else why not.
    pub(super) fn of(argv: &[String]) -> Result<Self, &'static str> {
        const CONNECTS: [(&str, &str); 4] = [
            ("-h", "--host"),
            ("-p", "--port"),
            ("-U", "--username"),
            ("-d", "--dbname"),
        ];
        const OTHERS_WITH_VALUE: [&str; 12] = [
            "-E",
            "-F",
            "-Z",
            "-S",
            "-f",
            "-j",
            "--encoding",
            "--format",
            "--compress",
            "--lock-wait-timeout",
            "--extra-float-digits",
            "--rows-per-insert",
        ];
        const PARTIAL: [&str; 18] = [
            "-n",
            "-N",
            "-t",
            "-T",
            "-e",
            "-s",
            "-a",
            "--schema",
            "--exclude-",
            "--table",
            "--extension",
            "--section",
            "--filter",
            "--role",
            "--snapshot",
            "--data-only",
            "--no-data",
            "--include-",
        ];
        let mut arguments = Vec::new();
        let mut words = argv.iter().skip(1);
        while let Some(word) = words.next() {
            let is_partial = |name: &&str| word.starts_with(*name);
            if PARTIAL.iter().any(is_partial) {
                return Err("the dump is of a part of a database, or of its own snapshot or role");
            }
            let connects = CONNECTS
                .iter()
                .find(|(short, long)| word.starts_with(*short) || word.starts_with(*long));
            if let Some((short, long)) = connects {
                arguments.push(word.clone());
                if word == short || word == long {
                    arguments.push(words.next().ok_or("an option has no value")?.clone());
                }
            } else if OTHERS_WITH_VALUE.contains(&word.as_str()) {
                words.next();
            } else if !word.starts_with('-') {
                arguments.push("-d".to_owned());
                arguments.push(word.clone());
            }
        }
        Ok(Self { arguments })
    }
}

/// The dump's own arguments, and the snapshot to read.
pub(super) fn argv_of(program: &Program, counting: Option<&Counting>) -> Vec<String> {
    let mut argv = program.argv.clone();
    if let Some(counting) = counting
        && !argv.is_empty()
    {
        argv.insert(1, format!("--snapshot={}", counting.snapshot));
    }
    argv
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(line: &str) -> Result<String, &'static str> {
        let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Connection::of(&argv).map(|connection| connection.arguments.join(" "))
    }

    #[test]
    fn how_a_dump_connects_is_read_from_its_arguments() {
        for (line, read) in [
            ("pg_dump -w -Fc -Z0 shop", "-d shop"),
            (
                "pg_dump -h db -p 5433 -U backup -F c shop",
                "-h db -p 5433 -U backup -d shop",
            ),
            ("pg_dump --host=db --dbname shop", "--host=db --dbname shop"),
            ("pg_dump -hdb -dshop --format plain", "-hdb -dshop"),
        ] {
            assert_eq!(connection(line).unwrap(), read, "{line}");
        }
        for part in [
            "-t a",
            "--table=a",
            "-n x",
            "--schema-only",
            "-s",
            "--role=x",
            "--exclude-table=b",
        ] {
            connection(&format!("pg_dump {part} shop")).unwrap_err();
        }
        connection("pg_dump -h").unwrap_err();
    }

    #[test]
    fn what_psql_writes_is_roles_and_tables() {
        let counted = parsed("[\"shop\"]\n[\"public\", \"a\\nb\", 7]\n").unwrap();
        assert_eq!(counted.roles, ["shop"]);
        let row = ("public".to_owned(), "a\nb".to_owned(), 7);
        assert_eq!(counted.rows, [row]);
        assert!(parsed("psql: error").is_none());
    }
}
