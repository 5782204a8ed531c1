//! The value of a sensitive variable, posted in every document of Terraform and wherever one can have it: it is in no table, no file, no
//! answer, no page and no line of the log, at debug level.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use infratrack_agent::identity::Identity;
use infratrack_shared::token::EnrollToken;
use infratrack_testkit::postgres::TestDatabase;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::documents;
use crate::harness::{Host, enroll_at};
use crate::program::{Listening, Program, url};

/// Of a sensitive variable.
const CANARY: &str = "hunter2-not-a-real-secret";
/// As it is, in base64, and as Postgres writes bytes.
const FORMS: [&str; 3] = [
    CANARY,
    "aHVudGVyMi1ub3QtYS1yZWFsLXNlY3JldA",
    "68756e746572322d6e6f742d612d7265616c2d736563726574",
];

/// Stands beside it and is no secret: where it is found, the other would be.
const PLAIN: &str = "seen-wherever-it-is-looked-for";

struct Watched {
    program: Program,
    at: Listening,
    token: String,
    seen: Vec<(String, String)>,
}

impl Watched {
    fn saw(&mut self, place: &str, text: String) {
        self.seen.push((place.to_owned(), text));
    }

    /// What is answered is watched, with its head.
    async fn ask(&mut self, request: http::request::Builder, body: String) -> (StatusCode, String) {
        let request = request.header("host", "test");
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let place = format!("{} {}", request.method(), request.uri());
        let stream = tokio::net::TcpStream::connect(self.at.operators).await;
        let stream = TokioIo::new(stream.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&text).into_owned();
        self.saw(&place, format!("{:?}\n{text}", head.headers));
        (head.status, text)
    }

    async fn get(&mut self, path: &str) -> String {
        let (status, text) = self.ask(Request::get(path), String::new()).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        text
    }

    async fn post(&mut self, stage: &str, document: String) -> (StatusCode, Value) {
        let request = Request::post("/ingest/terraform")
            .header("infratrack-workspace", "prod")
            .header("infratrack-change-id", "CHG-1")
            .header("infratrack-stage", stage);
        let (status, text) = self.ask(request, document).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    /// Every file below the collector's directory.
    fn saw_files(&mut self) {
        let mut open = vec![self.program.path("data")];
        let mut count = 0;
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if let Ok(bytes) = std::fs::read(&path) {
                    count += 1;
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    self.saw(&path.display().to_string(), text);
                }
            }
        }
        assert!(count > 3, "{count} files");
    }

    fn verdict(&self) {
        let places = self.seen.iter().filter(|(_, text)| text.contains(PLAIN));
        let places: Vec<_> = places.map(|(place, _)| place.as_str()).collect();
        for part in ["change_resources", "GET /changes/", "/artifact", "data/"] {
            let is_in = |place: &&str| place.contains(part);
            assert!(places.iter().any(is_in), "not in {part}: {places:?}");
        }
        for (place, text) in &self.seen {
            for form in FORMS {
                assert!(!text.contains(form), "{form} came out: {place}: {text}");
            }
        }
    }
}

/// With the secret in a mark, in texts around it, in names, in what is said, and in what is not kept at all.
fn plan(host: &str) -> Value {
    let tags = json!({"infratrack_host": host});
    let mut one = documents::resource(
        &format!("aws_instance.a[\"{CANARY}\"]"),
        &["update"],
        json!({"p": "old", "tags": tags}),
        json!({"p": CANARY, "tags": tags, "copy": format!("pre-{CANARY}-post"), "b": FORMS[1], "plain": PLAIN, CANARY: 1,
            "private_ip": CANARY, "id": CANARY}),
    );
    one["index"] = json!(CANARY);
    one["action_reason"] = json!(CANARY);
    one["previous_address"] = json!(format!("a.{CANARY}"));
    one["module_address"] = json!(format!("module.{CANARY}"));
    one["change"]["before_sensitive"] = json!({"p": true});
    one["change"]["after_sensitive"] = json!({"p": true});
    one["type"] = json!("aws_instance");
    one["change"]["generated_config"] = json!(format!("p = \"{CANARY}\""));
    let mut document = documents::plan(std::slice::from_ref(&one));
    document["resource_drift"] = json!([one]);
    document["deferred_changes"] = json!([{"reason": CANARY, "resource_change": one}]);
    document["action_invocations"] = json!([{"address": format!("action.x.{CANARY}"), "type": "x",
        "config_values": {"p": CANARY}, "config_sensitive": {"p": true},
        "lifecycle_action_trigger": {"triggering_resource_address": CANARY, "action_trigger_event": CANARY}}]);
    document["output_changes"] = json!({CANARY: {"actions": ["create"], "before": null, "after": CANARY,
        "after_unknown": false, "before_sensitive": true, "after_sensitive": true}});
    document["checks"] = json!([{"address": {"kind": "check", "to_display": CANARY}, "status": "fail",
        "instances": [{"problems": [{"message": format!("{CANARY} is bad")}]}]}]);
    document["relevant_attributes"] = json!([{"resource": "a", "attribute": [CANARY]}]);
    document["variables"] = json!({"s": {"value": CANARY}});
    document["planned_values"] = json!({"outputs": {"o": {"sensitive": true, "value": CANARY}}});
    document["configuration"] =
        json!({"root_module": {"variables": {"s": {"sensitive": true, "default": CANARY}}}});
    document
}

fn apply() -> String {
    let message = json!({"severity": "error", "summary": CANARY, "detail": format!("got {CANARY}"),
        "snippet": {"code": CANARY, "values": [{"traversal": "var.s", "statement": CANARY}]}});
    let outputs = json!({"o": {"sensitive": true, "type": "string", "value": CANARY}});
    let hook = json!({"resource": {"addr": "aws_instance.a"}, "action": "update", "id_key": "id", "id_value": CANARY});
    let events = [
        json!({"@level": "info", "type": "version", "terraform": "1.11.4"}),
        json!({"@level": "info", "@message": CANARY, "type": "apply_complete", "hook": hook}),
        json!({"@level": "error", "@message": CANARY, "type": "diagnostic", "diagnostic": message}),
        json!({"@level": "info", "type": "outputs", "outputs": outputs}),
    ];
    events.map(|event| event.to_string()).join("\n")
}

fn state() -> Value {
    json!({"format_version": "1.0", "terraform_version": "1.11.4", "values": {
        "outputs": {"o": {"sensitive": true, "type": "string", "value": CANARY}},
        "root_module": {"resources": [{"address": format!("aws_instance.a[\"{CANARY}\"]"), "mode": "managed",
            "type": "aws_instance", "name": "a", "provider_name": "x", "index": CANARY,
            "values": {"id": CANARY, "p": CANARY, "c": format!("x{CANARY}")}, "sensitive_values": {"p": true}}]}}})
}

/// Rows of every table, as Postgres writes them.
async fn rows(database: &TestDatabase) -> Vec<(String, String)> {
    let pool = sqlx::PgPool::connect_with(database.connect_options())
        .await
        .unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'public' and c.relkind = 'r'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let mut seen = Vec::new();
    for table in tables {
        let sql = sqlx::AssertSqlSafe(format!("select t::text from \"{table}\" t"));
        let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&pool).await.unwrap();
        seen.extend(rows.into_iter().map(|row| (table.clone(), row)));
    }
    pool.close().await;
    seen
}

/// Looks at everything that shows the change.
async fn look(watched: &mut Watched, taken: &[Value], host: &str) {
    let change = taken[0]["change_id"].as_str().unwrap();
    for path in ["/changes", "/api/v1/changes", "/api/v1/audit", "/metrics"] {
        watched.get(path).await;
    }
    let page = watched.get(&format!("/changes/{change}")).await;
    assert!(page.contains("[redacted]"), "{page}");
    for view in ["changes", "drift", "deferred", "all"] {
        watched.get(&format!("/changes/{change}?view={view}")).await;
    }
    for path in ["", "/links", "/hosts", "/related"] {
        watched
            .get(&format!("/api/v1/changes/{change}{path}"))
            .await;
    }
    for run in taken {
        let run = run["run_id"].as_str().unwrap();
        watched.get(&format!("/changes/{change}?run={run}")).await;
        for part in ["resources?unchanged=true", "drift", "artifact"] {
            let path = format!("/api/v1/changes/{change}/runs/{run}/{part}");
            watched.get(&path).await;
        }
    }
    let timeline = watched.get(&format!("/hosts/{host}")).await;
    assert!(timeline.contains(change), "{timeline}");
    let timeline = watched.get(&format!("/api/v1/hosts/{host}/timeline")).await;
    assert!(timeline.contains(change), "{timeline}");
    watched.get(&format!("/hosts/{host}/state")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_value_of_a_sensitive_variable_is_in_no_table_file_answer_page_or_log() {
    let database = TestDatabase::create().await.unwrap();
    let mut program = Program::new("");
    program.environment.push(("RUST_LOG", "debug".to_owned()));
    let path = program.file("url", &url(&database, "none"));
    program.configure(&format!("\n[database]\nurl_file = {path:?}\n"));
    let mut running = program.serve();
    let at = program.listening().await;
    let said = |arguments: &[&str]| {
        let output = program.run(arguments);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let enroll: EnrollToken = said(&["token", "enroll"]).parse().unwrap();
    let token = said(&["token", "admin"]);
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    enroll_at(at.enroll, &identity, &enroll).await.unwrap();
    let host = Host::of(identity, dir).id.to_string();
    let mut watched = Watched {
        program,
        at,
        token,
        seen: Vec::new(),
    };

    let document = plan(&host).to_string();
    let mut taken = Vec::new();
    for (stage, text) in [
        ("plan", document.clone()),
        ("apply", apply()),
        ("state", state().to_string()),
    ] {
        let (status, answer) = watched.post(stage, text).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        taken.push(answer);
    }
    assert_eq!(taken[0]["linked_hosts"], 1, "{}", taken[0]);
    // And what is refused.
    let cut = document.get(..document.len() - 9).unwrap().to_owned();
    for text in [cut, format!("{CANARY} {document}"), format!("\"{CANARY}\"")] {
        let (status, answer) = watched.post("plan", text).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    }
    look(&mut watched, &taken, &host).await;

    running.signal(Signal::SIGTERM);
    let within = std::time::Duration::from_secs(30);
    assert!(running.ended(within).await.unwrap().success());
    let log = watched.program.log();
    for words in ["\"DEBUG\"", "/ingest/terraform"] {
        assert!(log.contains(words), "no {words} in {log}");
    }
    watched.saw("the log", log);
    watched.saw_files();
    let rows = rows(&database).await;
    assert!(rows.iter().any(|(table, _)| table == "change_resources"));
    watched.seen.extend(rows);
    watched.verdict();
}
