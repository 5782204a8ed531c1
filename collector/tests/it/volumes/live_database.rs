//! A database that is written to all the time: what comes back is one moment of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use infratrack_agent::backup::restore;
use infratrack_shared::wire::backup::Outcome;
use nix::unistd::Uid;
use serde_json::json;
use sqlx::Connection;

use super::agent::Rig;
use super::drills::{Shop, bin, rehearse};
use super::restore::{Reader, blocking};

/// Of the benchmark's scale 1.
const ACCOUNTS: i64 = 100_000;

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn a_database_under_pgbench_comes_back_as_it_was_in_one_moment() {
    let dir = infratrack_testkit::postgres::reachable_tempdir().unwrap();
    let bin = bin();
    let shop = Shop::start(dir.path(), &bin).await;
    let socket = shop.socket.to_str().unwrap().to_owned();
    let program = |name: &str| {
        let mut command = Shop::command(bin.join(name).to_str().unwrap());
        command.args(["-h", &socket, "-U", "shop"]);
        command
    };
    let made = program("pgbench").args(["-i", "-q", "postgres"]).status();
    assert!(made.unwrap().success());
    let dump = bin.join("pg_dump");
    let user = if Uid::effective().is_root() {
        "user = \"postgres\""
    } else {
        ""
    };
    let allowed = format!(
        "[programs.shop]\nargv = [{dump:?}, \"-w\", \"-h\", {socket:?}, \"-U\", \"shop\", \"-Fc\", \"-Z0\", \"postgres\"]
         check = \"pg_dump\"\n{user}\n"
    );
    let mut rig = Rig::new(&allowed).await;
    rig.backups.state_dir = dir.path().join("s");
    fs::create_dir(&rig.backups.state_dir).unwrap();
    fs::set_permissions(&rig.backups.state_dir, fs::Permissions::from_mode(0o711)).unwrap();
    let volume = rig.volume(json!({"command": {"program": "shop"}})).await;

    let mut writers = program("pgbench")
        .args(["-n", "-c", "2", "-T", "120", "postgres"])
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ended = rig.run().await;
    let is_written = writers.try_wait().unwrap().is_none();
    writers.kill().unwrap();
    writers.wait().unwrap();
    assert_eq!(ended.outcome, Outcome::Ok, "{ended:?}");
    assert!(is_written, "nobody wrote any more");

    let good = rehearse(&rig, None).await;
    assert_eq!(good.outcome, Outcome::Ok, "{good:?}");
    let counted = good.report.checks.last().unwrap();
    assert_eq!(counted.name, "row_counts", "{good:?}");
    assert!(
        counted.detail.ends_with("all as they were dumped"),
        "{good:?}"
    );

    shop.run("create database back").await;
    let file = dir.path().join("shop.dump");
    let written = file.clone();
    blocking(move || {
        let reader = Reader::own(&rig, &volume);
        let opened = reader.open().unwrap();
        let mut out = fs::File::create(&written).unwrap();
        let from = opened.fetcher(&reader.remote);
        restore::dump(from, &opened.manifest.root, None, &mut out).unwrap();
    })
    .await;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = program("pg_restore")
        .args(["-d", "back", "--exit-on-error"])
        .arg(&file)
        .stderr(Stdio::inherit())
        .status();
    assert!(loaded.unwrap().success());
    // Each transaction of the benchmark adds the same to an account, a teller, a branch and the history.
    let mut back = shop.connect("back").await.unwrap();
    let sums: (i64, i64, i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from pgbench_accounts), (select sum(abalance) from pgbench_accounts),
                (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches),
                (select coalesce(sum(delta), 0) from pgbench_history)",
    )
    .fetch_one(&mut back)
    .await
    .unwrap();
    back.close().await.unwrap();
    let (accounts, sum, ..) = sums;
    assert_eq!(sums, (ACCOUNTS, sum, sum, sum, sum));
    assert_eq!(accounts, ACCOUNTS);
    assert_ne!(sum, 0, "no transaction was in it");
}
