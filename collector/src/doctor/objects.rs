//! The blob store, and the documents of inventories: in S3 or in files.

use bytes::Bytes;

use super::Finding;
use crate::aws::s3::S3Error;
use crate::blob::{BlobError, BlobStore, Honours, Key, Put};
use crate::config::Config;
use crate::config::inventory::Source;
use crate::inventory::{documents, sources};

const BLOBS: &str = "blob store";

/// Writes an object, tries to replace it, reads and lists it, removes it.
pub(super) async fn blobs(config: &Config) -> Finding {
    let store = match BlobStore::open(config).await {
        Ok(store) => store,
        Err(error) => return failed(error),
    };
    let name = hex::encode(rand::random::<[u8; 16]>());
    let Ok(key) = Key::new(format!("doctor/{name}")) else {
        return Finding::fail(BLOBS, "has no name for an object", "report this");
    };
    let probed = probe(&store, &key).await;
    let honours = store.honours(&key).await;
    // Whatever came of it, nothing of it is to stay, unless the bucket holds it.
    let is_locking = matches!(&honours, Ok(Some(found)) if found.object_lock.is_some());
    let removed = store.delete(&key).await;
    let removed = if is_locking { Ok(()) } else { removed };
    let place = match config.s3.bucket.as_str() {
        "" => "data_dir/blobs".to_owned(),
        bucket => format!("s3://{bucket}/{}", config.s3.prefix),
    };
    match probed.and_then(|found| removed.map(|()| found)) {
        Ok(None) => {
            let detail = format!("{place} takes, keeps, returns, lists and removes objects");
            match honours {
                Ok(honours) => Finding::ok(BLOBS, detail + &said(honours)),
                Err(error) => failed(error),
            }
        }
        Ok(Some((wrong, advice))) => Finding::fail(BLOBS, format!("{place} {wrong}"), advice),
        Err(error) => failed(error),
    }
}

/// What a bucket honours, in words.
fn said(honours: Option<Honours>) -> String {
    let Some(honours) = honours else {
        return String::new();
    };
    let checksums = if honours.checksums {
        "compares checksums"
    } else {
        "compares no checksums (each pack is hashed here, and read again)"
    };
    let versions = if honours.versions {
        "keeps versions"
    } else {
        "keeps no versions"
    };
    let locked = honours.object_lock;
    let locked = locked.map(|lock| format!(", locks new objects: {lock}"));
    format!(
        "; honours If-None-Match, {checksums}, {versions}{}",
        locked.unwrap_or_default()
    )
}

/// What is wrong, and what to do; `None`: nothing.
async fn probe(
    store: &BlobStore,
    key: &Key,
) -> Result<Option<(&'static str, &'static str)>, BlobError> {
    let bytes = Bytes::copy_from_slice(key.as_str().as_bytes());
    store.put_bytes(key, bytes.clone()).await?;
    let again = store.put_bytes(key, Bytes::from_static(b"other")).await?;
    let read = store.find_bytes(key, 1024).await?;
    if again != Put::Existed {
        return Ok(Some((
            "replaces objects that are there",
            "use a store that honours If-None-Match (conditional writes)",
        )));
    }
    if read.as_ref() != Some(&bytes) {
        return Ok(Some((
            "returns something else than it was given",
            "use another store",
        )));
    }
    let dir = Key::new("doctor")?;
    let listed = store.list(&dir, None, 1000).await?;
    if listed.iter().all(|entry| entry.key != *key) {
        return Ok(Some((
            "does not list what it has",
            "use a store whose lists are complete at once",
        )));
    }
    Ok(None)
}

fn failed(error: BlobError) -> Finding {
    let advice = match &error {
        BlobError::S3(error) => error.advice(),
        BlobError::Key(_)
        | BlobError::File { .. }
        | BlobError::Body { .. }
        | BlobError::Length { .. }
        | BlobError::TooLarge { .. }
        | BlobError::Range { .. }
        | BlobError::NotWhole { .. } => {
            "the collector needs to write, read and delete below data_dir/blobs"
        }
    };
    Finding::fail(BLOBS, format!("{:#}", anyhow::Error::from(error)), advice)
}

/// Whether a source's document can be had, and is one.
pub(super) async fn inventory(config: &Config, source: &Source) -> Finding {
    const NAME: &str = "inventory";
    let bytes = match sources::read(config, source).await {
        Ok(bytes) => bytes,
        Err(error) => {
            let advice = match error.downcast_ref::<S3Error>() {
                Some(error) => error.advice(),
                None => "lay the file there, where the collector's user can read it",
            };
            return Finding::fail(NAME, format!("{}: {error:#}", source.name), advice);
        }
    };
    let (kind, size_bytes) = (source.kind, bytes.len());
    let read = tokio::task::spawn_blocking(move || documents::read(kind, &bytes)).await;
    match read {
        Ok(Ok(document)) => {
            let hosts = document.entries.len();
            let detail = format!("{}: {size_bytes} bytes, {hosts} hosts", source.name);
            Finding::ok(NAME, detail)
        }
        Ok(Err(refused)) => {
            let advice = "see docs/inventory.md for what the collector reads";
            Finding::fail(NAME, format!("{}: {refused}", source.name), advice)
        }
        Err(_) => Finding::fail(
            NAME,
            format!("{}: reading broke off", source.name),
            "report this",
        ),
    }
}
