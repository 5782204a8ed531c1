//! kill -9 of the run, the collector, Postgres and the S3 server while volumes are backed up: the next run is whole, nobody unlocks
//! anything, little is sent again, and every snapshot that there is can be read.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use http::Method;
use infratrack_testkit::postgres::{binary, reachable_tempdir};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::agent::tree;
use crate::demo::{Demo, ask, get, manifest};
use crate::kill::{free_ports, kill_process_in};

const MIB: usize = 1 << 20;
const BUCKET: &str = "backups";
/// For whom keys are wrapped; nobody has these.
const RECIPIENTS: [&str; 2] = [
    "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg",
];
/// Nothing is stuck for longer than this.
const STUCK: Duration = Duration::from_secs(120);
/// What may be sent again after a kill.
const AGAIN: usize = 64 * MIB;
/// Files that are kept.
const FILES: usize = 12;

/// What is ended.
#[derive(Clone, Copy, Debug)]
enum Target {
    Run,
    Collector,
    Postgres,
    Store,
}

const TARGETS: [Target; 4] = [
    Target::Run,
    Target::Collector,
    Target::Postgres,
    Target::Store,
];

struct World {
    dir: tempfile::TempDir,
    ports: [u16; 3],
    store_address: SocketAddr,
    store: Child,
    demo: Option<Demo>,
    random: StdRng,
    /// Volumes of files and of a program, by name.
    volumes: [(&'static str, String); 2],
    fed: u64,
}

impl World {
    async fn new(seed: u64) -> Self {
        let dir = reachable_tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let store_address = listener.local_addr().unwrap();
        drop(listener);
        fs::create_dir_all(dir.path().join("s3").join(BUCKET)).unwrap();
        fs::create_dir_all(dir.path().join("files")).unwrap();
        fs::write(dir.path().join("dump"), vec![b'-'; MIB]).unwrap();
        let config = format!(
            "[s3]\nbucket = \"{BUCKET}\"\nregion = \"us-east-1\"\nendpoint = \"http://{store_address}\"\n"
        );
        fs::write(dir.path().join("collector.toml"), config).unwrap();
        let [first, second] = RECIPIENTS;
        let root = dir.path().display();
        let allowed = format!(
            "recipients = [\"{first}\", \"{second}\"]\nallowed_paths = [\"{root}/files\"]\n\
             [programs.dump]\nargv = [\"/bin/cat\", \"{root}/dump\"]\nmax_shrink_percent = 100\n"
        );
        fs::write(dir.path().join("backup.toml"), allowed).unwrap();
        let store = store(dir.path(), store_address);
        let mut world = Self {
            dir,
            ports: free_ports(),
            store_address,
            store,
            demo: None,
            random: StdRng::seed_from_u64(seed),
            volumes: Default::default(),
            fed: 0,
        };
        world.start_collector();
        let source = [
            ("files", json!({"files": {"paths": [world.path("files")]}})),
            ("dump", json!({"command": {"program": "dump"}})),
        ];
        let mut volumes = Vec::new();
        for (name, source) in source {
            volumes.push((name, world.volume(name, &source).await));
        }
        world.volumes = volumes.try_into().unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start_collector(&mut self) {
        let config = self.path("collector.toml");
        let demo = Demo::with(self.dir.path(), self.ports, |command| {
            command.arg("--config").arg(config);
            for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
                command.env(name, "testing");
            }
            command.env("AWS_EC2_METADATA_DISABLED", "true");
        });
        self.demo = Some(demo);
    }

    async fn volume(&self, name: &str, source: &Value) -> String {
        let manifest = manifest(self.dir.path()).await;
        let volume = json!({"host_id": manifest["agent_host_id"], "name": name, "source": source});
        let made = ask(
            &manifest,
            Method::POST,
            "/api/v1/volumes",
            &volume.to_string(),
        )
        .await;
        let made = made.expect("the collector answers");
        made["id"].as_str().expect("a volume has an id").to_owned()
    }

    /// So much that no snapshot has yet, in files and in what the program writes.
    fn feed(&mut self, bytes: usize) {
        self.fed += 1;
        let mut noise = vec![0; bytes];
        self.random.fill_bytes(&mut noise);
        let files = self.path("files");
        fs::write(files.join(format!("{:06}", self.fed)), &noise).unwrap();
        let names = fs::read_dir(&files).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for old in names.iter().rev().skip(FILES) {
            fs::remove_file(old).unwrap();
        }
        fs::write(self.path("dump"), noise).unwrap();
    }

    fn backup(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("infratrack-agent").unwrap());
        command
            .arg("--config")
            .arg(self.path("agent/agent.toml"))
            .arg("backup")
            .arg("--backup-config")
            .arg(self.path("backup.toml"))
            .arg("--backup-dir")
            .arg(self.path("state"))
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn done(&self, arguments: &[&str]) -> Output {
        let output = self.backup(arguments).output();
        let output = tokio::time::timeout(STUCK, output).await;
        output
            .unwrap_or_else(|_| panic!("{arguments:?} is stuck"))
            .unwrap()
    }

    /// Ends it, and has it back a moment later where nothing else starts it.
    async fn kill(&mut self, target: Target, run: &mut Child) {
        let away = Duration::from_millis(self.random.random_range(0..1000));
        match target {
            Target::Run => {
                run.start_kill().ok();
            }
            Target::Collector => {
                let demo = self.demo.take().unwrap();
                demo.signal(Signal::SIGKILL);
                assert!(!demo.ended().await);
                tokio::time::sleep(away).await;
                self.start_collector();
            }
            Target::Postgres => kill_process_in(&self.path("postgres/cluster/postmaster.pid")),
            Target::Store => {
                self.store.kill().await.unwrap();
                tokio::time::sleep(away).await;
                self.store = store(self.dir.path(), self.store_address);
            }
        }
    }

    /// A run, something that ends in the midst of it, and runs until one is whole.
    async fn cycle(&mut self, target: Target, bytes: usize) {
        let volume = self.volumes[usize::try_from(self.fed % 2).unwrap()].clone();
        self.feed(bytes);
        let before = self.runs(&volume.1).await;
        let stored = self.stored();
        let mut run = self.backup(&["run", volume.0]);
        let mut run = run
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let span = 1500 + u64::try_from(bytes / MIB).unwrap() * 25;
        let after = Duration::from_millis(self.random.random_range(0..span));
        tokio::time::sleep(after).await;
        println!("{}: {target:?} after {after:?}", self.fed);
        self.kill(target, &mut run).await;
        let deadline = Instant::now() + STUCK;
        tokio::time::timeout(STUCK, run.wait())
            .await
            .unwrap_or_else(|_| panic!("{target:?}: the run is stuck"))
            .unwrap();
        self.until_whole(target, volume.0, deadline).await;
        self.until_none_runs(target, &volume.1, deadline).await;
        let most = bytes + AGAIN;
        let runs = self.runs(&volume.1).await.into_iter();
        let new = runs.filter(|(id, _)| !before.contains_key(id));
        let sent: usize = new.map(|(_, sent)| sent).sum();
        assert!(
            sent <= most,
            "{target:?} after {after:?}: {sent} bytes were sent"
        );
        let grew = self.stored() - stored;
        assert!(
            grew <= most,
            "{target:?} after {after:?}: {grew} bytes were stored"
        );
    }

    async fn until_whole(&self, target: Target, volume: &str, deadline: Instant) {
        loop {
            let output = self.done(&["--json", "run", volume]).await;
            if output.status.success() {
                return;
            }
            assert!(Instant::now() < deadline, "{target:?}: {output:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn until_none_runs(&self, target: Target, volume: &str, deadline: Instant) {
        let path = format!("/api/v1/backup-runs?volume={volume}&state=running");
        loop {
            let manifest = manifest(self.dir.path()).await;
            let running = get(&manifest, &path).await;
            if running
                .as_ref()
                .is_some_and(|runs| runs["items"] == json!([]))
            {
                return;
            }
            assert!(Instant::now() < deadline, "{target:?}: {running:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The newest runs of a volume, and what they sent as far as they could tell.
    async fn runs(&self, volume: &str) -> BTreeMap<String, usize> {
        let path = format!("/api/v1/backup-runs?volume={volume}&limit=200");
        let manifest = manifest(self.dir.path()).await;
        let runs = get(&manifest, &path).await.expect("the collector answers");
        let runs = runs["items"].as_array().expect("runs are a list").iter();
        let sent = |run: &Value| run["progress"]["sent_bytes"].as_u64().unwrap_or_default();
        let both = |run: &Value| {
            let id = run["id"].as_str().expect("a run has an id").to_owned();
            (id, usize::try_from(sent(run)).unwrap())
        };
        runs.map(both).collect()
    }

    fn stored(&self) -> usize {
        let files = tree(&self.path("s3").join(BUCKET)).into_iter();
        files.filter_map(|(_, bytes)| Some(bytes?.len())).sum()
    }

    /// The newest snapshots, at most so many of each volume, can be read to their ends, and the newest is what there is now.
    async fn judge(&self, most: usize) -> usize {
        let mut judged = 0;
        let now = self.done(&["run", "files"]).await;
        assert!(now.status.success(), "{now:?}");
        for (name, _) in self.volumes.clone() {
            let listed = self.done(&["--json", "list", name]).await;
            let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
            for snapshot in listed.iter().take(most) {
                let id = snapshot["id"].as_str().unwrap();
                let output = self.done(&["verify", name, "--snapshot", id]).await;
                assert!(output.status.success(), "{name} {id}: {output:?}");
                judged += 1;
            }
        }
        let to = self.path("back");
        let output = self
            .done(&["restore", "files", "--to", to.to_str().unwrap()])
            .await;
        assert!(output.status.success(), "{output:?}");
        let files = self.path("files");
        let inner = to.join(files.strip_prefix("/").unwrap());
        assert!(tree(&inner) == tree(&files), "what was restored differs");
        fs::remove_dir_all(to).unwrap();
        judged
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("logs and stores are in {}", self.dir.path().display());
            self.dir.disable_cleanup(true);
        }
    }
}

fn store(dir: &Path, address: SocketAddr) -> Child {
    Command::new(binary("infratrack-s3").unwrap())
        .arg(dir.join("s3"))
        .arg(address.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_each_kind_leaves_whole_snapshots_and_nothing_to_unlock() {
    let mut world = World::new(7).await;
    for (index, target) in TARGETS.into_iter().enumerate() {
        let mib = if index == 0 { 96 } else { 8 };
        world.cycle(target, mib * MIB).await;
    }
    assert!(world.judge(usize::MAX).await >= 4);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes the better part of an hour; make soak"]
async fn two_hundred_kills_leave_whole_snapshots_and_nothing_to_unlock() {
    let seed = std::env::var("INFRATRACK_SEED").ok();
    let seed = seed.map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut world = World::new(seed).await;
    for number in 0..200 {
        let target = TARGETS[world.random.random_range(0..TARGETS.len())];
        let mib = if number % 10 == 0 { 128 } else { 8 };
        world.cycle(target, mib * MIB).await;
        if number % 50 == 49 {
            let judged = world.judge(10).await;
            println!("{number}: {judged} snapshots are whole");
        }
    }
    let judged = world.judge(usize::MAX).await;
    println!("all {judged} snapshots are whole");
}
