//! What operators make of a clone: a host of its own, or nobody.

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::Role;
use infratrack_shared::ids::CommandId;
use infratrack_shared::wire::answer::{Action, Command};
use infratrack_shared::wire::enroll::{RenewRequest, RenewResponse};
use infratrack_shared::wire::{PROTOCOL, path};
use serde_bytes::ByteBuf;
use serde_json::Value;

use crate::agents::clone::{Machine, beats, conflicts, hidden, set_apart, stored};
use crate::harness::{Collector, Host, refusal, send};

async fn decide(
    collector: &Collector,
    host: &Host,
    conflict: &Value,
    what: &str,
) -> (StatusCode, Value) {
    let id = conflict["id"].as_str().unwrap();
    let path = format!("/api/v1/hosts/{}/conflicts/{id}/{what}", host.id);
    collector.api(Method::POST, &path, "").await
}

async fn status(collector: &Collector, host: uuid::Uuid) -> Value {
    collector.get(&format!("/api/v1/hosts/{host}")).await["status"].clone()
}

/// The commands that come with the answer of an empty batch.
async fn commands(machine: &Machine, collector: &Collector, seen: Vec<CommandId>) -> Vec<Command> {
    let mut batch = machine.host.batch(collector);
    batch.commands_seen = seen;
    let mut connection = machine.host.connect(collector).await;
    let (_, mut answer) = send(&mut connection, &batch).await.unwrap();
    let mut commands = Vec::new();
    while let Some(frame) = answer.next_frame().await.unwrap() {
        commands.extend(frame.command);
    }
    commands
}

async fn renew(machine: &Machine, collector: &Collector) -> RenewResponse {
    let request = RenewRequest {
        protocol: PROTOCOL,
        csr: ByteBuf::from(machine.host.identity.request().unwrap()),
        instance: Some(machine.host.instance),
    };
    let mut connection = machine.host.connect(collector).await;
    connection.call(path::RENEW, &request).await.unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_clone_becomes_a_host_with_its_own_certificate_and_all_it_reported() {
    let collector = Collector::start().await;
    let (mut a, mut b, conflict) = set_apart(&collector).await;
    let (status_code, row) = decide(&collector, &a.host, &conflict, "split").await;
    assert_eq!(
        (status_code, &row["state"]),
        (StatusCode::OK, &"splitting".into())
    );
    assert_eq!(status(&collector, a.host.id.0).await, "unhealthy");
    // Only the clone is asked.
    assert_eq!(commands(&a, &collector, Vec::new()).await, []);
    let asked = crate::harness::eventually("the command", || async {
        commands(&b, &collector, Vec::new()).await.pop()
    })
    .await;
    assert_eq!(asked.action, Action::Renew);
    assert_eq!(asked.target.as_deref(), conflict["id"].as_str());
    b.host.identity.discard_next().unwrap();
    let renewed = renew(&b, &collector).await;
    assert_eq!(
        renew(&b, &collector).await.chain,
        renewed.chain,
        "a lost answer"
    );
    b.host.identity.store_next(&renewed.chain).unwrap();
    // Until the new pair is in use, the old one is still known as the clone's.
    b.goes_on(&collector).await;
    b.host.identity.promote_next().unwrap();
    assert_eq!(b.host.identity.current().unwrap().host.0, hidden(&conflict));
    b.goes_on(&collector).await;
    assert_eq!(commands(&b, &collector, vec![asked.id]).await, []);
    a.goes_on(&collector).await;
    // The host's own renewal keeps its name.
    let chain = renew(&a, &collector).await.chain;
    a.host.identity.store_next(&chain).unwrap();
    a.host.identity.promote_next().unwrap();
    assert_eq!(a.host.identity.current().unwrap().host, a.host.id);
    a.goes_on(&collector).await;
    let list = collector.get("/api/v1/hosts").await;
    assert_eq!(list["total"], 2, "{list}");
    for id in [a.host.id.0, hidden(&conflict)] {
        assert_eq!(status(&collector, id).await, "healthy");
    }
    let found = conflicts(&collector, &a.host).await;
    assert_eq!(
        (&found[0]["state"], &found[0]["resolved_by"]),
        (&"split".into(), &"test".into())
    );
    let stored = stored(&collector).await;
    assert_eq!(stored[&a.host.id.0], a.acknowledged);
    assert_eq!(stored[&hidden(&conflict)], b.acknowledged);
    assert_eq!(beats(&collector, hidden(&conflict)).await, b.beats);
    let (status_code, _) = decide(&collector, &a.host, &conflict, "drop").await;
    assert_eq!(
        status_code,
        StatusCode::CONFLICT,
        "it is a host like any other"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_clone_is_refused_however_often_it_restarts_and_the_host_is_not() {
    let collector = Collector::start().await;
    let second = collector.second().await;
    let (mut a, mut b, conflict) = set_apart(&collector).await;
    let before = stored(&collector).await;
    let (status_code, row) = decide(&collector, &a.host, &conflict, "drop").await;
    assert_eq!(
        (status_code, &row["state"]),
        (StatusCode::OK, &"dropped".into())
    );
    for collector in [&collector, &second] {
        b.emit(collector);
        let refused = refusal(b.report(collector, true, true).await);
        assert_eq!(refused, (StatusCode::FORBIDDEN, "clone_blocked".to_owned()));
        b.restart();
    }
    a.goes_on(&collector).await;
    assert_eq!(status(&collector, a.host.id.0).await, "healthy");
    let after = stored(&collector).await;
    assert_eq!(after[&hidden(&conflict)], before[&hidden(&conflict)]);
    assert_eq!(after[&a.host.id.0], a.acknowledged);
    assert_eq!(conflicts(&collector, &a.host).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_restarts_is_known_by_its_stream() {
    let collector = Collector::start().await;
    let (mut a, mut b, conflict) = set_apart(&collector).await;
    b.restart();
    b.goes_on(&collector).await;
    a.restart();
    a.goes_on(&collector).await;
    b.goes_on(&collector).await;
    assert_eq!(conflicts(&collector, &a.host).await.len(), 1);
    let stored = stored(&collector).await;
    assert_eq!(stored[&a.host.id.0], a.acknowledged);
    assert_eq!(stored[&hidden(&conflict)], b.acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_decide_and_viewers_do_not() {
    let collector = Collector::start().await;
    let (a, _b, conflict) = set_apart(&collector).await;
    let as_role = async |role: &str, what: &str| {
        let mut connection = collector.pool.acquire().await.unwrap();
        let new = NewToken::of_role(role, Role::parse(role).unwrap(), "test");
        let made = token::create(&mut connection, &new, collector.clock.now());
        let token = made.await.unwrap().1;
        let request = Request::post(format!(
            "/api/v1/hosts/{}/conflicts/{}/{what}",
            a.host.id,
            conflict["id"].as_str().unwrap()
        ));
        let request = request
            .header("host", "test")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::default())
            .unwrap();
        collector.request(request).await.status()
    };
    for what in ["split", "drop"] {
        assert_eq!(as_role("viewer", what).await, StatusCode::FORBIDDEN);
        assert_eq!(as_role("operator", what).await, StatusCode::OK);
    }
    let other = collector.host().await;
    let (status_code, _) = decide(&collector, &other, &conflict, "drop").await;
    assert_eq!(
        status_code,
        StatusCode::NOT_FOUND,
        "another host's conflict"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_page_shows_the_clone_and_its_button_drops_it() {
    let collector = Collector::start().await;
    let (a, _b, conflict) = set_apart(&collector).await;
    let page = format!("/hosts/{}", a.host.id);
    let drop_path = format!("{page}/conflicts/{}/drop", conflict["id"].as_str().unwrap());
    let ask = async |method: Method, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "test")
            .header("x-api-token", &collector.admin_token)
            .body(Full::default())
            .unwrap();
        let response = collector.request(request).await;
        let html = String::from_utf8(response.body().to_vec()).unwrap();
        (response.status(), html)
    };
    let (_, html) = ask(Method::GET, &page).await;
    assert!(html.contains(&drop_path), "{html}");
    assert!(html.contains(conflict["clone_boot_id"].as_str().unwrap()));
    assert_eq!(ask(Method::POST, &drop_path).await.0, StatusCode::SEE_OTHER);
    let (_, html) = ask(Method::GET, &page).await;
    assert!(!html.contains(&drop_path), "decided is decided: {html}");
    assert!(html.contains("set apart, dropped by test"), "{html}");
    assert_eq!(ask(Method::POST, &drop_path).await.0, StatusCode::CONFLICT);
}
