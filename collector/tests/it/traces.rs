//! Traces, as who takes them by OTLP sees them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use infratrack_agent::identity::Identity;
use infratrack_agent::uplink::Connection;
use infratrack_collector::clock::Clock;
use infratrack_shared::token::EnrollToken;
use infratrack_testkit::postgres::TestDatabase;
use infratrack_testkit::process::Process;
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;

use crate::harness::{Host, enroll_at, eventually, send};
use crate::program::{Listening, Program, url};
use receiver::{Manner, Receiver, attribute};

pub(crate) mod receiver;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
/// `OTEL_EXPORTER_OTLP_HEADERS` often has a key.
const KEY: &str = "canary-otlp-key-55d1";

struct Traced {
    program: Program,
    receiver: Receiver,
    running: Process,
    at: Listening,
    token: String,
    _database: TestDatabase,
}

impl Traced {
    /// A collector that sends its spans after `delay_ms`.
    async fn start(manner: Manner, delay_ms: u64) -> Self {
        let receiver = Receiver::start(manner).await;
        let database = TestDatabase::create().await.unwrap();
        let mut program = Program::new("");
        let path = program.file("url", &url(&database, "none"));
        program.configure(&format!(
            "\n[database]\nurl_file = {path:?}\n[telemetry]\nsample_ratio = 1.0\notlp_endpoint = {:?}\n",
            receiver.endpoint
        ));
        program.environment.extend([
            ("OTEL_BSP_SCHEDULE_DELAY", delay_ms.to_string()),
            ("OTEL_EXPORTER_OTLP_HEADERS", format!("x-key={KEY}")),
        ]);
        let running = program.serve();
        let at = program.listening().await;
        let token = said(&program, &["token", "admin"]);
        Self {
            program,
            receiver,
            running,
            at,
            token,
            _database: database,
        }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
        get(&mut connect(self.at.operators).await, path, headers).await
    }

    async fn metric(&self, line: &str) -> u64 {
        let text = self.get("/metrics", &[("x-api-token", &self.token)]).await;
        let text = String::from_utf8(text.body().to_vec()).unwrap();
        let value = text.lines().find_map(|found| found.strip_prefix(line));
        let value = value.unwrap_or_else(|| panic!("{line} is not in {text}"));
        value.trim().parse().unwrap()
    }

    async fn span(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        eventually(what, async || {
            self.receiver.spans().into_iter().find(|span| is_it(span))
        })
        .await
    }

    async fn stop(&mut self) {
        self.running.signal(Signal::SIGTERM);
        let ended = self.running.ended(Duration::from_secs(30)).await.unwrap();
        assert!(ended.success());
    }
}

fn said(program: &Program, arguments: &[&str]) -> String {
    let output = program.run(arguments);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn connect(to: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let stream = TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn get(
    sender: &mut SendRequest<Empty<Bytes>>,
    path: &str,
    headers: &[(&str, &str)],
) -> Response<Bytes> {
    let mut request = Request::get(path).header("host", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::new()).unwrap();
    sender.ready().await.unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

/// A host that reported once.
async fn report(traced: &Traced) -> String {
    let token: EnrollToken = said(&traced.program, &["token", "enroll"]).parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    enroll_at(traced.at.enroll, &identity, &token)
        .await
        .unwrap();
    let host = Host::of(identity, dir);
    let endpoint = host.endpoint_at(traced.at.agents);
    let mut connection = Connection::open(&endpoint).await.unwrap();
    let batch = host.batch_at(Clock::system().unix_millis());
    send(&mut connection, &batch).await.unwrap();
    host.id.to_string()
}

fn has_thread(process: &Process) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    tasks.filter_map(Result::ok).any(|task| {
        let name = std::fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.starts_with("OpenTelemetry"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_batches_flushes_and_jobs_arrive_as_spans_without_secrets() {
    let mut traced = Traced::start(Manner::Take, 100).await;
    assert!(has_thread(&traced.running));
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let bearer = format!("Bearer {}", traced.token);
    let headers = [
        ("traceparent", &*parent),
        ("x-request-id", "the-request"),
        ("authorization", &*bearer),
        ("cookie", "canary-cookie=1"),
    ];
    let answer = traced.get("/api/v1/hosts?q=canary-query", &headers).await;
    assert_eq!(answer.status(), 200);
    traced.get("/such/a/path?token=canary-query", &[]).await;
    let host = report(&traced).await;

    let request = traced
        .span("the request", |span| span.name == "GET /api/v1/hosts")
        .await;
    assert_eq!(hex::encode(&request.trace_id), TRACE);
    assert_eq!(hex::encode(&request.parent_span_id), PARENT);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/api/v1/hosts"),
        ("http.response.status_code", "200"),
        ("url.path", "/api/v1/hosts"),
        ("infratrack.request_id", "the-request"),
        ("enduser.id", "admin"),
    ] {
        assert_eq!(attribute(&request, name).as_deref(), Some(value), "{name}");
    }
    let stray = |span: &Span| attribute(span, "url.path").as_deref() == Some("/such/a/path");
    let stray = traced.span("a request without a route", stray).await;
    assert_eq!(stray.name, "GET");
    assert_eq!(attribute(&stray, "http.route"), None);

    let is_batch = |span: &Span| attribute(span, "infratrack.host_id").as_ref() == Some(&host);
    let batch = traced.span("the batch", is_batch).await;
    assert_eq!(batch.name, "POST /agent/v1/batch");
    assert_eq!(
        attribute(&batch, "http.response.status_code").as_deref(),
        Some("200")
    );
    let is_flush = |span: &Span| span.name == "flush" && span.parent_span_id == batch.span_id;
    let flush = traced.span("its flush", is_flush).await;
    assert_eq!(flush.trace_id, batch.trace_id);
    let job = traced.span("a job", |span| span.name == "job alive").await;
    assert_eq!(
        attribute(&job, "infratrack.job.outcome").as_deref(),
        Some("ok")
    );

    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["request_id"] == "the-request").then_some(line)
    };
    let log = traced.program.log();
    let line = log.lines().find_map(line).unwrap();
    assert_eq!(line["span"]["trace_id"], TRACE, "{line}");
    // Of a span, a line has no more than that.
    assert_eq!(line["span"].as_object().unwrap().len(), 2, "{line}");

    traced.stop().await;
    assert!(traced.receiver.heads().contains(KEY));
    let (text, log) = (traced.receiver.text(), traced.program.log());
    let secret = traced.token.split('_').nth(2).unwrap();
    for canary in [secret, "canary-query", "canary-cookie", KEY] {
        assert!(!text.contains(canary), "{canary} is in a span: {text}");
        assert!(!log.contains(canary), "{canary} is in the log: {log}");
    }
    assert!(text.contains("infratrack-collector"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_marked_and_what_waits_is_sent_at_the_end() {
    let mut traced = Traced::start(Manner::Take, 3_600_000).await;
    let answer = traced.get("/api/v1/hosts", &[]).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(traced.receiver.spans().len(), 0);
    traced.stop().await;
    let spans = traced.receiver.spans();
    let request = spans.iter().find(|span| span.name == "GET /api/v1/hosts");
    let request = request.unwrap();
    assert_eq!(
        attribute(request, "http.response.status_code").as_deref(),
        Some("401")
    );
    // A server's span is an error where the server is at fault.
    assert_eq!(request.status.as_ref().map_or(0, |status| status.code), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_refuses_or_comes_back_keeps_nobody_waiting() {
    let mut traced = Traced::start(Manner::Hang, 100).await;
    let mut sender = connect(traced.at.operators).await;
    for _ in 0..4_000 {
        let answer = get(&mut sender, "/such/a/path", &[]).await;
        assert_eq!(answer.status(), 404);
    }
    eventually("a request that hangs", async || {
        (traced.receiver.hung() > 0).then_some(())
    })
    .await;
    let waiting = traced.metric("trace_spans_waiting ").await;
    assert!((1..=2048).contains(&waiting), "{waiting}");
    assert!(
        traced
            .metric("trace_spans_total{outcome=\"dropped\"} ")
            .await
            > 0
    );
    assert_eq!(
        traced.metric("trace_spans_total{outcome=\"sent\"} ").await,
        0
    );

    traced.receiver.be(Manner::Refuse);
    eventually("it to refuse", async || {
        let failed = traced
            .metric("trace_spans_total{outcome=\"failed\"} ")
            .await;
        (failed > 1024).then_some(())
    })
    .await;
    assert!(traced.program.log().contains("spans are not taken"));
    traced.receiver.be(Manner::Take);
    eventually("it to take them", async || {
        let sent = traced.metric("trace_spans_total{outcome=\"sent\"} ").await;
        (sent > 0 && traced.program.log().contains("spans are taken again")).then_some(())
    })
    .await;

    // Nor at the end.
    traced.receiver.be(Manner::Hang);
    let hung = traced.receiver.hung();
    traced.get("/such/a/path", &[]).await;
    eventually("another that hangs", async || {
        (traced.receiver.hung() > hung).then_some(())
    })
    .await;
    traced.stop().await;
    assert!(traced.program.log().contains("some spans were not sent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_there_is_no_exporter() {
    let database = TestDatabase::create().await.unwrap();
    let program = Program::new("");
    let path = program.file("url", &url(&database, "none"));
    program.configure(&format!("\n[database]\nurl_file = {path:?}\n"));
    let process = program.serve();
    let at = program.listening().await;
    let token = said(&program, &["token", "admin"]);
    let mut sender = connect(at.operators).await;
    let answer = get(&mut sender, "/metrics", &[("x-api-token", &token)]).await;
    assert_eq!(answer.status(), 200);
    let text = String::from_utf8(answer.body().to_vec()).unwrap();
    assert!(!text.contains("trace_spans"), "{text}");
    assert!(!has_thread(&process));
    assert!(!program.log().contains("trace_id"));
}

#[test]
fn an_endpoint_that_is_none_stops_the_start() {
    let mut program = Program::new("");
    let endpoint = format!("http://user:{KEY}@localhost");
    program
        .environment
        .push(("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint));
    let output = program.run(&["serve"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{error}");
    assert!(
        error.contains("OTEL_EXPORTER_OTLP_ENDPOINT is no URL"),
        "{error}"
    );
    assert!(!error.contains(KEY), "{error}");
}
