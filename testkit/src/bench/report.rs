//! The results of `ingest` as the text of their section: medians over the rounds that were not busy.

use super::ingest::{Growth, Results, Round};
use super::rounds::median;

const MIB: f64 = 1024.0 * 1024.0;

/// Markdown.
pub fn text(results: &Results, date: &str, command: &str) -> String {
    let of = |value: fn(&Round) -> f64| middle(results, value);
    let limit = middle(results, |round| round.limit(results.cores));
    let mut lines = vec![
        format!(
            "{date}, `{command}`: {}, PostgreSQL {}.",
            results.machine, results.postgres
        ),
        format!(
            "{} hosts, {} requests under way, an HTTP request of {} bytes a heartbeat, {} rounds of {:?} runs.",
            results.options.hosts,
            results.options.in_flight,
            results.request_bytes,
            results.rounds.len(),
            results.options.lasts,
        ),
        String::new(),
        "| What | Measured | Goal |".to_owned(),
        "| --- | ---: | ---: |".to_owned(),
    ];
    let mut row = |what: &str, measured: String, goal: &str| {
        lines.push(format!("| {what} | {measured} | {goal} |"));
    };
    row(
        "F: bare hyper and rustls, CPU a request",
        us(of(|r| r.front.cost.front)),
        "",
    );
    row(
        "G: generator, CPU a request",
        us(of(|r| r.front.cost.client)),
        "",
    );
    row(
        "P: raw loader and Postgres, CPU a row",
        us(of(|r| r.loader.cost.sum())),
        "",
    );
    row("Limit: cores / (F + P + G)", per_s(limit), "");
    row(
        "**Heartbeats, durable, one a request**",
        per_s(of(|r| r.live.rate)),
        "",
    );
    row(
        "**of the limit**",
        ratio(middle(results, |r| r.live.rate / r.limit(results.cores))),
        "0.70, best 0.85",
    );
    row(
        "the same by CPU time: (F + P + G) / what a heartbeat took",
        ratio(middle(results, |r| {
            results.cores as f64 * 1e6 / r.limit(results.cores) / r.live.cost.sum()
        })),
        "",
    );
    let more = live(results).into_iter().chain(replays(results));
    lines.extend(more.map(|(what, measured, goal)| format!("| {what} | {measured} | {goal} |")));
    lines.extend(growth(&results.growth));
    lines.extend(rounds(results));
    lines.join("\n")
}

type Line = (&'static str, String, &'static str);

fn live(results: &Results) -> Vec<Line> {
    let of = |value: fn(&Round) -> f64| middle(results, value);
    let costs = [
        of(|r| r.live.cost.front),
        of(|r| r.live.cost.postgres),
        of(|r| r.live.cost.client),
    ];
    let hot = of(|r| r.counters.liveness_hot as f64 / r.counters.liveness_updates as f64);
    let (p50, p99) = (of(|r| r.half.p50_ms), of(|r| r.half.p99_ms));
    let together = of(|r| r.heartbeats() / r.counters.transactions as f64);
    let wal = of(|r| r.counters.wal_bytes as f64 / r.heartbeats());
    let rss = of(|r| r.rss.1 as f64 / MIB);
    let share = of(|r| r.rss.1.saturating_sub(r.rss.0) as f64 / 1024.0 / r.connections as f64);
    vec![
        (
            "CPU a heartbeat: collector + Postgres + generator",
            costs.map(us).join(" + "),
            "",
        ),
        (
            "Acknowledged at half that load, p50 / p99",
            format!("{p50:.1} / {p99:.1} ms"),
            "",
        ),
        (
            "Transactions a heartbeat",
            format!("1/{together:.0}"),
            "1/50",
        ),
        ("WAL a heartbeat", format!("{wal:.0} B"), ""),
        (
            "HOT updates of `host_liveness`",
            format!("{:.1} %", hot * 100.0),
            "98 %",
        ),
        (
            "Refused requests",
            format!("{:.0}", of(|r| r.live.refused as f64)),
            "",
        ),
        (
            "Collector's memory (RSS) with its connections open, and a connection's share",
            format!("{rss:.0} MiB, {share:.1} KiB"),
            "40 KiB",
        ),
    ]
}

fn replays(results: &Results) -> [Line; 4] {
    let of = |value: fn(&Round) -> f64| middle(results, value);
    [
        (
            "**Replay of heartbeats**, 500 a request",
            per_s(of(|r| r.beats.rate)),
            "",
        ),
        (
            "**of the raw loader** (heartbeats and their hosts' rows)",
            ratio(of(|r| r.beats.rate / r.loader.rate)),
            "0.70, best 0.85",
        ),
        (
            "**Replay of events**, 500 a request",
            per_s(of(|r| r.events.rate)),
            "",
        ),
        (
            "**of the raw loader** (events and their streams' rows)",
            ratio(of(|r| r.events.rate / r.event_loader.rate)),
            "0.70, best 0.85",
        ),
    ]
}

/// How much more a heartbeat costs with more hosts, beside how much more a row costs the loader.
fn growth(growth: &[Growth]) -> Vec<String> {
    let Some(first) = growth.first() else {
        return Vec::new();
    };
    let of = |values: &[f64]| median(values).unwrap_or(f64::NAN);
    let mut lines = vec![
        String::new(),
        "| Hosts | Collector and Postgres, CPU a heartbeat | Loader and Postgres, CPU a row | Grew as much as the \
         loader's, times (goal 1.1) |"
            .to_owned(),
        "| ---: | ---: | ---: | ---: |".to_owned(),
    ];
    for one in growth {
        let (live, raw) = (of(&one.live), of(&one.loader));
        let grew = live / of(&first.live) / (raw / of(&first.loader));
        lines.push(format!(
            "| {} | {} | {} | {} |",
            one.hosts,
            us(live),
            us(raw),
            ratio(grew)
        ));
    }
    lines
}

/// Every round, busy ones too.
fn rounds(results: &Results) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        "| Round | Machine's load before | F + P + G | Limit | Heartbeats | Raw rows | |"
            .to_owned(),
        "| ---: | ---: | ---: | ---: | ---: | ---: | --- |".to_owned(),
    ];
    for (index, round) in results.rounds.iter().enumerate() {
        lines.push(format!(
            "| {} | {:.1} | {} | {} | {} | {} | {} |",
            index + 1,
            round.load,
            us(round.front.cost.sum() + round.loader.cost.sum()),
            per_s(round.limit(results.cores)),
            per_s(round.live.rate),
            per_s(round.loader.rate),
            if round.is_busy { "busy" } else { "" },
        ));
    }
    lines
}

fn middle(results: &Results, value: impl Fn(&Round) -> f64) -> f64 {
    let quiet = results.rounds.iter().filter(|round| !round.is_busy);
    let values: Vec<f64> = quiet.map(value).collect();
    median(&values).unwrap_or(f64::NAN)
}

fn us(value: f64) -> String {
    format!("{value:.1} µs")
}

fn per_s(value: f64) -> String {
    format!("{value:.0}/s")
}

fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_beside_that_of_the_loader() {
        let one = |hosts, live: f64, loader: f64| Growth {
            hosts,
            live: vec![live],
            loader: vec![loader],
        };
        let lines = growth(&[one(1000, 20.0, 10.0), one(10_000, 33.0, 15.0)]);
        assert_eq!(
            lines.last().unwrap(),
            "| 10000 | 33.0 µs | 15.0 µs | 1.10 |"
        );
        assert!(growth(&[]).is_empty());
    }
}
