//! Volumes as operators set them: made, edited, deleted, run, held, opened for another host.

mod agent;
mod drills;
mod interrupted;
#[expect(clippy::print_stdout, reason = "how a long campaign goes")]
mod kills;
#[expect(clippy::print_stdout, reason = "how long it takes")]
mod large;
mod live_database;
mod restore;
mod s3;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::Collector;
use crate::hosts::call;

const VOLUMES: &str = "/api/v1/volumes";

async fn send(
    collector: &Collector,
    method: Method,
    path: &str,
    tag: Option<&str>,
    body: &Value,
) -> (StatusCode, Value) {
    let headers: Vec<_> = tag.map(|tag| ("if-match", tag)).into_iter().collect();
    let answer = call(collector, method, path, &headers, &body.to_string()).await;
    let document = serde_json::from_slice(answer.body()).unwrap_or_default();
    (answer.status(), document)
}

async fn create(collector: &Collector, body: &Value) -> (StatusCode, Value) {
    send(collector, Method::POST, VOLUMES, None, body).await
}

fn path(volume: &Value) -> String {
    format!("{VOLUMES}/{}", volume["id"].as_str().unwrap())
}

/// Where a refused body was wrong.
fn place(problem: &Value) -> &str {
    problem["errors"][0]["pointer"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_edited_and_deleted_and_its_host_is_told_each_time() {
    let collector = Collector::start().await;
    let host = collector.host().await.id;
    let wanted = json!({
        "host_id": host, "name": "www", "rpo_s": 86400, "schedule": "0 2 * * *", "owner": " web ",
        "source": {"files": {"paths": ["/srv/www"], "excludes": ["*.tmp"]}}, "closed_windows": [[480, 1080]],
    });
    let (status, made) = create(&collector, &wanted).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    for (field, value) in [
        ("kind", json!("files")),
        ("status", json!("never")),
        ("owner", json!("web")),
        ("jitter_s", json!(600)),
        ("source", wanted["source"].clone()),
        ("closed_windows", json!([[480, 1080]])),
        ("running", Value::Null),
        ("version", json!(1)),
    ] {
        assert_eq!(made[field], value, "{field}: {made}");
    }
    assert_eq!(made["retention"]["daily"], 7, "{made}");
    let (status, again) = create(&collector, &wanted).await;
    assert_eq!(
        (status, &again["type"]),
        (StatusCode::CONFLICT, &json!("name_taken"))
    );

    let path = path(&made);
    let patch = json!({"rpo_s": null, "name": "web", "is_paused": true});
    let (status, _) = send(&collector, Method::PATCH, &path, None, &patch).await;
    assert_eq!(status, StatusCode::PRECONDITION_REQUIRED);
    let (status, _) = send(&collector, Method::PATCH, &path, Some("\"9\""), &patch).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let (status, is) = send(&collector, Method::PATCH, &path, Some("\"1\""), &patch).await;
    assert_eq!(status, StatusCode::OK, "{is}");
    assert_eq!(
        (&is["rpo_s"], &is["name"], &is["version"]),
        (&Value::Null, &json!("web"), &json!(2))
    );
    let kind = json!({"source": {"command": {"program": "pg"}}});
    let (status, problem) = send(&collector, Method::PATCH, &path, Some("*"), &kind).await;
    assert_eq!(
        (status, place(&problem)),
        (StatusCode::UNPROCESSABLE_ENTITY, "/source")
    );
    let listed = collector
        .get(&format!("{VOLUMES}?q=WEB&is_paused=true&status=never"))
        .await;
    assert_eq!(listed["total"], 1, "{listed}");

    let (status, _) = send(&collector, Method::DELETE, &path, None, &json!({})).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = send(&collector, Method::GET, &path, None, &json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    // The name is free again.
    let (status, made) = create(&collector, &wanted).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let commands = collector
        .get(&format!("/api/v1/hosts/{host}/commands"))
        .await;
    let actions = commands["items"].as_array().unwrap().iter();
    let told = actions
        .filter(|command| command["action"] == "refresh_volumes")
        .count();
    assert_eq!(told, 4, "{commands}");
    let audit = collector.get("/api/v1/audit?limit=100").await;
    for action in ["volume.create", "volume.update", "volume.delete"] {
        let entries = audit["items"].as_array().unwrap();
        assert!(
            entries.iter().any(|entry| entry["action"] == action),
            "{action}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a list")]
async fn what_is_no_volume_is_refused_with_its_place() {
    let collector = Collector::start().await;
    let host = collector.host().await.id;
    let good = json!({"host_id": host, "name": "a", "source": {"command": {"program": "pg"}}});
    for (field, value, pointer) in [
        (
            "host_id",
            json!("01970000-0000-7000-8000-000000000009"),
            "/host_id",
        ),
        ("name", json!(""), "/name"),
        ("name", json!(".."), "/name"),
        ("name", json!("a/b"), "/name"),
        ("name", json!("a".repeat(65)), "/name"),
        ("source", json!({}), "/source"),
        (
            "source",
            json!({"command": {"program": "p"}, "external": {"program": "p"}}),
            "/source",
        ),
        (
            "source",
            json!({"command": {"program": "/bin/sh"}}),
            "/source/command/program",
        ),
        (
            "source",
            json!({"command": {"argv": ["sh"]}}),
            "/source/command/argv",
        ),
        (
            "source",
            json!({"files": {"paths": []}}),
            "/source/files/paths",
        ),
        (
            "source",
            json!({"files": {"paths": ["srv"]}}),
            "/source/files/paths/0",
        ),
        (
            "source",
            json!({"files": {"paths": ["/srv", "/a/../etc"]}}),
            "/source/files/paths/1",
        ),
        (
            "source",
            json!({"files": {"paths": ["/a"], "excludes": ["a\nb"]}}),
            "/source/files/excludes/0",
        ),
        ("schedule", json!("every day"), "/schedule"),
        ("schedule", json!("0 0 30 2 *"), "/schedule"),
        ("jitter_s", json!(-1), "/jitter_s"),
        ("rpo_s", json!(59), "/rpo_s"),
        ("retention", json!({"daily": 0}), "/retention"),
        ("retention", json!({"daily": 10_001}), "/retention"),
        ("closed_windows", json!([[0, 1440]]), "/closed_windows/0"),
        ("closed_windows", json!([[5, 5]]), "/closed_windows/0"),
        ("bandwidth", json!(1000), "/bandwidth"),
        ("pre_hook", json!("a b"), "/pre_hook"),
        ("owner", json!("a\u{0}"), "/owner"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let (status, problem) = create(&collector, &body).await;
        assert_eq!(
            status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{body}: {problem}"
        );
        assert_eq!(place(&problem), pointer, "{body}: {problem}");
    }
    let (status, made) = create(&collector, &good).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(collector.get(VOLUMES).await["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_asked_of_agents_and_other_hosts_may_be_let_read_for_a_while() {
    let collector = Collector::start().await;
    let (host, other) = (collector.host().await.id, collector.host().await.id);
    let mut ids = Vec::new();
    for (host, name) in [(host, "a"), (host, "b"), (other, "a")] {
        let body = json!({"host_id": host, "name": name, "source": {"command": {"program": "pg"}}});
        ids.push(create(&collector, &body).await.1["id"].clone());
    }
    let runs = "/api/v1/backup-runs";
    for (body, count) in [
        (json!({"volumes": [ids[0]]}), 1),
        (json!({"host": host}), 2),
        (json!({"all": true}), 3),
    ] {
        let (status, started) = send(&collector, Method::POST, runs, None, &body).await;
        assert_eq!(status, StatusCode::CREATED, "{started}");
        assert_eq!(
            started["commands"].as_array().unwrap().len(),
            count,
            "{body}"
        );
    }
    let commands = collector
        .get(&format!("/api/v1/hosts/{other}/commands"))
        .await;
    let asked = &commands["items"][0];
    assert_eq!(
        (&asked["action"], &asked["target"]),
        (&json!("run_backup"), &ids[2])
    );
    for body in [
        json!({}),
        json!({"all": true, "host": host}),
        json!({"volumes": [host]}),
    ] {
        let (status, problem) = send(&collector, Method::POST, runs, None, &body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    }

    let grants = format!("{VOLUMES}/{}/grants", ids[0].as_str().unwrap());
    let wanted = json!({"host_id": other, "reason": "the old one burned", "lifetime_s": 60});
    let (status, grant) = send(&collector, Method::POST, &grants, None, &wanted).await;
    assert_eq!(status, StatusCode::CREATED, "{grant}");
    assert_eq!(
        collector.get(&grants).await["items"][0]["host_id"],
        json!(other)
    );
    for (field, value) in [
        ("host_id", json!(host)),
        ("lifetime_s", json!(604_801)),
        ("reason", json!(" ")),
    ] {
        let mut bad = wanted.clone();
        bad[field] = value;
        let (status, problem) = send(&collector, Method::POST, &grants, None, &bad).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert_eq!(place(&problem), format!("/{field}"));
    }
    let one = format!("{grants}/{}", grant["id"].as_str().unwrap());
    let (status, _) = send(&collector, Method::DELETE, &one, None, &json!({})).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = send(&collector, Method::DELETE, &one, None, &json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

/// A volume of this host with a run under way, one that failed, a snapshot and a grant, that all have this text wherever a host or a
/// person can bring it; its id.
#[expect(clippy::too_many_lines, reason = "all that a page shows")]
pub(crate) async fn volume_of(collector: &Collector, host: &str, text: &str) -> String {
    let owner: String = text
        .chars()
        .filter(|char| !char.is_control())
        .take(200)
        .collect();
    let owner = if owner.trim().is_empty() {
        "web"
    } else {
        owner.trim()
    };
    let pattern: String = text.replace(['\n', '\0'], " ");
    let body = json!({
        "host_id": host, "name": format!("v{}", uuid::Uuid::new_v4()), "rpo_s": 3600, "owner": owner,
        "schedule": "0 2 * * *", "closed_windows": [[480, 1080]], "bandwidth": 1_048_576, "pre_hook": "quiesce",
        "source": {"files": {"paths": ["/srv/www", format!("/{}", pattern.replace("..", "").trim_matches('/').chars().take(200).collect::<String>())],
                             "excludes": ["*.tmp"]}},
    });
    let (status, made) = create(collector, &body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let id = made["id"].as_str().unwrap().to_owned();
    let said = text.replace('\0', " ");
    for state in ["running", "failed"] {
        sqlx::query(
            "insert into backup_runs (run_id, volume_id, host_id, trigger, state, reason, detail, started_at, host_started_at,
                 lease_until, progress, files, bytes, errors, errors_total, agent)
             values (gen_random_uuid(), $1::text::uuid, $2::text::uuid, $3, $4, $3, $3, now() - interval '1 minute', now(),
                 case when $4 = 'running' then now() + interval '1 day' end,
                 '{\"files\": 7, \"bytes\": 1000000, \"bytes_expected\": 5000000, \"sent_bytes\": 3}', 7, 1000000, array[$3], 1, $3)",
        )
        .bind(&id)
        .bind(host)
        .bind(&said)
        .bind(state)
        .execute(&collector.pool)
        .await
        .unwrap();
    }
    sqlx::query(
        "insert into snapshots (snapshot_id, volume_id, run_id, host_id, kind, is_whole, at, is_clock_wrong, arrived_at, files, bytes,
             held_at, held_by, held_because)
         select gen_random_uuid(), volume_id, run_id, host_id, 'files', true, now(), true, now(), 7, 1000000, now(), $2, $2
         from backup_runs where volume_id = $1::text::uuid limit 1",
    )
    .bind(&id)
    .bind(&said)
    .execute(&collector.pool)
    .await
    .unwrap();
    // Its drill has its id.
    sqlx::query(
        "insert into drills (drill_id, volume_id, host_id, trigger, asked_by, mode, state, reason, detail, started_at, ended_at,
             is_sampled, files, bytes, files_total, bytes_total, mismatches, differing, restore_ms, rto_s, checks, tools, agent)
         select volume_id, volume_id, host_id, 'command', $2, 'full', 'failed', $2, $2, now() - interval '1 minute', now(),
             true, 7, 1000000, 9, 2000000, 1, array[$2], 5000, 4,
             json_build_array(json_build_object('name', $2, 'outcome', 'failed', 'detail', $2))::jsonb,
             json_build_array(json_build_array($2, $2))::jsonb, $2
         from volumes where volume_id = $1::text::uuid",
    )
    .bind(&id)
    .bind(&said)
    .execute(&collector.pool)
    .await
    .unwrap();
    sqlx::query("update volumes set last_drill_id = volume_id where volume_id = $1::text::uuid")
        .bind(&id)
        .execute(&collector.pool)
        .await
        .unwrap();
    sqlx::query(
        "insert into backup_grants (grant_id, volume_id, host_id, reason, created_at, created_by, expires_at)
         values (gen_random_uuid(), $1::text::uuid, $2::text::uuid, $3, now(), $3, now() + interval '1 hour')",
    )
    .bind(&id)
    .bind(host)
    .bind(&said)
    .execute(&collector.pool)
    .await
    .unwrap();
    id
}
