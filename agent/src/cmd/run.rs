//! `infratrack-agent run`.

use infratrack_agent::clock::Clock;
use infratrack_agent::collect::Root;
use infratrack_agent::config::Config;
use infratrack_agent::daemon;

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    daemon::run(config, Root::default(), Clock::system()).await
}
