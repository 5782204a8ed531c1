//! Processes that a killed collector left behind: the server of this cluster, and an `initdb` for it.
//!
//! A process is touched only if its own command line names this cluster. Called under the lock of the data
//! directory, so whoever started it is gone.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::place::Place;
use super::{LOOK, PostgresError, QUIT, STOP};

/// A killed process is gone within this.
const KILL: Duration = Duration::from_secs(10);

/// Stops the server of a collector that was killed: in order first, then without a checkpoint.
pub(super) async fn stop_server(place: &Place) -> Result<(), PostgresError> {
    let cluster = place.cluster();
    let Some(pid) = std::fs::read_to_string(cluster.join("postmaster.pid"))
        .ok()
        .and_then(|text| text.lines().next()?.trim().parse::<i32>().ok())
    else {
        return Ok(());
    };
    let ours = |argument: &[u8]| argument == cluster.as_os_str().as_bytes();
    let steps = [(Signal::SIGINT, STOP), (Signal::SIGQUIT, QUIT)];
    end("postgres", pid, &steps, ours).await
}

/// Kills every `initdb` that still fills a directory beside the cluster: its work is thrown away.
pub(super) async fn stop_initdb(place: &Place) -> Result<(), PostgresError> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let ours =
            |argument: &[u8]| place.is_unfinished(Path::new(std::ffi::OsStr::from_bytes(argument)));
        end("initdb", pid, &[(Signal::SIGKILL, KILL)], ours).await?;
    }
    Ok(())
}

/// Ends process `pid` by the signals of `steps`, each with a time of its own, as long as an argument of its
/// command line is `ours`: the number may have gone to somebody else since.
async fn end(
    program: &'static str,
    pid: i32,
    steps: &[(Signal, Duration)],
    ours: impl Fn(&[u8]) -> bool,
) -> Result<(), PostgresError> {
    let runs = || {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(&ours)
    };
    for (signal, limit) in steps {
        if !runs() {
            return Ok(());
        }
        tracing::warn!(program, pid, %signal, "ending what a killed collector left behind");
        // It may have ended by itself since.
        kill(Pid::from_raw(pid), *signal).ok();
        let deadline = Instant::now() + *limit;
        while runs() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }
    if runs() {
        let detail = format!("process {pid} of an earlier start does not stop");
        return Err(PostgresError::Program { program, detail });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Ignores SIGINT, as a server seems to whose shutdown hangs; its command line has `mark`.
    fn stubborn(mark: &str) -> std::process::Child {
        let mut child = Command::new("sh")
            .args([
                "-c",
                "trap '' INT; echo ready; while :; do read line; done",
                mark,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let stdout = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(stdout, &mut ready).unwrap();
        child
    }

    #[tokio::test]
    async fn the_second_signal_has_time_of_its_own() {
        let mut child = stubborn("cluster-of-this-test");
        let pid = child.id().cast_signed();
        let reaped = std::thread::spawn(move || child.wait());
        let steps = [
            (Signal::SIGINT, Duration::from_millis(200)),
            (Signal::SIGKILL, Duration::from_secs(10)),
        ];
        let started = Instant::now();
        end("sh", pid, &steps, |argument| {
            argument == b"cluster-of-this-test"
        })
        .await
        .unwrap();
        assert!(started.elapsed() >= Duration::from_millis(200));
        assert!(!reaped.join().unwrap().unwrap().success());
    }

    #[tokio::test]
    async fn a_process_that_names_another_cluster_is_left_alone() {
        let mut child = stubborn("another");
        let pid = child.id().cast_signed();
        let steps = [(Signal::SIGKILL, Duration::from_secs(1))];
        end("sh", pid, &steps, |argument| {
            argument == b"cluster-of-this-test"
        })
        .await
        .unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it still runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
