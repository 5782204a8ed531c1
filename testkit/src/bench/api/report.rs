//! The section `api` of docs/benchmarks.md.

use std::fmt::Write;
use std::time::Duration;

use super::questions::LIST;
use super::{Measured, Results};
use crate::bench::{machine, percentile};

fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}

/// The text of the section.
pub fn text(all: &[Results], date: &str, command: &str) -> anyhow::Result<String> {
    let mut text = format!("{date}, `{command}`: {}.\n", machine::describe()?);
    for results in all {
        let sample = results.options.sample;
        let _ = write!(
            text,
            "\n{} hosts, {} heartbeats, {} events, loaded in {:.0} s; one client, {} requests of each, in ms.\n\n\
             | Question | p50 | p95 | p99 | goal, p95 | holds | bytes |\n| --- | ---: | ---: | ---: | ---: | --- | ---: |\n",
            sample.hosts,
            sample.heartbeats,
            sample.events,
            results.loaded_in.as_secs_f64(),
            results.options.requests,
        );
        // Lists of more than 10,000 hosts may take half a second; a host is a host.
        let lists = Duration::from_millis(if sample.hosts > 10_000 { 500 } else { 0 });
        for measured in results.baselines.iter().chain(&results.measured) {
            text.push_str(&row(measured, lists));
        }
        let _ = write!(
            text,
            "\nThe slowest list:\n\n```\n{}\n```\n",
            results.slowest
        );
    }
    Ok(text)
}

fn row(measured: &Measured, lists: Duration) -> String {
    let p95 = percentile(&measured.took, 0.95);
    let goal = measured
        .goal
        .map(|goal| if goal == LIST { goal.max(lists) } else { goal });
    let (wanted, holds) = match goal {
        Some(goal) => (ms(goal), if p95 <= goal { "yes" } else { "no" }),
        None => (String::new(), ""),
    };
    format!(
        "| {} | {} | {} | {} | {wanted} | {holds} | {} |\n",
        measured.name,
        ms(percentile(&measured.took, 0.5)),
        ms(p95),
        ms(percentile(&measured.took, 0.99)),
        measured.bytes,
    )
}
