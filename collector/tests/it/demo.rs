//! The demo as a user runs it: two programs, a private Postgres, this machine.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use infratrack_testkit::postgres::{binary, reachable_tempdir};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::eventually;

pub(crate) struct Demo {
    process: Child,
}

impl Demo {
    /// On these ports of the loopback: operators, agents, enrollment.
    pub(crate) fn start(dir: &Path, ports: [u16; 3]) -> Self {
        Self::with(dir, ports, |_| ())
    }

    /// Likewise, after its command was changed.
    pub(crate) fn with(dir: &Path, ports: [u16; 3], change: impl FnOnce(&mut Command)) -> Self {
        binary("infratrack-agent").unwrap();
        drop(std::fs::remove_file(dir.join("demo.json")));
        let [operators, agents, enroll] = ports.map(|port| format!("127.0.0.1:{port}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_infratrack-collector"));
        command
            .args(["demo", "--operator-listen", &operators])
            .args(["--agent-listen", &agents, "--enroll-listen", &enroll])
            .arg("--data-dir")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("demo.log")).unwrap());
        change(&mut command);
        let process = command.spawn().unwrap();
        Self { process }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) async fn ended(mut self) -> bool {
        eventually("the demo to end", || {
            // A closure that looks again and again can't borrow the child mutably.
            let pid = self.process.id();
            async move {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                (stat.is_empty() || stat.contains(") Z ")).then_some(())
            }
        })
        .await;
        self.process.wait().unwrap().success()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // In order, so that a failed test leaves no Postgres and no agent behind.
        kill(
            Pid::from_raw(self.process.id().cast_signed()),
            Signal::SIGTERM,
        )
        .ok();
        self.process.wait().ok();
    }
}

pub(crate) async fn manifest(dir: &Path) -> Value {
    eventually("demo.json", || async {
        serde_json::from_str(&std::fs::read_to_string(dir.join("demo.json")).ok()?).ok()
    })
    .await
}

pub(crate) async fn get(manifest: &Value, path: &str) -> Option<Value> {
    ask(manifest, http::Method::GET, path, "").await
}

/// The document of the answer; `None` where there was none.
pub(crate) async fn ask(
    manifest: &Value,
    method: http::Method,
    path: &str,
    body: &str,
) -> Option<Value> {
    let address = manifest["operator_url"]
        .as_str()?
        .strip_prefix("http://")?
        .to_owned();
    let token = manifest["admin_token"].as_str()?.to_owned();
    let stream = tokio::net::TcpStream::connect(&address).await.ok()?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", address)
        .header("content-type", "application/json")
        .header("x-api-token", token);
    let request = request
        .body(http_body_util::Full::new(bytes::Bytes::from(
            body.to_owned(),
        )))
        .ok()?;
    let body = sender.send_request(request).await.ok()?.into_body();
    let body = http_body_util::BodyExt::collect(body)
        .await
        .ok()?
        .to_bytes();
    serde_json::from_slice(&body).ok()
}

async fn healthy(manifest: &Value) -> Value {
    let path = format!(
        "/api/v1/hosts/{}",
        manifest["agent_host_id"].as_str().unwrap()
    );
    eventually("this machine to be seen", || async {
        get(manifest, &path)
            .await
            .filter(|host| host["liveness"] == "online")
    })
    .await
}

pub(crate) async fn kinds(manifest: &Value) -> Vec<String> {
    received(manifest)
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect()
}

/// This machine's events: kind, and when the collector had it (RFC 3339, so that text compares as time).
async fn received(manifest: &Value) -> Vec<(String, String)> {
    let path = format!(
        "/api/v1/hosts/{}/events",
        manifest["agent_host_id"].as_str().unwrap()
    );
    let events = get(manifest, &path).await.unwrap_or_default();
    let items = events["items"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let both = |event: &Value| Some((text(&event["kind"])?, text(&event["received_at"])?));
    items.iter().filter_map(both).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_this_machine_survives_a_kill_and_stops_in_order() {
    let dir = reachable_tempdir().unwrap();
    let demo = Demo::start(dir.path(), [0; 3]);
    let first = manifest(dir.path()).await;
    let host = healthy(&first).await;
    let hostname = nix::unistd::gethostname().unwrap();
    assert_eq!(host["name"], *hostname.to_string_lossy());
    let path = format!(
        "/api/v1/hosts/{}/facts",
        first["agent_host_id"].as_str().unwrap()
    );
    eventually("the facts", || async {
        get(&first, &path)
            .await
            .filter(|facts| facts["total"].as_i64() >= Some(10))
    })
    .await;
    // Agent, Postgres and data of a killed collector are taken over by the next one.
    demo.signal(Signal::SIGKILL);
    assert!(!demo.ended().await);
    let demo = Demo::start(dir.path(), [0; 3]);
    let second = manifest(dir.path()).await;
    assert_eq!(second["agent_host_id"], first["agent_host_id"]);
    assert_eq!(second["admin_token"], first["admin_token"]);
    assert!(first["admin_password"].is_string());
    assert_eq!(second["admin_password"], first["admin_password"]);
    healthy(&second).await;
    eventually("both starts of the agent", || async {
        let starts = kinds(&second)
            .await
            .iter()
            .filter(|kind| *kind == "agent_start")
            .count();
        (starts == 2).then_some(())
    })
    .await;
    // An agent that is asked to stop says so before it is gone; the demo starts it again.
    let agent = std::fs::read_to_string(dir.path().join("agent/agent.pid")).unwrap();
    kill(
        Pid::from_raw(agent.trim().parse().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    let (stopped, started) = eventually("the agent's last words and its next start", || async {
        let received = received(&second).await;
        let at = |kind: &str| -> Vec<String> {
            let of_kind = received.iter().filter(|(name, _)| name == kind);
            of_kind.map(|(_, at)| at.clone()).collect()
        };
        let starts = at("agent_start");
        (starts.len() == 3).then(|| (at("agent_stop").into_iter().max(), starts.into_iter().max()))
    })
    .await;
    assert!(
        stopped.is_some() && stopped < started,
        "{stopped:?}, {started:?}"
    );
    demo.signal(Signal::SIGINT);
    tokio::time::timeout(Duration::from_secs(30), async {
        assert!(demo.ended().await);
    })
    .await
    .expect("stopped in time");
    let postgres = std::fs::read_to_string(dir.path().join("postgres/cluster/postmaster.pid"));
    assert!(postgres.is_err(), "Postgres still runs");
}
