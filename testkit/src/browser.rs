//! A real browser for the tests: Debian's Chromium, driven by `testkit/browser/land.mjs`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;
use tokio::time::timeout;

/// Given to the page; starting and ending the browser comes on top.
const SECONDS: u64 = 60;

/// The page that a browser comes to rest on, from an address on: its document, once it has the CSS selector.
///
/// # Errors
///
/// When there is no browser, or when no page with the selector comes; the error has the page that came instead.
pub async fn land(address: &str, selector: &str) -> anyhow::Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = root.context("the crate lies in no workspace")?;
    let modules = root.join("target/browser/node_modules");
    ensure!(
        modules.join("playwright-core").exists(),
        "there is no {}: make deps-browser",
        modules.display()
    );
    let mut driver = Command::new("node");
    driver
        .arg(root.join("testkit/browser/land.mjs"))
        .arg(modules)
        .args([address, selector, &SECONDS.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = timeout(Duration::from_secs(3 * SECONDS), driver.output()).await;
    let output = ended.context("the browser does not end")?;
    let output = output.context("cannot start node: make deps-browser")?;
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}\n{page}");
    Ok(page)
}
