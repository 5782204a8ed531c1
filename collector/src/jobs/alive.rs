//! Says that this collector is alive, and notes the times in which none was.

use std::sync::Arc;

use sqlx::{Connection, PgConnection};
use time::Duration;

use crate::app::App;
use crate::store::collectors::{self, Downtime};
use crate::store::{failure, locks};

/// Silence of all collectors that counts as downtime; they speak every 2 seconds.
const SILENT: Duration = Duration::seconds(10);

/// The reason is known within this, or stays what the pool says.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(2);
/// It is said within this, or not: the next one may have a connection that works.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// One sign of life.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let said = tokio::time::timeout(LIMIT, say(&app)).await;
    let said = said.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())));
    match said {
        Ok(()) => app.alive.succeeded(),
        Err(error) => {
            let error = reason(&app, error).await;
            app.alive.failed(failure::words(&error));
            return Err(error.into());
        }
    }
    Ok(())
}

/// The pool says no more than that it had no connection in time; one of our own says why.
async fn reason(app: &App, error: sqlx::Error) -> sqlx::Error {
    if !matches!(error, sqlx::Error::PoolTimedOut) {
        return error;
    }
    let options = app.pool.connect_options();
    let connecting = PgConnection::connect_with(&options);
    match tokio::time::timeout(CONNECT, connecting).await {
        Ok(Err(reason)) => reason,
        Ok(Ok(_)) | Err(_) => error,
    }
}

/// Connects anew: a pool that has its connections does not notice that its password is no longer good.
pub async fn connect(app: Arc<App>) -> anyhow::Result<()> {
    let options = app.pool.connect_options();
    let connecting = async {
        let connection = PgConnection::connect_with(&options).await?;
        connection.close().await
    };
    let connected = tokio::time::timeout(LIMIT, connecting).await;
    let connected = connected.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())));
    match connected {
        Ok(()) => app.connects.succeeded(),
        Err(error) => {
            app.connects.failed(failure::words(&error));
            return Err(error.into());
        }
    }
    Ok(())
}

async fn say(app: &App) -> sqlx::Result<()> {
    let hostname = nix::unistd::gethostname().map_err(|error| sqlx::Error::Io(error.into()))?;
    let hostname = hostname.to_string_lossy().into_owned();
    let mut transaction = app.pool.begin().await?;
    let now = app.clock.now();
    // One of several notes a downtime.
    if locks::try_lock(&mut transaction, "infratrack downtimes").await? {
        let last = collectors::find_last_alive(&mut transaction).await?;
        if let Some(last) = last.filter(|last| now - *last > SILENT) {
            let downtime = Downtime {
                from_at: last,
                to_at: now,
            };
            collectors::insert_downtime(&mut transaction, downtime).await?;
        }
    }
    collectors::upsert_alive(&mut transaction, app.id, &hostname, app.started_at, now).await?;
    let since = now - Duration::days(1);
    let downtimes = collectors::list_downtimes(&mut transaction, since).await?;
    transaction.commit().await?;
    app.silence.set_downtimes(downtimes);
    Ok(())
}

/// The last sign of life.
pub async fn stopped(app: &App) -> sqlx::Result<()> {
    let mut connection = app.pool.acquire().await?;
    collectors::update_stopped(&mut connection, app.id, app.clock.now())
        .await
        .map(drop)
}
