//! The documents that the configuration names: read when asked for, and by their intervals.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::documents::DOCUMENT_BYTES;
use super::sync::{Options, sync};
use crate::app::App;
use crate::audit::Actor;
use crate::aws::s3;
use crate::config::Config;
use crate::config::inventory::{Place, Source};
use crate::store::inventories;

/// A file system that hangs is given up.
const READ: std::time::Duration = std::time::Duration::from_secs(10);

/// The document of a source, as far as it may go and a byte more.
pub async fn read(config: &Config, source: &Source) -> anyhow::Result<Vec<u8>> {
    let path = match source.place()? {
        Place::File(path) => path,
        Place::S3(object) => return Ok(s3::read(&config.s3, &object, DOCUMENT_BYTES).await?),
    };
    let shown = path.display().to_string();
    let read = timeout(READ, spawn_blocking(move || read_file(&path))).await;
    let read = read.with_context(|| format!("{shown} was not read in time"))?;
    read.context("reading was interrupted")?
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file =
        std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut bytes = Vec::new();
    let most = DOCUMENT_BYTES as u64 + 1;
    file.take(most)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

/// How a configured source is taken.
pub fn options(source: &Source) -> Options {
    Options {
        source: source.name.clone(),
        kind: source.kind,
        dry_run: false,
        allow_empty: false,
        allow_shrink: false,
        resolve_names: source.resolve_names,
    }
}

/// Syncs the sources whose interval has passed. One that fails keeps none of the others from it.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let mut connection = app.pool.acquire().await?;
    let known = inventories::list(&mut connection).await?;
    drop(connection);
    let mut failed = Ok(());
    for source in &app.config.inventory.sources {
        let Some(interval) = source.interval else {
            continue;
        };
        let before = known.iter().find(|row| row.source == source.name);
        let is_due = before.is_none_or(|row| row.synced_at + interval <= app.clock.now());
        if !is_due {
            continue;
        }
        let synced = async {
            let document = read(&app.config, source).await?;
            let report = sync(&app, &Actor::job("inventory"), options(source), document).await?;
            let (created, missing) = (report.created.total, report.missing.total);
            tracing::info!(source = source.name, created, missing, "inventory synced");
            anyhow::Ok(())
        };
        if let Err(error) = synced.await {
            let error = error.context(format!("inventory {}", source.name));
            tracing::warn!(error = format!("{error:#}"), "an inventory was not synced");
            failed = Err(error);
        }
    }
    failed
}
