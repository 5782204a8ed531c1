//! The audit log's page: filters, what was before and after, exports, and what is found when it is verified.

use http::{Method, StatusCode};
use serde_json::json;
use sqlx::AssertSqlSafe;
use time::Duration;

use super::Browser;
use crate::harness::{Collector, eventually};

const HOSTILE: &str = "=cmd|'/C calc'!A0<img src=x onerror=alert(1)>\u{202e}";

async fn all_sealed(collector: &Collector) {
    eventually("every row to be sealed", || async {
        let left: i64 = sqlx::query_scalar("select count(*) from audit_pending")
            .fetch_one(&collector.pool)
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
}

/// Makes a token of that name by the API; answers its id.
async fn token(collector: &Collector, name: &str) -> String {
    let new = json!({"name": name, "role": "viewer"}).to_string();
    let (status, made) = collector.api(Method::POST, "/api/v1/tokens", &new).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_filtered_by_its_address_and_paged() {
    let collector = Collector::start().await;
    let lead = Browser::of(&collector, "ada", "lead").await;
    let first = token(&collector, "one").await;
    collector.clock.advance(Duration::minutes(20));
    let second = token(&collector, "two").await;
    let page = lead.get("/audit?action=token.create").await;
    page.is(StatusCode::OK)
        .has(&first)
        .has(&second)
        .has("what: token.create");
    let by_target = lead
        .get(&format!("/audit?subject_id={first}&subject_kind=token"))
        .await;
    by_target.has("<ins>one</ins>").lacks("<ins>two</ins>");
    let from = collector.clock.now() - Duration::minutes(5);
    let from = from
        .format(&time::macros::format_description!(
            "[year]-[month]-[day]T[hour]:[minute]"
        ))
        .unwrap();
    let late = lead
        .get(&format!("/audit?action=token.create&from={from}"))
        .await;
    late.has("<ins>two</ins>")
        .lacks("<ins>one</ins>")
        .has(&format!("value=\"{from}\""));
    lead.get("/audit?actor=nobody")
        .await
        .has("No row matches")
        .has("who: nobody");
    // A form sends its empty fields, too.
    let empty = lead
        .get("/audit?actor=&action=&subject_kind=&subject_id=&from=&to=")
        .await;
    empty.is(StatusCode::OK).lacks("class=\"chips\"");
    lead.get("/audit?from=yesterday")
        .await
        .is(StatusCode::BAD_REQUEST)
        .has("must be a time");
    lead.get("/audit?cursor=odd")
        .await
        .is(StatusCode::BAD_REQUEST);
    for _ in 0..51 {
        token(&collector, "many").await;
    }
    let page = lead.get("/audit?action=token.create").await;
    let next = page
        .between("class=\"pager\"", "Next page")
        .rsplit("href=\"")
        .next()
        .unwrap();
    let next = next
        .split('"')
        .next()
        .unwrap()
        .replace("&amp;", "&")
        .replace("&#38;", "&");
    assert!(next.contains("action=token.create"), "{next}");
    lead.get(&next)
        .await
        .has("<ins>one</ins>")
        .has("First page")
        .lacks("Next page");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_anybody_called_something_shows_inert_and_no_spreadsheet_runs_it() {
    let collector = Collector::start().await;
    let lead = Browser::of(&collector, "ada", "lead").await;
    token(&collector, HOSTILE.trim_end_matches('\u{202e}')).await;
    let body = json!({"name": format!("web{}", "x".repeat(200)), "owner": "o"}).to_string();
    collector.api(Method::POST, "/api/v1/hosts", &body).await;
    let page = lead.get("/audit").await;
    page.is(StatusCode::OK).lacks("<img src=x").has("=cmd|");
    assert!(page.text.len() < 250_000, "{}", page.text.len());
    // As a name, and so in a cell of its own.
    sqlx::query("insert into audit_log (at, actor_kind, actor_name, action, subject_kind, subject_id) values ($1, 'user', $2, 'x', 'y', $2)")
        .bind(collector.clock.now())
        .bind(HOSTILE)
        .execute(&collector.pool)
        .await
        .unwrap();
    let page = lead.get("/audit?action=x").await;
    page.lacks("<img src=x").has("=cmd|");
    let csv = lead.get("/api/v1/audit?format=csv&action=x").await;
    csv.is(StatusCode::OK)
        .has("id,at,actor_kind,actor_name,")
        .has(",'=cmd|")
        .lacks(",=cmd|")
        .lacks("\"=cmd|");
    let ndjson = lead.get("/api/v1/audit?format=ndjson&action=x").await;
    let row: serde_json::Value = serde_json::from_str(ndjson.text.lines().next().unwrap()).unwrap();
    assert_eq!(row["actor_name"], HOSTILE);
    let none = lead.get("/api/v1/audit?format=csv&action=none").await;
    assert_eq!(none.text.lines().count(), 1, "{}", none.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_row_that_was_changed_is_named() {
    let collector = Collector::start().await;
    let lead = Browser::of(&collector, "ada", "lead").await;
    token(&collector, "one").await;
    token(&collector, "two").await;
    all_sealed(&collector).await;
    let whole = lead.post("/audit/verify", &[]).await;
    whole
        .is(StatusCode::OK)
        .has("The audit log is what was written")
        .lacks("role=\"alert\"");
    let id: i64 =
        sqlx::query_scalar("select min(audit_id) from audit_log where action = 'token.create'")
            .fetch_one(&collector.pool)
            .await
            .unwrap();
    let mut transaction = collector.pool.begin().await.unwrap();
    for sql in [
        "alter table audit_log disable trigger all".to_owned(),
        format!("update audit_log set actor_name = 'eve' where audit_id = {id}"),
        "alter table audit_log enable trigger all".to_owned(),
    ] {
        sqlx::query(AssertSqlSafe(sql))
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    let changed = lead.post("/audit/verify", &[]).await;
    changed
        .is(StatusCode::OK)
        .has("is not what was written")
        .has(&format!("row {id} (seal "));
    let (status, report) = collector
        .api(Method::POST, "/api/v1/audit/verify", "")
        .await;
    assert_eq!(
        (status, &report["is_whole"]),
        (StatusCode::OK, &json!(false))
    );
    let log = collector.get("/api/v1/audit?action=audit.verify").await;
    assert_eq!(log["total"], 3);

    let viewer = Browser::of(&collector, "bob", "viewer").await;
    viewer.get("/audit").await.is(StatusCode::FORBIDDEN);
    viewer
        .post("/audit/verify", &[])
        .await
        .is(StatusCode::FORBIDDEN);
}
