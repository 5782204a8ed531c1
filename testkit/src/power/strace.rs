//! Runs a program under `strace`, which writes down every change to files with its data.
//!
//! A machine may forbid ptrace: then the caller is told so and decides; nothing is skipped in here.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

/// Set to 1 to go on without the tests that need ptrace, where it is forbidden.
pub const WITHOUT: &str = "INFRATRACK_WITHOUT_PTRACE";

/// Everything that changes a file, or says that a change is durable. The last line is of calls the spool
/// has no use for: the reader of the trace refuses them, so that none passes unseen.
const CALLS: &str = "open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,\
    write,pwrite64,ftruncate,lseek,fsync,fdatasync,\
    writev,pwritev,pwritev2,truncate,fallocate,copy_file_range,sendfile,link,linkat,symlink,symlinkat";

/// Whether this process may trace another.
pub fn is_permitted() -> bool {
    let traced = Command::new("strace")
        .args(["-f", "-e", "trace=write", "-o", "/dev/null", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    traced.is_ok_and(|status| status.success())
}

/// Runs `program` to its end and leaves its trace in `out`.
pub fn run(program: &mut Command, out: &Path) -> anyhow::Result<()> {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", "16777216"])
        .arg("-e")
        .arg(format!("trace={CALLS}"))
        .args(["-e", "signal=none", "-o"])
        .arg(out)
        .arg(program.get_program())
        .args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    let done = strace.output().context("cannot run strace")?;
    ensure!(
        done.status.success(),
        "the traced program failed: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    if std::fs::metadata(out)?.len() == 0 {
        bail!("strace wrote nothing to {}", out.display());
    }
    Ok(())
}
