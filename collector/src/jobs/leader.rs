//! Which collector does what only one should do: whoever holds a lock of Postgres, by a connection of its own.
//!
//! A leader that dies loses the connection and so the lock; of one that hangs or is stopped, Postgres ends the
//! connection after [`QUIET`]. The leader itself believes it for [`LEASE`] after it last asked, which is shorter.
//! That is so that work is not done twice; what must not be done twice at once is guarded by a lock in the
//! transaction that does it: see [`super::run`].

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::app::App;
use crate::store::locks;

const LOCK: &str = "infratrack leader";
/// How often the leader shows that it lives, and the others look whether it does.
const ASK: Duration = Duration::from_secs(1);
/// The answer comes within this.
const ANSWER: Duration = Duration::from_secs(2);
/// For how long an answer is good.
const LEASE: Duration = Duration::from_secs(5);
/// Postgres ends the connection of a leader that says nothing for so long.
const QUIET: &str = "7s";

/// Until when this collector leads; `None`: it does not.
pub(super) type Lead = watch::Receiver<Option<Instant>>;

/// Whether this collector leads.
pub(super) fn is_leading(lead: &Lead) -> bool {
    lead.borrow().is_some_and(|until| until > Instant::now())
}

/// Until this collector leads.
pub(super) async fn gained(lead: &mut Lead) {
    while !is_leading(lead) {
        if lead.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Until it does no more.
pub(super) async fn lost(mut lead: Lead) {
    loop {
        let until = *lead.borrow_and_update();
        let Some(until) = until.filter(|until| *until > Instant::now()) else {
            return;
        };
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            changed = lead.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Tries to be the leader for as long as this runs.
pub(super) async fn campaign(app: Arc<App>, lead: watch::Sender<Option<Instant>>) {
    loop {
        if let Err(error) = hold(&app, &lead).await {
            tracing::warn!(%error, "no say in who leads");
        }
        lead.send_replace(None);
        sleep(Duration::from_millis(rand::random_range(200..1000))).await;
    }
}

/// Until the connection breaks.
async fn hold(app: &App, lead: &watch::Sender<Option<Instant>>) -> sqlx::Result<()> {
    let options = app.pool.connect_options().as_ref().clone();
    let options = options.options([("idle_session_timeout", QUIET)]);
    let mut connection = within(PgConnection::connect_with(&options)).await?;
    loop {
        let asked = Instant::now();
        if lead.borrow().is_some() {
            within(connection.ping()).await?;
            lead.send_replace(Some(asked + LEASE));
        } else if within(locks::try_session_lock(&mut connection, LOCK)).await? {
            tracing::info!("this collector leads");
            lead.send_replace(Some(asked + LEASE));
        }
        sleep(ASK).await;
    }
}

async fn within<T>(asking: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let answered = timeout(ANSWER, asking).await;
    answered.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())))
}
