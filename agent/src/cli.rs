//! The command line: what can be asked of the program. `main` does it; packages make man pages and completions
//! of it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Reports this host to an Infratrack collector.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// Configuration file [default: /etc/infratrack/agent.toml, where it exists]
    #[arg(long, global = true)]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent; what systemd starts.
    Run,
    /// Give this host its identity, with a token from the collector.
    Enroll(Enroll),
    /// Say who this host is to the collector and until when.
    Status {
        /// As JSON; the command fails where the host is not enrolled
        #[arg(long)]
        json: bool,
    },
    /// Print the facts this host would report, as JSON.
    Facts,
    /// Print the packages that are installed on this host, as JSON.
    Packages,
    /// The configuration.
    #[command(subcommand)]
    Config(Configuration),
    /// Ask the package managers that the connection at standard input names for updates.
    #[command(hide = true)]
    CheckUpdates,
    /// Keep a spool's records in a process of its own.
    #[command(hide = true)]
    SpoolStore { dir: PathBuf },
    /// Check a spool in a process of its own.
    #[command(hide = true)]
    SpoolProbe {
        dir: PathBuf,
        generation: u64,
        #[arg(long)]
        salvage: bool,
    },
}

/// Where and with what. The token is never an argument: arguments are seen by every user.
#[derive(Debug, Args)]
pub struct Enroll {
    /// The collector's enrollment address, host:port
    #[arg(long)]
    pub collector: String,
    /// Read the token from standard input
    #[arg(long, required_unless_present = "token_file")]
    pub token_stdin: bool,
    /// Read the token from a file
    #[arg(long, conflicts_with = "token_stdin")]
    pub token_file: Option<PathBuf>,
    /// Enroll anew although this host has an identity; the collector decides which host it becomes
    #[arg(long)]
    pub force: bool,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum Configuration {
    /// Print every setting with the value in effect.
    Show,
}
