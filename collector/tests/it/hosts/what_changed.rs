//! `/api/v1/hosts/{id}/what-changed` and its page: what changed in the hours before a moment, ranked together.

use http::{Method, StatusCode};
use infratrack_shared::ids::HostId;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::call;
use super::touched::{Run, ago, event, fact, host, run, touch, upgrade};
use crate::harness::Collector;

async fn what_changed(collector: &Collector, host: HostId, query: &str) -> Value {
    let path = format!("/api/v1/hosts/{host}/what-changed{query}");
    collector.get(&path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_before_a_moment_is_ranked_together() {
    let collector = Collector::start().await;
    let id = host(&collector, "web-1").await;
    assert_eq!(what_changed(&collector, id, "").await["items"], json!([]));
    let failed = Run {
        outcome: "failed",
        ..run("ansible", "play", 125, 120)
    };
    let (change, _) = touch(&collector, id, &failed).await;
    touch(&collector, id, &run("terraform", "plan", 60, 60)).await;
    // Two during the play, one of nobody's, one of the day before the last.
    for minutes in [123, 110, 90, 30 * 60] {
        upgrade(&collector, id, minutes).await;
    }
    fact(&collector, id, 80, "facts.dns", Some(json!({}))).await;
    fact(&collector, id, 70, "facts.os", None).await;
    event(
        &collector,
        id,
        75,
        "boot",
        json!({"expected": "no", "kernel": "6.1"}),
    )
    .await;
    event(&collector, id, 74, "agent_start", json!({})).await;

    let found = what_changed(&collector, id, "").await;
    let gravities: Vec<_> = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["gravity"])
        .collect();
    assert_eq!(
        gravities,
        [
            "failed_change",
            "unexpected_reboot",
            "packages",
            "fact",
            "planned_only"
        ]
    );
    let counts = json!({"changes": 2, "packages": 3, "facts": 1, "reboots": 1, "unattributed": 2});
    assert_eq!(
        (&found["counts"], &found["is_cut"]),
        (&counts, &json!(false))
    );
    let play = &found["items"][0];
    assert_eq!(
        (
            &play["item"]["change_id"],
            &play["during_count"],
            &play["seconds_before"]
        ),
        (&json!(change), &json!(2), &json!(7200))
    );
    assert_eq!(play["during"][0]["title"], "Upgraded package-110 1 → 2");
    // 100 points, two hours before.
    assert_eq!(play["score"], 89.09);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_moment_and_the_hours_before_it_are_said() {
    let collector = Collector::start().await;
    let id = host(&collector, "web-1").await;
    touch(&collector, id, &run("ansible", "play", 125, 120)).await;
    for minutes in [123, 90, 30 * 60] {
        upgrade(&collector, id, minutes).await;
    }
    fact(&collector, id, 80, "facts.dns", Some(json!({}))).await;
    let day = what_changed(&collector, id, "").await;
    assert_eq!(day["counts"]["packages"], 2);
    let two_days = what_changed(&collector, id, "?hours=48").await;
    assert_eq!(two_days["counts"]["packages"], 3);
    let before = ago(&collector, 100).format(&Rfc3339).unwrap();
    let earlier = what_changed(&collector, id, &format!("?hours=1&before={before}")).await;
    assert_eq!(
        (&earlier["counts"]["changes"], &earlier["counts"]["facts"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(earlier["before"], before);

    let path = format!("/api/v1/hosts/{id}/what-changed");
    for refused in ["hours=0", "hours=169", "hours=x", "before=noon", "after=1"] {
        let (status, problem) = collector
            .api(Method::GET, &format!("{path}?{refused}"), "")
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}: {problem}");
    }
    let nobody = format!("/api/v1/hosts/{}/what-changed", Uuid::nil());
    assert_eq!(
        collector.api(Method::GET, &nobody, "").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_is_told_is_said_to_be_cut() {
    let collector = Collector::start().await;
    let id = host(&collector, "web-1").await;
    sqlx::query(
        "insert into fact_changes (host_id, changed_at, key, old_body, new_body)
         select $1, $2, 'facts.local.' || n, '1', '2' from generate_series(1, 250) n",
    )
    .bind(id.0)
    .bind(ago(&collector, 10))
    .execute(&collector.pool)
    .await
    .unwrap();
    upgrade(&collector, id, 5).await;
    let found = what_changed(&collector, id, "").await;
    assert_eq!(found["items"].as_array().unwrap().len(), 200);
    assert_eq!(
        (&found["is_cut"], &found["counts"]["facts"]),
        (&json!(true), &json!(200))
    );
    assert_eq!(found["items"][0]["gravity"], "packages");
}

async fn page(collector: &Collector, path: &str) -> String {
    let answer = call(collector, Method::GET, path, &[("accept", "text/html")], "").await;
    let text = String::from_utf8(answer.body().to_vec()).unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_link_to_changes_and_hostile_texts_stay_texts() {
    let collector = Collector::start().await;
    let id = host(&collector, "web-1").await;
    let path = format!("/hosts/{id}/what-changed");
    let evil = Run {
        title: format!(
            "<script>alert(1)</script>\u{202e}\u{7}'\"{}",
            "x<&".repeat(9_000)
        ),
        outcome: "failed",
        ..run("ansible", "play", 125, 120)
    };
    let (change, _) = touch(&collector, id, &evil).await;
    let written = Run {
        kind: "",
        from: 60,
        to: 50,
        ..evil
    };
    touch(&collector, id, &written).await;
    upgrade(&collector, id, 121).await;
    upgrade(&collector, id, 200).await;
    for path in [format!("/hosts/{id}"), path.clone()] {
        let shown = page(&collector, &path).await;
        assert!(
            !shown.contains("<script>alert") && !shown.contains('\u{202e}'),
            "{shown}"
        );
        assert!(
            shown.contains(&format!("<a href=\"/changes/{change}\">Ansible play</a>")),
            "{shown}"
        );
        assert!(
            shown.contains("<span class=\"badge bad\">failed</span>"),
            "{shown}"
        );
        assert!(shown.contains("during <a href=\"/changes/"), "{shown}");
        assert_eq!(shown.matches(">unattributed</span>").count(), 1, "{shown}");
        assert!(!shown.contains("style=\""), "styles stand in style sheets");
        assert!(shown.len() < 250 * 1024, "{}", shown.len());
    }
    let shown = page(&collector, &path).await;
    assert!(
        shown.contains("2 h before</time>") && shown.contains("1 changed during it"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_asked_by_its_form() {
    let collector = Collector::start().await;
    let id = host(&collector, "web-1").await;
    let path = format!("/hosts/{id}/what-changed");
    let empty = page(&collector, &path).await;
    assert!(
        empty.contains("Nothing is known to have changed"),
        "{empty}"
    );
    let earlier = page(
        &collector,
        &format!("{path}?before=2020-01-31T12:00:05&hours=48"),
    )
    .await;
    assert!(
        earlier.contains("The 48 h before 2020-01-31T12:00:05Z"),
        "{earlier}"
    );
    assert!(earlier.contains("value=\"2020-01-31T12:00:05\"") && earlier.contains("value=\"48\""));
    assert!(
        page(&collector, &format!("{path}?before=&hours="))
            .await
            .contains("The 24 h before")
    );
    for refused in ["hours=0", "hours=x", "before=noon", "what=1"] {
        let headers = [("accept", "text/html")];
        let answer = call(
            &collector,
            Method::GET,
            &format!("{path}?{refused}"),
            &headers,
            "",
        )
        .await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{refused}");
    }
}
