//! Real runs that lose what they relied on, or are killed, at a real collector.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use http::StatusCode;
use infratrack_agent::backup::remote;
use infratrack_agent::backup::run::{self, Host as BackupHost};
use infratrack_agent::clock::Clock;
use infratrack_shared::wire::backup::{EndRun, Outcome, Trigger, Volume};
use serde_json::{Value, json};

use super::agent::{Rig, noise, tree};
use super::create;
use crate::harness::eventually;

const MIB: u64 = 1024 * 1024;
/// What a process is told that is to be killed: the host's directories and its collector.
const KILLED: &str = "INFRATRACK_TEST_KILLED_RUN";
/// What its test is called.
const KILLED_TEST: &str = "volumes::interrupted::a_run_to_be_killed";

/// A volume whose run says when all is read, and then waits to be told to go on.
async fn waiting(rig: &Rig, source: Value) -> (Value, PathBuf) {
    let folder = rig.dir.path().join("hook");
    fs::create_dir(&folder).unwrap();
    let text = fs::read_to_string(&rig.backups.allowed).unwrap();
    let (read, go) = (folder.join("read"), folder.join("go"));
    let (read, go) = (read.display(), go.display());
    let script = format!("echo . >>{read}; until [ -e {go} ]; do sleep 0.05; done");
    let hook = format!("[hooks.wait]\nargv = [\"/bin/sh\", \"-c\", {script:?}]\n");
    fs::write(&rig.backups.allowed, text + &hook).unwrap();
    let body = json!({
        "host_id": rig.host.id, "name": "shop", "source": source, "rpo_s": 3600, "post_hook": "wait",
    });
    let (status, made) = create(&rig.collector, &body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    (made, folder)
}

/// Runs, with this statement when all is read and nothing is committed. Answers how often all was read.
async fn run_with(rig: &Rig, folder: &Path, sql: &'static str) -> (EndRun, usize) {
    let (go, read) = (folder.join("go"), folder.join("read"));
    for path in [&go, &read] {
        fs::remove_file(path).ok();
    }
    let meanwhile = async {
        let is_read = || async { read.exists().then_some(()) };
        eventually("all is read", is_read).await;
        // What is held is asked for in rows, a moment later.
        tokio::time::sleep(Duration::from_millis(500)).await;
        sqlx::query(sql).execute(&rig.collector.pool).await.unwrap();
        fs::write(&go, "").unwrap();
    };
    let (ended, ()) = tokio::join!(rig.run(), meanwhile);
    let reads = fs::read_to_string(&read).unwrap().lines().count();
    (ended, reads)
}

const LOSE: &str = "with lost as (update packs set lost_at = now() returning pack_id)
    update chunks set is_lost = true where pack_id in (select pack_id from lost)";
const CONDEMN: &str = "update packs set condemned_at = now()";
const NOTHING: &str = "select 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_chunks_go_meanwhile_reads_once_more_what_needs_them_and_is_whole() {
    let rig = Rig::new("").await;
    let www = rig.dir.path().join("www");
    fs::create_dir(&www).unwrap();
    for number in 0..20_u8 {
        fs::write(www.join(number.to_string()), noise(number, 100_000)).unwrap();
    }
    // What was changed just now may change again without a trace, and is read each time.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (made, folder) = waiting(&rig, json!({"files": {"paths": [www]}})).await;
    let (first, reads) = run_with(&rig, &folder, NOTHING).await;
    assert_eq!((first.outcome, reads), (Outcome::Ok, 1), "{first:?}");
    let (second, reads) = run_with(&rig, &folder, NOTHING).await;
    assert_eq!((second.outcome, reads), (Outcome::Ok, 1), "{second:?}");
    assert!(second.new_bytes < 10_000, "nothing is read: {second:?}");
    for sql in [LOSE, CONDEMN] {
        let (ended, reads) = run_with(&rig, &folder, sql).await;
        assert_eq!((ended.outcome, reads), (Outcome::Ok, 2), "{sql}: {ended:?}");
        assert!(ended.new_bytes > 2_000_000, "{sql}: {ended:?}");
        let expected = (first.progress.files, first.progress.bytes);
        assert_eq!(
            (ended.progress.files, ended.progress.bytes),
            expected,
            "{sql}"
        );
        let (after, reads) = run_with(&rig, &folder, NOTHING).await;
        assert_eq!((after.outcome, reads), (Outcome::Ok, 1), "{sql}: {after:?}");
        assert!(after.new_bytes < 10_000, "{sql}: {after:?}");
    }
    let to = rig.dir.path().join("back");
    rig.restore(made["id"].as_str().unwrap(), &to);
    assert_eq!(tree(&to.join(www.strip_prefix("/").unwrap())), tree(&www));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_written_once_more_where_what_it_relied_on_is_gone() {
    let rig = Rig::new("[programs.db]\nargv = [\"/bin/echo\", \"a dump\"]\n").await;
    let (_, folder) = waiting(&rig, json!({"command": {"program": "db"}})).await;
    let (first, reads) = run_with(&rig, &folder, NOTHING).await;
    assert_eq!((first.outcome, reads), (Outcome::Ok, 1), "{first:?}");
    let (ended, reads) = run_with(&rig, &folder, LOSE).await;
    assert_eq!((ended.outcome, reads), (Outcome::Ok, 2), "{ended:?}");
    assert_eq!(
        (ended.progress.files, ended.progress.bytes),
        (1, 7),
        "{ended:?}"
    );
}

/// Not a test of its own: a run in a process that another test kills.
#[test]
fn a_run_to_be_killed() {
    let Ok(told) = std::env::var(KILLED) else {
        return;
    };
    let told: Value = serde_json::from_str(&told).unwrap();
    let of = |name: &str| told[name].as_str().unwrap().to_owned();
    let host = BackupHost {
        collector: remote::Collector::new(of("identity").into(), vec![of("agents")]),
        state_dir: of("state_dir").into(),
        allowed: of("allowed").into(),
        hostname: "db1".to_owned(),
        clock: Clock::system(),
        patience: Duration::from_secs(20),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut collector = host.collector.clone();
    let volumes = runtime.block_on(collector.volumes()).unwrap().volumes;
    let [volume] = <[Volume; 1]>::try_from(volumes).unwrap();
    run::run(&host, &volume, Trigger::Command, |_| ()).unwrap();
}

fn process(rig: &Rig) -> std::process::Child {
    let told = json!({
        "identity": rig.host.dir.path(),
        "agents": rig.collector.server.addresses.agents.to_string(),
        "state_dir": rig.backups.state_dir,
        "allowed": rig.backups.allowed,
    });
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", KILLED_TEST])
        .env(KILLED, told.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_what_is_stored_is_not_sent_again() {
    let rig = Rig::new("").await;
    let www = rig.dir.path().join("www");
    fs::create_dir(&www).unwrap();
    let (files, size) = (64_u8, 1024 * 1024);
    for number in 0..files {
        fs::write(www.join(format!("{number:02}")), noise(number, size)).unwrap();
    }
    let body = json!({
        "host_id": rig.host.id, "name": "shop", "source": {"files": {"paths": [www]}}, "rpo_s": 3600,
        "bandwidth": 32 * MIB,
    });
    let (status, made) = create(&rig.collector, &body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let mut killed = process(&rig);
    let stored = async || {
        let sum = "select coalesce(sum(size_bytes), 0)::bigint from packs";
        let bytes: i64 = sqlx::query_scalar(sum)
            .fetch_one(&rig.collector.pool)
            .await
            .unwrap();
        u64::try_from(bytes).unwrap()
    };
    eventually("half of it is stored", || async {
        (stored().await > 28 * MIB).then_some(())
    })
    .await;
    killed.kill().unwrap();
    assert_eq!(killed.wait().unwrap().signal(), Some(9));
    let (before, all) = (stored().await, u64::from(files) * MIB);
    let of_cache = |what: &str| {
        let name = format!("cache/{}.{what}", made["id"].as_str().unwrap());
        fs::metadata(rig.backups.state_dir.join(name))
            .unwrap()
            .len()
    };
    assert!(of_cache("walk") > 2000 && of_cache("places") > 1000);
    // The volume is the dead run's until its lease is over.
    rig.collector.clock.advance(time::Duration::minutes(3));
    let ended = rig.run().await;
    assert_eq!(ended.outcome, Outcome::Ok, "{ended:?}");
    let sent = ended.progress.sent_bytes;
    assert!(before + sent < all + MIB, "{before}, then {sent} of {all}");
    let to = rig.dir.path().join("back");
    rig.restore(made["id"].as_str().unwrap(), &to);
    assert_eq!(tree(&to.join(www.strip_prefix("/").unwrap())), tree(&www));
}
