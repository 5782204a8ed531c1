//! The section `packages` of docs/benchmarks.md.

use std::fmt::Write as _;

use super::super::percentile;
use super::{Asked, Reported, Results};

/// As Markdown.
pub fn text(results: &Results, date: &str, command: &str) -> anyhow::Result<String> {
    let options = results.options;
    let mut text = String::new();
    writeln!(
        text,
        "{date}, `{command}`: {} hosts with {} packages each ({} rows, {} in the dictionary), {} cores.\n",
        options.hosts,
        options.packages,
        results.rows,
        results.dictionary,
        super::cpu::count()?,
    )?;
    writeln!(
        text,
        "| | time | rows/s | of the raw loader | collector CPU | Postgres CPU | heartbeats p50 | p99 | sent again |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )?;
    writeln!(
        text,
        "| no inventory under way | | | | | | {:.1} ms | {:.1} ms | |",
        results.quiet_p50_ms, results.quiet_p99_ms
    )?;
    let rows = (options.hosts * options.packages) as f64;
    let mut line = |name: &str, reported: &Reported| {
        let rate = rows / reported.elapsed.as_secs_f64();
        writeln!(
            text,
            "| {name} | {:.1} s | {rate:.0} | {:.2} | {:.1} s | {:.1} s | {:.1} ms | {:.1} ms | {} |",
            reported.elapsed.as_secs_f64(),
            rate / results.loader_rows_per_s,
            reported.collector.as_secs_f64(),
            reported.postgres.as_secs_f64(),
            reported.beat_p50_ms,
            reported.beat_p99_ms,
            reported.again,
        )
    };
    line("first report", &results.first)?;
    line("all again, unchanged", &results.unchanged)?;
    writeln!(
        text,
        "\nThe raw loader: {:.0} rows/s by plain statements into the same table, two connections, a transaction a host.\n",
        results.loader_rows_per_s
    )?;
    writeln!(
        text,
        "With {} updates pending beside:\n\n| request, to its first byte | p50 | p95 | p99 | of `{}` at p95 |\n| --- | --- | --- | --- | --- |",
        results.updates, results.baseline.path
    )?;
    for asked in &results.asked {
        let ms = |share| percentile(&asked.took, share).as_secs_f64() * 1000.0;
        let base = percentile(&results.baseline.took, 0.95).as_secs_f64() * 1000.0;
        writeln!(
            text,
            "| `{}` | {:.1} ms | {:.1} ms | {:.1} ms | {:.0} x |",
            shown(asked),
            ms(0.5),
            ms(0.95),
            ms(0.99),
            ms(0.95) / base,
        )?;
    }
    Ok(text)
}

/// Without the id of a host.
fn shown(asked: &Asked) -> String {
    let parts = asked.path.split('/');
    let parts = parts.map(|part| if part.len() == 36 { "{id}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}
