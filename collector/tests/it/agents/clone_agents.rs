//! Two agents, as programs, over copies of one state directory: noticed, split, and all there once.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::{Method, StatusCode};
use infratrack_agent::identity::Identity;
use infratrack_testkit::postgres::binary;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agents::clone::{conflicts, hidden};
use crate::harness::{Collector, eventually, eventually_within};

/// Between the first two heartbeats of an agent that knows no policy yet.
const FIRST_INTERVAL: Duration = Duration::from_secs(30);

/// An agent; it ends in order when this is dropped.
struct Agent(Child);

impl Agent {
    fn start(state_dir: &Path) -> Self {
        let config = state_dir.join("agent.toml");
        let text = format!("state_dir = \"{}\"\nlog = \"info\"\n", state_dir.display());
        std::fs::write(&config, text).unwrap();
        let child = Command::new(binary("infratrack-agent").unwrap())
            .arg("--config")
            .arg(&config)
            .arg("run")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(state_dir.join("agent.log")).unwrap())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.id().cast_signed());
        kill(pid, Signal::SIGTERM).ok();
        self.0.wait().ok();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// How many `agent_start` events there are, under whatever host.
async fn starts(collector: &Collector) -> i64 {
    let sql = "select count(*) from events where kind = 'agent_start'";
    sqlx::query_scalar(sql)
        .fetch_one(&collector.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_on_one_disk_become_two_hosts_by_one_request() {
    let collector = Collector::start_with(|config| {
        config.agents.heartbeat_interval = Duration::from_secs(1);
    })
    .await;
    let host = collector.host().await;
    let copied = tempfile::tempdir().unwrap();
    let dirs = [host.dir.path(), copied.path()];
    let first = Agent::start(dirs[0]);
    eventually("the agent to report", || async {
        (starts(&collector).await == 1).then_some(())
    })
    .await;
    drop(first);
    copy(dirs[0], dirs[1]);
    let _agents = dirs.map(Agent::start);
    let conflict = eventually_within(FIRST_INTERVAL * 2, "the two to be told apart", || async {
        conflicts(&collector, &host).await.pop()
    })
    .await;
    let id = conflict["id"].as_str().unwrap();
    let path = format!("/api/v1/hosts/{}/conflicts/{id}/split", host.id);
    let (status, row) = collector.api(Method::POST, &path, "").await;
    assert_eq!(status, StatusCode::OK, "{row}");
    let mut both = [host.id.0, hidden(&conflict)];
    both.sort();
    eventually_within(FIRST_INTERVAL * 2, "each to be its own host", || async {
        let mut named = dirs.map(|dir| Identity::open(dir).unwrap().current().unwrap().host.0);
        named.sort();
        (named == both).then_some(())
    })
    .await;
    assert_eq!(conflicts(&collector, &host).await[0]["state"], "split");
    let since = collector.get("/api/v1/hosts").await;
    eventually("both to go on", || async {
        let list = collector.get("/api/v1/hosts").await;
        let seen = |list: &serde_json::Value, of: usize| {
            list["items"][of]["last_seen_at"]
                .as_str()
                .map(str::to_owned)
        };
        let later = |of| seen(&list, of) > seen(&since, of);
        (list["total"] == 2 && later(0) && later(1)).then_some(())
    })
    .await;
    assert_eq!(starts(&collector).await, 3, "each start once");
}
