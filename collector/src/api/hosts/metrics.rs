//! `GET /api/v1/hosts/{id}/metrics`: the heartbeats' values over time, for charts.
//!
//! The range chooses where they are read: raw heartbeats, or their sums of 5 minutes or an hour. Time is cut into
//! buckets of one width; one without a heartbeat is null in every series, so that a gap is seen as one.

use std::sync::Arc;

use axum::extract::State;
use infratrack_shared::ids::HostId;
use serde::{Deserialize, Serialize};
use time::serde::rfc3339;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::hosts::find;
use crate::api::input::{Json, Path, Query};
use crate::api::problem::Problem;
use crate::app::App;
use crate::jobs::rollup::floor;
use crate::store::series::{self, BucketRow, NAMES, SUMMED_AVG, SUMMED_MAX};

/// Buckets of an answer, where nobody said how many, and at most.
const DEFAULT_POINTS: i64 = 300;
const MAX_POINTS: i64 = 600;
/// The longest range.
const MAX_RANGE: Duration = Duration::days(3660);
/// Ranges up to this are read from raw heartbeats, and up to that from sums of 5 minutes.
const RAW_RANGE: Duration = Duration::hours(25);
const RANGE_OF_5M: Duration = Duration::days(31);
/// What is younger may not be summed yet, and is read from raw heartbeats.
const UNSUMMED: Duration = Duration::minutes(15);

/// Which time, how finely.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsQuery {
    /// From this time on (RFC 3339); a day before `to` where it is not said.
    #[serde(with = "rfc3339::option")]
    pub from: Option<OffsetDateTime>,
    /// Until this time; now where it is not said, or later.
    #[serde(with = "rfc3339::option")]
    pub to: Option<OffsetDateTime>,
    /// Buckets at most; 300 where it is not said.
    #[param(minimum = 2, maximum = 600)]
    pub points: Option<i64>,
}

/// A host's values over time.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostMetrics {
    #[serde(with = "rfc3339")]
    pub from: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub to: OffsetDateTime,
    /// What was read: `raw` heartbeats, or their sums of `5m` or `1h`.
    pub source: &'static str,
    /// Seconds from one bucket to the next.
    pub step_s: i64,
    /// Heartbeats in the range.
    pub samples: i64,
    /// The start of each bucket, in seconds since the Unix epoch.
    pub at: Vec<i64>,
    pub series: Vec<Series>,
    /// When no collector ran: nobody listened then.
    pub downtimes: Vec<DowntimeSpan>,
}

/// One value over time.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Series {
    pub name: &'static str,
    /// `ratio`, `count`, `bytes_per_s` or `celsius`.
    pub unit: &'static str,
    /// False where what was read does not hold it: sums hold less than heartbeats.
    pub is_kept: bool,
    /// A value a bucket; null where nothing was said. Sums hold no average of rates and of disks.
    pub avg: Vec<Option<f64>>,
    pub max: Vec<Option<f64>>,
    /// Over the whole range; null where nothing was said or it is not kept for so long.
    pub summary: Summary,
}

/// A series in three numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = SeriesSummary)]
pub struct Summary {
    /// The lowest average of a bucket.
    pub min: Option<f64>,
    pub avg: Option<f64>,
    pub max: Option<f64>,
}

/// A time in which no collector ran.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct DowntimeSpan {
    #[serde(with = "rfc3339")]
    pub from: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub to: OffsetDateTime,
}

/// Sums of what heartbeats said, in steps for a chart.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{id}/metrics",
    tag = "hosts",
    params(("id" = Uuid, Path), MetricsQuery),
    responses((status = 200, body = HostMetrics)),
)]
pub async fn metrics(
    State(app): State<Arc<App>>,
    Path(id): Path<Uuid>,
    Query(query): Query<MetricsQuery>,
) -> Result<Json<HostMetrics>, Problem> {
    let id = HostId(id);
    find(&app, id).await?;
    read(&app, id, &query).await.map(Json)
}

/// The values of a range.
pub async fn read(app: &App, host: HostId, query: &MetricsQuery) -> Result<HostMetrics, Problem> {
    let now = app.clock.now();
    let points = query.points.unwrap_or(DEFAULT_POINTS);
    if !(2..=MAX_POINTS).contains(&points) {
        return Err(Problem::parameter(
            "points",
            format!("must be from 2 to {MAX_POINTS}"),
        ));
    }
    let to = query.to.unwrap_or(now).min(now);
    let from = match query.from {
        Some(from) => from,
        None => to.checked_sub(Duration::DAY).unwrap_or(to),
    };
    if from >= to {
        return Err(Problem::parameter(
            "from",
            "must be before to, and before now",
        ));
    }
    if to - from > MAX_RANGE {
        return Err(Problem::parameter(
            "from",
            "must be less than ten years before to",
        ));
    }
    let heartbeat = Duration::milliseconds(app.policy.borrow().intervals.heartbeat_ms.into());
    let kept = |kept: std::time::Duration| now - Duration::try_from(kept).unwrap_or(Duration::DAY);
    let retention = &app.config.retention;
    let (raw_since, since_5m) = (kept(retention.heartbeats), kept(retention.heartbeats_5m));
    let source = Source::of(from, to, raw_since, since_5m);
    let mut grid = Grid::of(source, from, to, points, heartbeat);
    let mut connection = app.pool.acquire().await?;
    let mut found = rows(&mut connection, host, &grid, now).await?;
    if source == Source::Raw && begins_after(&found, from + UNSUMMED) {
        // Heartbeats are kept for less than they should be: after a restore, say. What they were summed to may be there.
        let coarse = Grid::of(Source::Sums5m, from, to, points, heartbeat);
        let sums = rows(&mut connection, host, &coarse, now).await?;
        if found.first().map_or(!sums.is_empty(), |first| {
            !begins_after(&sums, first.at - UNSUMMED)
        }) {
            (grid, found) = (coarse, sums);
        }
    }
    let rows = found;
    let downtimes = series::list_downtimes(&mut connection, grid.from, grid.to).await?;
    let downtimes = downtimes.into_iter().map(|downtime| DowntimeSpan {
        from: downtime.from_at,
        to: downtime.to_at,
    });
    Ok(HostMetrics {
        from: grid.from,
        to: grid.to,
        source: grid.source.name(),
        step_s: grid.step.whole_seconds(),
        samples: rows.iter().map(|row| row.samples).sum(),
        series: all_series(&rows, &grid),
        at: grid.starts().map(OffsetDateTime::unix_timestamp).collect(),
        downtimes: downtimes.collect(),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Raw,
    Sums5m,
    Sums1h,
}

impl Source {
    /// What is there for all of the range, and not too much of it.
    fn of(
        from: OffsetDateTime,
        to: OffsetDateTime,
        raw_since: OffsetDateTime,
        since_5m: OffsetDateTime,
    ) -> Self {
        let range = to - from;
        if range <= RAW_RANGE && from >= raw_since {
            Self::Raw
        } else if range <= RANGE_OF_5M && from >= since_5m {
            Self::Sums5m
        } else {
            Self::Sums1h
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Sums5m => "5m",
            Self::Sums1h => "1h",
        }
    }

    /// Buckets are multiples of this.
    fn width(self) -> Duration {
        match self {
            Self::Raw => Duration::MINUTE,
            Self::Sums5m => Duration::minutes(5),
            Self::Sums1h => Duration::HOUR,
        }
    }
}

/// How time is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    source: Source,
    from: OffsetDateTime,
    to: OffsetDateTime,
    step: Duration,
}

impl Grid {
    /// Buckets that are wide enough for a heartbeat in each, and no more of them than `points`.
    fn of(
        source: Source,
        from: OffsetDateTime,
        to: OffsetDateTime,
        points: i64,
        heartbeat: Duration,
    ) -> Self {
        let range = to - from;
        let width = source.width().whole_seconds();
        // Both ends are moved outwards to a bucket's: one more.
        let least = range.whole_seconds() / (points - 1) + 1;
        let least = least.max(2 * heartbeat.whole_seconds());
        let step = Duration::seconds((least + width - 1) / width * width);
        let start = floor(from, step);
        let end = floor(to, step);
        Self {
            source,
            from: start,
            to: if end < to { end + step } else { end },
            step,
        }
    }

    fn starts(&self) -> impl Iterator<Item = OffsetDateTime> {
        let (step, to) = (self.step, self.to);
        std::iter::successors(Some(self.from), move |at| Some(*at + step))
            .take_while(move |at| *at < to)
    }
}

fn begins_after(rows: &[BucketRow], at: OffsetDateTime) -> bool {
    rows.first().is_none_or(|first| first.at > at)
}

/// The buckets that have heartbeats, by time. What is not summed yet is read raw.
async fn rows(
    connection: &mut sqlx::PgConnection,
    host: HostId,
    grid: &Grid,
    now: OffsetDateTime,
) -> sqlx::Result<Vec<BucketRow>> {
    let (from, to, step_s) = (grid.from, grid.to, grid.step.as_seconds_f64());
    let summed = floor(now - UNSUMMED, grid.source.width()).clamp(from, to);
    let (mut rows, rest) = match grid.source {
        Source::Raw => (Vec::new(), from),
        Source::Sums5m => (
            series::of_5m(connection, host, from, summed, from, step_s).await?,
            summed,
        ),
        Source::Sums1h => (
            series::of_1h(connection, host, from, summed, from, step_s).await?,
            summed,
        ),
    };
    for mut row in series::raw(connection, host, rest, to, from, step_s).await? {
        if grid.source != Source::Raw {
            leave_out(&mut row.avg, &SUMMED_AVG);
            leave_out(&mut row.max, &SUMMED_MAX);
        }
        match rows.last_mut() {
            Some(last) if last.at == row.at => *last = together(last, &row),
            _ => rows.push(row),
        }
    }
    Ok(rows)
}

/// What sums don't hold would be there for the last minutes only, and taken for the whole.
fn leave_out(values: &mut [Option<f64>], held: &[&str]) {
    for (value, name) in values.iter_mut().zip(NAMES) {
        *value = value.filter(|_| held.contains(&name));
    }
}

/// A bucket of which one part is summed and the other is not.
fn together(a: &BucketRow, b: &BucketRow) -> BucketRow {
    let of = |row: &BucketRow| row.samples as f64;
    let avg = |(x, y): (&Option<f64>, &Option<f64>)| match (x, y) {
        (Some(x), Some(y)) => Some((x * of(a) + y * of(b)) / (of(a) + of(b))),
        (x, y) => x.or(*y),
    };
    let max = |(x, y): (&Option<f64>, &Option<f64>)| match (x, y) {
        (Some(x), Some(y)) => Some(x.max(*y)),
        (x, y) => x.or(*y),
    };
    BucketRow {
        at: a.at,
        samples: a.samples + b.samples,
        avg: a.avg.iter().zip(&b.avg).map(avg).collect(),
        max: a.max.iter().zip(&b.max).map(max).collect(),
    }
}

fn all_series(rows: &[BucketRow], grid: &Grid) -> Vec<Series> {
    let series = |(index, name): (usize, &&'static str)| {
        let pick = |values: &[Option<f64>]| values.get(index).copied().flatten();
        let spread = |values: fn(&BucketRow) -> &[Option<f64>]| {
            let mut rows = rows.iter().peekable();
            let at = |start| {
                let row = rows.next_if(|row| row.at == start);
                row.and_then(|row| pick(values(row)))
            };
            grid.starts().map(at).collect::<Vec<_>>()
        };
        Series {
            name,
            unit: unit(name),
            is_kept: grid.source == Source::Raw || SUMMED_MAX.contains(name),
            avg: spread(|row| &row.avg),
            max: spread(|row| &row.max),
            summary: summary(rows, pick),
        }
    };
    NAMES.iter().enumerate().map(series).collect()
}

fn summary(rows: &[BucketRow], pick: impl Fn(&[Option<f64>]) -> Option<f64>) -> Summary {
    let (mut sum, mut samples, mut all) = (0.0, 0.0, Summary::default());
    for row in rows {
        if let Some(avg) = pick(&row.avg) {
            all.min = Some(all.min.map_or(avg, |min: f64| min.min(avg)));
            sum += avg * row.samples as f64;
            samples += row.samples as f64;
        }
        if let Some(max) = pick(&row.max) {
            all.max = Some(all.max.map_or(max, |most: f64| most.max(max)));
        }
    }
    all.avg = (samples > 0.0).then(|| sum / samples);
    all
}

fn unit(name: &str) -> &'static str {
    if name.ends_with("_ratio") {
        "ratio"
    } else if name.ends_with("_bytes_per_s") {
        "bytes_per_s"
    } else if name.ends_with("_celsius") {
        "celsius"
    } else {
        "count"
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00:07 UTC);

    fn grid(ago: Duration, range: Duration, points: i64) -> Grid {
        let (from, to) = (NOW - ago, NOW - ago + range);
        let source = Source::of(from, to, NOW - Duration::days(2), NOW - Duration::days(90));
        Grid::of(source, from, to, points, Duration::seconds(30))
    }

    fn cut(ago: Duration, range: Duration) -> (&'static str, i64) {
        let grid = grid(ago, range, 300);
        (grid.source.name(), grid.step.whole_seconds())
    }

    #[test]
    fn the_range_chooses_what_is_read_and_how_finely() {
        let (hour, day) = (Duration::HOUR, Duration::DAY);
        assert_eq!(cut(hour, hour), ("raw", 60));
        assert_eq!(cut(day, day), ("raw", 300));
        assert_eq!(cut(7 * day, 7 * day), ("5m", 2100));
        assert_eq!(cut(30 * day, 30 * day), ("5m", 8700));
        assert_eq!(cut(365 * day, 365 * day), ("1h", 108_000));
        // A short range that is long ago is read from what there still is.
        assert_eq!(cut(5 * day, hour), ("5m", 300));
        assert_eq!(cut(200 * day, day), ("1h", 3600));
    }

    #[test]
    fn buckets_are_never_more_than_asked_for_and_reach_over_the_range() {
        for seconds in [1, 59, 3600, 86_399, 86_400, 90_000, 700_000, 40_000_000] {
            for points in [2, 3, 10, 299, 600] {
                let range = Duration::seconds(seconds);
                let grid = grid(range, range, points);
                let count = i64::try_from(grid.starts().count()).unwrap();
                assert!(
                    (1..=points).contains(&count),
                    "{seconds} s in {points}: {count}"
                );
                assert!(grid.from <= NOW - range && grid.to >= NOW, "{grid:?}");
            }
        }
    }

    #[test]
    fn a_bucket_without_a_heartbeat_is_null_and_the_summary_weighs_by_heartbeats() {
        let grid = grid(5 * Duration::MINUTE, 5 * Duration::MINUTE, 300);
        let row = |minute: i64, samples, value| BucketRow {
            at: grid.from + Duration::minutes(minute),
            samples,
            avg: vec![Some(value); NAMES.len()],
            max: vec![None; NAMES.len()],
        };
        let rows = [row(1, 1, 1.0), row(3, 3, 0.0)];
        let cpu = &all_series(&rows, &grid)[0];
        assert_eq!(cpu.avg, [None, Some(1.0), None, Some(0.0), None, None]);
        let expected = Summary {
            min: Some(0.0),
            avg: Some(0.25),
            max: None,
        };
        assert_eq!(cpu.summary, expected);
        let both = together(&rows[0], &rows[1]);
        assert_eq!((both.samples, both.avg[0]), (4, Some(0.25)));
    }
}
