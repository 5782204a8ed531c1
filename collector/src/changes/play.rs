//! What a play of Ansible did, as the callback of the collection tells it: records in, rows out. The format is
//! docs/formats/ansible-ingest.md.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::serde::rfc3339;
use uuid::Uuid;

use super::claims::{BadClaim, Claims};

/// Records of a request.
pub const MAX_RECORDS: usize = 1_000;
/// Bytes of a record, as JSON.
pub const MAX_RECORD_BYTES: usize = 64 * 1024;

/// Some records of a run, in order.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Of one playbook of one command.
    pub run: Uuid,
    /// Of the first record; the first of a run is 1.
    pub first_seq: u64,
    pub records: Vec<Value>,
}

/// One record. Fields that are not known are ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    Start(Box<Start>),
    Host(Host),
    Play(Play),
    NoHosts(NoHosts),
    Task(Task),
    Result(TaskResult),
    Stats(Stats),
    End(End),
    Gap(Gap),
    /// Of a newer callback.
    #[serde(other)]
    Unknown,
}

/// How a run began.
#[derive(Clone, Debug, Deserialize)]
pub struct Start {
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    pub format: u32,
    pub ansible_version: Option<String>,
    pub python_version: Option<String>,
    pub controller: Option<String>,
    pub user: Option<String>,
    pub playbook: Option<String>,
    pub playbook_path: Option<String>,
    #[serde(default)]
    pub check: bool,
    pub limit: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub skip_tags: Vec<String>,
    #[serde(default)]
    pub inventory: Vec<String>,
    pub git: Option<Value>,
    change_id: Option<String>,
    repository: Option<String>,
    commit: Option<String>,
    merge_commit: Option<String>,
    branch: Option<String>,
    pull_request: Option<String>,
    ci_provider: Option<String>,
    run_id: Option<String>,
    run_url: Option<String>,
    actor: Option<String>,
    environment: Option<String>,
    workspace: Option<String>,
    traceparent: Option<String>,
}

impl Start {
    /// What is claimed of the run. The user is who did it, and the repository's own address its name, where nothing else
    /// says so.
    pub fn claims(&self) -> Result<Claims, BadClaim> {
        let of_git = |name: &str| self.git.as_ref()?.get(name)?.as_str();
        let find = |name: &str| {
            let said = match name {
                "change-id" => &self.change_id,
                "repository" => &self.repository,
                "commit" => &self.commit,
                "merge-commit" => &self.merge_commit,
                "branch" => &self.branch,
                "pull-request" => &self.pull_request,
                "ci-provider" => &self.ci_provider,
                "run-id" => &self.run_id,
                "run-url" => &self.run_url,
                "actor" => &self.actor,
                "environment" => &self.environment,
                "workspace" => &self.workspace,
                "traceparent" => &self.traceparent,
                _ => &None,
            };
            said.as_deref().or_else(|| match name {
                "repository" => of_git("remote"),
                "commit" => of_git("commit"),
                "branch" => of_git("branch"),
                "actor" => self.user.as_deref(),
                _ => None,
            })
        };
        Claims::read(find)
    }
}

/// A host of the inventory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Host {
    pub number: i32,
    pub name: String,
    pub ansible_host: Option<String>,
    pub machine_id: Option<String>,
    pub product_uuid: Option<String>,
    pub fqdn: Option<String>,
    pub distribution: Option<String>,
    pub distribution_version: Option<String>,
}

/// A batch of hosts of a play.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Play {
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    pub play: String,
    pub batch: i32,
    pub name: String,
    pub pattern: Option<String>,
    pub strategy: Option<String>,
    /// Numbers of hosts: `0-3,7`.
    pub hosts: String,
    pub host_count: i32,
}

/// A play without hosts.
#[derive(Clone, Debug, Deserialize)]
pub struct NoHosts {
    pub play: String,
    /// `matched` or `remaining`.
    pub reason: String,
}

/// A task, and whom it left as they were.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Task {
    pub task: String,
    pub play: String,
    pub batch: i32,
    #[serde(default, with = "rfc3339::option")]
    pub at: Option<OffsetDateTime>,
    pub name: Option<String>,
    pub action: Option<String>,
    pub role: Option<String>,
    pub path: Option<String>,
    pub line: Option<i32>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub is_handler: bool,
    #[serde(default)]
    pub check_mode: bool,
    #[serde(default, with = "rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    #[serde(default)]
    pub ok: i64,
    #[serde(default)]
    pub ok_hosts: String,
    #[serde(default)]
    pub skipped: i64,
    #[serde(default)]
    pub skipped_hosts: String,
}

impl Task {
    /// What a later record of the same task in the same batch adds.
    fn add(&mut self, later: Self) {
        let or = |mine: &mut Option<String>, other: Option<String>| {
            if mine.is_none() {
                *mine = other;
            }
        };
        or(&mut self.name, later.name);
        or(&mut self.action, later.action);
        or(&mut self.role, later.role);
        or(&mut self.path, later.path);
        self.line = self.line.or(later.line);
        self.at = self.at.or(later.at);
        self.ended_at = self.ended_at.max(later.ended_at);
        self.is_handler |= later.is_handler;
        self.check_mode |= later.check_mode;
        if self.tags.is_empty() {
            self.tags = later.tags;
        }
        self.ok += later.ok;
        self.skipped += later.skipped;
        for (mine, other) in [
            (&mut self.ok_hosts, later.ok_hosts),
            (&mut self.skipped_hosts, later.skipped_hosts),
        ] {
            if !mine.is_empty() && !other.is_empty() {
                mine.push(',');
            }
            mine.push_str(&other);
        }
    }
}

/// What a task did on a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskResult {
    pub task: String,
    pub batch: i32,
    pub host: String,
    /// `changed`, `failed`, `unreachable`, `ok`.
    pub status: String,
    #[serde(default)]
    pub ignored: bool,
    #[serde(default, with = "rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    #[serde(with = "rfc3339")]
    pub ended_at: OffsetDateTime,
    pub items: Option<i64>,
    pub items_changed: Option<i64>,
    pub items_failed: Option<i64>,
    pub items_skipped: Option<i64>,
    #[serde(default)]
    pub delegated_to: Option<Vec<String>>,
    pub attempts: Option<i64>,
    pub async_job_id: Option<String>,
    pub async_finished: Option<bool>,
    #[serde(default)]
    pub no_log: bool,
    pub message: Option<String>,
    pub rc: Option<i64>,
    pub stderr_tail: Option<String>,
    pub diff: Option<Value>,
}

/// The recap, as Ansible gives it.
#[derive(Clone, Debug, Deserialize)]
pub struct Stats {
    pub hosts: Map<String, Value>,
}

/// How a run ended.
#[derive(Clone, Debug, Deserialize)]
pub struct End {
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    /// `ok`, `failed`, `unreachable`, `interrupted`.
    pub outcome: String,
}

/// Events of which there is nothing.
#[derive(Clone, Debug, Deserialize)]
pub struct Gap {
    pub count: i64,
    pub reason: String,
}

/// Why a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Which of the request's.
    pub index: usize,
    /// A JSON pointer into the request.
    pub pointer: String,
    pub what: String,
    /// It is too large, rather than wrong.
    pub is_large: bool,
}

/// What records come to.
#[derive(Debug, Default)]
pub struct Rows {
    pub start: Option<Box<Start>>,
    pub hosts: BTreeMap<i32, Host>,
    pub plays: BTreeMap<(String, i32), Play>,
    pub tasks: BTreeMap<(String, i32), Task>,
    /// By their number in the run.
    pub results: Vec<(i64, TaskResult)>,
    pub recap: Map<String, Value>,
    pub end: Option<End>,
    /// Events that are missing, and why.
    pub gaps: Vec<Gap>,
    pub without_hosts: Vec<NoHosts>,
}

/// Reads the records after `acked_seq`, all or none.
pub fn read(batch: Batch, acked_seq: u64) -> Result<Rows, BadRecord> {
    let mut rows = Rows::default();
    for (index, (value, seq)) in batch.records.into_iter().zip(batch.first_seq..).enumerate() {
        if seq <= acked_seq {
            continue;
        }
        let bad = |at: &str, what: String| BadRecord {
            index,
            pointer: format!("/records/{index}{at}"),
            what,
            is_large: false,
        };
        let bytes = value.to_string().len();
        if bytes > MAX_RECORD_BYTES {
            return Err(BadRecord {
                is_large: true,
                ..bad(
                    "",
                    format!("has {bytes} bytes, more than {MAX_RECORD_BYTES}"),
                )
            });
        }
        let record = serde_json::from_value::<Record>(value);
        let record = record.map_err(|error| bad("", format!("is no record: {error}")))?;
        if (seq == 1) != matches!(record, Record::Start(_)) {
            return Err(bad(
                "",
                "must be `start` where it is the first, and nowhere else".to_owned(),
            ));
        }
        rows.add(record, i64::try_from(seq).unwrap_or(i64::MAX))
            .map_err(|what| bad("", what))?;
    }
    Ok(rows)
}

impl Rows {
    fn add(&mut self, record: Record, seq: i64) -> Result<(), String> {
        match record {
            Record::Start(start) => {
                if start.format != 1 {
                    return Err(format!("is of format {}, which is not known", start.format));
                }
                start
                    .claims()
                    .map_err(|bad| format!("claims what is no claim: {bad}"))?;
                self.start = Some(start);
            }
            Record::Host(host) => {
                let known = self.hosts.entry(host.number).or_default();
                let or = |new: Option<String>, old: &Option<String>| new.or_else(|| old.clone());
                *known = Host {
                    ansible_host: or(host.ansible_host, &known.ansible_host),
                    machine_id: or(host.machine_id, &known.machine_id),
                    product_uuid: or(host.product_uuid, &known.product_uuid),
                    fqdn: or(host.fqdn, &known.fqdn),
                    distribution: or(host.distribution, &known.distribution),
                    distribution_version: or(
                        host.distribution_version,
                        &known.distribution_version,
                    ),
                    ..host
                };
            }
            Record::Play(play) => {
                self.plays.insert((play.play.clone(), play.batch), play);
            }
            Record::NoHosts(none) => self.without_hosts.push(none),
            Record::Task(task) => {
                let key = (task.task.clone(), task.batch);
                match self.tasks.entry(key) {
                    std::collections::btree_map::Entry::Occupied(mut known) => {
                        known.get_mut().add(task);
                    }
                    std::collections::btree_map::Entry::Vacant(free) => {
                        free.insert(task);
                    }
                }
            }
            Record::Result(result) => {
                if !["changed", "failed", "unreachable", "ok"].contains(&result.status.as_str()) {
                    return Err("has a status that is none".to_owned());
                }
                self.results.push((seq, result));
            }
            Record::Stats(stats) => self.recap.extend(stats.hosts),
            Record::End(end) => self.end = Some(end),
            Record::Gap(gap) => self.gaps.push(gap),
            Record::Unknown => {}
        }
        Ok(())
    }
}

/// What a run came to, in the words of changes.
pub fn outcome(end: &End) -> &'static str {
    match end.outcome.as_str() {
        "ok" => "succeeded",
        "failed" | "unreachable" => "failed",
        "interrupted" => "interrupted",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn batch(first_seq: u64, records: Vec<Value>) -> Batch {
        Batch {
            run: Uuid::nil(),
            first_seq,
            records,
        }
    }

    fn start() -> Value {
        json!({"kind": "start", "at": "2026-11-22T17:09:43.716Z", "format": 1, "user": "ada",
            "git": {"commit": "0123456789", "remote": "https://u:p@git.example/a/b.git", "branch": "main"}})
    }

    #[test]
    fn counts_of_a_task_add_up_and_what_was_taken_is_passed_over() {
        let task = |ok: i64, hosts: &str| json!({"kind": "task", "task": "t", "play": "p", "batch": 1, "ok": ok, "ok_hosts": hosts});
        let named = json!({"kind": "task", "task": "t", "play": "p", "batch": 1, "name": "Packages", "at": "2026-11-22T17:09:43Z"});
        let rows = read(
            batch(
                1,
                vec![
                    start(),
                    named,
                    task(2, "0-1"),
                    task(1, "4"),
                    json!({"kind": "later"}),
                ],
            ),
            0,
        )
        .unwrap();
        let task = &rows.tasks[&("t".to_owned(), 1)];
        assert_eq!(
            (task.ok, task.ok_hosts.as_str(), task.name.as_deref()),
            (3, "0-1,4", Some("Packages"))
        );
        let claims = rows.start.unwrap().claims().unwrap();
        assert_eq!(
            claims.repository.as_deref(),
            Some("https://git.example/a/b.git")
        );
        assert_eq!(
            (claims.actor.as_deref(), claims.commit.as_deref()),
            (Some("ada"), Some("0123456789"))
        );
        let again = read(batch(1, vec![start(), start()]), 2).unwrap();
        assert!(again.start.is_none());
    }

    #[test]
    fn a_bad_record_is_named_by_its_place() {
        let end = json!({"kind": "end", "at": "2026-11-22T17:09:43Z", "outcome": "ok"});
        let large = json!({"kind": "result", "message": "x".repeat(MAX_RECORD_BYTES)});
        for (records, pointer, words, is_large) in [
            (vec![end.clone()], "/records/0", "must be `start`", false),
            (
                vec![start(), start()],
                "/records/1",
                "must be `start`",
                false,
            ),
            (
                vec![start(), json!({"kind": "end"})],
                "/records/1",
                "is no record",
                false,
            ),
            (vec![start(), json!(7)], "/records/1", "is no record", false),
            (vec![start(), large], "/records/1", "more than 65536", true),
        ] {
            let bad = read(batch(1, records), 0).unwrap_err();
            assert_eq!((bad.pointer.as_str(), bad.is_large), (pointer, is_large));
            assert!(bad.what.contains(words), "{}", bad.what);
        }
        assert_eq!(outcome(&serde_json::from_value(end).unwrap()), "succeeded");
    }
}
