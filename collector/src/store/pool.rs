//! How a pool of connections is kept, whatever it is for: with a limit to each of its waits.

use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection};

/// For a connection.
const ACQUIRE: Duration = Duration::from_secs(2);
/// A connection that is given back has this long to show that it works.
const PROBE: Duration = Duration::from_secs(5);

/// A pool of at most so many.
pub fn options(max_connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE)
        // The pool asks the same without a limit: where nothing passes and nobody is told, each connection
        // given back would be one fewer until the kernel gives up, which may be never.
        .after_release(|connection, _| Box::pin(answers(connection)))
}

/// An error has the connection cut instead of closed in order.
async fn answers(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match tokio::time::timeout(PROBE, connection.ping()).await {
        Ok(answered) => answered.map(|()| true),
        Err(elapsed) => Err(sqlx::Error::Io(elapsed.into())),
    }
}
