//! Saved views: whose they are, who sees them, who shares them, and which one comes first.

use http::header::LOCATION;
use http::{Method, StatusCode};
use infratrack_collector::roles::Role;
use serde_json::{Value, json};

use super::{form, page, role, text};
use crate::harness::Collector;
use crate::hosts::call;

async fn api(
    collector: &Collector,
    who: &str,
    method: Method,
    path: &str,
    body: &str,
) -> (StatusCode, Value) {
    let response = call(collector, method, path, &[("authorization", who)], body).await;
    let document = serde_json::from_slice(response.body()).unwrap_or_default();
    (response.status(), document)
}

async fn keep(collector: &Collector, who: &str, view: Value) -> (StatusCode, Value) {
    api(
        collector,
        who,
        Method::POST,
        "/api/v1/views",
        &view.to_string(),
    )
    .await
}

async fn names(collector: &Collector, who: &str) -> Vec<String> {
    let (_, list) = api(collector, who, Method::GET, "/api/v1/views", "").await;
    let views = list["items"].as_array().unwrap().iter();
    views
        .map(|view| view["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_ones_own_unless_a_lead_shares_them() {
    let collector = Collector::start().await;
    let viewer = role(&collector, Role::Viewer).await;
    let other = role(&collector, Role::Viewer).await;
    let lead = role(&collector, Role::Lead).await;
    let mine = json!({"name": "mine", "query": "?status=unhealthy&q=&cursor=x&columns=os"});
    let (status, made) = keep(&collector, &viewer, mine.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["query"], "status=unhealthy&columns=os");
    let shared = json!({"name": "for all", "query": "tag=a", "is_shared": true});
    let (status, _) = keep(&collector, &viewer, shared.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, for_all) = keep(&collector, &lead, shared).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(names(&collector, &viewer).await, ["for all", "mine"]);
    assert_eq!(names(&collector, &other).await, ["for all"]);
    // The same name replaces one's own, and nobody else's.
    let (_, again) = keep(
        &collector,
        &viewer,
        json!({"name": "mine", "query": "tag=b"}),
    )
    .await;
    assert_eq!(again["id"], made["id"]);
    let (_, theirs) = keep(&collector, &other, mine).await;
    assert_ne!(theirs["id"], made["id"]);
    let delete = async |who: &str, view: &Value| {
        let path = format!("/api/v1/views/{}", view["id"].as_str().unwrap());
        api(&collector, who, Method::DELETE, &path, "").await.0
    };
    assert_eq!(delete(&other, &made).await, StatusCode::NOT_FOUND);
    assert_eq!(delete(&lead, &made).await, StatusCode::NOT_FOUND);
    assert_eq!(delete(&viewer, &for_all).await, StatusCode::FORBIDDEN);
    assert_eq!(delete(&viewer, &made).await, StatusCode::NO_CONTENT);
    let admin = format!("Bearer {}", collector.admin_token);
    assert_eq!(delete(&admin, &for_all).await, StatusCode::NO_CONTENT);
    assert_eq!(names(&collector, &viewer).await, Vec::<String>::new());
    let audited = collector.get("/api/v1/audit?subject_kind=view").await;
    let actions: Vec<_> = audited["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "view.delete",
            "view.delete",
            "view.create",
            "view.create",
            "view.create",
            "view.create"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_asks_for_nothing_known_is_refused_and_there_are_so_many() {
    let collector = Collector::start().await;
    let viewer = role(&collector, Role::Viewer).await;
    for (view, place) in [
        (json!({"name": "", "query": ""}), "/name"),
        (json!({"name": "x", "query": "color=red"}), "/query"),
        (json!({"name": "x", "query": "status=fine"}), "/query"),
        (
            json!({"name": "x", "query": "q=".to_owned() + &"x".repeat(5000)}),
            "/query",
        ),
    ] {
        let (status, problem) = keep(&collector, &viewer, view).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], place);
    }
    let sql = "insert into saved_views
               select gen_random_uuid(), 'v' || n, '', owner, '', false, false, created_at, created_at
               from saved_views, generate_series(2, 100) as n";
    keep(&collector, &viewer, json!({"name": "v1", "query": ""})).await;
    sqlx::query(sql).execute(&collector.pool).await.unwrap();
    let (status, problem) = keep(&collector, &viewer, json!({"name": "more", "query": ""})).await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &json!("too_many_views"))
    );
    let (status, _) = keep(&collector, &viewer, json!({"name": "v7", "query": "tag=x"})).await;
    assert_eq!(status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_keeps_a_view_shows_it_first_and_takes_it_away() {
    let collector = Collector::start().await;
    collector.host().await;
    let go = async |path: &str| call(&collector, Method::GET, path, &[], "").await;
    assert_eq!(go("/hosts").await.status(), StatusCode::OK);
    let name = "<b>my\u{202e} view";
    let fields = [
        ("name", name),
        ("query", "tag=a&columns=os"),
        ("is_default", "true"),
    ];
    let kept = form(&collector, "/hosts/views", None, &fields).await;
    assert_eq!(kept.status(), StatusCode::SEE_OTHER, "{}", text(&kept));
    assert_eq!(kept.headers()[LOCATION], "/hosts?tag=a&columns=os");
    // Who asks for nothing gets it; who asks for all gets all.
    assert_eq!(
        go("/hosts").await.headers()[LOCATION],
        "/hosts?tag=a&columns=os"
    );
    let html = page(&collector, "/hosts?view=all").await;
    assert!(
        html.contains("&#60;b&#62;my") && !html.contains("<b>my"),
        "{html}"
    );
    let html = page(&collector, "/hosts?columns=os&tag=a").await;
    assert!(
        html.contains("href=\"/hosts?tag=a&#38;columns=os\" aria-current=\"page\""),
        "{html}"
    );
    // Another default takes its place.
    let fields = [
        ("name", "other"),
        ("query", "status=late"),
        ("is_default", "true"),
    ];
    assert_eq!(
        form(&collector, "/hosts/views", None, &fields)
            .await
            .status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let fields = [
        ("name", "other"),
        ("query", "liveness=late"),
        ("is_default", "true"),
    ];
    form(&collector, "/hosts/views", None, &fields).await;
    assert_eq!(
        go("/hosts").await.headers()[LOCATION],
        "/hosts?liveness=late"
    );
    let views = collector.get("/api/v1/views").await;
    for view in views["items"].as_array().unwrap() {
        let path = format!("/hosts/views/{}/delete", view["id"].as_str().unwrap());
        let gone = form(&collector, &path, None, &[]).await;
        assert_eq!(gone.headers()[LOCATION], "/hosts?view=all");
    }
    assert_eq!(go("/hosts").await.status(), StatusCode::OK);
}
