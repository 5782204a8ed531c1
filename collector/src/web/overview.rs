//! The Overview: only what of the fleet needs a human, each with the list behind it. All quiet is a state of its own.

use std::fmt::Write;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::api::overview::{self, Overview};
use crate::api::problem::Problem;
use crate::app::App;
use crate::store::fleet::HourRow;
use crate::web;
use crate::web::frame::Frame;

/// Of the drawing, in its own units.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;
/// Where hours are missing for longer, nothing is drawn: it is not known.
const HOLE_S: i64 = 2 * 3600;

/// What of an hour is drawn.
type Count = fn(&HourRow) -> i64;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    overview: Overview,
}

impl OverviewPage {
    /// Areas one above the other, by status, of the hours without a hole between them.
    fn areas(&self) -> Vec<(&'static str, String)> {
        let hours = &self.overview.trend;
        let total = |hour: &HourRow| hour.healthy + hour.degraded + hour.unhealthy + hour.unknown;
        let most = hours.iter().map(total).max().unwrap_or_default().max(1) as f64;
        let (Some(first), Some(last)) = (hours.first(), hours.last()) else {
            return Vec::new();
        };
        let span = (last.at - first.at).whole_seconds().max(1) as f64;
        let x = |hour: &HourRow| (hour.at - first.at).whole_seconds() as f64 / span * WIDTH;
        let y = |count: i64| HEIGHT - count as f64 / most * HEIGHT;
        // From the ground: unhealthy, on it degraded, unknown, and the rest.
        let tops: [(&str, Count); 4] = [
            ("all", |hour| {
                hour.unhealthy + hour.degraded + hour.unknown + hour.healthy
            }),
            ("unknown", |hour| {
                hour.unhealthy + hour.degraded + hour.unknown
            }),
            ("degraded", |hour| hour.unhealthy + hour.degraded),
            ("unhealthy", |hour| hour.unhealthy),
        ];
        let runs: Vec<_> = hours
            .chunk_by(|one, next| (next.at - one.at).whole_seconds() <= HOLE_S)
            .collect();
        let path = |top: Count| {
            let mut path = String::new();
            for run in &runs {
                let (Some(begin), Some(end)) = (run.first(), run.last()) else {
                    continue;
                };
                // Writing to a string does not fail.
                let _ = write!(path, "M{:.1} {HEIGHT}", x(begin));
                for hour in *run {
                    let _ = write!(path, "L{:.1} {:.1}", x(hour), y(top(hour)));
                }
                let _ = write!(path, "L{:.1} {HEIGHT}Z", x(end));
            }
            path
        };
        tops.map(|(class, top)| (class, path(top))).into()
    }

    fn has_trend(&self) -> bool {
        self.overview.trend.len() > 1
    }

    fn is_quiet(&self) -> bool {
        self.overview.needs.is_empty()
    }

    /// What is told of each status, with what its tile looks like.
    fn statuses(&self) -> [(&'static str, &'static str, i64); 4] {
        let hosts = &self.overview.hosts;
        [
            ("unhealthy", "bad", hosts.unhealthy),
            ("degraded", "warn", hosts.degraded),
            ("unknown", "", hosts.unknown),
            ("healthy", "good", hosts.healthy),
        ]
    }

    /// What the numbers of the trend were at its ends.
    fn trend_words(&self) -> String {
        let told = |hour: &HourRow| {
            format!(
                "{} unhealthy, {} degraded, {} unknown, {} healthy",
                hour.unhealthy, hour.degraded, hour.unknown, hour.healthy
            )
        };
        match (self.overview.trend.first(), self.overview.trend.last()) {
            (Some(first), Some(last)) => format!("From {} to {}", told(first), told(last)),
            _ => String::new(),
        }
    }
}

/// `GET /`.
pub async fn page(State(app): State<Arc<App>>, frame: Frame) -> Result<Response, Problem> {
    let overview = overview::look(&app, frame.now).await?;
    let page = OverviewPage { frame, overview };
    Ok(web::page(&page.frame, &page))
}
