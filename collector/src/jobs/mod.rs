//! What runs by itself: each job in a loop of its own, with an interval and a time limit.
//!
//! Jobs that write for the whole fleet take an advisory lock for their transaction, so that of several
//! collectors one does the work.

pub mod alive;
pub mod ca;
pub mod ca_log;
pub mod commands;
pub mod fleet_metrics;
pub mod liveness;
pub mod partitions;
pub mod revocations;
pub mod rollup;

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Postgres, Transaction};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::agents::tls::FleetTls;
use crate::app::{App, policy_version};
use crate::login;

/// A run that takes longer is given up; the next one starts afresh.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Starts every job; they end when the set is dropped.
pub fn start(app: &Arc<App>, fleet: Arc<FleetTls>) -> JoinSet<()> {
    let mut jobs = JoinSet::new();
    jobs.spawn(every(
        "alive",
        Duration::from_secs(2),
        Arc::clone(app),
        alive::run,
    ));
    jobs.spawn(every(
        "liveness",
        Duration::from_secs(5),
        Arc::clone(app),
        liveness::run,
    ));
    jobs.spawn(every(
        // Often, for a clock may jump: a machine that slept for weeks wakes up without one for today.
        "partitions",
        Duration::from_secs(60),
        Arc::clone(app),
        partitions::run,
    ));
    jobs.spawn(every(
        "rollup",
        Duration::from_secs(60),
        Arc::clone(app),
        rollup::run,
    ));
    jobs.spawn(every(
        "revocations",
        crate::agents::certificates::POLL,
        Arc::clone(app),
        revocations::run,
    ));
    jobs.spawn(every(
        "commands",
        Duration::from_secs(2),
        Arc::clone(app),
        commands::run,
    ));
    jobs.spawn(every(
        "fleet_metrics",
        Duration::from_secs(15),
        Arc::clone(app),
        fleet_metrics::run,
    ));
    jobs.spawn(every(
        "policy",
        Duration::from_secs(5),
        Arc::clone(app),
        policy,
    ));
    jobs.spawn(every(
        "logins",
        Duration::from_secs(600),
        Arc::clone(app),
        sweep_logins,
    ));
    jobs.spawn(every(
        "rates",
        Duration::from_secs(60),
        Arc::clone(app),
        sweep_rates,
    ));
    jobs.spawn(revocations::listen(Arc::clone(app)));
    ca::start(app, fleet, &mut jobs);
    ca_log::start(app, &mut jobs);
    jobs
}

async fn every<F, R>(name: &'static str, interval: Duration, app: Arc<App>, job: F)
where
    F: Fn(Arc<App>) -> R,
    R: Future<Output = anyhow::Result<()>>,
{
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        let ended = tokio::time::timeout(TIME_LIMIT, job(Arc::clone(&app))).await;
        let is_done = matches!(ended, Ok(Ok(())));
        app.metrics.job(name, begun.elapsed(), is_done);
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(job = name, error = format!("{error:#}"), "job failed");
            }
            Err(_) => tracing::warn!(job = name, limit = ?TIME_LIMIT, "job took too long"),
        }
    }
}

/// Takes the job's lock until the transaction ends; `false`: another collector has it.
async fn lead(transaction: &mut Transaction<'_, Postgres>, job: &str) -> sqlx::Result<bool> {
    crate::store::locks::try_lock(transaction, &format!("infratrack job {job}")).await
}

/// Takes the newest policy over.
async fn policy(app: Arc<App>) -> anyhow::Result<()> {
    let mut connection = app.pool.acquire().await?;
    let Some((version, body)) = crate::store::policies::find_newest(&mut connection).await? else {
        return Ok(());
    };
    let mut policy: infratrack_shared::wire::answer::Policy = serde_json::from_value(body)?;
    let ca = app.ca.load();
    // Version 1 is the built-in policy's.
    policy.version = policy_version(&ca, version.unsigned_abs() + 1);
    policy.trust_bundle = ca.trust_bundle();
    app.policy.send_if_modified(|current| {
        let newer = policy.version > current.version;
        if newer {
            *current = policy;
        }
        newer
    });
    Ok(())
}

async fn sweep_logins(app: Arc<App>) -> anyhow::Result<()> {
    let mut transaction = app.pool.begin().await?;
    if lead(&mut transaction, "logins").await? {
        login::session::sweep(&mut transaction, app.clock.now()).await?;
        login::lockout::sweep(&mut transaction, app.clock.now()).await?;
    }
    Ok(transaction.commit().await?)
}

async fn sweep_rates(app: Arc<App>) -> anyhow::Result<()> {
    app.rates.sweep();
    Ok(())
}
