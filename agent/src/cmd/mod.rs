//! The subcommands, one file each.

pub(crate) mod backup;
pub(crate) mod backup_restore;
pub(crate) mod config;
pub(crate) mod enroll;
pub(crate) mod facts;
pub(crate) mod owner;
pub(crate) mod packages;
pub(crate) mod run;
pub(crate) mod status;

use std::io::{self, Write};

/// Says what went wrong, with its causes, once.
#[expect(clippy::print_stderr, reason = "the command line's last words")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("infratrack-agent: {error:#}");
}

/// Prints a result.
pub(crate) fn print(text: &str) {
    match writeln!(io::stdout(), "{text}") {
        // Who reads may have had enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.expect("standard output takes what is written"),
    }
}
