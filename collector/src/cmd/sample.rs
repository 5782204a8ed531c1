//! `infratrack-collector sample load` and `sample remove`.

use std::path::Path;

use anyhow::Context;
use infratrack_collector::audit::Actor;
use infratrack_collector::cli::Sample;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::jobs::liveness::Silence;
use infratrack_collector::postgres::private_connect_options;
use infratrack_collector::sample::{self, Fleet};
use infratrack_collector::server;
use sqlx::PgPool;

/// Loads or removes the made-up fleet.
pub(crate) async fn run(
    config: &Config,
    action: &Sample,
    demo: Option<&Path>,
) -> anyhow::Result<()> {
    let pool = match demo {
        Some(dir) => of_demo(config, dir).await?,
        None => super::connect(config).await?,
    };
    let (actor, now) = (Actor::command_line(), Clock::system().now());
    match action {
        Sample::Load => {
            let cutoffs = Silence::new(&config.liveness).cutoffs(now);
            let loaded = sample::load(&pool, Fleet::default(), &[], cutoffs, &actor).await?;
            super::print(&said(loaded, demo));
        }
        Sample::Remove => {
            let removed = sample::remove(&pool, now, &actor).await?;
            super::print(&format!("sample hosts removed: {removed}"));
        }
    }
    Ok(())
}

/// The demo's database, whatever else is configured.
async fn of_demo(config: &Config, dir: &Path) -> anyhow::Result<PgPool> {
    let dir =
        std::fs::canonicalize(dir).with_context(|| format!("no demo in {}", dir.display()))?;
    let options = private_connect_options(&dir).await?;
    let connected = server::connect(options, config).await;
    connected.context("is the demo running?")
}

/// What came of it, for people.
pub(crate) fn said(loaded: u32, demo: Option<&Path>) -> String {
    let of = demo.map(|dir| format!(" --data-dir {}", dir.display()));
    let remove = format!(
        "infratrack-collector sample remove{}",
        of.unwrap_or_default()
    );
    match loaded {
        0 => format!("the sample hosts are there already; to remove them: {remove}"),
        loaded => format!("{loaded} sample hosts were loaded; to remove them: {remove}"),
    }
}
