//! `GET /api/v1/system`: how the collectors and their database are, what waits, and which agents are out there.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use time::OffsetDateTime;
use time::serde::rfc3339;
use tokio::time::timeout;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::health::{self, Check};
use crate::api::input::Json;
use crate::api::problem::Problem;
use crate::app::App;
use crate::audit::checkpoint::PREFIX;
use crate::blob::Key;
use crate::doctor::{self, Finding};
use crate::store::collectors::{self, CollectorRow};
use crate::store::system::{self, SkewCounts, TableSize, VersionCount, Waiting};
use crate::store::{audit_chain, jobs};

/// The blob store has this long to answer.
const TIME_LIMIT: Duration = Duration::from_secs(2);
/// Collectors that were not alive for longer are not listed.
const LISTED: time::Duration = time::Duration::DAY;

/// All of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct System {
    /// Of the collector that answers.
    pub version: &'static str,
    /// The collector that answers.
    pub collector_id: Uuid,
    /// The collector that does what one does for all; null: none did yet.
    pub leader_id: Option<Uuid>,
    pub checks: Vec<Check>,
    /// What `doctor` finds of the database.
    pub database: Vec<Finding>,
    pub database_size_bytes: i64,
    pub tables: Vec<TableSize>,
    pub collectors: Vec<CollectorRow>,
    pub agents: Vec<VersionCount>,
    pub skew: SkewCounts,
    pub waiting: Waiting,
    pub queues: Queues,
    pub audit: AuditChain,
}

/// What waits in the memory of the collector that answers.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Queues {
    /// How full the fullest queue of the writers is, 0 to 1.
    pub ingest_ratio: f64,
    /// Agents that can be sent something at once.
    pub held_answers: usize,
    /// Connections to Postgres, the writers' own not counted.
    pub connections: u32,
    pub idle_connections: usize,
}

/// How far the audit log is sealed and signed.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct AuditChain {
    pub sealed_rows: i64,
    /// The seal that was signed last; null: none was.
    pub checkpoint_seq: Option<i64>,
    #[serde(with = "rfc3339::option")]
    pub checkpoint_at: Option<OffsetDateTime>,
}

/// How it all is.
#[utoipa::path(
    get,
    path = "/api/v1/system",
    tag = "jobs",
    responses((status = 200, body = System)),
)]
pub async fn get(State(app): State<Arc<App>>) -> Result<Json<System>, Problem> {
    look(&app).await.map(Json)
}

/// Looks, for pages too.
pub async fn look(app: &Arc<App>) -> Result<System, Problem> {
    let mut checks = health::health(State(Arc::clone(app))).await.checks;
    checks.push(blobs(app).await);
    let database = doctor::examine_database(&app.config, &app.pool, &app.clock).await;
    let now = app.clock.now();
    let audit = chain(app).await?;
    let mut connection = app.pool.acquire().await?;
    let jobs = jobs::list(&mut connection).await?;
    let of_leader = jobs.iter().filter(|job| job.scope == "fleet");
    let leader = of_leader.max_by_key(|job| job.last_finished_at);
    Ok(System {
        version: env!("CARGO_PKG_VERSION"),
        collector_id: app.id.0,
        leader_id: leader.map(|job| job.last_leader),
        checks,
        database,
        database_size_bytes: system::find_database_size(&mut connection).await?,
        tables: system::list_partitioned(&mut connection).await?,
        collectors: collectors::list(&mut connection, now - LISTED).await?,
        agents: system::count_agent_versions(&mut connection).await?,
        skew: system::count_skews(&mut connection).await?,
        waiting: system::count_waiting(&mut connection, now).await?,
        queues: Queues {
            ingest_ratio: app.writers.load(),
            held_answers: app.answers.held_count(),
            connections: app.pool.size(),
            idle_connections: app.pool.num_idle(),
        },
        audit,
    })
}

/// How far the audit log is, for pages too.
pub async fn chain(app: &App) -> sqlx::Result<AuditChain> {
    let mut connection = app.pool.acquire().await?;
    let head = audit_chain::find_head(&mut connection).await?;
    let signed = audit_chain::find_last_checkpoint(&mut connection).await?;
    let (point, at) = signed.unzip();
    Ok(AuditChain {
        sealed_rows: head.map_or(0, |head| head.seq),
        checkpoint_seq: point.map(|point| point.seq),
        checkpoint_at: at,
    })
}

/// Whether the blob store lists what is in it.
async fn blobs(app: &App) -> Check {
    let listed = async {
        let prefix = Key::new(PREFIX)?;
        app.blob.list(&prefix, None, 1).await
    };
    let (ok, detail) = match timeout(TIME_LIMIT, listed).await {
        Ok(Ok(_)) => (true, "the blob store answers".to_owned()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the blob store cannot be listed");
            (
                false,
                "the blob store cannot be listed; the collector's log says why".to_owned(),
            )
        }
        Err(_) => (
            false,
            format!("the blob store did not answer within {TIME_LIMIT:?}"),
        ),
    };
    Check {
        name: "blobs",
        ok,
        detail,
    }
}
