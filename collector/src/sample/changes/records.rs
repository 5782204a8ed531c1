//! What the callback tells of a play on the sample fleet: docs/formats/ansible-ingest.md.

use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::documents::SHOP;
use crate::sample::member::Member;

/// Between two tasks.
const STEP: Duration = Duration::seconds(40);

/// What a task did on a host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Did {
    Nothing,
    Changed(&'static str),
    /// The message, and the end of its standard error. The host has no part in what follows.
    Failed(&'static str, &'static str),
}

/// Role, name, module, and what it does where.
pub(super) type Task = (&'static str, &'static str, &'static str, fn(Member) -> Did);

/// `ansible-playbook` as somebody called it.
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) playbook: &'static str,
    pub(super) user: &'static str,
    pub(super) at: OffsetDateTime,
    pub(super) hosts: Vec<Member>,
    pub(super) tasks: Vec<Task>,
}

/// Of a host, what its recap counts.
#[derive(Clone, Copy, Default)]
struct Counts {
    ok: u32,
    changed: u32,
    failures: u32,
}

fn stamp(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// All records of a run.
pub(super) fn of(command: &Command, control: Member, commit: &str) -> Vec<Value> {
    let playbook = command.playbook;
    let at = stamp(command.at);
    let mut told = vec![json!({
        "kind": "start", "at": at, "format": 1, "ansible_version": "2.19.14", "python_version": "3.11.7",
        "controller": control.name(), "user": command.user, "playbook": playbook,
        "playbook_path": format!("/srv/plays/{playbook}"), "check": false, "tags": ["all"],
        "inventory": ["infratrack.yml"],
        "git": {"commit": commit, "branch": "main", "dirty": false, "remote": SHOP},
    })];
    for (number, member) in command.hosts.iter().enumerate() {
        let system = member.system();
        told.push(json!({
            "kind": "host", "number": number, "name": member.name(), "ansible_host": member.address(),
            "machine_id": member.machine_id(), "distribution": system.name, "distribution_version": system.version,
        }));
    }
    let all: Vec<_> = (0..command.hosts.len()).collect();
    told.push(json!({
        "kind": "play", "at": at, "play": "p", "batch": 1, "name": command.name, "pattern": "all",
        "strategy": "linear", "hosts": numbers(&all), "host_count": all.len(),
    }));
    let mut counts = vec![Counts::default(); command.hosts.len()];
    let mut at = command.at;
    for (nth, task) in command.tasks.iter().enumerate() {
        run(&mut told, command, (nth, task), at, &mut counts);
        at += STEP;
    }
    let has_failed = counts.iter().any(|counts| counts.failures > 0);
    let recap: Map<_, _> = command
        .hosts
        .iter()
        .zip(&counts)
        .map(|(member, counts)| (member.name(), recap(*counts)))
        .collect();
    told.push(json!({"kind": "stats", "hosts": recap}));
    let outcome = if has_failed { "failed" } else { "ok" };
    told.push(json!({"kind": "end", "at": stamp(at), "outcome": outcome}));
    told
}

/// A task on those that are left.
fn run(
    told: &mut Vec<Value>,
    command: &Command,
    (nth, (role, name, action, does)): (usize, &Task),
    at: OffsetDateTime,
    counts: &mut [Counts],
) {
    let (task, until) = (format!("t{nth}"), at + STEP);
    let mut same = Vec::new();
    let mut results = Vec::new();
    for (number, (member, counts)) in command.hosts.iter().zip(counts).enumerate() {
        if counts.failures > 0 {
            continue;
        }
        let result = |status: &str, message: &str| {
            json!({
                "kind": "result", "task": task, "batch": 1, "host": member.name(), "status": status,
                "started_at": stamp(at), "ended_at": stamp(until), "message": message,
            })
        };
        match does(*member) {
            Did::Nothing => {
                counts.ok += 1;
                same.push(number);
            }
            Did::Changed(message) => {
                counts.ok += 1;
                counts.changed += 1;
                results.push(result("changed", message));
            }
            Did::Failed(message, stderr) => {
                counts.failures += 1;
                let mut failed = result("failed", message);
                failed["rc"] = json!(1);
                failed["stderr_tail"] = json!(stderr);
                results.push(failed);
            }
        }
    }
    told.push(json!({
        "kind": "task", "task": task, "play": "p", "batch": 1, "at": stamp(at), "ended_at": stamp(until),
        "name": name, "action": action, "role": role, "line": 4 + 9 * nth,
        "path": format!("/srv/plays/roles/{role}/tasks/main.yml"), "ok": same.len(), "ok_hosts": numbers(&same),
    }));
    told.extend(results);
}

/// A set of hosts.
fn numbers(all: &[usize]) -> String {
    let texts: Vec<_> = all.iter().map(usize::to_string).collect();
    texts.join(",")
}

fn recap(counts: Counts) -> Value {
    json!({
        "ok": counts.ok, "changed": counts.changed, "failures": counts.failures, "unreachable": 0, "skipped": 0,
        "rescued": 0, "ignored": 0,
    })
}
