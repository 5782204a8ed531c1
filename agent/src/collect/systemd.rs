//! `facts.systemd` and the heartbeat's number of failed units, asked of `systemctl`.
//!
//! A child process because the manager's own interface is D-Bus, which would cost the agent more
//! than an occasional child does. It runs in the C locale, with a time limit, and is killed when it
//! passes it. A host without systemd says so.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::process::Command;
use tokio::time::timeout;

use super::fact::to_value;
use super::{Reason, Root};

const PROGRAMS: &[&str] = &["usr/bin/systemctl", "bin/systemctl"];
/// The most names of failed units that are told.
const NAMES: usize = 200;

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Facts {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// `running`, `degraded`, `maintenance`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    failed_units: Vec<String>,
}

/// The body of `facts.systemd`.
pub(super) async fn collect(root: &Root, limit: Duration) -> Result<rmpv::Value, Reason> {
    let properties = ["show", "--property=Version,SystemState"];
    let mut facts = parse_properties(&systemctl(root, &properties, limit).await?);
    // A manager that is "running" has no failed unit; one less child on most hosts.
    if facts.state.as_deref() == Some("running") {
        return to_value(&facts);
    }
    let list = [
        "list-units",
        "--failed",
        "--plain",
        "--full",
        "--no-legend",
        "--no-pager",
    ];
    facts.failed_units = parse_units(&systemctl(root, &list, limit).await?);
    to_value(&facts)
}

/// How many units have failed.
pub(super) async fn failed_count(root: &Root, limit: Duration) -> Result<u32, Reason> {
    let answer = systemctl(root, &["show", "--property=NFailedUnits"], limit).await?;
    property(&answer, "NFailedUnits")
        .and_then(|count| count.parse().ok())
        .ok_or_else(|| "systemctl does not say how many units failed".to_owned())
}

/// What `systemctl` prints.
async fn systemctl(root: &Root, arguments: &[&str], limit: Duration) -> Result<String, Reason> {
    // The directory is there exactly where systemd is process 1 (sd_booted(3)).
    if !root.exists("run/systemd/system") {
        return Err("no systemd".to_owned());
    }
    let program = program(root).ok_or("no systemctl")?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/bin:/bin")
        .env("SYSTEMD_COLORS", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("systemctl does not start: {error}"))?;
    let output = timeout(limit, child.wait_with_output())
        .await
        .map_err(|_| format!("systemctl gave no answer within {} ms", limit.as_millis()))?
        .map_err(|error| format!("systemctl cannot be read: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default();
        return Err(format!("systemctl: {}: {said}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn program(root: &Root) -> Option<PathBuf> {
    let program = PROGRAMS.iter().find(|program| root.exists(program))?;
    Some(root.path(program))
}

fn property<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value.trim()))
        .filter(|value| !value.is_empty())
}

fn parse_properties(text: &str) -> Facts {
    Facts {
        version: property(text, "Version").map(str::to_owned),
        state: property(text, "SystemState").map(str::to_owned),
        failed_units: Vec::new(),
    }
}

/// The first column; older versions print a bullet before it even so.
fn parse_units(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.find(|word| !matches!(*word, "●" | "*" | "x" | "×"))?;
        name.contains('.').then(|| name.to_owned())
    };
    let mut names: Vec<_> = text.lines().filter_map(name).collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(NAMES);
    names
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::collect::fixture;

    const LONG: Duration = Duration::from_secs(30);

    /// A host whose `systemctl` is one of the fixtures. Linked, not written: a program that was just
    /// written may still be open in another test's child, and is then too busy to run.
    fn host(program: &str) -> (TempDir, Root) {
        let fixtures = concat!("->", env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/");
        let link = format!("{fixtures}{program}");
        let files = [
            ("run/systemd/system/x", ""),
            ("usr/bin/systemctl", link.as_str()),
        ];
        fixture::host(&files)
    }

    #[tokio::test]
    async fn a_degraded_manager_names_what_failed_in_order() {
        let (_keep, root) = host("systemctl-degraded");
        let expected = json!({
            "version": "252.26-1~deb12u2", "state": "degraded",
            "failed_units": ["a.mount", "z.service"],
        });
        let body = collect(&root, LONG).await.unwrap();
        assert_eq!(fixture::json(&body), expected);
        assert_eq!(failed_count(&root, LONG).await, Ok(2));
    }

    #[tokio::test]
    async fn a_manager_that_cannot_be_reached_is_a_reason() {
        let (_keep, root) = host("systemctl-unreachable");
        let reason = failed_count(&root, LONG).await.unwrap_err();
        assert_eq!(
            reason,
            "systemctl: exit status: 1: Failed to connect to bus"
        );
    }

    #[tokio::test]
    async fn a_manager_that_hangs_is_left_within_the_limit_and_killed() {
        let (keep, root) = host("systemctl-hung");
        let pid_file = keep.path().join("usr/bin/pid");
        // Polled beside it, so that the limit can be short without racing the script's start.
        let started = async {
            loop {
                match fs::read_to_string(&pid_file) {
                    Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        let pid = tokio::select! {
            answer = failed_count(&root, LONG) => panic!("answered {answer:?}"),
            pid = started => pid,
        };
        let process = PathBuf::from("/proc").join(pid).join("exe");
        while fs::read_link(&process).is_ok() {
            tokio::task::yield_now().await;
        }
        let reason = failed_count(&root, Duration::from_millis(1))
            .await
            .unwrap_err();
        assert_eq!(reason, "systemctl gave no answer within 1 ms");
    }

    #[tokio::test]
    async fn a_host_without_systemd_says_so() {
        let (_keep, root) = fixture::host(&[("usr/bin/systemctl", "")]);
        assert_eq!(collect(&root, LONG).await, Err("no systemd".to_owned()));
    }
}
