//! Two collectors, one of them killed every few seconds: whoever was answered was told the truth, and no job of the
//! fleet ran twice at once.

use std::time::Duration;

use anyhow::Context;
use infratrack_collector::config::{Config, Interval};
use infratrack_testkit::clients::{self, Clients, Finding, Told};
use infratrack_testkit::ledger::Verdict;
use infratrack_testkit::nemesis::{Setup, World};
use infratrack_testkit::proxy::Proxy;
use nix::sys::signal::Signal;
use sqlx::PgPool;
use tokio::time::Instant;

/// What the leader alone does, often enough for a collector to be killed in the middle of it.
const OFTEN: [&str; 6] = [
    "audit_checkpoint",
    "audit_seal",
    "ca_log",
    "liveness",
    "logins",
    "rollup",
];
/// What is left to do in the end is done within this.
const SETTLED: Duration = Duration::from_secs(60);

fn often(config: &mut Config) {
    config.jobs.record_every = Duration::ZERO;
    let every = Interval(Duration::from_millis(250));
    config.jobs.intervals = OFTEN.iter().map(|job| ((*job).to_owned(), every)).collect();
    config.operators.requests_per_second = 10_000;
    config.operators.requests_burst = 10_000;
}

/// Keeps every run of a job: `job_runs` has the last ones only.
async fn keep_runs(pool: &PgPool) -> sqlx::Result<()> {
    for sql in [
        "create table probe as select * from job_runs",
        "create function probe() returns trigger language plpgsql as $$
             begin insert into probe select new.*; return null; end $$",
        "create trigger probe after insert on job_runs for each row execute function probe()",
    ] {
        sqlx::query(sql).execute(pool).await?;
    }
    Ok(())
}

/// Runs of fleets' jobs that did work at the same time; all runs that did; collectors that led.
async fn runs(pool: &PgPool) -> sqlx::Result<(i64, i64, i64)> {
    sqlx::query_as(
        "with done as (
             select p.* from probe p join jobs j on j.name = p.job and j.scope = 'fleet' where p.outcome = 'ok'
         )
         select (select count(*) from done a join done b on a.job = b.job and a.run_id < b.run_id
                 where a.started_at < b.finished_at and b.started_at < a.finished_at),
             count(*), count(distinct collector_id) from done",
    )
    .fetch_one(pool)
    .await
}

/// Waits until the audit log is sealed to its end, then verifies it as an administrator does.
async fn verify_audit(world: &World) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLED;
    loop {
        let (is_whole, said) = world.command(&["audit", "verify"])?;
        anyhow::ensure!(is_whole, "{said}");
        if said
            .lines()
            .any(|line| line.starts_with("rows not sealed yet:") && line.ends_with(" 0"))
        {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "not sealed: {said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    ended: usize,
    told: Told,
    repeated: u64,
    findings: Vec<Finding>,
    verdict: Verdict,
    overlaps: i64,
    runs: i64,
    leaders: i64,
}

async fn attack(world: &mut World, period: Duration, length: Duration) -> anyhow::Result<Outcome> {
    keep_runs(world.pool()).await?;
    world.progress().await?;
    let operators = Proxy::start(world.operators()).await?;
    let clients = Clients::start(operators.address(), world.admin_token()?).await?;
    let end = Instant::now() + length;
    let (mut ended, mut next) = (0, Instant::now() + period);
    while next < end {
        tokio::time::sleep_until(next).await;
        let signal = if ended % 3 == 2 {
            Signal::SIGTERM
        } else {
            Signal::SIGKILL
        };
        let as_told = world.change_over(signal, &operators).await?;
        anyhow::ensure!(as_told, "{signal} was not what ended it");
        ended += 1;
        next = (next + period).max(Instant::now());
    }
    world.progress().await.context("after the last change")?;
    let repeated = clients.repeated();
    let told = clients.stop().await?;
    let verdict = world.drain_and_verify(false).await?;
    let findings = clients::verify(world.pool(), &told).await?;
    verify_audit(world).await?;
    let (overlaps, runs, leaders) = runs(world.pool()).await?;
    Ok(Outcome {
        ended,
        told,
        repeated,
        findings,
        verdict,
        overlaps,
        runs,
        leaders,
    })
}

fn judge(outcome: &Outcome, least: usize) -> anyhow::Result<()> {
    let Outcome {
        told,
        verdict,
        findings,
        ..
    } = outcome;
    anyhow::ensure!(findings.is_empty(), "{findings:#?}");
    anyhow::ensure!(verdict.is_whole(), "{verdict}");
    anyhow::ensure!(
        outcome.overlaps == 0,
        "{} runs of one job at once",
        outcome.overlaps
    );
    // Every end was what ended a process; that it was felt shows in who led. A request is caught in the middle by
    // chance: the long form has enough of them.
    let (ended, leaders) = (outcome.ended, outcome.leaders);
    anyhow::ensure!(ended >= 3 && leaders >= 3, "{ended} ended, {leaders} led");
    anyhow::ensure!(ended < 10 || outcome.repeated > 0, "no client noticed");
    let (made, changed) = (told.made.len(), told.changed.len());
    anyhow::ensure!(
        made > least && changed > least,
        "{made} made, {changed} changed"
    );
    anyhow::ensure!(told.lists > least, "{} lists", told.lists);
    anyhow::ensure!(verdict.records_stored > 100, "{verdict}");
    Ok(())
}

#[expect(
    clippy::print_stderr,
    reason = "what was measured, and where it is where it failed"
)]
async fn one_dies_every(period: Duration, length: Duration) {
    let setup = Setup {
        change: often,
        ..Setup::new(6, 5)
    };
    let mut world = World::with(setup).await.expect("a world starts");
    let least = usize::try_from(length.as_secs()).expect("it is short");
    let outcome = attack(&mut world, period, length).await;
    let judged = outcome.and_then(|outcome| {
        let told = &outcome.told;
        eprintln!(
            "{} ended; {} tasks made, {} without their answer; {} changes, {} in doubt; {} lists; {} sent again; {} runs of \
             jobs by {} leaders\n{}",
            outcome.ended,
            told.made.len(),
            told.answer_lost.len(),
            told.changed.len(),
            told.doubtful.len(),
            told.lists,
            outcome.repeated,
            outcome.runs,
            outcome.leaders,
            outcome.verdict,
        );
        judge(&outcome, least)
    });
    let dir = world.stop().await;
    if let Err(error) = judged {
        panic!(
            "{error:#}; logs, ledger and database in {}",
            dir.keep().display()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_dies_every_4_s_takes_back_nothing_that_was_acknowledged() {
    one_dies_every(Duration::from_secs(4), Duration::from_secs(25)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes five minutes; make soak"]
async fn a_collector_that_dies_every_20_s_for_5_minutes_takes_back_nothing_that_was_acknowledged() {
    one_dies_every(Duration::from_secs(20), Duration::from_secs(300)).await;
}
