//! Writes down how jobs went, for `GET /api/v1/jobs`. What runs every second and goes as it went before is written
//! down every 10 s only; it is counted all the same.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};

use super::run::Job;
use crate::app::App;
use crate::store::failure;
use crate::store::jobs::{self as store, Run};

/// Runs of a job that are kept.
pub const KEPT: i64 = 20;
/// What is kept of an error.
const ERROR_CHARS: usize = 500;
/// A run is written down within this, or not: the next one is.
const LIMIT: Duration = Duration::from_secs(5);

/// How a run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Failed,
    TimedOut,
    /// This collector led when it began, and then no more.
    Interrupted,
}

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A run that is over.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) error: Option<anyhow::Error>,
    /// Or counted, where it was not to be written down.
    pub(super) is_written: bool,
}

impl Ended {
    pub(super) fn ok() -> Self {
        Self::with(Outcome::Ok, None)
    }

    pub(super) fn with(outcome: Outcome, error: Option<anyhow::Error>) -> Self {
        Self {
            outcome,
            error,
            is_written: false,
        }
    }
}

/// What is known of a job's runs here and not written down.
#[derive(Default)]
pub(super) struct Record {
    runs: i64,
    failures: i64,
    last: Option<(Instant, Outcome)>,
}

impl Record {
    /// Whether a run that went so is to be written down.
    pub(super) fn is_due(&self, app: &App, outcome: Outcome) -> bool {
        let every = app.config.jobs.record_every;
        self.last
            .is_none_or(|(at, last)| last != outcome || at.elapsed() >= every)
    }

    pub(super) fn count(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.failures += i64::from(outcome != Outcome::Ok);
    }

    pub(super) fn is_written(&mut self, outcome: Outcome) {
        *self = Self {
            runs: 0,
            failures: 0,
            last: Some((Instant::now(), outcome)),
        };
    }

    pub(super) async fn write(
        &self,
        connection: &mut PgConnection,
        app: &App,
        job: &Job,
        ended: &Ended,
        started_at: OffsetDateTime,
    ) -> sqlx::Result<()> {
        let finished_at = app.clock.now();
        let error = ended.error.as_ref().map(words);
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let took = (finished_at - started_at).try_into().unwrap_or_default();
        let run = Run {
            job: job.name,
            scope: job.scope(),
            interval_ms: millis(job.interval),
            collector_id: app.id.0,
            started_at,
            finished_at,
            outcome: ended.outcome.name(),
            error: error.as_deref(),
            duration_ms: millis(took),
            runs: self.runs + 1,
            failures: self.failures + i64::from(ended.outcome != Outcome::Ok),
        };
        store::upsert(connection, &run).await?;
        store::insert_run(connection, &run).await?;
        store::delete_old_runs(connection, job.name, KEPT).await?;
        Ok(())
    }

    /// Where the run's own transaction is gone or there was none.
    pub(super) async fn write_apart(
        &mut self,
        app: &App,
        job: &Job,
        ended: &Ended,
        started_at: OffsetDateTime,
    ) {
        if !self.is_due(app, ended.outcome) {
            return self.count(ended.outcome);
        }
        let writing = async {
            let mut transaction = app.pool.begin().await?;
            self.write(&mut transaction, app, job, ended, started_at)
                .await?;
            transaction.commit().await
        };
        match timeout(LIMIT, writing).await {
            Ok(Ok(())) => self.is_written(ended.outcome),
            Ok(Err(_)) | Err(_) => self.count(ended.outcome),
        }
    }
}

/// An error for whoever may see the list: of the database, only what quotes no row and no parameter.
fn words(error: &anyhow::Error) -> String {
    let database = error.chain().find_map(|cause| cause.downcast_ref());
    let text = match database {
        Some(database) => failure::words(database).to_owned(),
        None => format!("{error:#}"),
    };
    text.chars().take(ERROR_CHARS).collect()
}
