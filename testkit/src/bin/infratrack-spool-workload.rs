//! `infratrack-spool-workload`: the process whose power is lost; see `power::workload`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use infratrack_agent::spool;
use infratrack_testkit::power::mark::Marks;
use infratrack_testkit::power::workload::{self, Plan, Scenario};

#[derive(Debug, Parser)]
enum Cli {
    /// Drives a spool through a seeded run
    Run {
        directory: PathBuf,
        marks: PathBuf,
        #[arg(long, value_enum)]
        scenario: Scenario,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        steps: u32,
        /// The marks of the run whose crash left `directory`
        #[arg(long)]
        earlier: Option<PathBuf>,
    },
    /// As the agent's own subcommand
    SpoolProbe {
        dir: PathBuf,
        generation: u64,
        #[arg(long)]
        salvage: bool,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    #[cfg(feature = "failpoints")]
    let _points = infratrack_agent::failpoint::set_up();
    match Cli::parse() {
        Cli::SpoolProbe {
            dir,
            generation,
            salvage,
        } => Ok(spool::probe_main(&dir, generation, salvage)),
        Cli::Run {
            directory,
            marks,
            scenario,
            seed,
            steps,
            earlier,
        } => {
            let earlier = match earlier {
                Some(file) => serde_json::from_slice(&std::fs::read(file)?)?,
                None => Vec::new(),
            };
            let plan = Plan {
                scenario,
                seed,
                steps,
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let marks = Marks::create(&marks)?;
            let probe = std::env::current_exe()?;
            runtime.block_on(workload::run(plan, &directory, marks, &earlier, probe))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
