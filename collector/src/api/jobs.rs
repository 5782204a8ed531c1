//! `GET /api/v1/jobs`: what collectors do by themselves, and how it went.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::input::Json;
use crate::api::page::Page;
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::jobs::{self, JobRow, RunRow};

/// A job with its last runs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Job {
    #[serde(flatten)]
    pub row: JobRow,
    /// Newest first, at most 20. Of a job that runs every few seconds those that were written down: where one went
    /// like the one before, every 10 s.
    pub runs: Vec<RunRow>,
}

/// Every job that has run, by name.
#[utoipa::path(
    get,
    path = "/api/v1/jobs",
    tag = "jobs",
    responses((status = 200, body = Page<Job>)),
)]
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Page<Job>>, Problem> {
    rows(&app).await.map(Json)
}

/// The jobs, for pages too.
pub async fn rows(app: &App) -> Result<Page<Job>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let rows = jobs::list(&mut connection).await?;
    let runs = jobs::list_runs(&mut connection).await?;
    drop(connection);
    let job = |row: JobRow| Job {
        runs: runs
            .iter()
            .filter(|run| run.job == row.name)
            .cloned()
            .collect(),
        row,
    };
    let items: Vec<_> = rows.into_iter().map(job).collect();
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(Page {
        items,
        total,
        next_cursor: None,
    })
}
