//! Changes on a host's timeline, and whose doing it was what changed there.

use infratrack_shared::ids::HostId;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::harness::Collector;

/// A run, or what somebody wrote down, that touched a host.
pub(super) struct Run {
    pub tool: &'static str,
    /// Empty where somebody wrote it down.
    pub kind: &'static str,
    pub outcome: &'static str,
    pub title: String,
    /// Minutes before the present.
    pub from: i64,
    pub to: i64,
    pub detail: Value,
}

pub(super) fn run(tool: &'static str, kind: &'static str, from: i64, to: i64) -> Run {
    Run {
        tool,
        kind,
        outcome: "succeeded",
        title: format!("{tool} {kind} of prod"),
        from,
        to,
        detail: json!({}),
    }
}

pub(super) fn ago(collector: &Collector, minutes: i64) -> OffsetDateTime {
    collector.clock.now() - Duration::minutes(minutes)
}

pub(super) async fn host(collector: &Collector, name: &str) -> HostId {
    let host = super::made(collector, json!({"name": name})).await;
    HostId(host["id"].as_str().unwrap().parse().unwrap())
}

/// Stores it; answers the ids of change and run.
pub(super) async fn touch(collector: &Collector, host: HostId, run: &Run) -> (Uuid, Option<Uuid>) {
    let (from, to) = (ago(collector, run.from), ago(collector, run.to));
    let (change, id) = (Uuid::new_v4(), Uuid::new_v4());
    let id = (!run.kind.is_empty()).then_some(id);
    let mut connection = collector.pool.acquire().await.unwrap();
    sqlx::query(
        "insert into changes (change_id, origin, title, started_at, ended_at, outcome, tools, repository, commit_id,
             actor, created_at, updated_at)
         values ($1, 'captured', $2, $3, $4, $5, '{}', 'git.example/infra', '0123456789abcdef', 'ada', $3, $3)",
    )
    .bind(change)
    .bind(&run.title)
    .bind(from)
    .bind(to)
    .bind(run.outcome)
    .execute(&mut *connection)
    .await
    .unwrap();
    if let Some(id) = id {
        sqlx::query(
            "insert into change_runs (run_id, change_id, tool, kind, content_hash, received_at, started_at, ended_at,
                 outcome, claims, brought_by, summary, detail, warnings, redactions)
             values ($1, $2, $3, $4, $1::text::bytea, $5, $5, $6, $7, '{}', 'ci', '{}', $8, '{}', 0)",
        )
        .bind(id)
        .bind(change)
        .bind(run.tool)
        .bind(run.kind)
        .bind(from)
        .bind(to)
        .bind(run.outcome)
        .bind(&run.detail)
        .execute(&mut *connection)
        .await
        .unwrap();
    }
    sqlx::query("insert into change_hosts values ($1, $2, $3, $4, $5, 'machine_id', 'low')")
        .bind(change)
        .bind(id)
        .bind(host.0)
        .bind(from)
        .bind(to)
        .execute(&mut *connection)
        .await
        .unwrap();
    (change, id)
}

/// Has the host have told an event so many minutes ago.
pub(super) async fn event(
    collector: &Collector,
    host: HostId,
    minutes: i64,
    kind: &str,
    body: Value,
) {
    let at = ago(collector, minutes);
    sqlx::query(
        "insert into events (host_id, at, claimed_at, received_at, kind, body) values ($1, $2, $2, $2, $3, $4)",
    )
    .bind(host.0)
    .bind(at)
    .bind(kind)
    .bind(body)
    .execute(&collector.pool)
    .await
    .unwrap();
}

/// Likewise that a package was upgraded, whose name tells when.
pub(super) async fn upgrade(collector: &Collector, host: HostId, minutes: i64) {
    let name = format!("package-{minutes}");
    let changes = json!([{"action": "upgraded", "name": name, "from": "1", "to": "2"}]);
    let body = json!({"manager": "dpkg", "requested_by": "eve", "changes": changes});
    event(collector, host, minutes, "package_transaction", body).await;
}

pub(super) async fn fact(
    collector: &Collector,
    host: HostId,
    minutes: i64,
    key: &str,
    was: Option<Value>,
) {
    sqlx::query("insert into fact_changes (host_id, changed_at, key, old_body, new_body) values ($1, $2, $3, $4, '{}')")
        .bind(host.0)
        .bind(ago(collector, minutes))
        .bind(key)
        .bind(was)
        .execute(&collector.pool)
        .await
        .unwrap();
}

/// Gives a host a day in which a play failed, with what it changed, what nobody did, and a reboot.
pub(crate) async fn bad_day(collector: &Collector, id: HostId) {
    let failed = Run {
        outcome: "failed",
        ..run("ansible", "play", 125, 120)
    };
    touch(collector, id, &failed).await;
    touch(collector, id, &run("terraform", "plan", 60, 60)).await;
    touch(collector, id, &run("a new disk", "", 50, 40)).await;
    for minutes in [123, 122, 90] {
        upgrade(collector, id, minutes).await;
    }
    fact(collector, id, 80, "facts.dns", Some(json!({}))).await;
    let body = json!({"expected": "no", "kernel": "6.1"});
    event(collector, id, 75, "boot", body).await;
}

async fn items(collector: &Collector, host: HostId, kinds: &str) -> Vec<Value> {
    let path = format!("/api/v1/hosts/{host}/timeline?kinds={kinds}");
    let page = collector.get(&path).await;
    page["items"].as_array().unwrap().clone()
}

/// Thirty resources of an apply, and a host of a play, that are the host.
async fn link(collector: &Collector, id: HostId, apply: Option<Uuid>, play: Option<Uuid>) {
    for sql in [
        "insert into change_resources (run_id, ordinal, part, address, mode, type, name, provider, action, actions,
             is_imported, attributes, is_cut)
         select $1, n, 'change', 'aws_instance.web[' || n || ']', 'managed', 'aws_instance', 'web', 'aws', 'update',
             '{update}', false, '[]', false from generate_series(1, 30) n where $2::uuid is not null",
        "insert into change_links (run_id, ordinal, role, name, marks, state, host_id, created_at, tried_at)
         select $1, n, 'is', 'aws_instance.web[' || n || ']', '{}', 'linked', $2, now(), now() from generate_series(1, 30) n",
    ] {
        let made = sqlx::query(sql).bind(apply).bind(id.0).execute(&collector.pool).await;
        assert_eq!(made.unwrap().rows_affected(), 30);
    }
    for sql in [
        "insert into play_hosts (run_id, number, name, recap)
         select $1, 7, 'web1', '{\"ok\": 12, \"changed\": 3}' where $2::uuid is not null",
        "insert into change_links (run_id, ordinal, role, name, marks, state, host_id, created_at, tried_at)
         values ($1, 7, 'play', 'web1', '{}', 'linked', $2, now(), now())",
    ] {
        let made = sqlx::query(sql).bind(play).bind(id.0).execute(&collector.pool).await;
        assert_eq!(made.unwrap().rows_affected(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_run_that_touched_a_host_is_on_its_timeline_with_what_it_was_to_it() {
    let collector = Collector::start().await;
    let id = host(&collector, "web-1").await;
    let other = host(&collector, "web-2").await;
    let (change, apply) = touch(&collector, id, &run("terraform", "apply", 60, 50)).await;
    let (_, play) = touch(&collector, id, &run("ansible", "play", 40, 30)).await;
    let (written, _) = touch(&collector, id, &run("a new", "", 20, 10)).await;
    touch(&collector, other, &run("terraform", "apply", 5, 4)).await;
    link(&collector, id, apply, play).await;
    let found = items(&collector, id, "change").await;
    let titles: Vec<_> = found
        .iter()
        .map(|item| item["title"].as_str().unwrap())
        .collect();
    assert_eq!(
        titles,
        [
            "a new  of prod",
            "Ansible play: 3 changed, 12 ok",
            "Terraform apply: update aws_instance.web[1] and 29 more"
        ]
    );
    let [manual, play, applied] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(
        (&manual["what"], &manual["by"]),
        (&json!("manual"), &json!("ada"))
    );
    assert_eq!(
        (&manual["change_id"], &manual["run_id"]),
        (&json!(written), &Value::Null)
    );
    assert_eq!(play["body"]["recap"]["changed"], 3);
    assert_eq!(
        (
            &applied["change_id"],
            &applied["run_id"],
            &applied["outcome"]
        ),
        (&json!(change), &json!(apply), &json!("succeeded"))
    );
    let body = &applied["body"];
    assert_eq!(body["links"].as_array().unwrap().len(), 20, "{body}");
    let first = json!({"role": "is", "address": "aws_instance.web[1]", "action": "update"});
    assert_eq!(
        (&body["links"][0], &body["link_count"]),
        (&first, &json!(30))
    );
    assert_eq!(
        (&body["method"], &body["confidence"], &body["commit"]),
        (
            &json!("machine_id"),
            &json!("low"),
            &json!("0123456789abcdef")
        )
    );
    assert_eq!(applied["unattributed"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_explains_is_unattributed() {
    let collector = Collector::start().await;
    let id = host(&collector, "web-1").await;
    let apply = touch(&collector, id, &run("terraform", "apply", 600, 580)).await;
    let play = touch(&collector, id, &run("ansible", "play", 590, 570)).await;
    let written = touch(&collector, id, &run("written", "", 400, 390)).await;
    touch(&collector, id, &run("terraform", "plan", 300, 290)).await;
    touch(&collector, id, &run("terraform", "state", 300, 290)).await;
    let check = Run {
        detail: json!({"check": true}),
        ..run("ansible", "play", 300, 290)
    };
    touch(&collector, id, &check).await;
    let elsewhere = host(&collector, "web-2").await;
    touch(&collector, elsewhere, &run("terraform", "apply", 200, 190)).await;
    let expected = [
        // Before its margin, within that, during, during two of which the last that began counts, after, long after.
        (606, None),
        (604, Some(&apply)),
        (599, Some(&apply)),
        (585, Some(&play)),
        (556, Some(&play)),
        (554, None),
        (395, Some(&written)),
        (380, Some(&written)),
        (374, None),
        (295, None),
        (195, None),
    ];
    for (minutes, _) in expected {
        upgrade(&collector, id, minutes).await;
    }
    let found = items(&collector, id, "package").await;
    assert_eq!(found.len(), expected.len());
    for (item, (minutes, run)) in found.iter().rev().zip(expected) {
        let (change, run) = run.copied().unzip();
        assert_eq!(item["title"], format!("Upgraded package-{minutes} 1 → 2"));
        assert_eq!(item["unattributed"], run.is_none(), "{minutes}: {item}");
        assert_eq!(
            (&item["change_id"], &item["run_id"]),
            (&json!(change), &json!(run.flatten())),
            "{minutes}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inventories_and_facts_are_attributed_but_for_what_nobody_does() {
    let collector = Collector::start().await;
    let id = host(&collector, "web-1").await;
    sqlx::query(
        "insert into package_changes (host_id, changed_at, action, manager, name, arch, is_logged)
         values ($1, $2, 'held', 'dpkg', 'vim', 'amd64', false)",
    )
    .bind(id.0)
    .bind(ago(&collector, 100))
    .execute(&collector.pool)
    .await
    .unwrap();
    fact(
        &collector,
        id,
        99,
        "facts.dns",
        Some(json!({"servers": []})),
    )
    .await;
    fact(&collector, id, 98, "facts.os", None).await;
    fact(
        &collector,
        id,
        97,
        "facts.updates",
        Some(json!({"count": 1})),
    )
    .await;
    let automatic = json!({"manager": "dpkg", "via": "unattended-upgrades", "changes": []});
    event(&collector, id, 96, "package_transaction", automatic).await;
    let found = items(&collector, id, "package,fact").await;
    let told = found.iter().take(5).map(|item| {
        (
            item["what"].as_str().unwrap(),
            item["unattributed"].as_bool().unwrap(),
        )
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("package_transaction", false),
            ("facts.updates", false),
            ("facts.os", false),
            ("facts.dns", true),
            ("inventory", true)
        ]
    );
    assert_eq!(found[0]["by"], "unattended-upgrades");
}
