//! Going away in two stages: no new connections and requests at once, the open ones for a while.
//!
//! Connections without a request end when the drain begins. Held answers are ended by their owner, spread
//! over a few seconds, so that agents don't all come back at once. What is left when the drain is over is cut.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Begun,
    Over,
}

/// What connections and handlers watch.
#[derive(Clone, Debug)]
pub struct Drain {
    stage: watch::Receiver<Stage>,
    connection: mpsc::Sender<()>,
}

/// What begins the drain and waits for its end.
#[derive(Debug)]
pub struct Drainer {
    stage: watch::Sender<Stage>,
    drain: Drain,
    connections: mpsc::Receiver<()>,
}

/// One connection that the drain waits for.
#[derive(Debug)]
pub struct Guard {
    _connection: mpsc::Sender<()>,
}

/// A drain that has not begun.
pub fn channel() -> (Drainer, Drain) {
    let (sender, stage) = watch::channel(Stage::Running);
    let (connection, connections) = mpsc::channel(1);
    let drain = Drain { stage, connection };
    (
        Drainer {
            stage: sender,
            drain: drain.clone(),
            connections,
        },
        drain,
    )
}

impl Drain {
    /// Waits until the drain begins.
    pub async fn begun(&self) {
        self.reached(Stage::Begun).await;
    }

    /// Waits until what is left is cut.
    pub async fn over(&self) {
        self.reached(Stage::Over).await;
    }

    /// Counts one connection until the guard is dropped.
    pub fn enter(&self) -> Guard {
        Guard {
            _connection: self.connection.clone(),
        }
    }

    async fn reached(&self, stage: Stage) {
        let mut current = self.stage.clone();
        // The drainer is gone only when the process is ending: that is over, too.
        drop(current.wait_for(|current| *current >= stage).await);
    }
}

impl Drainer {
    /// Begins the drain.
    pub fn begin(&self) {
        self.stage.send_replace(Stage::Begun);
    }

    /// Waits until every connection has ended, at most `limit`; then cuts what is left.
    /// Answers whether all ended by themselves.
    pub async fn finish(self, limit: Duration) -> bool {
        let Self {
            stage,
            drain,
            mut connections,
        } = self;
        drop(drain);
        let all_ended = tokio::time::timeout(limit, connections.recv())
            .await
            .is_ok();
        stage.send_replace(Stage::Over);
        all_ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_drain_waits_for_open_connections_and_then_cuts_them() {
        let (drainer, drain) = channel();
        let guard = drain.enter();
        drainer.begin();
        drain.begun().await;
        let watching = drain.clone();
        drop(drain);
        let cut = tokio::spawn(async move {
            watching.over().await;
            drop(guard);
        });
        assert!(!drainer.finish(Duration::from_secs(20)).await);
        cut.await.expect("cut");
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_ends_when_the_last_connection_does() {
        let (drainer, drain) = channel();
        let guard = drain.enter();
        drop(drain);
        drainer.begin();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(guard);
        });
        let started = tokio::time::Instant::now();
        assert!(drainer.finish(Duration::from_secs(20)).await);
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}
