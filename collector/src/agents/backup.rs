//! What agents call for backups: documents about runs and chunks, packs and snapshots as the bytes they are.
//!
//! A volume is its host's alone; who has a grant may read it besides. Everything else is `not_found`, as what was never there.
//! Nothing that is stored is ever changed, dated anew or removed from here.

mod chunks;
mod drills;
mod memory;
mod packs;
mod restore;
mod runs;
mod snapshots;

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::{BackupRunId, HostId, VolumeId};
use infratrack_shared::limits;
use infratrack_shared::wire::problem::code;
use infratrack_shared::wire::{PROTOCOL, path};
use serde::de::DeserializeOwned;

pub use memory::Memory;

use crate::agents::answer::AnswerBody;
use crate::agents::ingest::{invalid, too_many, unpacked};
use crate::agents::problem::Refusal;
use crate::agents::service::{message, not_found, only_post, read, within};
use crate::app::App;
use crate::blob::BlobError;
use crate::http::body;
use crate::store::backup_runs::{self, RunRow};
use crate::store::volumes;

/// Requests of one host a second, on average and at once.
pub const PER_SECOND: u32 = 50;
pub const BURST: u32 = 200;
/// Putting one object into the store.
const STORE: Duration = Duration::from_secs(150);

/// The route of a path, where it is one of these.
pub fn route_of(called: &str) -> Option<&'static str> {
    let documents = [
        path::BACKUP_VOLUMES,
        path::BACKUP_RUNS,
        path::BACKUP_BEAT,
        path::BACKUP_END,
        path::BACKUP_MISSING,
        path::BACKUP_SNAPSHOTS,
        path::BACKUP_PLACES,
        path::BACKUP_DRILLS,
        path::BACKUP_DRILL_BEAT,
        path::BACKUP_DRILL_END,
    ];
    let found = documents.into_iter().find(|route| *route == called);
    let objects = [path::PACKS, path::SNAPSHOTS];
    found.or_else(|| {
        let mut objects = objects.into_iter();
        objects.find(|route| called.starts_with(route))
    })
}

/// Answers a request of a path that is one of these.
pub async fn answer(
    app: &App,
    host: HostId,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refusal> {
    let (head, body) = request.into_parts();
    if let Err(wait) = app.backup_rates.take(host) {
        body::discard(body).await;
        let detail = format!("more than {PER_SECOND} requests about backups a second");
        return Err(too_many(detail, wait));
    }
    let called = head.uri.path();
    let object = |route: &str| called.strip_prefix(route).map(str::to_owned);
    let (packs, snapshots) = (object(path::PACKS), object(path::SNAPSHOTS));
    let named = packs.is_some() || snapshots.is_some();
    if named && head.method == Method::PUT {
        let put = Put {
            name: packs.as_ref().or(snapshots.as_ref()).map_or("", |n| n),
            query: head.uri.query(),
            headers: &head.headers,
        };
        return if packs.is_some() {
            packs::put(app, host, &put, body).await
        } else {
            snapshots::put(app, host, &put, body).await
        };
    }
    if named && head.method == Method::GET {
        return match (packs, snapshots) {
            (Some(name), _) => restore::pack(app, host, &name, &head.headers).await,
            (None, name) => restore::snapshot(app, host, &name.unwrap_or_default()).await,
        };
    }
    if named {
        let detail = "PUT and GET only";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(Refusal::new(status, code::METHOD_NOT_ALLOWED, detail));
    }
    only_post(&head.method)?;
    let body = read(body, limits::BACKUP_BYTES).await?;
    within(document(app, host, called, &head.headers, &body)).await
}

/// Answers a document with one.
async fn document(
    app: &App,
    host: HostId,
    called: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<AnswerBody>, Refusal> {
    let status = StatusCode::OK;
    match called {
        path::BACKUP_VOLUMES => {
            let volumes = runs::volumes(app, host, decoded(headers, body)?).await?;
            message(status, &volumes)
        }
        path::BACKUP_RUNS => {
            let begun = runs::begin(app, host, decoded(headers, body)?).await?;
            message(status, &begun)
        }
        path::BACKUP_BEAT => {
            let beaten = runs::beat(app, host, decoded(headers, body)?).await?;
            message(status, &beaten)
        }
        path::BACKUP_END => {
            let ended = runs::end(app, host, decoded(headers, body)?).await?;
            message(status, &ended)
        }
        path::BACKUP_MISSING => {
            let missing = chunks::missing(app, host, decoded(headers, body)?).await?;
            message(status, &missing)
        }
        path::BACKUP_SNAPSHOTS => {
            let snapshots = restore::snapshots(app, host, decoded(headers, body)?).await?;
            message(status, &snapshots)
        }
        path::BACKUP_PLACES => {
            let places = chunks::places(app, host, decoded(headers, body)?).await?;
            message(status, &places)
        }
        path::BACKUP_DRILLS => {
            let begun = drills::begin(app, host, decoded(headers, body)?).await?;
            message(status, &begun)
        }
        path::BACKUP_DRILL_BEAT => {
            let beaten = drills::beat(app, host, decoded(headers, body)?).await?;
            message(status, &beaten)
        }
        path::BACKUP_DRILL_END => {
            let ended = drills::end(app, host, decoded(headers, body)?).await?;
            message(status, &ended)
        }
        other => Err(not_found(other)),
    }
}

/// A document within every limit.
fn decoded<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Refusal> {
    let whole = unpacked(headers, body, limits::BACKUP_BYTES)?;
    let document = codec::decode(&whole, &Limits::bytes(limits::BACKUP_BYTES));
    document.map_err(|error| invalid(format!("{:#}", anyhow::Error::from(error))))
}

/// Refuses a version that is not spoken here.
fn check_protocol(protocol: u16) -> Result<(), Refusal> {
    if protocol != 0 && protocol.abs_diff(PROTOCOL) <= 1 {
        return Ok(());
    }
    let detail = format!("protocol {protocol}: this collector speaks {PROTOCOL}");
    let status = StatusCode::BAD_REQUEST;
    Err(Refusal::new(status, code::PROTOCOL_UNSUPPORTED, detail))
}

/// An object that comes up.
struct Put<'a> {
    /// What stands behind the route.
    name: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
}

impl Put<'_> {
    /// Its name and its run.
    fn named<T: std::str::FromStr>(&self) -> Option<(T, BackupRunId)> {
        let run = self.query?.strip_prefix("run=")?;
        Some((self.name.parse().ok()?, run.parse().ok()?))
    }

    /// How many bytes are announced.
    fn length(&self, limit: usize) -> Result<usize, Refusal> {
        let length = self.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let Some(length) = length else {
            let detail = "the body needs a Content-Length";
            let status = StatusCode::LENGTH_REQUIRED;
            return Err(Refusal::new(status, code::LENGTH_REQUIRED, detail));
        };
        let within = usize::try_from(length).ok().filter(|n| *n <= limit);
        within.ok_or_else(|| {
            let detail = format!("the body of {length} bytes is over the limit of {limit} bytes");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            Refusal::new(status, code::BODY_TOO_LARGE, detail)
        })
    }
}

/// What is not there for this host, whether it is for another or not.
fn nothing(what: &str) -> Refusal {
    let detail = format!("this host has no such {what}");
    Refusal::new(StatusCode::NOT_FOUND, code::NOT_FOUND, detail)
}

/// A run of this host that is under way.
async fn running(app: &App, host: HostId, run: BackupRunId) -> Result<RunRow, Refusal> {
    let found = async {
        let mut connection = app.pool.acquire().await?;
        backup_runs::find_running(&mut connection, host, run).await
    };
    let found = found.await.map_err(unstored)?;
    found.ok_or_else(|| nothing("run under way"))
}

/// Refuses a volume that this host may not read.
async fn readable(app: &App, host: HostId, volume: VolumeId) -> Result<(), Refusal> {
    let asked = async {
        let mut connection = app.pool.acquire().await?;
        volumes::is_readable(&mut connection, host, volume, app.clock.now()).await
    };
    match asked.await {
        Ok(true) => Ok(()),
        Ok(false) => Err(nothing("volume")),
        Err(error) => Err(unstored(error)),
    }
}

/// Ids of 32 bytes that stand one after another, at most so many.
fn ids(bytes: &[u8], most: usize) -> Result<Vec<Vec<u8>>, Refusal> {
    let (ids, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(invalid("ids: the last is not of 32 bytes"));
    }
    if ids.len() > most {
        let got = ids.len();
        return Err(invalid(format!("ids: {got} is over the limit of {most}")));
    }
    Ok(ids.iter().map(|id| id.to_vec()).collect())
}

fn unstored(error: sqlx::Error) -> Refusal {
    let error = anyhow::Error::from(error);
    tracing::warn!(
        error = format!("{error:#}"),
        "a request about backups failed"
    );
    Refusal::unavailable("the database did not do it", rand::random_range(5..=15))
}

fn unkept(error: BlobError) -> Refusal {
    let error = anyhow::Error::from(error);
    tracing::warn!(error = format!("{error:#}"), "the store of objects failed");
    Refusal::unavailable(
        "the store of objects did not do it",
        rand::random_range(5..=15),
    )
}

/// What puts an object into the store, with a limit of time.
async fn stored<T>(work: impl Future<Output = Result<T, BlobError>>) -> Result<T, Refusal> {
    let done = tokio::time::timeout(STORE, work).await;
    done.map_err(|_| Refusal::unavailable("the store of objects does not answer", 30))?
        .map_err(unkept)
}

/// Work on bytes that takes milliseconds, beside those who wait for the network.
async fn apart<T: Send + 'static>(
    bytes: &Bytes,
    work: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let bytes = bytes.clone();
    let done = tokio::task::spawn_blocking(move || work(&bytes)).await;
    done.map_err(|_| Refusal::unavailable("it was not read to its end", 30))
}

fn octets(mut response: Response<AnswerBody>) -> Response<AnswerBody> {
    let octets = HeaderValue::from_static("application/octet-stream");
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, octets);
    response
}
