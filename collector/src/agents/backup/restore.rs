//! What is read back: the list of snapshots, their objects, and packs in part or whole. Sealed, as everything here is.

use http::header::{ACCEPT_RANGES, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use http::{Response, StatusCode};
use infratrack_shared::backup::{KeyId, PackHash};
use infratrack_shared::ids::{HostId, SnapshotId, VolumeId};
use infratrack_shared::limits;
use infratrack_shared::wire::backup::{Snapshots, SnapshotsAsked, WrappedKey};
use infratrack_shared::wire::problem::code;
use serde_bytes::ByteBuf;

use super::runs::MOST_KEYS;
use super::{nothing, octets, readable, unkept, unstored};
use crate::agents::answer::AnswerBody;
use crate::agents::problem::Refusal;
use crate::agents::service::within;
use crate::app::App;
use crate::backups::objects;
use crate::blob::Blob;
use crate::store::volumes::{self, KeyRow};
use crate::store::{packs, snapshots};

/// What there is to restore of a volume.
pub(super) async fn snapshots(
    app: &App,
    host: HostId,
    asked: SnapshotsAsked,
) -> Result<Snapshots, Refusal> {
    readable(app, host, asked.volume).await?;
    let found = async {
        let mut connection = app.pool.acquire().await?;
        let most = limits::BACKUP_SNAPSHOTS as i64;
        let snapshots = snapshots::list(&mut connection, asked.volume, asked.before, most).await?;
        let keys = volumes::list_keys(&mut connection, asked.volume, MOST_KEYS).await?;
        sqlx::Result::Ok((snapshots, keys))
    };
    let (snapshots, keys) = found.await.map_err(unstored)?;
    let keys = keys.into_iter().filter_map(wrapped).collect();
    Ok(Snapshots { snapshots, keys })
}

fn wrapped(row: KeyRow) -> Option<WrappedKey> {
    Some(WrappedKey {
        id: KeyId::new(row.key_id.as_slice().try_into().ok()?),
        age: ByteBuf::from(row.wrapped),
        recipients: row.recipients,
    })
}

/// A volume and what is named behind it.
fn parts<T: std::str::FromStr>(name: &str) -> Option<(VolumeId, T)> {
    let (volume, name) = name.split_once('/')?;
    Some((volume.parse().ok()?, name.parse().ok()?))
}

/// A snapshot's object.
pub(super) async fn snapshot(
    app: &App,
    host: HostId,
    name: &str,
) -> Result<Response<AnswerBody>, Refusal> {
    let (volume, id): (_, SnapshotId) = parts(name).ok_or_else(|| nothing("snapshot"))?;
    let found = async {
        readable(app, host, volume).await?;
        let mut connection = app.pool.acquire().await.map_err(unstored)?;
        let size = snapshots::find_size(&mut connection, volume, id).await;
        size.map_err(unstored)
    };
    within(found).await?.ok_or_else(|| nothing("snapshot"))?;
    let key = objects::snapshot(volume, id).map_err(unkept)?;
    let blob = within(async { app.blob.find(&key).await.map_err(unkept) }).await?;
    let blob = blob.ok_or_else(|| nothing("snapshot"))?;
    Ok(octets(Response::new(AnswerBody::object(blob))))
}

/// A pack, or one range of it.
pub(super) async fn pack(
    app: &App,
    host: HostId,
    name: &str,
    headers: &HeaderMap,
) -> Result<Response<AnswerBody>, Refusal> {
    let (volume, hash): (_, PackHash) = parts(name).ok_or_else(|| nothing("pack"))?;
    let found = async {
        readable(app, host, volume).await?;
        let mut connection = app.pool.acquire().await.map_err(unstored)?;
        let row = packs::find(&mut connection, volume, hash).await;
        row.map_err(unstored)
    };
    let row = within(found).await?.filter(|row| row.lost_at.is_none());
    let row = row.ok_or_else(|| nothing("pack"))?;
    let size = u64::try_from(row.size_bytes).unwrap_or_default();
    let range = match headers.get(RANGE) {
        Some(range) => Some(of_header(range, size).ok_or_else(|| no_range(size))?),
        None => None,
    };
    let key = objects::pack(volume, hash).map_err(unkept)?;
    let read = async {
        let read = match range.clone() {
            Some(range) => app.blob.find_range(&key, range).await,
            None => app.blob.find(&key).await,
        };
        read.map_err(unkept)
    };
    let blob: Option<Blob> = within(read).await?;
    let blob = blob.ok_or_else(|| nothing("pack"))?;
    let mut response = octets(Response::new(AnswerBody::object(blob)));
    let bytes = HeaderValue::from_static("bytes");
    response.headers_mut().insert(ACCEPT_RANGES, bytes);
    if let Some(range) = range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let of = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        let of = HeaderValue::try_from(of).map_err(|error| Refusal::unavailable(error, 30))?;
        response.headers_mut().insert(CONTENT_RANGE, of);
    }
    Ok(response)
}

/// `bytes=first-last`, within the pack.
fn of_header(range: &HeaderValue, size: u64) -> Option<std::ops::Range<u64>> {
    let (first, last) = range
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < size).then(|| first..last + 1)
}

fn no_range(size: u64) -> Refusal {
    let detail = format!("Range has to be bytes=first-last, one range within the {size} bytes");
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    Refusal::new(status, code::RANGE_INVALID, detail)
}
