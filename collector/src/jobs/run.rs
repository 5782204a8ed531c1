//! Runs jobs: each in a loop of its own, with an interval and a time limit, and writes down how it went.
//!
//! What one collector does for the whole fleet runs at the leader alone, and holds the job's lock in the very
//! transaction that it writes in. So it never runs twice at once, whatever becomes of who began it: a collector
//! that is stopped in the middle has its transaction ended by Postgres after 10 s, lock and writes together, and
//! finds neither when it goes on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};

use super::leader::{self, Lead};
use super::record::{Ended, Outcome, Record};
use crate::app::App;
use crate::store::{jobs as store, locks};
use crate::traces;

/// Jobs begin within this of each other.
const JITTER: Duration = Duration::from_secs(1);
/// Longer intervals have no random part.
const RARE: Duration = Duration::from_secs(2 * 3600);
/// A lock that is held beside the work is seen to this often: Postgres ends a transaction that is idle for 10 s.
const HOLD: Duration = Duration::from_secs(2);

/// What came of a job's work in its transaction.
pub enum Done {
    Whole,
    /// What was done stays done, and this was not.
    ButFor(anyhow::Error),
}

/// A job's work.
pub(super) type Work<'a, T = ()> = BoxFuture<'a, anyhow::Result<T>>;

/// Where it is done, and by whom.
pub(super) enum Task {
    /// By every collector, for itself.
    Here(Box<dyn Fn(Arc<App>) -> Work<'static> + Send + Sync>),
    /// By the leader, in the transaction that has the lock.
    Fleet(for<'a> fn(&'a Arc<App>, &'a mut PgConnection) -> Work<'a, Done>),
    /// By the leader, beside the transaction that has the lock: what it does may be begun twice without harm.
    Beside(fn(Arc<App>) -> Work<'static>),
}

/// A job: a row of the table.
pub(super) struct Job {
    pub(super) name: &'static str,
    pub(super) interval: Duration,
    /// A run that takes longer is given up; the next one starts afresh.
    pub(super) limit: Duration,
    pub(super) task: Task,
}

impl Job {
    pub(super) fn scope(&self) -> &'static str {
        match self.task {
            Task::Here(_) => "collector",
            Task::Fleet(_) | Task::Beside(_) => "fleet",
        }
    }

    /// Runs it again and again.
    pub(super) async fn repeat(self, app: Arc<App>, mut lead: Lead) {
        let mut record = Record::default();
        loop {
            if self.scope() == "fleet" {
                leader::gained(&mut lead).await;
            }
            sleep(self.first(&app).await).await;
            let mut ticks = tokio::time::interval(self.interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if self.scope() == "fleet" && !leader::is_leading(&lead) {
                    break;
                }
                let run = self.once(&app, &lead, &mut record);
                traces::within(traces::job(self.name), run).await;
            }
        }
    }

    /// How long until the first run: at once, or when the leader before would have run it.
    async fn first(&self, app: &App) -> Duration {
        // What is done once a day is done at the start, with what the start found.
        let most = if self.interval > RARE {
            Duration::ZERO
        } else {
            JITTER
        };
        let jitter = most.min(self.interval / 2).mul_f64(rand::random());
        if self.scope() == "collector" {
            return jitter;
        }
        let last = async {
            let mut connection = app.pool.acquire().await?;
            store::find_last_started(&mut connection, self.name).await
        };
        let last = last.await.ok().flatten();
        let since = last.map_or(Duration::MAX, |last| {
            (app.clock.now() - last).try_into().unwrap_or(Duration::MAX)
        });
        jitter + self.interval.saturating_sub(since)
    }

    async fn once(&self, app: &Arc<App>, lead: &Lead, record: &mut Record) {
        let (began, started_at) = (Instant::now(), app.clock.now());
        let ended = tokio::select! {
            ended = timeout(self.limit, self.work(app, record)) => {
                ended.unwrap_or_else(|_| Some(Ended::with(Outcome::TimedOut, None)))
            }
            () = self.lead_lost(lead.clone()) => Some(Ended::with(Outcome::Interrupted, None)),
        };
        let Some(ended) = ended else { return };
        self.tell(app, &ended, began);
        if !ended.is_written {
            record.write_apart(app, self, &ended, started_at).await;
        }
    }

    fn tell(&self, app: &App, ended: &Ended, began: Instant) {
        let outcome = ended.outcome;
        traces::has_ended(outcome.name(), outcome == Outcome::Ok);
        app.metrics.job(self.name, began.elapsed(), outcome.name());
        match (ended.outcome, &ended.error) {
            (Outcome::Ok, _) => {}
            (Outcome::TimedOut, _) => {
                tracing::warn!(job = self.name, limit = ?self.limit, "job took too long");
            }
            (Outcome::Failed, Some(error)) => {
                tracing::warn!(job = self.name, error = format!("{error:#}"), "job failed");
            }
            (Outcome::Failed | Outcome::Interrupted, _) => {
                tracing::warn!(
                    job = self.name,
                    "job was interrupted: this collector no longer leads"
                );
            }
        }
    }

    async fn lead_lost(&self, lead: Lead) {
        match self.task {
            Task::Here(_) => std::future::pending().await,
            Task::Fleet(_) | Task::Beside(_) => leader::lost(lead).await,
        }
    }

    /// `None`: another collector is at it.
    async fn work(&self, app: &Arc<App>, record: &mut Record) -> Option<Ended> {
        let done = match &self.task {
            Task::Here(work) => work(Arc::clone(app)).await.map(|()| Some(Ended::ok())),
            Task::Fleet(work) => self.in_lock(app, *work, record).await,
            Task::Beside(work) => self.beside_lock(app, *work, record).await,
        };
        done.unwrap_or_else(|error| Some(Ended::with(Outcome::Failed, Some(error))))
    }

    async fn in_lock(
        &self,
        app: &Arc<App>,
        work: for<'a> fn(&'a Arc<App>, &'a mut PgConnection) -> Work<'a, Done>,
        record: &mut Record,
    ) -> anyhow::Result<Option<Ended>> {
        let mut transaction = app.pool.begin().await?;
        if !locks::try_lock(&mut transaction, &self.lock()).await? {
            return Ok(None);
        }
        let started_at = app.clock.now();
        let ended = match work(app, &mut transaction).await? {
            Done::Whole => Ended::ok(),
            Done::ButFor(error) => Ended::with(Outcome::Failed, Some(error)),
        };
        self.settle(app, transaction, record, ended, started_at)
            .await
    }

    async fn beside_lock(
        &self,
        app: &Arc<App>,
        work: fn(Arc<App>) -> Work<'static>,
        record: &mut Record,
    ) -> anyhow::Result<Option<Ended>> {
        let mut transaction = app.pool.begin().await?;
        if !locks::try_lock(&mut transaction, &self.lock()).await? {
            return Ok(None);
        }
        let started_at = app.clock.now();
        let mut working = work(Arc::clone(app));
        loop {
            tokio::select! {
                done = &mut working => {
                    done?;
                    break;
                }
                () = sleep(HOLD) => transaction.ping().await?,
            }
        }
        self.settle(app, transaction, record, Ended::ok(), started_at)
            .await
    }

    /// Writes down how the run went, in its own transaction: what is written so ran alone.
    async fn settle(
        &self,
        app: &App,
        mut transaction: Transaction<'_, Postgres>,
        record: &mut Record,
        mut ended: Ended,
        started_at: OffsetDateTime,
    ) -> anyhow::Result<Option<Ended>> {
        let is_due = record.is_due(app, ended.outcome);
        if is_due {
            record
                .write(&mut transaction, app, self, &ended, started_at)
                .await?;
        }
        transaction.commit().await?;
        if is_due {
            record.is_written(ended.outcome);
        } else {
            record.count(ended.outcome);
        }
        ended.is_written = true;
        Ok(Some(ended))
    }

    fn lock(&self) -> String {
        format!("infratrack job {}", self.name)
    }
}

/// Does a fleet's job once, as its leader would; `false` where a collector is at it. For the start, and for tests.
pub async fn once<T>(
    app: &Arc<App>,
    name: &str,
    work: impl AsyncFnOnce(&Arc<App>, &mut PgConnection) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    let mut transaction = app.pool.begin().await?;
    let lock = format!("infratrack job {name}");
    if !locks::try_lock(&mut transaction, &lock).await? {
        return Ok(None);
    }
    let done = work(app, &mut transaction).await?;
    transaction.commit().await?;
    Ok(Some(done))
}
