//! Who is online, late or offline, and why: judged by silence while somebody listened.
//!
//! Time in which no collector was alive is no silence of the hosts. Transitions become events; the state
//! itself is computed from `last_seen_at` wherever it is shown, so it is never older than the page.

use std::sync::{Arc, PoisonError, RwLock};

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use crate::app::App;
use crate::config::Liveness;
use crate::jobs::run::Done;
use crate::store::collectors::Downtime;
use crate::store::events::{self, Event};
use crate::store::host_liveness::{self, Changed};
use crate::store::hosts::Cutoffs;
use crate::store::json_text;
use infratrack_shared::ids::HostId;

/// Judges silence: thresholds, and the recent downtimes of the collectors.
#[derive(Debug)]
pub struct Silence {
    late_after: Duration,
    offline_after: Duration,
    downtimes: RwLock<Vec<Downtime>>,
}

impl Silence {
    /// With no downtimes yet.
    pub fn new(liveness: &Liveness) -> Self {
        let duration = |value: std::time::Duration| value.try_into().unwrap_or(Duration::MAX);
        Self {
            late_after: duration(liveness.late_after),
            offline_after: duration(liveness.offline_after),
            downtimes: RwLock::default(),
        }
    }

    /// Replaces the downtimes.
    pub fn set_downtimes(&self, downtimes: Vec<Downtime>) {
        *self
            .downtimes
            .write()
            .unwrap_or_else(PoisonError::into_inner) = downtimes;
    }

    /// The instants before which a host must have been seen last to be late or offline at `now`.
    pub fn cutoffs(&self, now: OffsetDateTime) -> Cutoffs {
        let downtimes = self
            .downtimes
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Cutoffs {
            now,
            late_before: cutoff(now, self.late_after, &downtimes),
            offline_before: cutoff(now, self.offline_after, &downtimes),
        }
    }
}

/// The instant since which collectors have listened for `silence` in all until `now`.
fn cutoff(now: OffsetDateTime, silence: Duration, downtimes: &[Downtime]) -> OffsetDateTime {
    let mut newest_first: Vec<_> = downtimes.iter().collect();
    newest_first.sort_by_key(|downtime| std::cmp::Reverse(downtime.to_at));
    let (mut until, mut left) = (now, silence);
    for downtime in newest_first {
        let listened = until - downtime.to_at.min(until);
        if listened >= left {
            break;
        }
        left -= listened;
        until = downtime.from_at.min(until);
    }
    until - left
}

/// Makes events of the transitions since the last run.
pub async fn run(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    let now = app.clock.now();
    let cutoffs = app.silence.cutoffs(now);
    let changed =
        host_liveness::list_changed(connection, cutoffs.late_before, cutoffs.offline_before)
            .await?;
    let mut transitions = Vec::new();
    for host in changed {
        let id = HostId(host.host_id);
        let since = host.last_seen_at.unwrap_or(now) - Duration::minutes(5);
        let stop = events::find_last(connection, id, "agent_stop", since).await?;
        let stop = stop.filter(|stop| {
            Some(stop.received_at) >= host.last_seen_at.map(|at| at - Duration::seconds(10))
        });
        let down = app.silence.was_down_since(host.last_seen_at);
        let reason = reason(&host, stop.as_ref().map(|stop| &stop.body), down);
        host_liveness::update_liveness(connection, id, &host.is, reason, now).await?;
        transitions.push(Event {
            host: id,
            at: now,
            claimed_at: now,
            origin: None,
            instance: None,
            kind: format!("host_{}", host.is),
            body: json_text(&serde_json::json!({
                "from": host.was, "reason": reason,
                "last_seen_at": host.last_seen_at.map(crate::store::unix_millis),
            })),
        });
    }
    transitions.sort_by_key(|event| event.host);
    if !transitions.is_empty() {
        let all: Vec<_> = transitions.iter().collect();
        events::insert(connection, &all, now).await?;
    }
    Ok(Done::Whole)
}

impl Silence {
    /// Whether any downtime ended after `instant`.
    fn was_down_since(&self, instant: Option<OffsetDateTime>) -> bool {
        let downtimes = self
            .downtimes
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        instant.is_some_and(|instant| downtimes.iter().any(|downtime| downtime.to_at > instant))
    }
}

/// Why a host is, or was, silent.
fn reason(
    host: &Changed,
    stop: Option<&serde_json::Value>,
    collector_was_down: bool,
) -> Option<&'static str> {
    let silent = matches!(host.is.as_str(), "late" | "offline");
    if host.is_probed {
        return silent.then_some("probes are not answered");
    }
    let stopped = stop
        .and_then(|body| body.get("reason"))
        .and_then(serde_json::Value::as_str);
    if silent {
        return Some(match stopped {
            Some("shutdown") => "shutdown",
            Some(_) => "agent stopped",
            None if collector_was_down => "collector was down",
            None => "unknown",
        });
    }
    if host.is != "online" || host.was == "never" {
        return None;
    }
    // It is back: what was the silence? The boot and the process tell.
    let since = host.liveness_changed_at;
    if host.boot_changed_at > since {
        Some("rebooted")
    } else if host.instance_changed_at > since {
        Some("agent stopped")
    } else if host.was_reason.as_deref() == Some("collector was down") {
        Some("collector was down")
    } else {
        Some("network")
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn down(from_s: i64, to_s: i64) -> Downtime {
        Downtime {
            from_at: NOW - Duration::seconds(from_s),
            to_at: NOW - Duration::seconds(to_s),
        }
    }

    fn seconds_ago(silence_s: i64, downtimes: &[Downtime]) -> i64 {
        (NOW - cutoff(NOW, Duration::seconds(silence_s), downtimes)).whole_seconds()
    }

    #[test]
    fn without_downtime_silence_is_plain_time() {
        assert_eq!(seconds_ago(120, &[]), 120);
        assert_eq!(seconds_ago(120, &[down(500, 400)]), 120);
    }

    #[test]
    fn downtime_of_the_collectors_is_no_silence_of_hosts() {
        // Up for 30 s after an hour down: what was seen in the last 90 s before it is not offline yet.
        assert_eq!(seconds_ago(120, &[down(3630, 30)]), 3630 + 90);
        assert_eq!(
            seconds_ago(120, &[down(3630, 30), down(5000, 3650)]),
            5000 + 70
        );
    }

    #[test]
    fn a_host_that_was_offline_before_the_downtime_stays_so() {
        let offline_before = cutoff(NOW, Duration::seconds(120), &[down(3610, 10)]);
        let seen = NOW - Duration::seconds(3610 + 500);
        assert!(seen < offline_before);
    }
}
