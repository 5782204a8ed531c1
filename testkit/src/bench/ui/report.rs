//! The section `ui` of docs/benchmarks.md.

use std::fmt::Write;
use std::time::Duration;

use super::{FIRST_BYTE, LIVE_SHARE, Results, USABLE, WEIGHT_BYTES};
use crate::bench::{machine, percentile};

fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}

fn holds(holds: bool) -> &'static str {
    if holds { "yes" } else { "no" }
}

/// The text of the section.
pub fn text(results: &Results, date: &str, command: &str) -> anyhow::Result<String> {
    let (options, baseline) = (results.options, &results.baseline);
    let base = percentile(&baseline.took, 0.95);
    let mut text = format!("{date}, `{command}`: {}.\n", machine::describe()?);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "\n{} hosts; one client, {} requests of each page in turns with `{}`, to the first byte in ms. Its own p95: {}.\n\n\
         | Page | p50 | p95 | times the baseline's | holds ({} ms) | bytes | holds ({} KB) |\n\
         | --- | ---: | ---: | ---: | --- | ---: | --- |\n",
        options.hosts,
        options.requests,
        baseline.path,
        ms(base),
        ms(FIRST_BYTE),
        WEIGHT_BYTES / 1000,
    );
    for page in &results.pages {
        let p95 = percentile(&page.took, 0.95);
        let path: String = page.path.chars().take(80).collect();
        let _ = writeln!(
            text,
            "| `{path}` | {} | {} | {:.0} | {} | {} | {} |",
            ms(percentile(&page.took, 0.5)),
            ms(p95),
            p95.as_secs_f64() / base.as_secs_f64().max(f64::EPSILON),
            holds(p95 <= FIRST_BYTE),
            page.bytes,
            holds(page.bytes <= WEIGHT_BYTES),
        );
    }
    let usable = percentile(&results.usable, 0.95);
    let _ = write!(
        text,
        "\nThe list of hosts in Chromium, from the navigation with an empty cache to its first host ticked, {} loads: p50 {} ms, \
         p95 {} ms; holds ({} ms): {}.\n",
        results.usable.len(),
        ms(percentile(&results.usable, 0.5)),
        ms(usable),
        ms(USABLE),
        holds(usable <= USABLE),
    );
    let live = results.live;
    let share = live.busy - live.idle;
    let _ = write!(
        text,
        "\n{} clients of the live stream, each with 50 hosts, while every host reports every 30 s, for {} s:\n\n\
         | What | without | with | by the clients | holds |\n| --- | ---: | ---: | ---: | --- |\n\
         | collector's CPU, of a core | {:.1} % | {:.1} % | {:.1} % | {} ({:.0} %) |\n\
         | database's CPU, of a core | {:.1} % | {:.1} % | {:.1} % |  |\n\
         | rows that arrived a second |  | {:.0} |  |  |\n",
        options.clients,
        options.lasts.as_secs(),
        live.idle * 100.0,
        live.busy * 100.0,
        share * 100.0,
        holds(share <= LIVE_SHARE),
        LIVE_SHARE * 100.0,
        live.database_idle * 100.0,
        live.database_busy * 100.0,
        (live.database_busy - live.database_idle) * 100.0,
        live.rows_per_s,
    );
    Ok(text)
}
