//! The section `changes` of docs/benchmarks.md.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Results, documents, lists, plays};
use crate::bench::{machine, percentile};

/// As Markdown.
pub fn text(results: &Results, date: &str, command: &str) -> anyhow::Result<String> {
    let mut text = format!("{date}, `{command}`: {}.\n", machine::describe()?);
    if let Some(documents) = &results.documents {
        of_documents(&mut text, documents)?;
    }
    if let Some(plays) = &results.plays {
        of_plays(&mut text, plays)?;
    }
    if let Some(lists) = &results.lists {
        of_lists(&mut text, lists)?;
    }
    Ok(text)
}

fn of_documents(text: &mut String, results: &documents::Results) -> anyhow::Result<()> {
    writeln!(
        text,
        "\nA plan of {:.1} MB with {} resource changes, posted:\n\n\
         | as | bytes | answer | wall s | collector CPU s | Postgres CPU s | RSS before, MiB | grew by at most, MiB | holds (CPU {} s, {} MiB) |\n\
         | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |",
        results.bytes as f64 / 1e6,
        results.resources,
        documents::CPU.as_secs(),
        documents::GROWTH_BYTES >> 20,
    )?;
    for posted in &results.taken {
        let is_one = posted.told.len() == 1;
        let holds = match (
            is_one,
            posted.collector <= documents::CPU && posted.growth_bytes <= documents::GROWTH_BYTES,
        ) {
            (false, _) => "",
            (true, true) => "yes",
            (true, false) => "no",
        };
        posted_row(text, posted, holds)?;
    }
    writeln!(
        text,
        "\nRefused, with nothing stored:\n\n\
         | what | bytes | answer | wall s | collector CPU s | Postgres CPU s | RSS before, MiB | grew by at most, MiB | holds |\n\
         | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    )?;
    for posted in &results.refused {
        let holds = posted.growth_bytes <= documents::GROWTH_BYTES;
        posted_row(text, posted, if holds { "yes" } else { "no" })?;
    }
    Ok(())
}

fn posted_row(text: &mut String, posted: &documents::Posted, holds: &str) -> anyhow::Result<()> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    writeln!(
        text,
        "| {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {holds} |",
        posted.name,
        posted.bytes,
        posted.told.join(", "),
        posted.elapsed.as_secs_f64(),
        posted.collector.as_secs_f64(),
        posted.postgres.as_secs_f64(),
        mib(posted.before_bytes),
        mib(posted.growth_bytes),
    )?;
    Ok(())
}

fn of_plays(text: &mut String, results: &plays::Results) -> anyhow::Result<()> {
    writeln!(
        text,
        "\nRecords of plays over 500 hosts each, 500 a request:\n\n\
         | runs | records | MB | records/s | collector CPU a record | Postgres CPU a record |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |"
    )?;
    for posted in [&results.alone, &results.together] {
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / posted.records as f64;
        writeln!(
            text,
            "| {} | {} | {:.1} | {:.0} | {:.1} µs | {:.1} µs |",
            posted.name,
            posted.records,
            posted.bytes as f64 / 1e6,
            posted.records as f64 / posted.elapsed.as_secs_f64(),
            each(posted.collector),
            each(posted.postgres),
        )?;
    }
    Ok(())
}

fn of_lists(text: &mut String, results: &lists::Results) -> anyhow::Result<()> {
    let past = results.past;
    writeln!(
        text,
        "\n{} changes of a year over {} hosts: {} results of tasks, {} resource changes ({} of one plan), {} links, loaded in \
         {:.0} s; one client, {} requests of each, in ms.\n\n\
         | Question | p50 | p95 | p99 | goal, p95 | holds | bytes |\n\
         | --- | ---: | ---: | ---: | ---: | --- | ---: |",
        past.changes,
        past.hosts,
        results.rows.0,
        results.rows.1,
        past.resources,
        results.rows.2,
        results.loaded_in.as_secs_f64(),
        results.requests,
    )?;
    for measured in &results.measured {
        let ms = |share| percentile(&measured.took, share).as_secs_f64() * 1e3;
        let p95 = percentile(&measured.took, 0.95);
        let (goal, holds) = match measured.goal {
            Some(goal) => (
                goal.as_millis().to_string(),
                if p95 <= goal { "yes" } else { "no" },
            ),
            None => (String::new(), ""),
        };
        writeln!(
            text,
            "| {} | {:.1} | {:.1} | {:.1} | {goal} | {holds} | {} |",
            measured.name,
            ms(0.5),
            ms(0.95),
            ms(0.99),
            measured.bytes,
        )?;
    }
    if !results.missing.is_empty() {
        writeln!(
            text,
            "\nNot asked, for this collector does not have it: {}.",
            results.missing.join("; ")
        )?;
    }
    Ok(())
}
