//! What was measured, and which goals it meets, as text for `docs/benchmarks.md`.

use std::fmt::Write;
use std::time::Duration;

use super::facts::{Facts, Took};
use super::usage::{Usage, measure};
use crate::backlog::Lived;

const MIB: f64 = 1024.0 * 1024.0;
const TEN_MINUTES: f64 = 600.0;

/// One daemon over the time of the run.
#[derive(Clone, Debug)]
pub struct Daemon {
    pub name: String,
    pub pid: u32,
    pub binary_bytes: u64,
    pub first: Usage,
    pub last: Usage,
    /// The most there were at any look.
    pub threads: u64,
    pub over: Duration,
}

/// All of a run.
#[derive(Clone, Debug)]
pub struct Results {
    pub date: String,
    pub machine: String,
    pub command: String,
    pub agent: Daemon,
    pub exporter: Daemon,
    pub zabbix: Daemon,
    pub facts: Facts,
    pub lived: Lived,
}

/// A figure and what it is held against.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    pub what: &'static str,
    pub is: f64,
    pub limit: f64,
    pub unit: &'static str,
    /// One that is only hoped for.
    pub is_moonshot: bool,
}

impl Goal {
    pub fn holds(&self) -> bool {
        self.is <= self.limit
    }
}

impl Daemon {
    /// The first look at a daemon.
    pub fn first(name: &str, pid: u32) -> anyhow::Result<Self> {
        let first = measure(pid)?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            binary_bytes: 0,
            first,
            last: first,
            threads: first.threads,
            over: Duration::ZERO,
        })
    }

    /// Another, `over` after the first.
    pub fn look(&mut self, over: Duration) -> anyhow::Result<()> {
        self.last = measure(self.pid)?;
        self.threads = self.threads.max(self.last.threads);
        self.over = over;
        Ok(())
    }

    fn cpu_in_ten_minutes(&self) -> f64 {
        let used = self.last.cpu.saturating_sub(self.first.cpu);
        used.as_secs_f64() / self.over.as_secs_f64() * TEN_MINUTES
    }

    fn row(&self) -> String {
        format!(
            "| {} | {:.1} | {:.1} | {} | {} | {:.3} | {:.1} |",
            self.name,
            mib(self.last.pss_bytes),
            mib(self.last.rss_bytes),
            self.threads,
            self.last.processes,
            self.cpu_in_ten_minutes(),
            mib(self.binary_bytes)
        )
    }
}

/// Every goal of the run.
pub fn goals(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::from(idle_goals(results));
    goals.extend(soak_goals(results));
    goals.extend(facts_goals(&results.facts));
    goals.extend(moonshots(results));
    goals
}

fn goal(what: &'static str, is: f64, limit: f64, unit: &'static str) -> Goal {
    Goal {
        what,
        is,
        limit,
        unit,
        is_moonshot: false,
    }
}

fn idle_goals(results: &Results) -> [Goal; 4] {
    let (agent, exporter) = (&results.agent, &results.exporter);
    let pss = mib(agent.last.pss_bytes);
    let half = mib(exporter.last.pss_bytes) / 2.0;
    let (cpu, half_cpu) = (
        agent.cpu_in_ten_minutes(),
        exporter.cpu_in_ten_minutes() / 2.0,
    );
    [
        goal("PSS, half of node_exporter's", pss, half, "MiB"),
        goal("CPU in 10 min, half of node_exporter's", cpu, half_cpu, "s"),
        goal("threads", agent.threads as f64, 4.0, ""),
        goal("binary", mib(agent.binary_bytes), 9.0, "MiB"),
    ]
}

fn soak_goals(results: &Results) -> [Goal; 3] {
    let percent = |early: u64, late: u64| (late as f64 / early as f64 - 1.0) * 100.0;
    let (first, last) = (&results.agent.first, &results.agent.last);
    let lived = &results.lived;
    let grown = last.anonymous_bytes as f64 - first.anonymous_bytes as f64;
    let idle = grown / first.pss_bytes as f64 * 100.0;
    let soak = percent(lived.early_pss_bytes, lived.late_pss_bytes);
    let half = mib(results.exporter.last.pss_bytes) / 2.0;
    [
        goal(
            "PSS after the soak, half of node_exporter's",
            mib(lived.late_pss_bytes),
            half,
            "MiB",
        ),
        goal(
            "growth of anonymous memory while idle, of the PSS",
            idle,
            2.0,
            "%",
        ),
        goal("growth of PSS in the soak", soak, 2.0, "%"),
    ]
}

fn facts_goals(facts: &Facts) -> [Goal; 4] {
    let wall = |took: Took| took.wall.as_secs_f64();
    let cpu = |took: Took| took.cpu.as_secs_f64();
    let Facts {
        agent,
        facter,
        ansible,
    } = *facts;
    [
        goal(
            "facts, wall, a tenth of facter's",
            wall(agent),
            wall(facter) / 10.0,
            "s",
        ),
        goal(
            "facts, CPU, a tenth of facter's",
            cpu(agent),
            cpu(facter) / 10.0,
            "s",
        ),
        goal(
            "facts, wall, a thirtieth of ansible's",
            wall(agent),
            wall(ansible) / 30.0,
            "s",
        ),
        goal(
            "facts, CPU, a thirtieth of ansible's",
            cpu(agent),
            cpu(ansible) / 30.0,
            "s",
        ),
    ]
}

fn moonshots(results: &Results) -> impl Iterator<Item = Goal> {
    let (agent, zabbix) = (&results.agent, &results.zabbix);
    let pss = mib(agent.last.pss_bytes);
    let zabbix_pss = mib(zabbix.last.pss_bytes);
    let (cpu, zabbix_cpu) = (agent.cpu_in_ten_minutes(), zabbix.cpu_in_ten_minutes());
    let goals = [
        goal("PSS", pss, 6.0, "MiB"),
        goal("PSS, zabbix_agentd's", pss, zabbix_pss, "MiB"),
        goal("CPU in 10 min, zabbix_agentd's", cpu, zabbix_cpu, "s"),
    ];
    goals.into_iter().map(|goal| Goal {
        is_moonshot: true,
        ..goal
    })
}

/// The section of the document.
pub fn text(results: &Results) -> String {
    let mut text = format!(
        "{}, {}, `{}`: {} s idle with heartbeats, after 90 s to warm up; node_exporter scraped every 15 s, \
         zabbix_agentd asked for 36 items a minute. Children count with their daemon.\n\n\
         | daemon | PSS, MiB | RSS, MiB | threads, at most | processes | CPU s in 10 min | binary, MiB |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        results.date,
        results.machine,
        results.command,
        results.agent.over.as_secs()
    );
    for daemon in [&results.agent, &results.exporter, &results.zabbix] {
        line(&mut text, &daemon.row());
    }
    let (first, last) = (&results.agent.first, &results.agent.last);
    line(
        &mut text,
        &format!(
            "\nFrom its first to its last moment there, the agent's anonymous memory went from {:.2} to {:.2} MiB, its PSS from \
             {:.2} to {:.2} MiB.",
            mib(first.anonymous_bytes),
            mib(last.anonymous_bytes),
            mib(first.pss_bytes),
            mib(last.pss_bytes)
        ),
    );
    line(
        &mut text,
        "\n| facts, medians | wall s | CPU s |\n| --- | ---: | ---: |",
    );
    let facts = [
        ("infratrack-agent facts", results.facts.agent),
        ("facter --json", results.facts.facter),
        ("ansible localhost -m setup", results.facts.ansible),
    ];
    for (name, took) in facts {
        let (wall, cpu) = (took.wall.as_secs_f64(), took.cpu.as_secs_f64());
        line(&mut text, &format!("| `{name}` | {wall:.3} | {cpu:.3} |"));
    }
    let lived = &results.lived;
    line(
        &mut text,
        &format!(
            "\nSoak: {} heartbeats in fast time, a fifth of them with the collector away: idle PSS {:.1} MiB after a tenth, \
             {:.1} MiB at the end, {:.1} MiB at most with the store's process (the test's binary); {:.1} MiB of disk.",
            lived.heartbeats,
            mib(lived.early_pss_bytes),
            mib(lived.late_pss_bytes),
            mib(lived.peak_pss_bytes),
            mib(lived.disk_bytes)
        ),
    );
    add_goals(&mut text, results);
    text
}

fn add_goals(text: &mut String, results: &Results) {
    line(
        text,
        "\n| goal | is | at most | holds |\n| --- | ---: | ---: | --- |",
    );
    for goal in goals(results) {
        let kind = if goal.is_moonshot { "moonshot: " } else { "" };
        let holds = if goal.holds() { "yes" } else { "no" };
        let Goal {
            what,
            is,
            limit,
            unit,
            ..
        } = goal;
        line(
            text,
            &format!(
                "| {kind}{what} | {} | {} | {holds} |",
                figure(is, unit),
                figure(limit, unit)
            ),
        );
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes any text");
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

fn figure(value: f64, unit: &str) -> String {
    match unit {
        "s" => format!("{value:.3} s"),
        "" => format!("{value}"),
        _ => format!("{value:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(pss_mib: u64, cpu_ms: u64, threads: u64) -> Daemon {
        let usage = |cpu| Usage {
            pss_bytes: pss_mib << 20,
            rss_bytes: (pss_mib + 1) << 20,
            anonymous_bytes: pss_mib << 19,
            threads,
            processes: 1,
            cpu,
        };
        Daemon {
            name: "one".to_owned(),
            pid: 1,
            binary_bytes: 5 << 20,
            first: usage(Duration::from_secs(1)),
            last: usage(Duration::from_secs(1) + Duration::from_millis(cpu_ms)),
            threads,
            over: Duration::from_secs(60),
        }
    }

    fn results(agent: Daemon) -> Results {
        let took = |ms| Took {
            wall: Duration::from_millis(ms),
            cpu: Duration::from_millis(ms),
        };
        Results {
            date: "2026-11-21".to_owned(),
            machine: "a machine".to_owned(),
            command: "make bench".to_owned(),
            agent,
            exporter: daemon(18, 28, 6),
            zabbix: daemon(5, 8, 5),
            facts: Facts {
                agent: took(10),
                facter: took(100),
                ansible: took(310),
            },
            lived: Lived {
                heartbeats: 100_000,
                early_rss_bytes: 9 << 20,
                late_rss_bytes: 9 << 20,
                early_pss_bytes: 8 << 20,
                late_pss_bytes: 8 << 20,
                peak_pss_bytes: 12 << 20,
                disk_bytes: 1 << 20,
            },
        }
    }

    #[test]
    fn a_goal_is_held_against_the_peer_of_the_same_run() {
        let missed = |agent| -> Vec<&str> {
            let goals = goals(&results(agent));
            let missed = goals.iter().filter(|goal| !goal.holds());
            missed.map(|goal| goal.what).collect()
        };
        assert_eq!(missed(daemon(5, 8, 2)), [""; 0]);
        assert_eq!(
            missed(daemon(9, 9, 4)),
            [
                "PSS",
                "PSS, zabbix_agentd's",
                "CPU in 10 min, zabbix_agentd's"
            ]
        );
        assert_eq!(
            missed(daemon(10, 15, 5))[..3],
            [
                "PSS, half of node_exporter's",
                "CPU in 10 min, half of node_exporter's",
                "threads"
            ]
        );
    }

    #[test]
    fn cpu_is_scaled_to_ten_minutes() {
        let text = text(&results(daemon(5, 8, 2)));
        assert!(
            text.contains("| one | 5.0 | 6.0 | 2 | 1 | 0.080 | 5.0 |"),
            "{text}"
        );
        assert!(
            text.contains("| moonshot: CPU in 10 min, zabbix_agentd's | 0.080 s | 0.080 s | yes |"),
            "{text}"
        );
    }
}
