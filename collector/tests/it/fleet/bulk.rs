//! Many hosts at once from the page: it says what it would do to how many, and does that to those or nothing.

use http::StatusCode;
use infratrack_collector::roles::Role;

use super::{form, hidden, role, text};
use crate::harness::Collector;
use crate::hosts::{fleet, ids, walk};

/// What the page that asks sends when the answer is yes.
fn confirmed(html: &str) -> Vec<(&'static str, String)> {
    let names = ["which", "filter", "deed", "value", "total", "digest"];
    let mut fields: Vec<_> = names.map(|name| (name, hidden(html, name))).into();
    fields.push(("confirmed", "true".to_owned()));
    fields
}

async fn send(collector: &Collector, fields: &[(&str, String)]) -> (StatusCode, String) {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let response = form(collector, "/hosts/bulk", None, &fields).await;
    (response.status(), text(&response))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_match_are_counted_before_and_changed_after_the_answer() {
    let collector = Collector::start().await;
    fleet(&collector, 41, 300).await;
    let matching = walk(&collector, "environment=prod", 50).await;
    assert!(matching.len() > 50, "more than a page");
    let asked = [
        ("which", "all"),
        ("filter", "environment=prod"),
        ("deed", "add_tags"),
        ("value", "moved"),
    ];
    let response = form(&collector, "/hosts/bulk", None, &asked).await;
    let html = text(&response);
    let question = format!("<h1>Tag {} hosts with moved?</h1>", matching.len());
    assert!(html.contains(&question), "{html}");
    assert!(walk(&collector, "tag=moved", 50).await.is_empty());
    let (status, done) = send(&collector, &confirmed(&html)).await;
    assert_eq!(status, StatusCode::OK, "{done}");
    assert!(
        done.contains(&format!("{} changed", matching.len())),
        "{done}"
    );
    assert_eq!(
        ids(&walk(&collector, "tag=moved", 50).await),
        ids(&matching)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_other_hosts_match_by_then_nothing_is_done_and_it_asks_again() {
    let collector = Collector::start().await;
    fleet(&collector, 42, 40).await;
    let asked = [
        ("which", "all"),
        ("filter", "owner=alice"),
        ("deed", "environment"),
        ("value", "new"),
    ];
    let question = text(&form(&collector, "/hosts/bulk", None, &asked).await);
    // As many as before, but one is another.
    for sql in [
        "update hosts set owner = 'carol' where host_id = (select min(host_id::text)::uuid from hosts
             where owner = 'alice' and retired_at is null)",
        "update hosts set owner = 'alice' where host_id = (select min(host_id::text)::uuid from hosts
             where owner = 'bob' and retired_at is null)",
    ] {
        assert_eq!(sqlx::query(sql).execute(&collector.pool).await.unwrap().rows_affected(), 1);
    }
    let (status, again) = send(&collector, &confirmed(&question)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(again.contains("Meanwhile other hosts match"), "{again}");
    assert!(
        walk(&collector, "environment=new&state=all", 50)
            .await
            .is_empty()
    );
    // One more.
    let sql = "update hosts set owner = 'alice' where owner = 'carol'";
    sqlx::query(sql).execute(&collector.pool).await.unwrap();
    let (status, third) = send(&collector, &confirmed(&again)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        walk(&collector, "environment=new&state=all", 50)
            .await
            .is_empty()
    );
    let (status, done) = send(&collector, &confirmed(&third)).await;
    assert_eq!(status, StatusCode::OK, "{done}");
    let moved = ids(&walk(&collector, "environment=new", 50).await);
    assert_eq!(moved, ids(&walk(&collector, "owner=alice", 50).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn ticked_hosts_are_those_that_are_meant_and_each_role_does_what_it_may() {
    let collector = Collector::start().await;
    fleet(&collector, 43, 30).await;
    let all = ids(&walk(&collector, "", 50).await);
    let (one, two) = (all[1].as_str(), all[4].as_str());
    let retire = [
        ("which", "ticked"),
        ("filter", ""),
        ("id", one),
        ("id", two),
        ("deed", "retire"),
    ];
    let viewer = role(&collector, Role::Viewer).await;
    let operator = role(&collector, Role::Operator).await;
    let refused = form(&collector, "/hosts/bulk", Some(&viewer), &retire).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let refused = form(&collector, "/hosts/bulk", Some(&operator), &retire).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(
        text(&refused).contains("needs the role lead"),
        "{refused:?}"
    );
    let html = text(&form(&collector, "/hosts/bulk", None, &retire).await);
    assert!(html.contains("<h1>Retire 2 hosts?</h1>"), "{html}");
    let mut yes = confirmed(&html);
    yes.extend([("id", one.to_owned()), ("id", two.to_owned())]);
    let (status, done) = send(&collector, &yes).await;
    assert_eq!(status, StatusCode::OK, "{done}");
    let left = ids(&walk(&collector, "", 50).await);
    assert_eq!(left.len() + 2, all.len());
    assert!(!left.contains(&all[1]) && !left.contains(&all[4]));

    for (fields, words) in [
        (
            vec![("which", "ticked"), ("deed", "retire")],
            "No host is ticked",
        ),
        (
            vec![("which", "all"), ("deed", "explode")],
            "Say what to do",
        ),
        (
            vec![("which", "all"), ("deed", "add_tags"), ("value", " , ")],
            "Say which tag",
        ),
        (
            vec![
                ("which", "all"),
                ("filter", "color=red"),
                ("deed", "retire"),
            ],
            "color",
        ),
    ] {
        let response = form(&collector, "/hosts/bulk", None, &fields).await;
        let html = text(&response);
        assert!(response.status().is_client_error(), "{words}: {html}");
        assert!(
            html.contains("Nothing was changed") && html.contains(words),
            "{words}: {html}"
        );
    }
}
