//! Backups beside restic's, as text for `docs/benchmarks.md`.

use std::fmt::Write;

use super::super::super::rounds::median;
use super::{Both, Done, PHASES, Phase, Results};

const MIB: f64 = 1024.0 * 1024.0;
/// What is sent where nothing changed, in bytes.
const UNCHANGED_BYTES: f64 = 65_536.0;
const AGENT_MIB: f64 = 128.0;
const COLLECTOR_MIB: f64 = 256.0;
const BEAT_MS: f64 = 2000.0;

/// What has to hold, as issue and design have it.
#[derive(Clone, Debug)]
pub struct Goal {
    pub what: &'static str,
    pub measured: f64,
    pub at_most: f64,
    pub unit: &'static str,
}

impl Goal {
    /// Whether it is met.
    pub fn holds(&self) -> bool {
        self.measured <= self.at_most
    }
}

/// Each goal and what was measured. Ratios are those of each round to restic in the same round; the middle of them.
pub fn goals(results: &Results) -> Vec<Goal> {
    let ratio = |what, phase, of: fn(&Done) -> f64, at_most| Goal {
        what,
        measured: middle(results, phase, |both| of(&both.ours) / of(&both.restic)),
        at_most,
        unit: "",
    };
    let most = |of: fn(&Both) -> f64| results.all.iter().map(of).fold(0.0, f64::max);
    let plain = |what, measured, at_most, unit| Goal {
        what,
        measured,
        at_most,
        unit,
    };
    vec![
        ratio("first backup: CPU of restic's", Phase::First, cpu, 0.6),
        ratio("first backup: wall", Phase::First, wall, 0.9),
        ratio("unchanged: wall", Phase::Unchanged, wall, 0.7),
        plain(
            "unchanged: stored",
            middle(results, Phase::Unchanged, |both| both.ours.stored as f64),
            UNCHANGED_BYTES,
            " bytes",
        ),
        ratio("1 % changed: bytes stored", Phase::Changed, stored, 0.6),
        ratio("restore: user CPU", Phase::Restore, user, 0.6),
        plain(
            "agent's process, at most",
            most(|both| both.ours.cost.peak_bytes as f64 / MIB),
            AGENT_MIB,
            " MiB",
        ),
        plain(
            "collector's growth, at most",
            most(|both| both.collector.grew_bytes as f64 / MIB),
            COLLECTOR_MIB,
            " MiB",
        ),
        plain(
            "slowest heartbeat of another host meanwhile",
            results.meanwhile.max_ms,
            BEAT_MS,
            " ms",
        ),
    ]
}

/// The section of the document.
pub fn text(results: &Results, date: &str, machine: &str, command: &str) -> String {
    let mut text = format!(
        "{date}, {machine}, `{command}`, medians of {} rounds.\n\n\
         {} files, {:.0} MiB: files of `/usr`, logs, pages as a database writes them, and what does not compress; one server of S3's \
         protocol on this machine for both; {}, with its cache. Restores are compared file by file. CPU of the agent is without the \
         collector's, which is told beside it; restic has no such second program.\n\n\
         | | wall s | CPU s | user CPU s | most memory, MiB | stored, MiB | collector: CPU s, growth MiB |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | --- |\n",
        results.rounds,
        results.size.files,
        results.size.bytes as f64 / MIB,
        results
            .restic_version
            .split(" compiled")
            .next()
            .unwrap_or_default(),
    );
    for phase in PHASES {
        let of = |measure: fn(&Both) -> f64| middle(results, phase, measure);
        let name = name(phase, results);
        writeln!(
            text,
            "| {name}: agent | {} | {:.2}, {:.0} |\n| {name}: restic | {} | |",
            row(results, phase, |both| &both.ours),
            of(|both| both.collector.cpu.as_secs_f64()),
            of(|both| both.collector.grew_bytes as f64 / MIB),
            row(results, phase, |both| &both.restic),
        )
        .expect("a string takes any text");
    }
    text.push_str("\n| | measured | at most | |\n| --- | ---: | ---: | --- |\n");
    for goal in goals(results) {
        let (what, unit) = (goal.what, goal.unit);
        let said = if goal.holds() { "holds" } else { "missed" };
        writeln!(
            text,
            "| {what} | {:.2}{unit} | {}{unit} | {said} |",
            goal.measured, goal.at_most
        )
        .expect("a string takes any text");
    }
    let (quiet, meanwhile) = (results.quiet, results.meanwhile);
    write!(
        text,
        "\nHeartbeats of other hosts, p50 / p99 / slowest: {:.0} / {:.0} / {:.0} ms before, {:.0} / {:.0} / {:.0} ms meanwhile.\n",
        quiet.p50_ms, quiet.p99_ms, quiet.max_ms, meanwhile.p50_ms, meanwhile.p99_ms, meanwhile.max_ms
    )
    .expect("a string takes any text");
    text
}

fn name(phase: Phase, results: &Results) -> String {
    match phase {
        Phase::First => "first backup".to_owned(),
        Phase::Unchanged => "unchanged".to_owned(),
        Phase::Changed => format!("{:.1} MiB changed", results.changed as f64 / MIB),
        Phase::Restore => "restore".to_owned(),
    }
}

fn row(results: &Results, phase: Phase, whose: fn(&Both) -> &Done) -> String {
    let of = |measure: fn(&Done) -> f64| middle(results, phase, |both| measure(whose(both)));
    format!(
        "{:.2} | {:.2} | {:.2} | {:.0} | {:.2}",
        of(wall),
        of(cpu),
        of(user),
        of(|done| done.cost.peak_bytes as f64 / MIB),
        of(stored) / MIB
    )
}

/// The middle of all rounds.
fn middle(results: &Results, phase: Phase, measure: impl Fn(&Both) -> f64) -> f64 {
    let of_phase = results.all.iter().filter(|both| both.phase == phase);
    let values: Vec<_> = of_phase.map(measure).collect();
    median(&values).unwrap_or(f64::NAN)
}

fn wall(done: &Done) -> f64 {
    done.cost.wall.as_secs_f64()
}

fn cpu(done: &Done) -> f64 {
    done.cost.cpu.as_secs_f64()
}

fn user(done: &Done) -> f64 {
    done.cost.user.as_secs_f64()
}

fn stored(done: &Done) -> f64 {
    done.stored as f64
}
