//! `GET /health`: 200 when this collector can do its work, else 503 with the part that is wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::store::{failure, schema};

/// The database has this long to answer.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// What was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    pub status: &'static str,
    pub version: &'static str,
    pub checks: Vec<Check>,
}

/// One part.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    pub detail: String,
}

impl Check {
    fn of(name: &'static str, failure: Option<&'static str>, well: &str) -> Self {
        Self {
            name,
            ok: failure.is_none(),
            detail: failure.unwrap_or(well).to_owned(),
        }
    }
}

impl Health {
    /// All is well where every part is.
    pub fn of(checks: Vec<Check>) -> Self {
        let ok = checks.iter().all(|check| check.ok);
        Self {
            status: if ok { "ok" } else { "failing" },
            version: env!("CARGO_PKG_VERSION"),
            checks,
        }
    }
}

impl IntoResponse for Health {
    fn into_response(self) -> Response {
        let status = if self.status == "ok" {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, Json(self)).into_response()
    }
}

/// Looks at the database and its migrations, whether it takes what is written, and whether it lets this collector in.
pub async fn health(State(app): State<Arc<App>>) -> Health {
    let mut checks = check(&app.pool).await;
    let writes = app.alive.failure().or(app.writers.condition().failure());
    checks.push(Check::of(
        "writes",
        writes,
        "Postgres stores what it is given",
    ));
    checks.push(Check::of(
        "connections",
        app.connects.failure(),
        "Postgres takes new connections",
    ));
    Health::of(checks)
}

/// `GET /health/live`: this process answers, whatever the database does. For who restarts what hangs.
pub async fn live() -> Health {
    Health::of(Vec::new())
}

/// `GET /health/ready`: it can be sent work. For load balancers.
pub async fn ready(State(app): State<Arc<App>>) -> Health {
    let mut checks = check(&app.pool).await;
    let draining = app.draining.load(Ordering::Relaxed);
    let draining = draining.then_some("this collector is stopping");
    checks.push(Check::of("draining", draining, "this collector goes on"));
    Health::of(checks)
}

/// The same for `doctor`.
pub async fn check(pool: &sqlx::PgPool) -> Vec<Check> {
    let version = async {
        let mut connection = pool.acquire().await?;
        schema::version(&mut connection).await
    };
    let (database, version) = match tokio::time::timeout(TIME_LIMIT, version).await {
        Ok(Ok(version)) => (Ok("Postgres answers".to_owned()), Some(version)),
        // The error may quote connection parameters; its kind is enough here, the log has the rest.
        Ok(Err(error)) => {
            tracing::warn!(%error, "health check failed");
            (Err(failure::words(&error).to_owned()), None)
        }
        Err(_) => (
            Err(format!("Postgres did not answer within {TIME_LIMIT:?}")),
            None,
        ),
    };
    let mut checks = vec![Check {
        name: "database",
        ok: database.is_ok(),
        detail: database.unwrap_or_else(|reason| reason),
    }];
    if let Some(version) = version {
        let head = schema::head();
        let detail = format!("database is at migration {version}, this release needs {head}");
        checks.push(Check {
            name: "migrations",
            ok: version >= head,
            detail,
        });
    }
    checks
}
