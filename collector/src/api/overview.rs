//! `/api/v1/overview`: what of the fleet needs a human, each with the list behind it; and how the fleet is and was.
//!
//! A later part that has something to say adds its row to [`needs`].

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use crate::api::input::Json;
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::expected_hosts;
use crate::store::fleet::{self, Counts, HourRow};

/// Certificates that expire within so many days are told of. They are renewed long before.
const CERTIFICATE_DAYS: i32 = 14;
/// The trend goes back so far.
const TREND: Duration = Duration::days(7);

/// The fleet at a glance.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Overview {
    pub hosts: Fleet,
    /// What needs a human; empty where nothing does.
    pub needs: Vec<Need>,
    /// By the hour, of the last seven days.
    pub trend: Vec<HourRow>,
}

/// How many hosts at work are in each status.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Fleet {
    pub total: i64,
    pub healthy: i64,
    pub degraded: i64,
    pub unhealthy: i64,
    pub unknown: i64,
}

/// Something that needs a human.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Need {
    /// A stable word.
    pub code: &'static str,
    /// In words.
    pub title: &'static str,
    /// `bad | warn | neutral`.
    pub weight: &'static str,
    pub count: i64,
    /// The page that lists exactly these.
    pub page: String,
    /// The same of the API.
    pub api: String,
}

/// What needs a human, and how the fleet is.
#[utoipa::path(
    get,
    path = "/api/v1/overview",
    tag = "hosts",
    responses((status = 200, body = Overview)),
)]
pub async fn get(State(app): State<Arc<App>>) -> Result<Json<Overview>, Problem> {
    look(&app, app.clock.now()).await.map(Json)
}

/// Looks at the fleet as it is at `now`.
pub async fn look(app: &App, now: OffsetDateTime) -> Result<Overview, Problem> {
    let cutoffs = app.silence.cutoffs(now);
    let mut connection = app.pool.acquire().await?;
    let counts = fleet::count(&mut connection, cutoffs, CERTIFICATE_DAYS).await?;
    let ledger = expected_hosts::count(&mut connection, None, cutoffs.offline_before).await?;
    let trend = fleet::list_hours(&mut connection, now - TREND).await?;
    Ok(Overview {
        hosts: Fleet {
            total: counts.total,
            healthy: counts.healthy,
            degraded: counts.degraded,
            unhealthy: counts.unhealthy,
            unknown: counts.unknown,
        },
        needs: needs(&counts, &ledger),
        trend,
    })
}

/// Everything that may need a human and does, the gravest first.
fn needs(counts: &Counts, ledger: &[(String, i64)]) -> Vec<Need> {
    let expected = |state: &str| {
        let found = ledger.iter().find(|(name, _)| name == state);
        found.map_or(0, |(_, count)| *count)
    };
    let absent = ledger_line(
        "absent",
        "expected, and no agent reports",
        "warn",
        expected("absent"),
    );
    let destroyed = ledger_line(
        "destroyed_reporting",
        "destroyed, and still reporting",
        "warn",
        expected("destroyed_reporting"),
    );
    let missing = hosts(
        "missing",
        "no longer in the inventory",
        "neutral",
        counts.missing,
        "state=missing",
    );
    let unknown = hosts(
        "unknown",
        "nothing known",
        "neutral",
        counts.unknown,
        "status=unknown",
    );
    let mut all = reported(counts);
    all.extend([absent, destroyed, missing, unknown]);
    all.into_iter().filter(|need| need.count > 0).collect()
}

/// What hosts themselves tell.
fn reported(counts: &Counts) -> Vec<Need> {
    let certificates = format!("certificate_days={CERTIFICATE_DAYS}");
    let full = "reason=disk_critical,disk_warning";
    vec![
        hosts(
            "offline",
            "offline",
            "bad",
            counts.offline,
            "liveness=offline",
        ),
        hosts(
            "identity_conflict",
            "two machines report as one host",
            "bad",
            counts.conflicts,
            "reason=identity_conflict",
        ),
        hosts("late", "late", "warn", counts.late, "liveness=late"),
        hosts("disk", "a disk nearly full", "warn", counts.full, full),
        hosts(
            "certificate",
            "a certificate that expires within 14 days",
            "warn",
            counts.certificates,
            &certificates,
        ),
        hosts(
            "clock_skew",
            "a clock that is off",
            "warn",
            counts.skewed,
            "reason=clock_skew",
        ),
        hosts(
            "failed_units",
            "failed systemd units",
            "warn",
            counts.failed_units,
            "reason=failed_units",
        ),
        hosts(
            "security_overdue",
            "a security update that is overdue",
            "warn",
            counts.overdue,
            "reason=security_overdue",
        ),
        hosts(
            "reboot_required",
            "a reboot required for over 7 days",
            "warn",
            counts.reboots,
            "reason=reboot_required",
        ),
    ]
}

/// A row whose list is of hosts.
fn hosts(
    code: &'static str,
    title: &'static str,
    weight: &'static str,
    count: i64,
    query: &str,
) -> Need {
    Need {
        code,
        title,
        weight,
        count,
        page: format!("/hosts?{query}"),
        api: format!("/api/v1/hosts?{query}"),
    }
}

/// A row whose list is a state of the inventories' ledger.
fn ledger_line(code: &'static str, title: &'static str, weight: &'static str, count: i64) -> Need {
    Need {
        code,
        title,
        weight,
        count,
        page: format!("/inventory?state={code}"),
        api: format!("/api/v1/inventory/expected?state={code}"),
    }
}
