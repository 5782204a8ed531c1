//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a POST that is sent again with its key is not carried out
//! again; it is given the answer of the first. Keys are kept for a day.
//!
//! A key is taken before the work and given its answer after it. The record in the audit log, written in the work's own
//! transaction, marks the key as carried out, which only the request that holds it can. So where a collector ends in
//! between, the next request takes the key over if nothing was done, and is told if something was.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::api::input::MAX_BODY_BYTES;
use crate::api::problem::Problem;
use crate::api::requests;
use crate::app::App;
use crate::store::idempotency_keys::{self, Claim, Cutoffs, KeptAnswer, KeyRow};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// A key at most.
const KEY_BYTES: usize = 255;
/// A longer answer is not kept.
const ANSWER_BYTES: usize = 1024 * 1024;
/// How long a key is remembered.
const KEPT: Duration = Duration::DAY;

/// Marks an answer with a secret in it: it is shown once, and not kept.
#[derive(Clone, Copy, Debug)]
pub struct Secret;

/// A collector that was not alive for so long has ended; one that wakes up later cannot commit any more.
const ENDED: Duration = Duration::seconds(10);
/// A request that takes longer may lose its key to the next.
const UNDER_WAY: Duration = Duration::seconds(60);

tokio::task_local! {
    static CLAIM: Arc<Claim>;
}

/// The key that the request of this task holds, for the actor of what it changes.
pub fn current_claim() -> Option<Arc<Claim>> {
    CLAIM.try_with(Clone::clone).ok()
}

fn cutoffs(now: OffsetDateTime) -> Cutoffs {
    Cutoffs {
        alive_at: now - ENDED,
        taken_at: now - UNDER_WAY,
    }
}

/// Has a request carried out by `work`, or not again.
pub async fn once<W, F>(
    app: &Arc<App>,
    credential: String,
    request: Request,
    work: W,
) -> Result<Response, Problem>
where
    W: FnOnce(Request) -> F,
    F: Future<Output = Response> + Send + 'static,
{
    let Some(key_hash) = key(request.headers())? else {
        return Ok(work(request).await);
    };
    let id = Uuid::new_v4();
    let claim = Claim {
        credential,
        key_hash,
        id,
    };
    let (request, fingerprint) = fingerprinted(request).await?;
    let mut connection = app.pool.acquire().await?;
    let now = app.clock.now();
    if idempotency_keys::insert(&mut connection, &claim, &fingerprint, app.id, now).await? == 0 {
        let row = idempotency_keys::find(&mut connection, &claim, cutoffs(now)).await?;
        let is_free = row.as_ref().is_some_and(|row| {
            row.fingerprint == fingerprint && row.status.is_none() && !row.carried_out
        });
        let taken = if is_free {
            let cutoffs = cutoffs(now);
            idempotency_keys::update_claim(&mut connection, &claim, app.id, now, cutoffs).await?
        } else {
            0
        };
        if taken == 0 {
            return replay(row, &fingerprint);
        }
    }
    drop(connection);
    let (app, claim) = (Arc::clone(app), Arc::new(claim));
    let work = CLAIM.scope(Arc::clone(&claim), work(request));
    // To its end, even where the client goes away: half of it would be a key that nobody can explain.
    let done = tokio::spawn(requests::under_this_id(async move {
        keep(&app, &claim, work.await).await
    }));
    done.await
        .unwrap_or_else(|_| Err(Problem::unavailable("the request ended early")))
}

fn key(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Problem> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    if key.is_empty() || key.len() > KEY_BYTES || keys.next().is_some() {
        let detail =
            format!("Idempotency-Key has to stand there once, with 1 to {KEY_BYTES} bytes");
        return Err(Problem::invalid(detail));
    }
    Ok(Some(Sha256::digest(key.as_bytes()).into()))
}

/// The request, and what tells it from another with the same key.
async fn fingerprinted(request: Request) -> Result<(Request, [u8; 32]), Problem> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY_BYTES).await;
    let body = body.map_err(|_| {
        let detail = format!("a body with an Idempotency-Key may have {MAX_BODY_BYTES} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    })?;
    let uri = head.uri.to_string();
    let fingerprint = Sha256::new()
        .chain_update(head.method.as_str())
        .chain_update(b"\n")
        .chain_update(&uri)
        .chain_update(b"\n")
        .chain_update(&body)
        .finalize();
    Ok((
        Request::from_parts(head, Body::from(body)),
        fingerprint.into(),
    ))
}

/// The answer of the first request.
fn replay(row: Option<KeyRow>, fingerprint: &[u8]) -> Result<Response, Problem> {
    // It was given back between two looks.
    let Some(row) = row else {
        return Err(Problem::unavailable("send the request once more"));
    };
    if row.fingerprint != fingerprint {
        let detail = "this Idempotency-Key was used with another request";
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(Problem::new(status, "idempotency_key_reused", detail));
    }
    let status = row.status.and_then(|status| u16::try_from(status).ok());
    let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) else {
        if row.carried_out && row.is_left {
            let detail = "this was carried out, and its answer was lost: look for what came of it";
            return Err(Problem::conflict("idempotency_answer_lost", detail));
        }
        let detail =
            "a request with this Idempotency-Key is under way: send it again in some seconds";
        return Err(Problem::conflict("idempotency_under_way", detail));
    };
    let Some(body) = row.body else {
        let detail = "this was carried out; its answer had a secret, which is shown once";
        return Err(Problem::conflict("idempotency_secret", detail));
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    for (name, value) in [(CONTENT_TYPE, row.content_type), (ETAG, row.etag)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// Keeps an answer, or gives the key back where nothing was done.
async fn keep(app: &App, claim: &Claim, response: Response) -> Result<Response, Problem> {
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, ANSWER_BYTES)
        .await
        .unwrap_or_else(|_| Bytes::new());
    let mut connection = app.pool.acquire().await?;
    // A refusal did nothing, and may be another one the next time; so may a failure that changed nothing.
    if head.status.is_success() {
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let is_secret = head.extensions.get::<Secret>().is_some();
        let answer = KeptAnswer {
            status: i32::from(head.status.as_u16()),
            content_type: text(CONTENT_TYPE),
            etag: text(ETAG),
            body: (!is_secret).then_some(&body),
        };
        idempotency_keys::update(&mut connection, claim, &answer).await?;
    } else {
        idempotency_keys::delete(&mut connection, claim).await?;
    }
    Ok(Response::from_parts(head, Body::from(body)))
}

/// Forgets keys that are over a day old.
pub async fn sweep(connection: &mut PgConnection, now: OffsetDateTime) -> sqlx::Result<()> {
    idempotency_keys::delete_before(connection, now - KEPT).await?;
    Ok(())
}
