//! `infratrack-spool-workload`: the process whose power is lost (`power::workload`), or whose memory is
//! measured (`backlog`).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use infratrack_agent::spool;
use infratrack_testkit::backlog;
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
    /// Queues a backlog and drains it, and says what that took
    Backlog {
        directory: PathBuf,
        #[arg(long)]
        records: u64,
        #[arg(long)]
        bytes: usize,
    },
    /// Takes heartbeats as fast as it can, and says what that took
    Live {
        directory: PathBuf,
        #[arg(long)]
        heartbeats: u64,
    },
    /// As the agent's own subcommand
    SpoolStore { dir: PathBuf },
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
        Cli::SpoolStore { dir } => Ok(spool::store_main(&dir)),
        Cli::Backlog {
            directory,
            records,
            bytes,
        } => {
            let runtime = runtime()?;
            let took = runtime.block_on(backlog::run(&directory, records, bytes))?;
            serde_json::to_writer(std::io::stdout(), &took)?;
            Ok(ExitCode::SUCCESS)
        }
        Cli::Live {
            directory,
            heartbeats,
        } => {
            let program = std::env::current_exe()?;
            let lived = runtime()?.block_on(backlog::live(&directory, heartbeats, program))?;
            serde_json::to_writer(std::io::stdout(), &lived)?;
            Ok(ExitCode::SUCCESS)
        }
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
            let runtime = runtime()?;
            let marks = Marks::create(&marks)?;
            let program = std::env::current_exe()?;
            runtime.block_on(workload::run(plan, &directory, marks, &earlier, program))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
