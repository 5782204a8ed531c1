//! Real agents rehearse restoring from a real collector what they backed up, a database of a real Postgres among it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use http::{Method, StatusCode};
use infratrack_agent::backup::drill;
use infratrack_shared::ids::DrillId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::PROTOCOL;
use infratrack_shared::wire::backup::{Outcome, Trigger, Volume};
use infratrack_shared::wire::drill::{BeginDrill, CheckOutcome, DrillMode, EndDrill};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection};

use super::agent::{Rig, noise};
use super::{create, send};
use crate::harness::eventually;
use crate::hosts::call;

/// As the daemon has it done.
pub(super) async fn rehearse(rig: &Rig, mode: Option<DrillMode>) -> EndDrill {
    let volume = volumes(rig).await.remove(0);
    let host = rig.backups.clone();
    let drill = tokio::task::spawn_blocking(move || {
        drill::drill(&host, &volume, (Trigger::Command, mode), |_| ())
    });
    drill.await.unwrap().unwrap()
}

async fn volumes(rig: &Rig) -> Vec<Volume> {
    let mut collector = rig.backups.collector.clone();
    collector.volumes().await.unwrap().volumes
}

async fn volume(rig: &Rig, made: &Value) -> Value {
    let id = made["id"].as_str().unwrap();
    rig.collector.get(&format!("/api/v1/volumes/{id}")).await
}

/// Each pack of the store.
fn packs(rig: &Rig) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![rig.collector.data_dir.path().join("blobs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().contains("/packs/") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub(super) fn scratch_is_empty(rig: &Rig) -> bool {
    let left = fs::read_dir(rig.backups.state_dir.join("drills")).unwrap();
    left.count() == 0
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn a_volume_of_files_is_proven_until_a_byte_of_it_is_lost() {
    let rig = Rig::new("").await;
    let www = rig.dir.path().join("www");
    fs::create_dir_all(www.join("a")).unwrap();
    fs::write(www.join("large"), noise(1, 12_000_000)).unwrap();
    fs::write(www.join("empty"), "").unwrap();
    std::os::unix::fs::symlink("large", www.join("a/link")).unwrap();
    fs::hard_link(www.join("large"), www.join("a/hard")).unwrap();
    for number in 0..50_u8 {
        let path = www.join(format!("a/{number}"));
        fs::write(&path, noise(number, 5000)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4750)).unwrap();
    }
    let made = rig.volume(json!({"files": {"paths": [www]}})).await;
    assert_eq!(rehearse(&rig, None).await.reason.unwrap(), "no_snapshot");
    let ended = rig.run().await;
    assert_eq!(ended.outcome, Outcome::Ok, "{ended:?}");

    let good = rehearse(&rig, None).await;
    assert_eq!(good.outcome, Outcome::Ok, "{good:?}");
    assert_eq!((good.report.files, good.report.mismatches), (53, 0));
    assert!(scratch_is_empty(&rig));
    let is = volume(&rig, &made).await;
    assert_eq!(is["drill_status"], "ok", "{is}");
    let path = format!("/api/v1/drills/{}", good.drill);
    let report = rig.collector.get(&path).await;
    for (field, value) in [
        ("state", json!("ok")),
        ("is_sampled", json!(false)),
        ("files_total", json!(53)),
        ("is_within_rto", json!(true)),
        ("snapshot_id", json!(ended.snapshot)),
    ] {
        assert_eq!(report[field], value, "{field}: {report}");
    }
    let timeline = format!("/api/v1/hosts/{}/timeline?kinds=drill", rig.host.id);
    let told = rig.collector.get(&timeline).await;
    assert_eq!(told["items"].as_array().unwrap().len(), 2, "{told}");
    // Both may have begun in the same millisecond of the collector's clock.
    let mut titles = [0, 1].map(|place| told["items"][place]["title"].as_str().unwrap());
    titles.sort_unstable();
    assert_eq!(
        titles,
        ["Drill of shop: failed", "Drill of shop: restored"],
        "{told}"
    );
    let headers = [("accept", "text/markdown")];
    let evidence = call(&rig.collector, Method::GET, &path, &headers, "").await;
    let evidence = String::from_utf8(evidence.body().to_vec()).unwrap();
    assert!(evidence.contains("| Outcome | ok |"), "{evidence}");

    // With too little room, some of it.
    let text = fs::read_to_string(&rig.backups.allowed).unwrap();
    let little = format!("drill_max_bytes = 300_000\n{text}");
    fs::write(&rig.backups.allowed, little).unwrap();
    let some = rehearse(&rig, None).await;
    assert_eq!(some.outcome, Outcome::Ok, "{some:?}");
    assert!(some.report.is_sampled, "{some:?}");
    assert!((1..50).contains(&some.report.files), "{some:?}");
    fs::write(&rig.backups.allowed, text).unwrap();

    for path in packs(&rig) {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    for mode in [DrillMode::Full, DrillMode::Validation] {
        let bad = rehearse(&rig, Some(mode)).await;
        assert_eq!(bad.outcome, Outcome::Failed, "{bad:?}");
        assert_eq!(bad.reason.as_deref(), Some("not_restorable"), "{bad:?}");
    }
    assert!(scratch_is_empty(&rig));
    let failed = rig
        .collector
        .get("/api/v1/volumes?drill_status=failed")
        .await;
    assert_eq!(failed["total"], 1, "{failed}");
    let failed = &failed["items"][0];
    assert_eq!(failed["last_drill_reason"], "not_restorable", "{failed}");
}

/// A database of a cluster of its own.
pub(super) struct Shop {
    server: Child,
    pub(super) socket: PathBuf,
}

impl Shop {
    /// As another user where this one is root, whom Postgres refuses.
    pub(super) fn command(program: &str) -> Command {
        let mut command = Command::new(program);
        if Uid::effective().is_root() {
            let user = User::from_name("postgres").unwrap().unwrap();
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).current_dir("/");
        command
    }

    pub(super) async fn start(dir: &Path, bin: &Path) -> Self {
        let socket = dir.join("shop");
        fs::create_dir(&socket).unwrap();
        if Uid::effective().is_root() {
            let user = User::from_name("postgres").unwrap().unwrap();
            chown(&socket, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let data = socket.join("data");
        let made = Self::command(bin.join("initdb").to_str().unwrap())
            .args([
                "-D",
                data.to_str().unwrap(),
                "-U",
                "shop",
                "-A",
                "trust",
                "-N",
            ])
            .status()
            .unwrap();
        assert!(made.success());
        let server = Self::command(bin.join("postgres").to_str().unwrap())
            .args(["-D", data.to_str().unwrap(), "-k", socket.to_str().unwrap()])
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .spawn()
            .unwrap();
        let shop = Self { server, socket };
        eventually("the shop's Postgres answers", || async {
            shop.connect("postgres").await
        })
        .await;
        shop
    }

    pub(super) async fn connect(&self, database: &str) -> Option<PgConnection> {
        let options = PgConnectOptions::new().socket(&self.socket);
        let options = options.username("shop").database(database);
        PgConnection::connect_with(&options).await.ok()
    }

    pub(super) async fn run(&self, sql: &'static str) {
        let mut connection = self.connect("postgres").await.unwrap();
        connection.execute(sqlx::raw_sql(sql)).await.unwrap();
        connection.close().await.unwrap();
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.server.id()).unwrap());
        kill(pid, Signal::SIGQUIT).unwrap();
        self.server.wait().unwrap();
    }
}

/// Where this machine's servers are.
pub(super) fn bin() -> PathBuf {
    let homes = fs::read_dir("/usr/lib/postgresql").unwrap();
    let bins = homes.map(|home| home.unwrap().path().join("bin"));
    let found = bins.filter(|bin| bin.join("pg_dump").exists() && bin.join("postgres").exists());
    found.max().expect("a server of PostgreSQL is installed")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_loaded_into_a_throwaway_cluster_and_has_the_rows_of_its_own_moment() {
    let dir = infratrack_testkit::postgres::reachable_tempdir().unwrap();
    let bin = bin();
    let shop = Shop::start(dir.path(), &bin).await;
    shop.run(
        "create role clerk; create table goods (id serial primary key, name text);
         insert into goods (name) select 'ware ' || n from generate_series(1, 2000) n;
         create schema \"Back \"\"Office\"; create table \"Back \"\"Office\".\"a\nb\" as select 1 as n;
         alter table goods owner to clerk; alter table goods enable row level security;
         create policy own on goods to clerk using (true);",
    )
    .await;
    let dump = bin.join("pg_dump");
    let user = if Uid::effective().is_root() {
        "user = \"postgres\""
    } else {
        ""
    };
    let (dump, socket) = (dump.display(), shop.socket.display());
    let program = format!(
        "[programs.shop]\nargv = [\"{dump}\", \"-w\", \"-h\", \"{socket}\", \"-U\", \"shop\", \"-Fc\", \"-Z0\", \"postgres\"]
         check = \"pg_dump\"\n{user}\n"
    );
    let mut rig = Rig::new(&program).await;
    rig.backups.state_dir = dir.path().join("s");
    // As the package makes it: its users get through to what is theirs.
    fs::create_dir(&rig.backups.state_dir).unwrap();
    fs::set_permissions(&rig.backups.state_dir, fs::Permissions::from_mode(0o711)).unwrap();
    let made = rig.volume(json!({"command": {"program": "shop"}})).await;
    let ended = rig.run().await;
    assert_eq!(ended.outcome, Outcome::Ok, "{ended:?}");
    // What comes later is not in it.
    shop.run("insert into goods (name) values ('later')").await;

    let good = rehearse(&rig, None).await;
    assert_eq!(good.outcome, Outcome::Ok, "{good:?}");
    let names = [
        "content",
        "pg_restore_list",
        "throwaway_cluster",
        "row_counts",
    ];
    let checks = good.report.checks.iter();
    let checks: Vec<_> = checks
        .map(|check| (check.name.as_str(), check.outcome))
        .collect();
    assert_eq!(checks, names.map(|name| (name, CheckOutcome::Ok)));
    let rows = &good.report.checks[3].detail;
    assert_eq!(rows, "2001 rows in 2 tables, all as they were dumped");
    assert!(scratch_is_empty(&rig));

    let quick = rehearse(&rig, Some(DrillMode::Database)).await;
    assert_eq!(quick.outcome, Outcome::Ok, "{quick:?}");
    assert_eq!(volume(&rig, &made).await["drill_status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_its_own_check_refuses_fails_the_drill() {
    let program = "[programs.db]\nargv = [\"/bin/echo\", \"good\"]
                   check_argv = [\"/bin/grep\", \"-q\", \"good\"]\n";
    let rig = Rig::new(program).await;
    rig.volume(json!({"command": {"program": "db"}})).await;
    assert_eq!(rig.run().await.outcome, Outcome::Ok);
    let good = rehearse(&rig, None).await;
    assert_eq!(good.outcome, Outcome::Ok, "{good:?}");
    let text = fs::read_to_string(&rig.backups.allowed).unwrap();
    let text = text.replace("\"-q\", \"good\"", "\"-q\", \"better\"");
    fs::write(&rig.backups.allowed, text).unwrap();
    let bad = rehearse(&rig, None).await;
    assert_eq!(bad.outcome, Outcome::Failed, "{bad:?}");
    assert_eq!(bad.reason.as_deref(), Some("check_failed"), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn drills_are_due_one_at_a_time_overdue_when_none_was_good_and_asked_for_at_once() {
    let rig = Rig::new("[programs.db]\nargv = [\"/bin/echo\", \"a\"]\n").await;
    let source = json!({"command": {"program": "db"}});
    let made = rig.volume(source.clone()).await;
    assert_eq!(rig.run().await.outcome, Outcome::Ok);
    let id = made["id"].as_str().unwrap();
    let drills = format!("/api/v1/volumes/{id}/drills");
    let due = || async {
        volumes(&rig)
            .await
            .iter()
            .filter(|v| v.is_drill_due)
            .count()
    };
    let aged = async |days: i32| {
        sqlx::query("update volumes set created_at = created_at - make_interval(days => $1)")
            .bind(days)
            .execute(&rig.collector.pool)
            .await
            .unwrap();
    };
    let is = volume(&rig, &made).await;
    assert_eq!(
        (&is["drill_status"], &is["drill_every_s"], &is["rto_s"]),
        (&json!("never"), &json!(2_592_000), &json!(1800))
    );
    aged(30).await;
    assert_eq!(due().await, 1);
    aged(8).await;
    assert_eq!(volume(&rig, &made).await["drill_status"], "overdue");

    // One that nobody hears of any more is over, and the next may begin.
    let mut collector = rig.backups.collector.clone();
    let begin = |volume| BeginDrill {
        protocol: PROTOCOL,
        drill: DrillId::random(),
        volume,
        trigger: Trigger::Schedule,
        started_at: UnixMillis(0),
        agent: "0.1.0".to_owned(),
        mode: None,
    };
    let first = begin(volumes(&rig).await[0].id);
    let begun = collector.begin_drill(&first).await.unwrap();
    assert_eq!(begun.mode, DrillMode::Full);
    collector.begin_drill(&first).await.unwrap();
    assert_eq!(due().await, 0);
    collector
        .begin_drill(&begin(first.volume))
        .await
        .unwrap_err();
    rig.collector.clock.advance(time::Duration::minutes(3));
    let (status, _) = send(
        &rig.collector,
        Method::POST,
        &drills,
        None,
        &json!({"mode": "no"}),
    )
    .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let wanted = json!({"mode": "validation"});
    let (status, asked) = send(&rig.collector, Method::POST, &drills, None, &wanted).await;
    assert_eq!(status, StatusCode::CREATED, "{asked}");
    assert_eq!(due().await, 1);
    let good = rehearse(&rig, None).await;
    assert_eq!(good.outcome, Outcome::Ok, "{good:?}");
    let listed = rig.collector.get("/api/v1/drills").await;
    let items = &listed["items"];
    assert_eq!(
        (&items[0]["mode"], &items[0]["state"]),
        (&json!("validation"), &json!("ok"))
    );
    assert_eq!(items[1]["reason"], "interrupted", "{listed}");
    assert_eq!(due().await, 0);

    let body =
        json!({"host_id": rig.host.id, "name": "b", "source": source, "drill_every_s": null});
    let (_, other) = create(&rig.collector, &body).await;
    assert_eq!(other["drill_status"], "off", "{other}");
    let path = format!("/api/v1/volumes/{}/drills", other["id"].as_str().unwrap());
    let (status, refused) = send(&rig.collector, Method::POST, &path, None, &json!({})).await;
    assert_eq!(
        (status, &refused["type"]),
        (StatusCode::CONFLICT, &json!("no_snapshot"))
    );
    let proof = call(
        &rig.collector,
        Method::GET,
        "/backups/proof?drill=off",
        &[],
        "",
    )
    .await;
    let proof = String::from_utf8(proof.body().to_vec()).unwrap();
    assert!(
        proof.contains("1 of 2 volumes not restored as a drill yet"),
        "{proof}"
    );
}
