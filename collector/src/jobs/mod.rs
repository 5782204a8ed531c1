//! What runs by itself: one table of jobs, each with an interval and a time limit.
//!
//! What one collector does for all is the leader's ([`leader`]); [`run`] says why it never runs twice at once.

pub mod alive;
pub mod audit;
pub mod backup_garbage;
pub mod backup_retention;
pub mod ca;
pub mod ca_log;
pub mod change_retention;
pub mod commands;
pub mod fleet_counts;
pub mod fleet_metrics;
pub mod interrupted_plays;
mod leader;
pub mod liveness;
pub mod pack_verification;
pub mod partitions;
pub mod patches;
pub mod probes;
pub mod record;
pub mod revocations;
pub mod rollup;
pub mod run;
pub mod sample;
pub mod stale_runs;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::advisories;
use crate::agents::certificates;
use crate::agents::tls::FleetTls;
use crate::api::idempotency;
use crate::app::{App, policy_version};
use crate::inventory;
use crate::links;
use crate::login;
use crate::store::saved_views;
use run::{Done, Job, Task, Work};

/// The time limit of most.
const LIMIT: Duration = Duration::from_secs(60);

/// A large feed takes minutes.
const IMPORT: Duration = Duration::from_secs(1800);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A job with the time limit of most.
fn job(name: &'static str, interval: Duration, task: Task) -> Job {
    Job {
        name,
        interval,
        limit: LIMIT,
        task,
    }
}

/// The jobs.
fn table(app: &Arc<App>, fleet: Arc<FleetTls>) -> Vec<Job> {
    let mut jobs = of_every_collector();
    jobs.extend(of_the_leader());
    jobs.extend(ca::jobs(app, fleet));
    jobs.extend(without_agents());
    jobs.extend(of_backups());
    for job in &mut jobs {
        if let Some(every) = app.config.jobs.intervals.get(job.name) {
            job.interval = every.0;
        }
    }
    jobs
}

/// What each collector does for itself.
fn of_every_collector() -> Vec<Job> {
    let here = |name, interval, task: fn(Arc<App>) -> Work<'static>| {
        job(name, interval, Task::Here(Box::new(task)))
    };
    vec![
        here("alive", seconds(2), |app| Box::pin(alive::run(app))),
        here("connect", seconds(10), |app| Box::pin(alive::connect(app))),
        here("revocations", certificates::POLL, |app| {
            Box::pin(revocations::run(app))
        }),
        here("commands", seconds(2), |app| Box::pin(commands::run(app))),
        here("fleet_metrics", seconds(15), |app| {
            Box::pin(fleet_metrics::run(app))
        }),
        here("policy", seconds(5), |app| Box::pin(policy(app))),
        here("rates", seconds(60), |app| {
            app.rates.sweep();
            app.play_rates.sweep();
            app.backup_rates.sweep();
            app.operator_rates.sweep();
            Box::pin(std::future::ready(Ok(())))
        }),
    ]
}

/// What one does for all.
fn of_the_leader() -> Vec<Job> {
    let fleets = |name, interval, task| job(name, interval, Task::Fleet(task));
    let beside = |name, interval, task| job(name, interval, Task::Beside(task));
    vec![
        fleets("liveness", seconds(5), |app, connection| {
            Box::pin(liveness::run(app, connection))
        }),
        // Often, for a clock may jump: a machine that slept for weeks wakes up without one for today.
        fleets("partitions", seconds(60), |app, connection| {
            Box::pin(partitions::run(app, connection))
        }),
        fleets("rollup", seconds(60), |app, connection| {
            Box::pin(rollup::run(app, connection))
        }),
        fleets("fleet_counts", seconds(300), fleet_counts::run),
        fleets("sample", seconds(30), sample::run),
        fleets("patch_due", seconds(300), |app, connection| {
            Box::pin(patches::run(app, connection))
        }),
        fleets("change_links", seconds(10), |app, connection| {
            Box::pin(links::run(app, connection))
        }),
        fleets("interrupted_plays", seconds(600), |app, connection| {
            Box::pin(interrupted_plays::run(app, connection))
        }),
        fleets("stale_runs", seconds(15), |app, connection| {
            Box::pin(stale_runs::run(app, connection))
        }),
        fleets("logins", seconds(600), |app, connection| {
            Box::pin(sweep_logins(app, connection))
        }),
        fleets("ca_log", seconds(2), |app, connection| {
            Box::pin(ca_log::run(app, connection))
        }),
        fleets("audit_seal", seconds(1), |app, connection| {
            Box::pin(audit::seal(app, connection))
        }),
        fleets("audit_checkpoint", seconds(300), |app, connection| {
            Box::pin(audit::checkpoint(app, connection))
        }),
        Job {
            limit: IMPORT,
            ..beside("change_retention", seconds(600), |app| {
                Box::pin(change_retention::run(app))
            })
        },
        beside("ca_log_replay", seconds(300), |app| {
            Box::pin(ca_log::replay(app))
        }),
        beside("ca_log_removal", seconds(3600), |app| {
            Box::pin(ca_log::remove_old(app))
        }),
    ]
}

/// What is known of hosts beside their agents.
fn without_agents() -> [Job; 4] {
    let sync = Task::Beside(|app| Box::pin(inventory::sources::run(app)));
    let link = Task::Fleet(|app, connection| Box::pin(inventory::relink::run(app, connection)));
    let advise = Task::Beside(|app| Box::pin(advisories::run(app)));
    let probe = Task::Beside(|app| Box::pin(probes::run(app)));
    [
        Job {
            limit: IMPORT,
            ..job("advisories", seconds(60), advise)
        },
        job("inventory", seconds(30), sync),
        job("inventory_links", seconds(60), link),
        job("probes", seconds(10), probe),
    ]
}

/// What becomes of backups that are stored.
fn of_backups() -> [Job; 3] {
    let expire = Task::Beside(|app| Box::pin(backup_retention::run(app)));
    let collect = Task::Beside(|app| Box::pin(backup_garbage::run(app)));
    let verify = Task::Beside(|app| Box::pin(pack_verification::run(app)));
    [
        ("backup_retention", seconds(600), expire),
        ("backup_garbage", seconds(600), collect),
        ("pack_verification", seconds(3600), verify),
    ]
    .map(|(name, interval, task)| Job {
        limit: IMPORT,
        ..job(name, interval, task)
    })
}

/// Starts every job; they end when the set is dropped.
pub fn start(app: &Arc<App>, fleet: Arc<FleetTls>) -> JoinSet<()> {
    let mut jobs = JoinSet::new();
    let (leading, lead) = watch::channel(None);
    let table = table(app, fleet);
    let known = |name: &String| table.iter().any(|job| job.name == name);
    for name in app.config.jobs.intervals.keys().filter(|name| !known(name)) {
        tracing::warn!(name, "jobs.intervals names no job");
    }
    for job in table {
        app.metrics.declare_job(job.name);
        jobs.spawn(job.repeat(Arc::clone(app), lead.clone()));
    }
    jobs.spawn(leader::campaign(Arc::clone(app), leading));
    jobs.spawn(revocations::listen(Arc::clone(app)));
    jobs.spawn(login::oidc::provider::keep(Arc::clone(app)));
    jobs
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

async fn sweep_logins(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    login::session::sweep(connection, app.clock.now()).await?;
    login::oidc::sweep(connection, app.clock.now()).await?;
    login::lockout::sweep(connection, app.clock.now()).await?;
    idempotency::sweep(connection, app.clock.now()).await?;
    saved_views::delete_orphans(connection).await?;
    Ok(Done::Whole)
}
