//! `GET /health`: 200 when this collector can do its work, else 503 with the part that is wrong.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

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
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    pub detail: String,
}

/// Looks at the database and its migrations, and whether it takes what is written.
pub async fn health(State(app): State<Arc<App>>) -> Response {
    let mut checks = check(&app.pool).await;
    let failure = app.alive.failure().or(app.writers.condition().failure());
    checks.push(Check {
        name: "writes",
        ok: failure.is_none(),
        detail: failure
            .unwrap_or("Postgres stores what it is given")
            .to_owned(),
    });
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let health = Health {
        status: if ok { "ok" } else { "failing" },
        version: env!("CARGO_PKG_VERSION"),
        checks,
    };
    (status, Json(health)).into_response()
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
