//! A made-up fleet to look around in: `demo --sample`, `sample load`, and away with it, `sample remove`.
//!
//! Everything is made of a host's number (`sample/member.rs`), through the same statements that store what agents
//! report, so it is the same fleet every time, told relative to the instant of its loading. What belongs to it is
//! what `sample_hosts` lists, which nothing else writes, and changes of the ids in `sample/changes.rs`; its certificates authenticate nobody. An empty database
//! only, for sample hosts between real ones would be mistaken for real. `jobs/sample.rs` keeps it alive.

pub(crate) mod beat;
mod changes;
mod facts;
mod load;
pub(crate) mod member;
mod past;
mod software;

use std::time::Duration as Wait;

use serde_json::json;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::audit::{self, Actor, Change};
use crate::config::Patches;
use crate::store::hosts::Cutoffs;
use crate::store::{locks, sample_hosts};
use member::{Member, Presence, Trouble};

pub(crate) use load::{beat as beat_once, last_seen_at};

/// The tag that each of them has; what removes them is another mark.
pub const TAG: &str = "sample";
/// The jobs that write rows of hosts by themselves; none of them runs meanwhile.
const JOBS: [&str; 4] = ["liveness", "patch_due", "rollup", "sample"];
/// A job ends within this.
const PATIENCE: Wait = Wait::from_secs(60);
/// Hosts whose rows are deleted in one statement.
const CHUNK: usize = 4;

/// How long its certificates are valid.
const CERTIFICATE: Duration = Duration::days(60);

/// How long before the loading a host got its certificate.
fn certified_before(member: Member) -> Duration {
    match member.trouble() {
        Some(Trouble::CertificateExpiring) => CERTIFICATE - Duration::days(4),
        _ => Duration::hours(5 + member.roll("certificate", 18 * 24).cast_signed()),
    }
}

/// How large, and how much of a past.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    pub hosts: u32,
    /// For so long each heartbeat is there.
    pub heartbeats: Duration,
    /// For so long sums of five minutes and of an hour are there.
    pub sums: Duration,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            hosts: 200,
            heartbeats: Duration::hours(2),
            sums: Duration::hours(48),
        }
    }
}

/// Why nothing was loaded or removed.
#[derive(Debug, Error)]
pub enum SampleError {
    #[error(
        "{count} real host(s) are in this database, {name} among them, and sample hosts between them would be \
         mistaken for real: load them into an empty database, as `demo --sample` does"
    )]
    RealHosts { count: i64, name: String },
    #[error(
        "the sample host {0} is a real host's by now (an agent enrolled as it, or a real host was merged into it \
         or set apart from it): retire or delete that host first; nothing was removed"
    )]
    Taken(String),
    #[error("a job of a collector did not make room within {PATIENCE:?}; nothing was changed")]
    Busy,
    #[error("what is installed on them: {0:#}")]
    Software(anyhow::Error),
    #[error("what was done to them: {0:#}")]
    Changes(anyhow::Error),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// Loads the fleet, where it is not there yet; answers how many hosts it made. Real hosts but `beside` are in the way.
pub async fn load(
    pool: &PgPool,
    fleet: Fleet,
    beside: &[Uuid],
    cutoffs: Cutoffs,
    actor: &Actor,
) -> Result<u32, SampleError> {
    let mut transaction = pool.begin().await?;
    keep_jobs_away(&mut transaction).await?;
    if !sample_hosts::list_ids(&mut transaction).await?.is_empty() {
        return Ok(0);
    }
    let (count, name) = sample_hosts::count_real(&mut transaction, beside).await?;
    if count > 0 {
        let name = name.unwrap_or_default();
        return Err(SampleError::RealHosts { count, name });
    }
    load::fleet(&mut transaction, fleet, cutoffs).await?;
    let policy = Patches::default();
    for member in (0..fleet.hosts).map(Member) {
        if !member.is_manual() && member.presence() != Presence::Never {
            let stored = software::store(&mut transaction, &policy, member, cutoffs.now).await;
            stored.map_err(SampleError::Software)?;
        }
    }
    let stored = changes::store(&mut transaction, fleet.hosts, cutoffs.now).await;
    stored.map_err(SampleError::Changes)?;
    let change = Change::new("sample.load", "fleet", "sample").after(json!({"hosts": fleet.hosts}));
    audit::record(&mut transaction, actor, change, cutoffs.now).await?;
    transaction.commit().await?;
    Ok(fleet.hosts)
}

/// Removes the fleet with all that hangs on it; answers how many hosts there were, hidden ones too.
pub async fn remove(pool: &PgPool, now: OffsetDateTime, actor: &Actor) -> Result<u64, SampleError> {
    let mut transaction = pool.begin().await?;
    keep_jobs_away(&mut transaction).await?;
    if let Some(name) = sample_hosts::find_taken(&mut transaction).await? {
        return Err(SampleError::Taken(name));
    }
    let hosts = sample_hosts::list_ids(&mut transaction).await?;
    if hosts.is_empty() {
        return Ok(0);
    }
    changes::delete(&mut transaction).await?;
    for some in hosts.chunks(CHUNK) {
        sample_hosts::delete_rows(&mut transaction, some).await?;
    }
    sample_hosts::delete_certs(&mut transaction).await?;
    let removed = sample_hosts::delete(&mut transaction).await?;
    let change = Change::new("sample.remove", "fleet", "sample").before(json!({"hosts": removed}));
    audit::record(&mut transaction, actor, change, now).await?;
    transaction.commit().await?;
    Ok(removed)
}

/// Takes the locks under which those jobs run, until the transaction ends.
async fn keep_jobs_away(connection: &mut PgConnection) -> Result<(), SampleError> {
    let deadline = Instant::now() + PATIENCE;
    for job in JOBS {
        while !locks::try_lock(connection, &format!("infratrack job {job}")).await? {
            if Instant::now() > deadline {
                return Err(SampleError::Busy);
            }
            sleep(Wait::from_millis(50)).await;
        }
    }
    Ok(())
}
