//! `infratrack-collector migrate`.

use infratrack_collector::config::Config;
use infratrack_collector::server;

/// Migrates the configured database, or the private one.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
    let (options, postgres) = super::database(config).await?;
    let migrated = server::migrate(options).await;
    if let Some(postgres) = postgres {
        postgres.stop().await;
    }
    migrated?;
    super::print(&format!(
        "database is at migration {}",
        infratrack_collector::store::schema::head()
    ));
    Ok(())
}
