//! Plays that a callback left on a control node, shipped by the agent's own code: each record once, whatever happens meanwhile.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use http::{Method, StatusCode};
use infratrack_agent::clock::Clock;
use infratrack_agent::config::Config;
use infratrack_agent::plays::Plays;
use infratrack_shared::ids::RunId;
use infratrack_shared::wire::plays::{Plays as Request, PlaysTaken};
use infratrack_shared::wire::{PROTOCOL, path};
use infratrack_testkit::proxy::Proxy;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Collector, Host, eventually_within};
use crate::hosts::call;

/// The agent waits between two attempts at an absent collector.
const LIMIT: Duration = Duration::from_secs(60);

/// What the callback of the collection writes with, in a process that is a play's.
const WRITER: &str = r#"
import json, sys
from ansible_collections.infratrack.infratrack.plugins.module_utils.spool import Spool
spool = Spool(sys.argv[1], sys.argv[2], 1 << 28)
for line in sys.stdin:
    spool.write(*json.loads(line))
    print("written", flush=True)
spool.close()
"#;

/// A play that goes on. Dropped without an end it is killed.
struct Play {
    child: Child,
    records: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
    _collection: TempDir,
}

impl Play {
    fn begin(folder: &Path, run: RunId) -> Self {
        let collection = tempfile::tempdir().unwrap();
        let namespace = collection.path().join("ansible_collections/infratrack");
        std::fs::create_dir_all(&namespace).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ansible");
        std::os::unix::fs::symlink(source, namespace.join("infratrack")).unwrap();
        let mut child = Command::new("python3")
            .args(["-B", "-c", WRITER])
            .arg(folder)
            .arg(run.to_string())
            .env("PYTHONPATH", collection.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            records: child.stdin.take(),
            said: BufReader::new(child.stdout.take().unwrap()),
            child,
            _collection: collection,
        }
    }

    fn write(&mut self, records: &[Value]) {
        let pipe = self.records.as_mut().unwrap();
        let records: Vec<_> = records.iter().map(line).collect();
        writeln!(pipe, "[{}]", records.join(",")).unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line, "written\n");
    }

    fn end(mut self) {
        self.write(&[end()]);
        drop(self.records.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A record as the callback writes it: its kind first.
fn line(record: &Value) -> String {
    let mut rest = record.as_object().unwrap().clone();
    let kind = rest.remove("kind").unwrap();
    let rest = Value::from(rest).to_string();
    rest.replacen('{', &format!("{{\"kind\":{kind},"), 1)
}

fn start() -> Value {
    json!({"kind": "start", "at": "2026-01-01T10:00:00.000Z", "format": 1, "process": RunId::random(), "playbook_number": 1,
        "ansible_version": "2.19.14", "python_version": "3.11.7", "controller": "ci-1", "user": "ada",
        "playbook": "site.yml", "playbook_path": "/srv/site.yml", "check": false, "diff": false})
}

fn result(host: u32) -> Value {
    json!({"kind": "result", "task": "t", "batch": 1, "host": format!("web{host}"), "status": "changed",
        "ended_at": "2026-01-01T10:00:01.000Z", "message": "x".repeat(200)})
}

fn end() -> Value {
    json!({"kind": "end", "at": "2026-01-01T10:00:02.000Z", "outcome": "ok"})
}

/// A control node, whose agent reaches the collector by a proxy.
struct Node {
    host: Host,
    proxy: Proxy,
    folder: PathBuf,
}

impl Node {
    async fn new(collector: &Collector) -> Self {
        let host = collector.host().await;
        let folder = host.dir.path().join("plays");
        std::fs::create_dir(&folder).unwrap();
        let proxy = Proxy::start(collector.server.addresses.agents).await;
        Self {
            host,
            proxy: proxy.unwrap(),
            folder,
        }
    }

    fn agent(&self) -> Plays {
        let config = Config {
            state_dir: self.host.dir.path().to_owned(),
            endpoints: vec![self.proxy.address().to_string()],
            plays_dir: self.folder.clone(),
            ..Config::default()
        };
        Plays::start(&config, Clock::system()).unwrap()
    }

    /// A spool by hand.
    fn leave(&self, run: RunId, records: &[Value]) {
        let lines: String = records.iter().map(|record| line(record) + "\n").collect();
        let text = format!("infratrack-ansible-spool 1 {run} 0\n{lines}");
        let part = self.folder.join("part");
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, self.file(run)).unwrap();
    }

    fn file(&self, run: RunId) -> PathBuf {
        self.folder.join(format!("{run}.spool"))
    }

    async fn shipped(&self, run: RunId) {
        eventually_within(LIMIT, "the play to be shipped", || async {
            (!self.file(run).exists()).then_some(())
        })
        .await;
    }
}

/// Its last record, results, and outcome, as the collector has them.
async fn stored(collector: &Collector, run: RunId) -> Option<(i64, i64, String)> {
    let sql = "select p.acked_seq, (select count(*) from change_results r where r.run_id = p.run_id), c.outcome
               from play_runs p join change_runs c using (run_id) where p.run_id = $1";
    let row = sqlx::query_as(sql).bind(run.0);
    row.fetch_optional(&collector.pool).await.unwrap()
}

async fn reaches(collector: &Collector, run: RunId, acked_seq: i64) {
    eventually_within(LIMIT, "the play's records to be stored", || async {
        let (acked, ..) = stored(collector, run).await?;
        (acked == acked_seq).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_play_is_shipped_once_while_agent_and_collector_come_and_go() {
    let collector = Collector::start().await;
    let node = Node::new(&collector).await;
    let agent = node.agent();
    let run = RunId::random();
    let mut play = Play::begin(&node.folder, run);
    play.write(&[start(), result(0), result(1)]);
    reaches(&collector, run, 3).await;
    // It grows while it is read; more than one request.
    let many: Vec<_> = (2..1402).map(result).collect();
    play.write(&many);
    reaches(&collector, run, 1403).await;
    drop(agent);
    play.write(&[result(1402)]);
    let agent = node.agent();
    reaches(&collector, run, 1404).await;
    // The collector goes, the play goes on, the collector is back at another port.
    let collector = collector
        .restarted(async |_| {
            play.write(&[result(1403)]);
        })
        .await;
    node.proxy.set_upstream(collector.server.addresses.agents);
    reaches(&collector, run, 1405).await;
    play.end();
    node.shipped(run).await;
    drop(agent);
    let stored = stored(&collector, run).await.unwrap();
    assert_eq!(stored, (1406, 1404, "succeeded".to_owned()));
    assert!(!node.folder.join(format!("{run}.acked")).exists());
    let changes = collector.get("/api/v1/changes").await;
    assert_eq!(changes["total"], 1, "{changes}");
    let sql = "select r.brought_by, h.name from change_runs r, hosts h where r.run_id = $1 and h.host_id = $2";
    let (brought_by, name): (String, String) = sqlx::query_as(sql)
        .bind(run.0)
        .bind(node.host.id.0)
        .fetch_one(&collector.pool)
        .await
        .unwrap();
    assert_eq!(brought_by, format!("agent of {name} ({})", node.host.id));
    let metrics = collector
        .server
        .app
        .metrics
        .encode(&collector.server.app)
        .unwrap();
    assert!(metrics.contains(r#"change_documents_total{tool="ansible",outcome="stored"}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_play_that_is_killed_is_interrupted_and_refused_records_are_gaps() {
    let collector = Collector::start().await;
    let node = Node::new(&collector).await;
    let _agent = node.agent();
    let (killed, bad) = (RunId::random(), RunId::random());
    let mut play = Play::begin(&node.folder, killed);
    play.write(&[start(), result(0)]);
    reaches(&collector, killed, 2).await;
    drop(play);
    node.shipped(killed).await;
    let interrupted = (3, 1, "interrupted".to_owned());
    assert_eq!(stored(&collector, killed).await, Some(interrupted));

    let no_result = json!({"kind": "result", "task": "t"});
    node.leave(bad, &[start(), no_result, result(1), end()]);
    node.shipped(bad).await;
    let gapped = (4, 1, "succeeded".to_owned());
    assert_eq!(stored(&collector, bad).await, Some(gapped));
    let warnings: Vec<String> =
        sqlx::query_scalar("select unnest(warnings) from change_runs where run_id = $1")
            .bind(bad.0)
            .fetch_all(&collector.pool)
            .await
            .unwrap();
    assert_eq!(warnings, ["1 events are missing: rejected_422"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_somebody_else_keeps_no_other_waiting() {
    let collector = Collector::start().await;
    let node = Node::new(&collector).await;
    let (theirs, own) = (RunId::random(), RunId::random());
    let body = json!({"run": theirs, "first_seq": 1, "records": [start()]}).to_string();
    let answer = call(&collector, Method::POST, "/ingest/ansible", &[], &body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    node.leave(theirs, &[start(), result(0), end()]);
    node.leave(own, &[start(), result(0), end()]);
    let _agent = node.agent();
    node.shipped(own).await;
    let known = stored(&collector, theirs).await.unwrap();
    assert_eq!((known.0, known.1), (1, 0));
    assert!(node.file(theirs).exists());
    // Nor is a run of an agent another host's, or a token's.
    let other = collector.host().await;
    let request = Request {
        protocol: PROTOCOL,
        run: own,
        first_seq: 1,
        records: vec![start().to_string()],
    };
    let mut connection = other.connect(&collector).await;
    let refused = connection.call_packed::<_, PlaysTaken>(path::PLAYS, &request);
    let refused = refused.await.unwrap_err().to_string();
    assert!(
        refused.contains("403") && refused.contains("another_token"),
        "{refused}"
    );
    let body = json!({"run": own, "first_seq": 4, "records": [result(1)]}).to_string();
    let answer = call(&collector, Method::POST, "/ingest/ansible", &[], &body).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_hosts_with_one_of_the_tags_may_bring_plays_and_others_keep_them() {
    let collector = Collector::start_with(|config| {
        config.changes.plays_from = vec!["control-node".to_owned(), "role=ci".to_owned()];
    })
    .await;
    let node = Node::new(&collector).await;
    let run = RunId::random();
    node.leave(run, &[start(), result(0), end()]);
    let agent = node.agent();
    let app = &collector.server.app;
    eventually_within(LIMIT, "the agent to be refused", || async {
        let text = app.metrics.encode(app).unwrap();
        let mut lines = text
            .lines()
            .filter(|line| line.contains(path::PLAYS) && line.contains("403"));
        lines.next().map(drop)
    })
    .await;
    drop(agent);
    let mut connection = node.host.connect(&collector).await;
    let request = Request {
        protocol: PROTOCOL,
        run,
        first_seq: 1,
        records: vec![start().to_string()],
    };
    let refused = connection.call_packed::<_, PlaysTaken>(path::PLAYS, &request);
    let refused = refused.await.unwrap_err().to_string();
    assert!(
        refused.contains("403") && refused.contains("plays_not_allowed"),
        "{refused}"
    );
    assert_eq!(stored(&collector, run).await, None);
    assert!(node.file(run).exists());
    assert!(!node.file(run).with_extension("damaged").exists());
    sqlx::query("update hosts set tags = '{a,role=ci}' where host_id = $1")
        .bind(node.host.id.0)
        .execute(&collector.pool)
        .await
        .unwrap();
    let _agent = node.agent();
    node.shipped(run).await;
    let whole = (3, 1, "succeeded".to_owned());
    assert_eq!(stored(&collector, run).await, Some(whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_taken_in_order_and_what_is_none_is_named() {
    let collector = Collector::start().await;
    let host = collector.host().await;
    let mut connection = host.connect(&collector).await;
    let run = RunId::random();
    let mut send = async |protocol: u16, first_seq: u64, records: &[&str]| {
        let request = Request {
            protocol,
            run,
            first_seq,
            records: records.iter().map(|record| (*record).to_owned()).collect(),
        };
        let sent = connection.call_packed::<_, PlaysTaken>(path::PLAYS, &request);
        sent.await
            .map(|(_, taken)| taken)
            .map_err(|error| error.to_string())
    };
    let (start, result, end) = (
        start().to_string(),
        result(0).to_string(),
        end().to_string(),
    );
    let missing = send(PROTOCOL, 3, &[&end]).await.unwrap();
    assert_eq!((missing.acked_seq, missing.rejected), (0, None));
    let no_json = send(PROTOCOL, 1, &[&start, "{", &end]).await.unwrap();
    let rejected = no_json.rejected.unwrap();
    assert_eq!(
        (no_json.acked_seq, rejected.seq, rejected.status),
        (0, 2, 422)
    );
    assert_eq!(
        send(PROTOCOL, 1, &[&start, &result])
            .await
            .unwrap()
            .acked_seq,
        2
    );
    // What is there already is passed over, whatever it is by now.
    assert_eq!(
        send(PROTOCOL, 1, &[&start, "{", &end])
            .await
            .unwrap()
            .acked_seq,
        3
    );
    assert_eq!(send(PROTOCOL, 4, &[]).await.unwrap().acked_seq, 3);
    for (protocol, first_seq, word) in [
        (PROTOCOL + 2, 4, "protocol_unsupported"),
        (PROTOCOL, 0, "body_invalid"),
    ] {
        let refused = send(protocol, first_seq, &[&end]).await.unwrap_err();
        assert!(
            refused.contains("400") && refused.contains(word),
            "{refused}"
        );
    }
    assert_eq!(
        stored(&collector, run).await,
        Some((3, 1, "succeeded".to_owned()))
    );
}
