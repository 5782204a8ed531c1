//! The live stream: rows as they change, new hosts, and every end that it has.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use infratrack_collector::roles::Role;
use infratrack_collector::store::{sessions, users};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::role;
use crate::harness::{Collector, DEADLINE, Host};
use crate::hosts::call;

/// A stream that is open.
struct Stream {
    body: Incoming,
    text: String,
}

impl Stream {
    async fn open(collector: &Collector, path: &str, who: (&str, &str)) -> Self {
        let (status, stream) = Self::ask(collector, path, who).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        stream
    }

    async fn ask(collector: &Collector, path: &str, who: (&str, &str)) -> (StatusCode, Self) {
        let address = collector.server.addresses.operators;
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", "test")
            .header(who.0, who.1);
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let (body, text) = (response.into_body(), String::new());
        (status, Self { body, text })
    }

    async fn admin(collector: &Collector, path: &str) -> Self {
        let token = format!("Bearer {}", collector.admin_token);
        Self::open(collector, path, ("authorization", &token)).await
    }

    /// Reads on; `false` where the stream is over.
    async fn read(&mut self) -> bool {
        let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await;
        match frame.expect("the stream is silent") {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap();
                self.text.push_str(std::str::from_utf8(&data).unwrap());
                true
            }
            Some(Err(error)) => panic!("{error}: {}", self.text),
            None => false,
        }
    }

    /// The data of the events of this name so far.
    fn events(&self, name: &str) -> Vec<String> {
        let head = format!("event: {name}\ndata: ");
        let events = self
            .text
            .split("\n\n")
            .filter_map(|event| event.strip_prefix(&head));
        events.map(str::to_owned).collect()
    }

    /// Reads until an event of this name satisfies.
    async fn until(&mut self, name: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let events = self.events(name).into_iter();
            let mut events = events.map(|data| serde_json::from_str(&data).unwrap());
            if let Some(found) = events.find(|event| is(event)) {
                return found;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "no {name}: {}",
                self.text
            );
            assert!(self.read().await, "over before {name}: {}", self.text);
        }
    }

    /// Reads to the end, and answers the last event.
    async fn end(&mut self) -> String {
        while self.read().await {}
        self.events("end").pop().expect("a stream says why it ends")
    }
}

async fn beat(collector: &Collector, host: &Host, cpu: f32) {
    let mut batch = host.batch(collector);
    let mut heartbeat = host.heartbeat(collector);
    heartbeat.cpu_ratio = Some(cpu);
    batch.heartbeat = Some(heartbeat);
    host.send(collector, &batch).await.unwrap();
}

fn is_row(id: Uuid, part: &str) -> impl Fn(&Value) -> bool {
    move |row| row["id"] == id.to_string() && row["html"].as_str().unwrap().contains(part)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_a_host_gets_its_row_and_then_each_change_of_it_and_of_no_other() {
    let collector = Collector::start().await;
    let (host, other) = (collector.host().await, collector.host().await);
    let path = format!("/live/hosts?ids={}&columns=status,cpu,owner", host.id);
    let mut stream = Stream::admin(&collector, &path).await;
    let row = stream.until("row", is_row(host.id.0, "unknown")).await;
    let html = row["html"].as_str().unwrap();
    assert!(html.starts_with("<tr id=\"host-"), "{html}");
    assert!(
        !html.contains("checkbox") && !html.contains("data-col=\"disk\""),
        "{html}"
    );
    beat(&collector, &other, 0.11).await;
    beat(&collector, &host, 0.77).await;
    stream.until("row", is_row(host.id.0, "77 %")).await;
    // An operator's edit counts as a change, too.
    collector.clock.advance(time::Duration::seconds(1));
    let path = format!("/api/v1/hosts/{}", host.id);
    let headers = [("if-match", "\"1\"")];
    let body = r#"{"owner": "<b>"}"#;
    let edited = call(&collector, Method::PATCH, &path, &headers, body).await;
    assert_eq!(edited.status(), StatusCode::OK, "{edited:?}");
    stream.until("row", is_row(host.id.0, "&#60;b&#62;")).await;
    assert!(
        !stream.text.contains(&other.id.to_string()),
        "{}",
        stream.text
    );
    assert!(!stream.text.contains("<b>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_comes_is_told_to_all_with_the_new_counts() {
    let collector = Collector::start().await;
    let mut stream = Stream::admin(&collector, "/live/hosts").await;
    stream
        .until("counts", |counts| {
            counts["total"] == 0 && counts["newest"].is_null()
        })
        .await;
    let host = collector.host().await;
    stream.until("counts", |counts| counts["total"] == 1).await;
    beat(&collector, &host, 0.1).await;
    let counts = stream
        .until("counts", |counts| counts["healthy"] == 1)
        .await;
    assert_eq!(counts["unknown"], 0);
    assert!(counts["newest"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_token_it_was_asked_for_with() {
    let collector = Collector::start().await;
    let token = role(&collector, Role::Viewer).await;
    let mut stream = Stream::open(&collector, "/live/hosts", ("authorization", &token)).await;
    let mut stays = Stream::admin(&collector, "/live/hosts").await;
    stream.until("counts", |_| true).await;
    let id = token
        .trim_start_matches("Bearer it_")
        .split('_')
        .next()
        .unwrap()
        .to_owned();
    let listed = collector.get("/api/v1/tokens").await;
    let listed = listed["items"].as_array().unwrap();
    let id = listed
        .iter()
        .filter_map(|token| token["id"].as_str())
        .find(|known| id.contains(known) || known.contains(&id))
        .unwrap_or_else(|| panic!("{id}: {listed:?}"));
    let (status, _) = collector
        .api(Method::DELETE, &format!("/api/v1/tokens/{id}"), "")
        .await;
    assert!(status.is_success());
    collector.clock.advance(time::Duration::seconds(61));
    assert_eq!(stream.end().await, "login");
    collector.clock.advance(time::Duration::minutes(10));
    assert_eq!(stays.end().await, "again");
}

/// A user's session that was used two minutes ago; answers its cookie.
async fn session(collector: &Collector, role: Role) -> (String, Uuid) {
    let mut connection = collector.pool.acquire().await.unwrap();
    let (now, secret) = (collector.clock.now(), Uuid::new_v4().to_string());
    let user = users::User {
        user_id: Uuid::new_v4(),
        name: "ada".to_owned(),
        role: role.name().to_owned(),
        password_hash: None,
        created_at: now,
        disabled_at: None,
        must_change_password: false,
    };
    users::insert(&mut connection, &user, "test").await.unwrap();
    let used = now - time::Duration::minutes(2);
    let session = sessions::NewSession {
        session_id: Uuid::new_v4(),
        secret_hash: &Sha256::digest(&secret),
        user_id: Some(user.user_id),
        token_id: None,
        now: used,
        authenticated_at: used,
        expires_at: now + time::Duration::HOUR,
        address: "127.0.0.1/32".parse().unwrap(),
        user_agent: "",
    };
    sessions::insert(&mut connection, &session).await.unwrap();
    (format!("infratrack={secret}"), session.session_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_no_use_of_its_session_and_ends_with_it_and_with_its_role() {
    let collector = Collector::start().await;
    let (cookie, id) = session(&collector, Role::Operator).await;
    let used_at = async || -> time::OffsetDateTime {
        let sql = "select used_at from sessions where session_id = $1";
        let found = sqlx::query_scalar(sql)
            .bind(id)
            .fetch_one(&collector.pool)
            .await;
        found.unwrap()
    };
    let before = used_at().await;
    let mut stream = Stream::open(&collector, "/live/hosts", ("cookie", &cookie)).await;
    stream.until("counts", |_| true).await;
    // It was asked again and goes on.
    collector.clock.advance(time::Duration::seconds(61));
    collector.host().await;
    stream.until("counts", |counts| counts["total"] == 1).await;
    assert_eq!(used_at().await, before);
    let sql = "update users set role = 'viewer'";
    sqlx::query(sql).execute(&collector.pool).await.unwrap();
    collector.clock.advance(time::Duration::seconds(61));
    assert_eq!(stream.end().await, "login");
    // And with the session itself.
    let mut stream = Stream::open(&collector, "/live/hosts", ("cookie", &cookie)).await;
    stream.until("counts", |_| true).await;
    let sql = "delete from sessions where session_id = $1";
    sqlx::query(sql)
        .bind(id)
        .execute(&collector.pool)
        .await
        .unwrap();
    collector.clock.advance(time::Duration::seconds(61));
    assert_eq!(stream.end().await, "login");
    let (status, _) = Stream::ask(&collector, "/live/hosts", ("cookie", &cookie)).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_limited_and_a_collector_that_stops_ends_them() {
    let collector = Collector::start().await;
    let ids: Vec<_> = (0..101).map(|_| Uuid::new_v4().to_string()).collect();
    let token = format!("Bearer {}", collector.admin_token);
    for refused in [
        format!("ids={}", ids.join(",")),
        "ids=x".to_owned(),
        "columns=x".to_owned(),
        "x=1".to_owned(),
    ] {
        let path = format!("/live/hosts?{refused}");
        let (status, _) = Stream::ask(&collector, &path, ("authorization", &token)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    }
    let mut streams = Vec::new();
    let refused = loop {
        let (status, stream) =
            Stream::ask(&collector, "/live/hosts", ("authorization", &token)).await;
        if status != StatusCode::OK {
            break status;
        }
        streams.push(stream);
        assert!(streams.len() <= 250, "one caller takes all");
    };
    assert_eq!(
        (refused, streams.len()),
        (StatusCode::SERVICE_UNAVAILABLE, 250)
    );
    let mut stream = streams.pop().unwrap();
    drop(streams);
    stream.until("counts", |_| true).await;
    let stopping = tokio::spawn(collector.server.stop());
    assert_eq!(stream.end().await, "again");
    let stopped = tokio::time::timeout(Duration::from_secs(15), stopping).await;
    stopped.expect("streams do not hold it up").unwrap();
}
