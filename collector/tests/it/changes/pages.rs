//! The pages of changes: what they show of plans, applies and plays, and what they never show.

use infratrack_collector::store::{play_results, run_resources};
use serde_json::{Value, json};
use uuid::Uuid;

use super::documents::{ansible, apply, change_of, plan, play, resource, terraform};
use crate::harness::Collector;
use crate::patches::pages::page;

/// Of a sensitive variable.
const CANARY: &str = "hunter2-not-a-real-secret";

fn id<'a>(taken: &'a Value, name: &str) -> &'a str {
    taken[name].as_str().unwrap()
}

fn change_page(taken: &Value) -> String {
    format!("/changes/{}", id(taken, "change_id"))
}

/// A plan with every way in which something differs, and a secret.
fn many_ways() -> Value {
    let mut web = resource(
        "module.web.aws_instance.a",
        &["update"],
        json!({"ami": "ami-1", "gone": "x", "ip": "192.0.2.1", "password": CANARY}),
        json!({"ami": "ami-2", "added": 1, "password": format!("{CANARY}-2")}),
    );
    web["module_address"] = json!("module.web");
    web["previous_address"] = json!("aws_instance.old");
    web["change"]["after_unknown"] = json!({"ip": true});
    web["change"]["before_sensitive"] = json!({"password": true});
    web["change"]["after_sensitive"] = json!({"password": true});
    let replaced = resource(
        "aws_instance.b",
        &["delete", "create"],
        json!({"n": 1}),
        json!({"n": 2}),
    );
    let same = resource("aws_instance.same", &["no-op"], json!({}), json!({}));
    let mut document = plan(&[web, replaced, same]);
    let drift = |number: i64| {
        let address = format!("aws_instance.d[{number}]");
        resource(
            &address,
            &["update"],
            json!({"tags": {"a": "1"}}),
            json!({"tags": {"a": number}}),
        )
    };
    let gone = resource(
        "aws_instance.lost",
        &["delete"],
        json!({"n": 1}),
        Value::Null,
    );
    document["resource_drift"] = json!([drift(1), drift(2), gone]);
    let later = resource("aws_instance.later", &["create"], Value::Null, json!({}));
    document["deferred_changes"] =
        json!([{"reason": "instance_count_unknown", "resource_change": later}]);
    document["action_invocations"] = json!([{"address": "action.aws_lambda_invoke.warm", "type": "aws_lambda_invoke",
        "name": "warm", "config_values": {"payload": "only-of-the-action"}, "config_sensitive": {},
        "lifecycle_action_trigger": {"triggering_resource_address": "module.web.aws_instance.a",
            "action_trigger_event": "AfterUpdate"}}]);
    document["variables"] = json!({"s": {"value": CANARY}});
    document["configuration"] = json!({"root_module": {"variables": {"s": {"sensitive": true}}}});
    document["output_changes"] = json!({"address": {"actions": ["update"], "before": "a", "after": "b",
        "after_unknown": false, "before_sensitive": false, "after_sensitive": false}});
    document["checks"] = json!([{"address": {"to_display": "check.up"}, "status": "fail",
        "instances": [{"problems": [{"message": format!("not up, {CANARY}")}]}]}]);
    document
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_what_differs_and_tells_unknown_gone_and_sensitive_apart() {
    let collector = Collector::start().await;
    let headers = [
        ("infratrack-repository", "https://git.example/a.git"),
        ("infratrack-run-url", "https://ci.example/9"),
        ("infratrack-actor", "ada"),
    ];
    let taken = terraform(&collector, &headers, &many_ways().to_string()).await;
    let base = change_page(&taken);
    let html = page(&collector, &base).await;
    for text in [
        "module.web",
        "Root module",
        "moved from <code>aws_instance.old",
        "<dt>ami</dt><dd class=\"was\"><del>&#34;ami-1&#34;</del></dd><dd class=\"is\"><ins>&#34;ami-2&#34;</ins></dd>",
        "<dt>gone</dt><dd class=\"was\"><del>&#34;x&#34;</del></dd></div>",
        "<dt>added</dt><dd class=\"is\"><ins>1</ins></dd>",
        "(known after apply)",
        "<dt>password</dt><dd class=\"muted\">(sensitive, changes)</dd>",
        "destroy, then create",
        "href=\"https://ci.example/9\" rel=\"noopener noreferrer\"",
        "check.up",
        "<code>action.aws_lambda_invoke.warm</code></td><td class=\"anywhere\">aws_lambda_invoke</td><td class=\"anywhere\">after update <code>module.web.aws_instance.a</code>",
        "actions to invoke",
        "Secrets taken out",
        "/artifact\" download",
    ] {
        assert!(html.contains(text), "{text}: {html}");
    }
    assert!(!html.contains("aws_instance.same"), "{html}");
    assert!(!html.contains("only-of-the-action"), "{html}");
    assert!(!html.contains("aws_instance.lost"), "{html}");
    let drifted = page(&collector, &format!("{base}?view=drift")).await;
    assert!(drifted.contains("<code>tags.a</code>"), "{drifted}");
    assert!(drifted.contains("changed outside") && drifted.contains("deleted outside"));
    let all = page(&collector, &format!("{base}?view=all")).await;
    assert!(all.contains("aws_instance.same"), "{all}");
    let run = format!("/api/v1{base}/runs/{}", id(&taken, "run_id"));
    let deferred = page(&collector, &format!("{base}?view=deferred")).await;
    assert!(
        deferred.contains("aws_instance.later")
            && deferred.contains("deferred: instance count unknown"),
        "{deferred}"
    );
    let deferred = collector
        .get(&format!("{run}/resources?part=deferred"))
        .await;
    assert_eq!(
        deferred["items"][0]["deferred_reason"], "instance_count_unknown",
        "{deferred}"
    );
    let groups = collector.get(&format!("{run}/drift")).await;
    let groups: Vec<_> = groups["items"].as_array().unwrap().clone();
    assert_eq!(groups.len(), 2, "{groups:?}");
    assert_eq!(
        (&groups[0]["count"], &groups[0]["attributes"]),
        (&json!(2), &json!(["tags.a"]))
    );
    assert_eq!(
        (&groups[1]["action"], &groups[1]["count"]),
        (&json!("delete"), &json!(1))
    );
    let list = page(&collector, "/changes?actor=ada&tool=terraform").await;
    assert!(list.contains(&base) && list.contains("+1 ~1 −1"), "{list}");
    assert!(list.contains("title=\"Without this\">who: ada"), "{list}");
    for html in [html, drifted, all, list] {
        assert!(!html.contains(CANARY));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_planned_stands_against_what_was_applied() {
    let collector = Collector::start().await;
    let headers = [
        ("infratrack-change-id", "CHG-7"),
        ("infratrack-workspace", "prod"),
    ];
    let made = |address: &str| resource(address, &["create"], Value::Null, json!({}));
    let planned = plan(&[made("a.done"), made("a.broken"), made("a.left")]);
    let taken = terraform(&collector, &headers, &planned.to_string()).await;
    let base = change_page(&taken);
    assert!(
        !page(&collector, &base)
            .await
            .contains("Planned against applied")
    );
    // Of another state of the same change.
    let other = [headers[0], ("infratrack-workspace", "test")];
    terraform(&collector, &other, &apply(&[("a.other", "create", true)])).await;
    let done = apply(&[("a.done", "create", true), ("a.broken", "create", false)]);
    terraform(&collector, &headers, &done).await;
    let html = page(&collector, &base).await;
    for text in [
        "Planned 3, applied 1",
        "1 failed",
        "1 not applied",
        "a.left",
        "a.broken",
    ] {
        assert!(html.contains(text), "{text}: {html}");
    }
    let applied = collector.get(&format!("/api/v1{base}")).await["applied"].clone();
    assert_eq!(
        (&applied["planned"], &applied["unplanned"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(
        applied["differences"],
        json!([
            {"address": "a.broken", "action": "create", "came": "failed"},
            {"address": "a.left", "action": "create", "came": "not_applied"},
        ])
    );
    terraform(
        &collector,
        &headers,
        &apply(&[("a.broken", "create", true), ("a.left", "create", true)]),
    )
    .await;
    let html = page(&collector, &base).await;
    assert!(html.contains("Planned 3, applied 3</p>"), "{html}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_play_shows_its_recap_tasks_and_results() {
    let collector = Collector::start().await;
    let run = Uuid::new_v4();
    let taken = ansible(&collector, run, &play("Packages", "0123456789abcdef")).await;
    let base = change_page(&taken);
    let html = page(&collector, &base).await;
    for text in [
        "web1",
        "192.0.2.1",
        "<th class=\"number\">Rescued</th>",
        "<td class=\"number\">4</td>",
    ] {
        assert!(html.contains(text), "{text}: {html}");
    }
    let tasks = page(&collector, &format!("{base}?run={run}&view=tasks")).await;
    let link = format!("{base}?run={run}&#38;view=results&#38;task=t&#38;batch=1#run");
    for text in [
        "Packages:4",
        link.as_str(),
        "<span class=\"badge bad\">1</span>",
        "1 ignored",
    ] {
        assert!(tasks.contains(text), "{text}: {tasks}");
    }
    let results = page(
        &collector,
        &format!("{base}?run={run}&view=results&task=t&batch=1"),
    )
    .await;
    for text in [
        "3 items, 2 changed",
        "<del>old",
        "exit code 2",
        "3 attempts",
        "standard error",
    ] {
        assert!(results.contains(text), "{text}: {results}");
    }
    let failed = page(&collector, &format!("{base}?run={run}&view=failed")).await;
    assert!(
        failed.contains("exit code 2") && !failed.contains("2 changed"),
        "{failed}"
    );
    let path = format!("/api/v1{base}/runs/{run}");
    let hosts = collector.get(&format!("{path}/hosts")).await;
    assert_eq!(hosts["items"][0]["recap"]["rescued"], 4, "{hosts}");
    let results = collector.get(&format!("{path}/results?failed=true")).await;
    assert_eq!(
        (&results["total"], &results["items"][0]["task_name"]),
        (&json!(1), &json!("Packages"))
    );
    let tasks = collector.get(&format!("{path}/tasks")).await;
    let task = &tasks["items"][0];
    assert_eq!(
        (&task["changed"], &task["failed"], &task["ignored"]),
        (&json!(1), &json!(1), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_resources_come_page_by_page() {
    let collector = Collector::start().await;
    let resources: Vec<_> = (0..120)
        .map(|number| {
            resource(
                &format!("a.b[{number}]"),
                &["create"],
                Value::Null,
                json!({"n": number}),
            )
        })
        .collect();
    let taken = terraform(&collector, &[], &plan(&resources).to_string()).await;
    let base = change_page(&taken);
    let mut address = base.clone();
    let mut seen = Vec::new();
    loop {
        let html = page(&collector, &address).await;
        let shown = (0..120).filter(|number| html.contains(&format!("<code>a.b[{number}]</code>")));
        seen.push(shown.count());
        let Some((before, _)) = html.split_once("#run\">Next page") else {
            break;
        };
        let (_, next) = before.rsplit_once("href=\"").unwrap();
        address = next.replace("&#38;", "&");
    }
    assert_eq!(seen, [50, 50, 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_stand_on_the_pages_as_text() {
    let collector = Collector::start().await;
    for evil in [
        "<script>window.struck=1</script>\"'><img src=x onerror=window.struck=1>".to_owned(),
        format!("\u{202e}gpj.exe\u{7}{}", "W".repeat(64 * 1024)),
    ] {
        let (id, pages) = change_of(&collector, &evil).await;
        for address in pages.iter().map(String::as_str).chain(["/changes"]) {
            let html = page(&collector, address).await;
            assert!(
                !html.contains("<script>window") && !html.contains("<img src=x"),
                "{address}"
            );
            assert!(!html.contains('\u{202e}'), "{address}");
            assert!(html.len() < 1024 * 1024, "{address}: {} bytes", html.len());
        }
        assert!(pages[0].contains(&id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_reads_is_read_by_an_index() {
    let collector = Collector::start().await;
    let mut connection = collector.pool.acquire().await.unwrap();
    // Of a table without rows any plan is as good.
    for way in ["enable_seqscan", "enable_sort", "enable_bitmapscan"] {
        let sql = sqlx::AssertSqlSafe(format!("set {way} = off"));
        sqlx::query(sql).execute(&mut *connection).await.unwrap();
    }
    let run = Uuid::nil();
    for (part, with_unchanged, index) in [
        (Some("drift"), false, "change_resources_different"),
        (Some("change"), false, "change_resources_different"),
        (Some("change"), true, "change_resources_pkey"),
        (None, true, "change_resources_pkey"),
    ] {
        let part = part.map(str::to_owned);
        let which = run_resources::Which {
            part,
            with_unchanged,
        };
        let plan = run_resources::explain(&mut connection, run, &which)
            .await
            .unwrap();
        assert!(plan.contains(index) && !plan.contains("Sort"), "{plan}");
    }
    for (failed, task, index) in [
        (false, None, "change_results_pkey"),
        (true, None, "change_results_failed"),
        (false, Some(("t".to_owned(), 1)), "change_results_of_task"),
    ] {
        let which = play_results::Which { failed, task };
        let plan = play_results::explain(&mut connection, run, &which)
            .await
            .unwrap();
        assert!(plan.contains(index), "{plan}");
        assert!(!plan.contains("Seq Scan"), "{plan}");
    }
}
