//! The Host page's charts: which series stand together, and what each says of the range in three numbers, which is what
//! there is without script.

use infratrack_shared::ids::HostId;
use time::OffsetDateTime;

use crate::api::hosts::metrics::{HostMetrics, Series, Summary};
use crate::web::host::query::{HostPageQuery, RANGES, text};
use crate::web::plain::encoded;
use crate::web::words;

/// Series that stand in one chart: its title, and what each is called there.
const CHARTS: [(&str, &[(&str, &str)]); 8] = [
    (
        "CPU",
        &[
            ("cpu_ratio", "busy"),
            ("cpu_pressure_some_ratio", "waiting for CPU"),
        ],
    ),
    ("Load", &[("load_1", "1 minute")]),
    (
        "Memory",
        &[
            ("memory_used_ratio", "used"),
            ("swap_used_ratio", "swap used"),
            ("memory_pressure_some_ratio", "waiting for memory"),
            ("memory_pressure_full_ratio", "stalled for memory"),
        ],
    ),
    ("Fullest filesystem", &[("disk_used_ratio", "used")]),
    (
        "Disk traffic",
        &[
            ("disk_read_bytes_per_s", "read"),
            ("disk_written_bytes_per_s", "written"),
        ],
    ),
    (
        "Waiting for disks",
        &[
            ("io_pressure_some_ratio", "waiting"),
            ("io_pressure_full_ratio", "stalled"),
        ],
    ),
    (
        "Network",
        &[
            ("net_received_bytes_per_s", "in"),
            ("net_sent_bytes_per_s", "out"),
        ],
    ),
    ("Temperature", &[("temperature_max_celsius", "hottest")]),
];

/// The section.
#[derive(Debug)]
pub struct Charts {
    /// Where the numbers are.
    pub url: String,
    /// The page's address with a range of `FROM` and `TO`, for the script.
    pub link: String,
    pub ranges: Vec<Range>,
    /// What the range is, where none of the links is it.
    pub is_own: bool,
    pub from: OffsetDateTime,
    pub to: OffsetDateTime,
    /// The range before and the one after it.
    pub earlier: String,
    pub later: Option<String>,
    /// What was read, in words.
    pub source: String,
    pub has_samples: bool,
    pub charts: Vec<Chart>,
    /// When nobody listened.
    pub downtimes: usize,
}

/// A link to a range.
#[derive(Debug)]
pub struct Range {
    pub name: &'static str,
    pub href: String,
    pub is_current: bool,
}

/// One chart.
#[derive(Debug)]
pub struct Chart {
    pub title: &'static str,
    pub unit: &'static str,
    /// As the script takes them: `name=label`, with commas.
    pub series: String,
    pub rows: Vec<Row>,
    /// Nothing of it was said in the range.
    pub is_empty: bool,
    /// What is read does not hold it.
    pub is_kept: bool,
}

/// A series in words.
#[derive(Debug)]
pub struct Row {
    pub label: &'static str,
    pub min: String,
    pub avg: String,
    pub max: String,
}

impl Charts {
    /// Of a document of the API.
    pub fn of(
        host: HostId,
        query: &HostPageQuery,
        range: &'static str,
        metrics: &HostMetrics,
        now: OffsetDateTime,
    ) -> Self {
        let (from, to) = (metrics.from, metrics.to);
        let link = |from: OffsetDateTime, to: OffsetDateTime| {
            query.link(host, "charts", |query| {
                query.range.clear();
                (query.from, query.to) = (text(from), text(to));
            })
        };
        let ranges = RANGES.map(|(name, _)| Range {
            name,
            href: query.link(host, "charts", |query| {
                (query.range, query.from, query.to) =
                    (name.to_owned(), String::new(), String::new());
            }),
            is_current: name == range,
        });
        let length = to - from;
        Self {
            url: format!(
                "/api/v1/hosts/{host}/metrics?from={}&to={}",
                encoded(&text(from)),
                encoded(&text(to))
            ),
            link: query.link(host, "charts", |query| {
                query.range.clear();
                (query.from, query.to) = ("FROM".to_owned(), "TO".to_owned());
            }),
            ranges: ranges.into(),
            is_own: range.is_empty(),
            from,
            to,
            earlier: link(from - length, from),
            later: (to < now).then(|| link(to, to + length)),
            source: source(metrics),
            has_samples: metrics.samples > 0,
            charts: CHARTS
                .iter()
                .map(|(title, series)| chart(title, series, &metrics.series))
                .collect(),
            downtimes: metrics.downtimes.len(),
        }
    }
}

impl Charts {
    /// Which charts are not there, and why.
    pub fn missing(&self) -> String {
        let named = |is_kept: bool| {
            let missing = self
                .charts
                .iter()
                .filter(|chart| chart.is_empty && chart.is_kept == is_kept);
            missing
                .map(|chart| chart.title.to_lowercase())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (unknown, not_kept) = (named(true), named(false));
        let mut told = Vec::new();
        if !unknown.is_empty() {
            told.push(format!("Unknown in this time: {unknown}."));
        }
        if !not_kept.is_empty() {
            told.push(format!("Not kept for so long a range: {not_kept}."));
        }
        told.join(" ")
    }
}

fn source(metrics: &HostMetrics) -> String {
    let what = match metrics.source {
        "raw" => "heartbeats",
        "5m" => "sums of 5 minutes",
        _ => "sums of an hour",
    };
    format!("{what}, a point every {}", words::duration(metrics.step_s))
}

fn chart(title: &'static str, series: &[(&'static str, &'static str)], all: &[Series]) -> Chart {
    let find = |name: &str| all.iter().find(|series| series.name == name);
    let found: Vec<_> = series
        .iter()
        .filter_map(|(name, label)| Some((find(name)?, *label)))
        .collect();
    let pairs: Vec<_> = series
        .iter()
        .map(|(name, label)| format!("{name}={label}"))
        .collect();
    Chart {
        title,
        unit: found.first().map_or("count", |(series, _)| series.unit),
        series: pairs.join(","),
        is_empty: found
            .iter()
            .all(|(series, _)| series.summary == Summary::default()),
        is_kept: found.iter().any(|(series, _)| series.is_kept),
        rows: found
            .iter()
            .map(|(series, label)| row(series, label))
            .collect(),
    }
}

fn row(series: &Series, label: &'static str) -> Row {
    let unknown = if series.is_kept {
        "unknown"
    } else {
        "not kept"
    };
    let value = |value: Option<f64>| {
        value.map_or_else(|| unknown.to_owned(), |value| number(series.unit, value))
    };
    let Summary { min, avg, max } = series.summary;
    Row {
        label,
        min: value(min),
        avg: value(avg),
        max: value(max),
    }
}

/// A value in its unit.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is shown has few digits"
)]
fn number(unit: &str, value: f64) -> String {
    match unit {
        "ratio" => format!("{:.1} %", value * 100.0),
        "bytes_per_s" => format!("{}/s", words::bytes(value as i64)),
        "celsius" => words::celsius(value as f32),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::series::NAMES;

    #[test]
    fn every_series_is_in_one_chart_and_charts_have_one_unit() {
        let mut drawn: Vec<_> = CHARTS
            .iter()
            .flat_map(|(_, series)| series.iter().map(|(name, _)| *name))
            .collect();
        drawn.sort_unstable();
        let mut all = NAMES.to_vec();
        all.sort_unstable();
        assert_eq!(drawn, all);
    }

    #[test]
    fn what_nobody_said_is_unknown_and_what_is_not_kept_says_so() {
        let series = |is_kept, avg| Series {
            name: "cpu_ratio",
            unit: "ratio",
            is_kept,
            avg: Vec::new(),
            max: Vec::new(),
            summary: Summary {
                avg,
                ..Summary::default()
            },
        };
        let told = row(&series(true, Some(0.1234)), "busy");
        assert_eq!(
            (told.min.as_str(), told.avg.as_str()),
            ("unknown", "12.3 %")
        );
        assert_eq!(row(&series(false, None), "busy").max, "not kept");
        assert_eq!(number("bytes_per_s", 2048.0), "2.0 KiB/s");
    }
}
