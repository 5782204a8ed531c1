//! When the agent is to stop, and why it does.

use std::time::Duration;

use infratrack_shared::wire::event::StopReason;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whether the host goes down too.
pub(super) async fn stop_reason() -> StopReason {
    let asked = tokio::process::Command::new("systemctl")
        .arg("is-system-running")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(Duration::from_secs(1), asked).await {
        Ok(Ok(output)) if output.stdout.starts_with(b"stopping") => StopReason::Shutdown,
        _ => StopReason::Stopped,
    }
}

/// SIGTERM or SIGINT.
pub(super) struct Stop {
    term: Signal,
    int: Signal,
}

impl Stop {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
