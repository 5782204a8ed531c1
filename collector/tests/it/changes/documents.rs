//! Documents as tools write them, and how they are posted.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::Collector;
use crate::hosts::call;

const AT: &str = "2026-01-01T10:00:01.000Z";

/// Posts what Terraform writes; answers what was taken.
pub(crate) async fn terraform(
    collector: &Collector,
    headers: &[(&str, &str)],
    document: &str,
) -> Value {
    posted(collector, "/ingest/terraform", headers, document).await
}

/// Posts all records of a play.
pub(crate) async fn ansible(collector: &Collector, run: Uuid, records: &[Value]) -> Value {
    let document = json!({"run": run, "first_seq": 1, "records": records}).to_string();
    posted(collector, "/ingest/ansible", &[], &document).await
}

async fn posted(
    collector: &Collector,
    path: &str,
    headers: &[(&str, &str)],
    document: &str,
) -> Value {
    let answer = call(collector, Method::POST, path, headers, document).await;
    let taken: Value = serde_json::from_slice(answer.body()).unwrap();
    assert!(answer.status().is_success(), "{taken}");
    taken
}

/// A resource of a plan whose type is before the last dot of its address.
pub(crate) fn resource(address: &str, actions: &[&str], before: Value, after: Value) -> Value {
    let kind = address.split('.').rev().nth(1).unwrap_or("a");
    let mut change = json!({"actions": actions, "after_unknown": {}});
    change["before"] = before;
    change["after"] = after;
    json!({
        "address": address, "mode": "managed", "type": kind, "name": "n",
        "provider_name": "registry.example/x/a", "change": change,
    })
}

/// A plan of these resources.
pub(crate) fn plan(resources: &[Value]) -> Value {
    json!({"format_version": "1.2", "terraform_version": "1.11.4", "resource_changes": resources})
}

/// The events of an apply: address, action, and whether it came to its end.
pub(crate) fn apply(done: &[(&str, &str, bool)]) -> String {
    let mut lines = vec![json!({"@level": "info", "type": "version", "terraform": "1.11.4"})];
    for (address, action, is_complete) in done {
        let hook = json!({"resource": {"addr": address}, "action": action});
        let end = if *is_complete {
            "apply_complete"
        } else {
            "apply_errored"
        };
        for kind in ["apply_start", end] {
            lines.push(json!({"@level": "info", "type": kind, "hook": hook}));
        }
        if !is_complete {
            let diagnostic = json!({"severity": "error", "address": address, "summary": "it broke", "detail": ""});
            lines.push(json!({"@level": "error", "type": "diagnostic", "diagnostic": diagnostic}));
        }
    }
    if done.iter().all(|(_, _, is_complete)| *is_complete) {
        let changes = json!({"add": done.len(), "change": 0, "remove": 0, "operation": "apply"});
        lines.push(json!({"@level": "info", "type": "change_summary", "changes": changes}));
    }
    let lines: Vec<_> = lines.iter().map(Value::to_string).collect();
    format!("{}\n", lines.join("\n"))
}

/// The records of a play on two hosts: one task that changes the first and fails at the second; in each field a text.
pub(crate) fn play(text: &str, commit: &str) -> Vec<Value> {
    let recap = |failures: i64| json!({"ok": 3, "changed": 1, "failures": failures, "unreachable": 0, "skipped": 2, "rescued": 4, "ignored": 5});
    // The collector takes a record of 64 KiB.
    let text: String = text.chars().take(4_000).collect();
    vec![
        json!({"kind": "start", "at": "2026-01-01T10:00:00.000Z", "format": 1, "process": Uuid::new_v4(),
            "playbook_number": 1, "ansible_version": "2.19.14", "python_version": "3.11.7", "controller": text,
            "user": "ada", "playbook": text, "playbook_path": "/srv/site.yml", "check": false, "diff": true,
            "git": {"commit": commit, "branch": "main", "remote": "https://git.example/team/infra.git"}}),
        json!({"kind": "host", "number": 0, "name": "web1", "ansible_host": "192.0.2.1", "distribution": text}),
        json!({"kind": "host", "number": 1, "name": text}),
        json!({"kind": "play", "at": AT, "play": "p", "name": text, "batch": 1, "hosts": "0-1", "host_count": 2}),
        json!({"kind": "task", "task": "t", "play": "p", "batch": 1, "at": AT, "name": text, "action": text,
            "path": text, "line": 4, "role": text, "ok": 1, "ok_hosts": "0", "skipped": 1, "skipped_hosts": "1"}),
        json!({"kind": "result", "task": "t", "batch": 1, "host": "web1", "status": "changed", "ended_at": AT,
            "items": 3, "items_changed": 2, "message": text,
            "diff": [{"before_header": text, "after_header": text, "before": "old\n", "after": text}]}),
        json!({"kind": "result", "task": "t", "batch": 1, "host": text, "status": "failed", "ignored": true,
            "ended_at": AT, "rc": 2, "attempts": 3, "message": text, "stderr_tail": text}),
        json!({"kind": "stats", "hosts": {"web1": recap(0), text: recap(1)}}),
        json!({"kind": "end", "at": "2026-01-01T10:00:02.000Z", "outcome": "failed"}),
    ]
}

/// A change with a plan, an apply and a play that all have this text wherever they can, and the addresses of its pages.
pub(crate) async fn change_of(collector: &Collector, text: &str) -> (String, Vec<String>) {
    let commit = "00112233445566778899aabbccddeeff00112233";
    // A claim is of one line.
    let claim: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(300)
        .collect();
    let headers = [
        (
            "infratrack-repository",
            "https://git.example/team/infra.git",
        ),
        ("infratrack-commit", commit),
        ("infratrack-actor", claim.as_str()),
        ("infratrack-workspace", claim.as_str()),
        ("infratrack-run-url", "https://ci.example/1"),
    ];
    let address = format!("module.{text}.a.b");
    let (before, after) = (
        json!({"p": "old", text: text}),
        json!({"p": text, "new": [text]}),
    );
    let mut moved = resource(&address, &["update"], before.clone(), after.clone());
    moved["previous_address"] = json!(text);
    moved["module_address"] = json!(text);
    let mut planned = plan(&[
        moved,
        resource("a.gone", &["delete"], before.clone(), Value::Null),
    ]);
    planned["resource_drift"] = json!([resource("a.drifted", &["update"], before, after)]);
    planned["output_changes"] = json!({text: {"actions": ["create"], "before": null, "after": text,
        "after_unknown": false, "before_sensitive": false, "after_sensitive": false}});
    planned["checks"] = json!([{"address": {"to_display": text}, "status": "fail",
        "instances": [{"problems": [{"message": text}]}]}]);
    let taken = terraform(collector, &headers, &planned.to_string()).await;
    let applied = apply(&[(&address, "update", false)]);
    let done = terraform(collector, &headers, &applied).await;
    let run = Uuid::new_v4();
    let played = ansible(collector, run, &play(text, commit)).await;
    assert_eq!(taken["change_id"], done["change_id"]);
    assert_eq!(taken["change_id"], played["change_id"]);
    let id = taken["change_id"].as_str().unwrap().to_owned();
    let plan = taken["run_id"].as_str().unwrap();
    let mut pages = vec![
        format!("/changes/{id}"),
        format!("/changes/{id}?run={plan}&view=drift"),
        format!("/changes/{id}?run={}", done["run_id"].as_str().unwrap()),
    ];
    for view in ["hosts", "failed", "tasks", "results"] {
        pages.push(format!("/changes/{id}?run={run}&view={view}"));
    }
    (id, pages)
}
