//! The Host page: in each of a host's states, with hostile texts, by role, and its buttons.

use bytes::Bytes;
use http::header::LOCATION;
use http::{Method, Response, StatusCode};
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::Role;
use infratrack_shared::wire::batch::Part;
use infratrack_shared::wire::heartbeat::FilesystemUsage;
use serde_json::{Value, json};
use time::Duration;

use super::{call, made, say, tree};
use crate::harness::{Collector, Host, part, record};

/// A page may weigh so much.
const WEIGHT: usize = 250 * 1024;

async fn get(collector: &Collector, path: &str) -> Response<Bytes> {
    call(collector, Method::GET, path, &[("accept", "text/html")], "").await
}

async fn page(collector: &Collector, path: &str) -> String {
    let answer = get(collector, path).await;
    let text = String::from_utf8(answer.body().to_vec()).unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}: {text}");
    text
}

/// Sends a form as whoever has that token.
async fn press(
    collector: &Collector,
    token: &str,
    path: &str,
    form: &[(&str, &str)],
) -> Response<Bytes> {
    let body = serde_html_form::to_string(form).unwrap();
    let bearer = format!("Bearer {token}");
    let headers = [
        ("accept", "text/html"),
        ("authorization", bearer.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    call(collector, Method::POST, path, &headers, &body).await
}

async fn token(collector: &Collector, role: Role) -> String {
    let mut connection = collector.pool.acquire().await.unwrap();
    let new = NewToken::of_role(role.name(), role, "test");
    token::create(&mut connection, &new, collector.clock.now())
        .await
        .unwrap()
        .1
}

fn text(response: &Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

async fn beat(collector: &Collector, host: &Host) {
    let mut batch = host.batch(collector);
    batch.heartbeat = Some(host.heartbeat(collector));
    host.send(collector, &batch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_shown_in_each_of_its_states() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let path = format!("/hosts/{}", host.id);
    let never = page(&collector, &path).await;
    for said in [
        "It has never reported",
        "never seen",
        "No heartbeat yet",
        "No facts yet",
        "Certificate issued",
    ] {
        assert!(never.contains(said), "{said}");
    }
    assert!(
        !never.contains("0 %") && !never.contains("data-charts"),
        "{never}"
    );

    beat(&collector, &host).await;
    let online = page(&collector, &path).await;
    assert!(
        online.contains("25 %") && online.contains("data-charts"),
        "{online}"
    );
    assert!(!online.contains("never reported"));
    // Whatever the heartbeat did not say is unknown, and charts of it are not drawn.
    assert!(
        online.contains("<dt>Memory</dt><dd>unknown</dd>"),
        "{online}"
    );
    assert!(online.contains("Unknown in this time: "), "{online}");

    collector.clock.advance(Duration::HOUR);
    let offline = page(&collector, &path).await;
    assert!(
        offline.contains("unhealthy") && offline.contains("offline"),
        "{offline}"
    );
    assert!(
        offline.contains("what it is like at this moment is unknown"),
        "{offline}"
    );

    let admin = collector.admin_token.clone();
    let answer = press(&collector, &admin, &format!("{path}/retire"), &[]).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{}", text(&answer));
    let retired = page(&collector, &path).await;
    assert!(
        retired.contains("It was retired") && retired.contains("Bring back"),
        "{retired}"
    );
    assert!(!retired.contains("Refresh facts") && !retired.contains("Retire…"));

    let manual = made(
        &collector,
        json!({"name": "switch-1", "notes": "in <rack> 7"}),
    )
    .await;
    let manual = page(
        &collector,
        &format!("/hosts/{}", manual["id"].as_str().unwrap()),
    )
    .await;
    assert!(
        manual.contains("It has no agent.") && manual.contains("in &#60;rack&#62; 7"),
        "{manual}"
    );
    assert!(!manual.contains("Refresh facts"));
}

/// Has the host's agent say that text wherever it says one.
async fn say_evil(collector: &Collector, host: &Host, evil: &str) {
    let mut batch = host.batch(collector);
    let mut heartbeat = host.heartbeat(collector);
    heartbeat.agent.version.replace_range(.., evil);
    heartbeat.filesystems = (0..40)
        .map(|n| FilesystemUsage {
            mount: format!("/{n}{evil}").chars().take(8000).collect(),
            total_bytes: 10,
            available_bytes: 1,
            inodes_total: 0,
            inodes_free: 0,
        })
        .collect();
    batch.heartbeat = Some(heartbeat);
    let at = collector.clock.clock().unix_millis();
    let records = (1..=3).map(|seq| {
        let kind: String = evil
            .chars()
            .take(if seq == 1 { 60 } else { 10_000 })
            .collect();
        record(seq, &kind, tree(&json!({"text": evil})), at)
    });
    batch.parts = vec![Part {
        records: records.collect(),
        ..part(collector, &[1, 2, 3])
    }];
    // Whatever of it the collector refuses is not shown; what it takes is.
    host.send(collector, &batch).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_says_is_shown_and_does_nothing() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let evil = format!(
        "<script>alert(1)</script>\u{202e}\u{7}'\"{}",
        "x<&".repeat(21_000)
    );
    say_evil(&collector, &host, &evil).await;
    beat(&collector, &host).await;
    let body = json!({"hostname": evil, "machine_id": evil, "release": evil, "deep": {(evil.clone()): evil}});
    for (version, key) in (1..).zip(["facts.identity", "facts.kernel", "facts.os"]) {
        say(&collector, &host, version, key, body.clone()).await;
        say(
            &collector,
            &host,
            version + 10,
            key,
            json!({"release": evil, "n": version}),
        )
        .await;
    }
    let path = format!("/hosts/{}", host.id);
    let mut seen = 0;
    for path in [
        path.clone(),
        format!("{path}/state"),
        format!("{path}/facts?key=facts.kernel"),
        format!("{path}?q=script&kinds=fact,event"),
        format!(
            "{path}?q={}",
            "%3Cscript%3Ealert(1)%3C%2Fscript%3E%E2%80%AE".repeat(20)
        ),
    ] {
        let page = page(&collector, &path).await;
        seen += page.matches("&#60;script&#62;alert(1)").count();
        // What is searched for stands in its own field as it was typed.
        let typed = page.replace(
            &"<script>alert(1)</script>\u{202e}"
                .repeat(20)
                .replace('<', "&#60;")
                .replace('>', "&#62;"),
            "",
        );
        let page = &typed;
        for inert in ["<script>alert", "\u{202e}", "\u{7}"] {
            assert!(!page.contains(inert), "{path}: {inert:?}");
        }
        assert!(page.len() < WEIGHT, "{path} weighs {}", page.len());
    }
    assert!(seen > 3, "{seen}");
    // A fact's own page has all of it, as far as anybody reads.
    let whole = get(&collector, &format!("{path}/facts?key=facts.os")).await;
    assert_eq!(whole.status(), StatusCode::OK);
    let none = get(&collector, &format!("{path}/facts?key=facts.none")).await;
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_seventy_facts_and_fifty_items_is_light() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    beat(&collector, &host).await;
    for sql in [
        "insert into facts (host_id, key, stream_ordinal, version, hash, body, changed_at)
         select $1, 'facts.local.' || n, 1, 1, '', jsonb_build_object('what', repeat('\"a b\" ', 50 * (n % 40))), now()
         from generate_series(1, 70) n",
        "insert into events (host_id, at, claimed_at, received_at, kind, body)
         select $1, now(), now(), now(), 'login', jsonb_build_object('who', n, 'from', repeat('\"x\"', 200))
         from generate_series(1, 80) n",
    ] {
        let made = sqlx::query(sql).bind(host.id.0).execute(&collector.pool).await;
        assert!(made.unwrap().rows_affected() >= 70);
    }
    let path = format!("/hosts/{}", host.id);
    let page = page(&collector, &path).await;
    assert_eq!(page.matches("<details class=\"fact\"").count(), 70);
    assert_eq!(page.matches("<li class=\"item").count(), 50);
    assert!(page.contains(">Older</a>"));
    assert!(page.len() < WEIGHT, "{}", page.len());
    assert!(!page.contains("style=\""), "styles stand in style sheets");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_says_what_is_shown() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    beat(&collector, &host).await;
    say(&collector, &host, 1, "facts.os", json!({"id": "debian"})).await;
    say(
        &collector,
        &host,
        2,
        "facts.cpu",
        json!({"model": "fast one"}),
    )
    .await;
    let path = format!("/hosts/{}", host.id);
    let show = async |query: &str| page(&collector, &format!("{path}?{query}")).await;
    let facts = show("kinds=fact&range=7d").await;
    assert!(facts.contains("facts.os was told first") && !facts.contains("Certificate issued"));
    assert!(
        facts.contains("range=7d#charts\" aria-current=\"true\">7d"),
        "{facts}"
    );
    // Links of one part keep what the others show.
    assert!(
        facts.contains(&format!(
            "{path}?kinds=certificate%2Cfact&amp;range=7d#timeline"
        )) || facts.contains(&format!(
            "{path}?kinds=certificate%2Cfact&#38;range=7d#timeline"
        )),
        "{facts}"
    );
    let searched = show("q=FAST").await;
    assert!(searched.contains("<details class=\"fact\" open>") && searched.contains("fast one"));
    assert_eq!(searched.matches("<details class=\"fact\"").count(), 1);
    assert!(show("q=slow").await.contains("No fact has"));
    let jumped = show("around=2020-01-01T12:00").await;
    assert!(
        jumped.contains("Around 2020-01-01T12:00:00Z")
            && jumped.contains("value=\"2020-01-01T12:00\"")
    );
    let day = show("after=2020-01-01T00:00:00Z&before=2020-01-02T00:00:00Z").await;
    assert!(day.contains("The 24 h before 2020-01-02T00:00:00Z"));
    assert!(day.contains("Nothing of these kinds happened in this time."));
    for refused in [
        "range=2d",
        "around=noon",
        "kinds=odd",
        "cursor=x",
        "from=2999-01-01",
        "what=1",
    ] {
        let answer = get(&collector, &format!("{path}?{refused}")).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_offers_what_the_role_may() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    beat(&collector, &host).await;
    let path = format!("/hosts/{}", host.id);
    let buttons = [
        "refresh", "renew", "edit", "tasks", "retire", "merge", "revoke", "delete",
    ];
    for (role, most) in [
        (Role::Viewer, 0),
        (Role::Operator, 4),
        (Role::Lead, 6),
        (Role::Admin, 8),
    ] {
        let bearer = format!("Bearer {}", token(&collector, role).await);
        let headers = [("accept", "text/html"), ("authorization", bearer.as_str())];
        let page = text(&call(&collector, Method::GET, &path, &headers, "").await);
        for (nth, button) in buttons.iter().enumerate() {
            let offered = page.contains(&format!("action=\"{path}/{button}\""));
            assert_eq!(offered, nth < most, "{button} for {role:?}");
        }
        let is_lead = role >= Role::Lead;
        assert_eq!(page.contains("Changes by people"), is_lead, "{role:?}");
    }
}

/// Presses a button of the host's page as the administrator: status, where it leads, and the page.
async fn act(
    collector: &Collector,
    host: &Host,
    button: &str,
    form: &[(&str, &str)],
) -> (StatusCode, String, String) {
    let path = format!("/hosts/{}/{button}", host.id);
    let answer = press(collector, &collector.admin_token, &path, form).await;
    let to = answer.headers().get(LOCATION);
    let to = to.map_or(String::new(), |to| to.to_str().unwrap().to_owned());
    (answer.status(), to, text(&answer))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_down_is_kept_and_a_refusal_is_said_on_the_page() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    beat(&collector, &host).await;
    let path = format!("/hosts/{}", host.id);
    let api = format!("/api/v1{path}");
    let act =
        async |button: &str, form: &[(&str, &str)]| act(&collector, &host, button, form).await;
    let version = collector.get(&api).await["version"].to_string();
    let form = [
        ("version", version.as_str()),
        ("tags", "web, dc:1"),
        ("owner", "ada"),
        ("environment", ""),
        ("notes", "a\r\nb"),
    ];
    assert_eq!(act("edit", &form).await.0, StatusCode::SEE_OTHER);
    let edited = collector.get(&api).await;
    assert_eq!(
        (&edited["owner"], &edited["notes"]),
        (&json!("ada"), &json!("a\nb"))
    );
    assert_eq!(edited["tags"].as_array().unwrap().len(), 2);
    assert_eq!(edited["environment"], Value::Null);
    // Somebody else edited it since.
    let stale = [("version", version.as_str()), ("owner", "bob")];
    let (status, _, said) = act("edit", &stale).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert!(said.contains("That was not done:"), "{said}");
    assert_eq!(collector.get(&api).await["owner"], "ada");

    let task = [
        ("title", "Reboot it"),
        ("kind", "reboot"),
        ("status", "planned"),
        ("at", "2030-01-31T12:00"),
        ("notes", ""),
    ];
    let (status, to, _) = act("tasks", &task).await;
    assert_eq!(
        (status, to.as_str()),
        (StatusCode::SEE_OTHER, format!("{path}#tasks").as_str())
    );
    let shown = page(&collector, &path).await;
    assert!(shown.contains("Reboot it") && shown.contains("to come"));
    let (status, _, said) = act("tasks", &[("title", ""), ("kind", "reboot")]).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(said.contains("That was not done: /title"), "{said}");
    for button in ["refresh", "renew"] {
        assert_eq!(act(button, &[]).await.1, format!("{path}#commands"));
    }
    assert_eq!(collector.get(&format!("{api}/commands")).await["total"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_retired_merged_and_deleted_from_its_page() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    beat(&collector, &host).await;
    let path = format!("/hosts/{}", host.id);
    let api = format!("/api/v1{path}");
    let act =
        async |button: &str, form: &[(&str, &str)]| act(&collector, &host, button, form).await;
    let (status, _, said) = act("merge", &[("into", &host.id.to_string())]).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(said.contains("is the host itself"), "{said}");
    assert_eq!(
        act("merge", &[("into", "somewhere")]).await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        act("delete", &[("name", "another")]).await.0,
        StatusCode::BAD_REQUEST
    );
    let name = collector.get(&api).await["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let (status, _, said) = act("delete", &[("name", &name)]).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(said.contains("retire the host first"), "{said}");
    assert_eq!(act("revoke", &[]).await.1, format!("{path}#certificates"));
    assert!(page(&collector, &path).await.contains("revoked"));
    assert_eq!(act("retire", &[]).await.0, StatusCode::SEE_OTHER);
    assert_eq!(act("unretire", &[]).await.0, StatusCode::SEE_OTHER);
    assert_eq!(act("retire", &[]).await.0, StatusCode::SEE_OTHER);
    let other = made(&collector, json!({"name": "stays"})).await;
    let into = format!(
        "https://collector.example/hosts/{}?range=1h#charts",
        other["id"].as_str().unwrap()
    );
    let (status, to, said) = act("merge", &[("into", &into)]).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{said}");
    assert_eq!(to, format!("/hosts/{}", other["id"].as_str().unwrap()));
    assert!(page(&collector, &path).await.contains("It was merged into"));
    let (status, to, _) = act("delete", &[("name", &name)]).await;
    assert_eq!((status, to.as_str()), (StatusCode::SEE_OTHER, "/hosts"));
    assert_eq!(get(&collector, &path).await.status(), StatusCode::NOT_FOUND);
}
