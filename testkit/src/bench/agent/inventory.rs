//! What an inventory costs a running agent: a demo in a mount namespace of its own, where `/var/lib/dpkg` is a directory of this
//! benchmark's, so that packages come and go there and nowhere else.
//!
//! For each size: all of them appear at once, are read, and reported until the collector has them; then the file is written again
//! as it is, and read again for nothing.

use std::fmt::Write;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::time::sleep;

use super::super::api::Client;
use super::alone::Cost;
use super::usage;

const HERE: &str = "/var/lib/dpkg";
const MADE: [usize; 2] = [1_000, 5_000];
/// The agent gathers changes for a while before it reads, and has done all that follows by then.
const SETTLED: Duration = Duration::from_secs(6);
const REPORTED: Duration = Duration::from_secs(60);
/// Starts what follows where `/var/lib/dpkg` is the first argument.
const ELSEWHERE: &str = r#"mount --bind "$0" /var/lib/dpkg && exec "$@""#;

/// Of one size, medians over the rounds.
#[derive(Clone, Debug)]
pub struct Taken {
    pub packages: usize,
    /// Whether they are this machine's.
    pub is_here: bool,
    pub reported: Cost,
    pub again: Cost,
}

/// The databases to be taken.
#[derive(Debug)]
pub struct Databases {
    dir: PathBuf,
    made: Vec<(usize, String, bool)>,
}

impl Databases {
    /// Makes them in `work`; until the first is taken there is one package.
    pub fn make(work: &Path) -> anyhow::Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "an inventory is measured by root, who can give the agent another /var/lib/dpkg"
        );
        let dir = work.join("dpkg");
        let info = dir.join("info");
        fs::create_dir_all(&info)?;
        let here = fs::read_to_string(format!("{HERE}/status"))?;
        // Their times are those of the installation; nothing in them is read.
        for entry in fs::read_dir(format!("{HERE}/info"))? {
            let name = entry?.file_name();
            if name.to_string_lossy().ends_with(".list") {
                File::create(info.join(name))?;
            }
        }
        let most = MADE.into_iter().max().unwrap_or_default();
        for index in 0..most {
            File::create(info.join(format!("made-{index:05}.list")))?;
        }
        let mut made = vec![(installed_here()?, here, true)];
        made.extend(MADE.map(|count| (count, status(count), false)));
        let databases = Self { dir, made };
        databases.put(&status(1))?;
        Ok(databases)
    }

    /// Runs a command where they are `/var/lib/dpkg`.
    pub fn around(&self, command: &Command) -> Command {
        let mut around = Command::new("unshare");
        around.args(["--mount", "--propagation", "private", "sh", "-c", ELSEWHERE]);
        around.arg(&self.dir).arg(command.get_program());
        around.args(command.get_args());
        around
    }

    /// As dpkg does it.
    fn put(&self, text: &str) -> anyhow::Result<()> {
        let beside = self.dir.join("status-new");
        fs::write(&beside, text)?;
        Ok(fs::rename(beside, self.dir.join("status"))?)
    }
}

/// Packages with all that an entry of dpkg's has.
fn status(count: usize) -> String {
    let mut text = String::new();
    for index in 0..count {
        let written = write!(
            text,
            "Package: made-{index:05}\nStatus: install ok installed\nPriority: optional\nSection: libs\n\
             Installed-Size: 1234\nMaintainer: Nobody <nobody@infratrack.example>\nArchitecture: amd64\n\
             Multi-Arch: same\nSource: made-source-{source:04}\nVersion: 1.{index}-1+deb12u2\n\
             Depends: libc6 (>= 2.34), libgcc-s1 (>= 3.0), libstdc++6 (>= 11)\n\
             Description: a package that was made to be counted\n It has a few lines of description, as most have,\n \
             and does nothing but be there.\nHomepage: https://packages.example/made/{index}\n\n",
            source = index / 3
        );
        written.expect("a string takes any text");
    }
    text
}

/// How many packages dpkg has on this machine.
pub fn installed_here() -> anyhow::Result<usize> {
    let status = fs::read_to_string(format!("{HERE}/status"))?;
    let lines = status.lines().filter(|line| line.starts_with("Status: "));
    Ok(lines.filter(|line| line.ends_with(" installed")).count())
}

/// The demo's collector, asked what it has of the agent's host.
struct Asked {
    client: Client,
    path: String,
}

impl Asked {
    async fn new(demo: &Path) -> anyhow::Result<Self> {
        let manifest: Value = serde_json::from_slice(&fs::read(demo.join("demo.json"))?)?;
        let text = |name: &str| {
            manifest
                .get(name)
                .and_then(Value::as_str)
                .context("demo.json")
        };
        let address = text("operator_url")?;
        let address = address.trim_start_matches("http://").trim_end_matches('/');
        let address: SocketAddr = address.parse()?;
        let client = Client::connect(address, text("admin_token")?.to_owned()).await?;
        let path = format!("/api/v1/hosts/{}/packages?limit=1", text("agent_host_id")?);
        Ok(Self { client, path })
    }

    async fn wait_for(&mut self, packages: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + REPORTED;
        loop {
            let answer = self.client.document(&self.path).await?;
            let total = answer.get("total").and_then(Value::as_u64);
            if total.and_then(|total| usize::try_from(total).ok()) == Some(packages) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the collector has {total:?} packages, not {packages}"
            );
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Takes each database `rounds` times by the agent of the demo.
pub async fn measure(
    databases: &Databases,
    demo: &Path,
    agent: u32,
    rounds: usize,
) -> anyhow::Result<Vec<Taken>> {
    let mut asked = Asked::new(demo).await?;
    asked.wait_for(1).await?;
    sleep(SETTLED).await;
    let mut taken = Vec::new();
    for (packages, text, is_here) in &databases.made {
        let (mut reported, mut again) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            reported.push(
                cost(agent, async || {
                    databases.put(text)?;
                    asked.wait_for(*packages).await
                })
                .await?,
            );
            again.push(cost(agent, async || databases.put(text)).await?);
            databases.put(&status(1))?;
            asked.wait_for(1).await?;
            sleep(SETTLED).await;
        }
        let middle = |costs: &[Cost]| Cost::middle(costs).context("no round");
        taken.push(Taken {
            packages: *packages,
            is_here: *is_here,
            reported: middle(&reported)?,
            again: middle(&again)?,
        });
    }
    Ok(taken)
}

/// What the agent takes until it has settled after `work`. Its heartbeats of that time are in it.
async fn cost(agent: u32, work: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<Cost> {
    let before = usage::measure(agent)?.cpu;
    // The most memory counts from here (proc(5), `clear_refs`).
    fs::write(format!("/proc/{agent}/clear_refs"), "5")?;
    let begun = Instant::now();
    work().await?;
    let wall = begun.elapsed();
    sleep(SETTLED).await;
    Ok(Cost {
        wall,
        cpu: usage::measure(agent)?.cpu.saturating_sub(before),
        peak_bytes: usage::peak_bytes(agent)?,
        ..Cost::default()
    })
}

#[cfg(test)]
mod tests {
    use infratrack_agent::packages::dpkg::Database;

    use super::status;

    #[test]
    fn packages_that_were_made_are_installed() {
        let mut database = Database::default();
        database.add(status(20).as_bytes()).unwrap();
        let inventory = database.inventory();
        assert_eq!((inventory.packages.len(), inventory.skipped), (20, 0));
    }
}
