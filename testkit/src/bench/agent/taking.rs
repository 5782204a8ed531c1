//! What inventories and checks for updates take, as text for `docs/benchmarks.md`.

use std::fmt::Write;

use super::alone::Cost;
use super::checks::Checks;
use super::inventory::Taken;

const MIB: f64 = 1024.0 * 1024.0;

/// Of one run.
#[derive(Clone, Debug)]
pub struct Taking {
    pub date: String,
    pub machine: String,
    pub command: String,
    pub rounds: usize,
    pub inventories: Vec<Taken>,
    pub checks: Checks,
}

/// The section of the document.
pub fn text(taking: &Taking) -> String {
    let Taking {
        date,
        machine,
        command,
        rounds,
        ..
    } = taking;
    let mut text = format!(
        "{date}, {machine}, `{command}`, medians of {rounds}.\n\n\
         A running agent, when dpkg's database changes from one package to so many (read, compared, reported until the collector \
         has them), and when it is written again as it is (read and compared). CPU is that of the agent with its store's process \
         and its heartbeats; memory is the agent's process (RSS), which was reset before.\n\n\
         | packages | reported: CPU s | at most, MiB | unchanged: CPU s | at most, MiB |\n\
         | --- | ---: | ---: | ---: | ---: |\n"
    );
    for taken in &taking.inventories {
        let whose = if taken.is_here {
            ", this machine's"
        } else {
            ""
        };
        let row = format!(
            "| {}{whose} | {:.3} | {:.1} | {:.3} | {:.1} |\n",
            taken.packages,
            taken.reported.cpu.as_secs_f64(),
            mib(taken.reported.peak_bytes),
            taken.again.cpu.as_secs_f64(),
            mib(taken.again.peak_bytes)
        );
        text.push_str(&row);
    }
    let checks = &taking.checks;
    write!(
        text,
        "\nOne check for updates, in a unit of its own with low priority, beside apt alone on the same lists ({} packages, {} \
         pending):\n\n| program | wall s | CPU s | its largest process, MiB |\n| --- | ---: | ---: | ---: |\n",
        checks.installed, checks.pending
    )
    .expect("a string takes any text");
    for (name, cost) in [
        (
            "`infratrack-agent check-updates`, with apt's programs",
            &checks.check,
        ),
        ("its own process without them", &checks.own),
        ("`apt-get --simulate dist-upgrade`", &checks.simulation),
        ("`apt list --upgradable`", &checks.list),
    ] {
        text.push_str(&row(name, cost));
    }
    text
}

fn row(name: &str, cost: &Cost) -> String {
    format!(
        "| {name} | {:.3} | {:.3} | {:.1} |\n",
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64(),
        mib(cost.peak_bytes)
    )
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}
