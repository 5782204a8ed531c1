//! A real browser for the tests: Debian's Chromium, driven by the scripts in `testkit/browser/`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

/// Given to a page; starting and ending the browser comes on top.
const SECONDS: u64 = 60;
/// Given to a script for its whole job.
const FLOWS: Duration = Duration::from_mins(10);

/// The page that a browser comes to rest on, from an address on: its document, once it has the CSS selector.
///
/// # Errors
///
/// When there is no browser, or when no page with the selector comes; the error has the page that came instead.
pub async fn land(address: &str, selector: &str) -> anyhow::Result<String> {
    let mut driver = node("land.mjs")?;
    driver.args([address, selector, &SECONDS.to_string()]);
    let ended = timeout(Duration::from_secs(3 * SECONDS), driver.output()).await;
    let output = ended.context("the browser does not end")?;
    let output = output.context("cannot start node: make deps-browser")?;
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}\n{page}");
    Ok(page)
}

/// Plays the flows of `testkit/browser/flows/` that the job names; `job` is what `testkit/browser/flows.mjs` takes, without
/// the folder of its pictures, which is `target/pictures/`. Answers how many were played.
///
/// # Errors
///
/// When there is no browser, or anything is wrong on any page: all of it, a line each.
pub async fn flows(mut job: serde_json::Value) -> anyhow::Result<String> {
    let pictures = root()?.join("target/pictures");
    job["pictures"] = pictures.to_string_lossy().into();
    run("flows.mjs", &job).await
}

/// How long each of so many loads of a list of hosts took until its first host could be ticked; see
/// `testkit/browser/usable.mjs`.
///
/// # Errors
///
/// When there is no browser, or the list does not do what it is asked.
pub async fn usable(
    base: &str,
    token: &str,
    path: &str,
    loads: usize,
) -> anyhow::Result<Vec<Duration>> {
    let job = json!({ "base": base, "token": token, "path": path, "loads": loads });
    let printed = run("usable.mjs", &job).await?;
    let took: Vec<f64> = serde_json::from_str(&printed)?;
    Ok(took
        .into_iter()
        .map(|ms| Duration::from_secs_f64(ms / 1e3))
        .collect())
}

/// What a script prints that takes a job.
async fn run(script: &str, job: &serde_json::Value) -> anyhow::Result<String> {
    let mut driver = node(script)?;
    driver.arg(job.to_string());
    let ended = timeout(FLOWS, driver.output()).await;
    let output = ended.context("the browser does not end")?;
    let output = output.context("cannot start node: make deps-browser")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(root.context("the crate lies in no workspace")?.to_owned())
}

/// Node with a script, its libraries as the first argument. It ends when it is dropped.
fn node(script: &str) -> anyhow::Result<Command> {
    let root = root()?;
    let modules = root.join("target/browser/node_modules");
    ensure!(
        modules.join("axe-core").exists(),
        "there is no {}: make deps-browser",
        modules.join("axe-core").display()
    );
    let mut node = Command::new("node");
    node.arg(root.join("testkit/browser").join(script))
        .arg(modules)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(node)
}
