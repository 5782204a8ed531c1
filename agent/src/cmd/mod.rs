//! The subcommands, one file each.

pub(crate) mod config;
pub(crate) mod enroll;
pub(crate) mod facts;
pub(crate) mod owner;
pub(crate) mod packages;
pub(crate) mod run;
pub(crate) mod status;

/// Says what went wrong, with its causes, once.
#[expect(clippy::print_stderr, reason = "the command line's last words")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("infratrack-agent: {error:#}");
}

/// Prints a result.
#[expect(clippy::print_stdout, reason = "what the command was asked for")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}
