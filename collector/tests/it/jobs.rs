//! Background jobs of several collectors, as real processes: one leads, another takes over, none runs twice at once.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use infratrack_collector::audit::verify::verify;
use infratrack_collector::blob::BlobStore;
use infratrack_collector::ca::Ca;
use infratrack_collector::config::Config;
use infratrack_testkit::postgres::TestDatabase;
use infratrack_testkit::process::Process;
use nix::sys::signal::Signal;
use sqlx::{ConnectOptions, PgPool};
use uuid::Uuid;

use crate::harness::{Collector, eventually, eventually_within};

/// What the leader alone does.
const FLEET: [&str; 23] = [
    "advisories",
    "audit_checkpoint",
    "audit_seal",
    "backup_garbage",
    "backup_retention",
    "ca_log",
    "ca_log_removal",
    "ca_log_replay",
    "change_links",
    "change_retention",
    "fleet_counts",
    "interrupted_plays",
    "inventory",
    "inventory_links",
    "liveness",
    "logins",
    "pack_verification",
    "partitions",
    "patch_due",
    "probes",
    "rollup",
    "sample",
    "stale_runs",
];
/// Another collector leads within this.
const TAKEN_OVER: Duration = Duration::from_secs(15);

/// Collectors over one database and one directory, each a process; every run of a job is kept.
struct Fleet {
    database: TestDatabase,
    pool: PgPool,
    dir: tempfile::TempDir,
}

impl Fleet {
    async fn new() -> Self {
        let database = TestDatabase::create().await.unwrap();
        let pool = PgPool::connect_with(database.connect_options())
            .await
            .unwrap();
        for sql in [
            "create table probe as select * from job_runs",
            "create function probe() returns trigger language plpgsql as $$
                 begin insert into probe select new.*; return null; end $$",
            "create trigger probe after insert on job_runs for each row execute function probe()",
        ] {
            sqlx::query(sql).execute(&pool).await.unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let mut text = format!("data_dir = '{}'\n", dir.path().display());
        for listener in ["agents", "enroll", "operators"] {
            writeln!(text, "[{listener}]\nlisten = '127.0.0.1:0'").unwrap();
        }
        text.push_str("[jobs]\nrecord_every = '0s'\n[jobs.intervals]\n");
        for job in FLEET {
            writeln!(text, "{job} = '500ms'").unwrap();
        }
        std::fs::write(dir.path().join("collector.toml"), text).unwrap();
        Self {
            database,
            pool,
            dir,
        }
    }

    /// Starts a collector; answers its id, too.
    async fn start(&self, name: &str) -> (Process, Uuid) {
        let known = self.collectors().await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_infratrack-collector"));
        command
            .arg("--config")
            .arg(self.dir.path().join("collector.toml"))
            .arg("serve")
            .env(
                "DATABASE_URL",
                self.database.connect_options().to_url_lossy().as_str(),
            )
            .stdin(Stdio::null());
        let log = self.dir.path().join(format!("{name}.log"));
        let process = Process::start(&mut command, &log, Stdio::null()).unwrap();
        let id = eventually("a collector to start", || async {
            let all = self.collectors().await;
            all.into_iter().find(|id| !known.contains(id))
        })
        .await;
        (process, id)
    }

    async fn collectors(&self) -> Vec<Uuid> {
        sqlx::query_scalar("select collector_id from collectors")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until every job of the fleet has run at `leader`, after all runs of others.
    async fn led_by(&self, leader: Uuid) {
        let sql = "select name from jobs where scope = 'fleet' and last_leader = $1 and last_outcome = 'ok'
                   order by name";
        eventually_within(TAKEN_OVER, "a collector to lead", || async {
            let led: Vec<String> = sqlx::query_scalar(sql)
                .bind(leader)
                .fetch_all(&self.pool)
                .await
                .unwrap();
            (led == FLEET).then_some(())
        })
        .await;
    }

    async fn runs(&self, of: Uuid) -> i64 {
        let sql = "select count(*) from probe where collector_id = $1 and outcome = 'ok'";
        sqlx::query_scalar(sql)
            .bind(of)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Pairs of runs of a fleet's job that did work at the same time.
    async fn overlaps(&self) -> i64 {
        sqlx::query_scalar(
            "select count(*) from probe a join probe b on a.job = b.job and a.run_id < b.run_id
             join jobs j on j.name = a.job and j.scope = 'fleet'
             where a.outcome = 'ok' and b.outcome = 'ok'
               and a.started_at < b.finished_at and b.started_at < a.finished_at",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    async fn add_audit_row(&self) {
        let sql =
            "insert into audit_log (at, actor_kind, actor_name, action, subject_kind, subject_id)
                   values (now(), 'job', 'test', 'test.change', 'test', 'x')";
        sqlx::query(sql).execute(&self.pool).await.unwrap();
    }

    async fn is_whole(&self) -> bool {
        let dir: &Path = self.dir.path();
        let config = Config {
            data_dir: dir.to_owned(),
            ..Config::default()
        };
        let (ca, blob) = (
            Ca::open(&dir.join("ca")).unwrap(),
            BlobStore::open(&config).await.unwrap(),
        );
        let report = verify(&self.pool, &blob, &ca).await.unwrap();
        assert!(report.finding.is_none(), "{report:?}");
        report.rows == 2 && report.pending == 0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_or_stopped_is_replaced_and_no_job_runs_twice_at_once() {
    let fleet = Fleet::new().await;
    let (mut a, first) = fleet.start("a").await;
    fleet.led_by(first).await;
    let (b, second) = fleet.start("b").await;
    fleet.add_audit_row().await;
    a.kill().await.unwrap();
    fleet.led_by(second).await;
    let (_c, third) = fleet.start("c").await;
    assert_eq!(fleet_runs(&fleet, third).await, 0);

    // Stopped in the middle of a job: while it waits for a lock, which it is given when it can no longer say so.
    let mut held = fleet.pool.begin().await.unwrap();
    sqlx::query("lock table audit_seals in access exclusive mode")
        .execute(&mut *held)
        .await
        .unwrap();
    fleet.add_audit_row().await;
    eventually("the leader's job to wait", || async {
        let sql = "select exists (select from pg_locks l join pg_stat_activity s using (pid)
                   where not l.granted and l.relation = 'audit_seals'::regclass and s.application_name like 'infratrack%')";
        let waits: bool = sqlx::query_scalar(sql).fetch_one(&fleet.pool).await.unwrap();
        waits.then_some(())
    })
    .await;
    b.signal(Signal::SIGSTOP);
    held.rollback().await.unwrap();
    fleet.led_by(third).await;
    let before = fleet.runs(third).await;
    b.signal(Signal::SIGCONT);
    eventually("the one that was stopped to go on", || async {
        let sql = "select alive_at > now() - interval '3 seconds' from collectors where collector_id = $1";
        let alive: bool = sqlx::query_scalar(sql)
            .bind(second)
            .fetch_one(&fleet.pool)
            .await
            .unwrap();
        (alive && fleet.runs(third).await > before + 50).then_some(())
    })
    .await;
    fleet.led_by(third).await;
    assert_eq!(fleet.overlaps().await, 0);
    let stopped: i64 = sqlx::query_scalar(
        "select count(*) from probe where collector_id = $1 and outcome <> 'ok'",
    )
    .bind(second)
    .fetch_one(&fleet.pool)
    .await
    .unwrap();
    assert!(stopped > 0, "the stop was felt in the middle of a job");
    eventually("every row to be sealed once", || async {
        fleet.is_whole().await.then_some(())
    })
    .await;
}

/// Runs of jobs that only the leader has.
async fn fleet_runs(fleet: &Fleet, of: Uuid) -> i64 {
    let sql = "select count(*) from probe join jobs on name = job
               where collector_id = $1 and scope = 'fleet' and outcome = 'ok'";
    sqlx::query_scalar(sql)
        .bind(of)
        .fetch_one(&fleet.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_with_how_they_went_and_their_last_runs() {
    let collector = Collector::start_with(|config| {
        config.jobs.record_every = Duration::ZERO;
    })
    .await;
    let jobs = eventually("jobs to have run", || async {
        let jobs = collector.get("/api/v1/jobs").await;
        let of = |name: &str| {
            let mut items = jobs["items"].as_array().unwrap().iter();
            items.find(|job| job["name"] == name).cloned()
        };
        let (seal, alive) = (of("audit_seal")?, of("alive")?);
        (seal["runs"].as_array().unwrap().len() > 1).then_some((seal, alive))
    })
    .await;
    let (seal, alive) = jobs;
    assert_eq!(
        (&seal["scope"], &alive["scope"]),
        (&"fleet".into(), &"collector".into())
    );
    assert_eq!(seal["interval_ms"], 1000);
    assert_eq!(seal["last_outcome"], "ok");
    assert_eq!(seal["last_error"], serde_json::Value::Null);
    assert_eq!(seal["last_leader"], collector.server.app.id.0.to_string());
    assert_eq!(seal["runs"][0]["outcome"], "ok");
    // A failure is said in words that quote nothing.
    sqlx::query("alter table audit_pending rename to elsewhere")
        .execute(&collector.pool)
        .await
        .unwrap();
    eventually("the failure to be listed", || async {
        let jobs = collector.get("/api/v1/jobs").await;
        let mut items = jobs["items"].as_array().unwrap().iter();
        let seal = items.find(|job| job["name"] == "audit_seal")?.clone();
        let words = "the database has no migrations; run infratrack-collector migrate";
        (seal["last_outcome"] == "failed"
            && seal["last_error"] == words
            && seal["failures_total"] != 0)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_goes_as_before_is_written_down_now_and_then_and_keeps_few_runs() {
    let collector = Collector::start().await;
    let written = async || -> i64 {
        sqlx::query_scalar("select count(*) from job_runs where job = 'audit_seal'")
            .fetch_one(&collector.pool)
            .await
            .unwrap()
    };
    eventually("the first run", || async {
        (written().await > 0).then_some(())
    })
    .await;
    // Three more of a job that runs every second.
    eventually("more runs", || async {
        let text = collector
            .server
            .app
            .metrics
            .encode(&collector.server.app)
            .unwrap();
        let of = "background_job_duration_seconds_count{job=\"audit_seal\",outcome=\"ok\"} ";
        let runs: u64 = text.split(of).nth(1)?.lines().next()?.parse().ok()?;
        (runs >= 4).then_some(())
    })
    .await;
    assert_eq!(written().await, 1);
    sqlx::query(
        "insert into job_runs (job, collector_id, started_at, finished_at, outcome)
         select 'audit_seal', gen_random_uuid(), now(), now(), 'ok' from generate_series(1, 50)",
    )
    .execute(&collector.pool)
    .await
    .unwrap();
    eventually("old runs to be forgotten", || async {
        (written().await == 20).then_some(())
    })
    .await;
}
