//! `POST /agent/v1/batch`: body to batch to queue to answer.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Response, StatusCode};
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::compress::{self, DecompressError};
use infratrack_shared::ids::{HostId, InstanceId, StreamId};
use infratrack_shared::limits;
use infratrack_shared::wire::answer::{Ack, Frame};
use infratrack_shared::wire::batch::{Batch, StatePart};
use infratrack_shared::wire::problem::code;
use infratrack_shared::wire::{FRAMES_CONTENT_TYPE, frame};
use tokio::sync::oneshot;

use crate::agents::answer::AnswerBody;
use crate::agents::problem::Refusal;
use crate::agents::writer::{Outcome, Report};
use crate::agents::{arrival, check, commands, lane};
use crate::app::App;
use crate::failpoint::reach;
use crate::store;

/// How long an answer that is not held waits for what is stored late: an agent does nothing else meanwhile. What comes after
/// it is acknowledged when it is sent again.
const LATE: Duration = Duration::from_secs(2);

/// Stores one batch and answers it. `body` is within [`limits::BATCH_WIRE_BYTES`].
pub async fn batch(
    app: &Arc<App>,
    host: HostId,
    address: IpAddr,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<AnswerBody>, Refusal> {
    if let Err(wait) = app.rates.take(host) {
        let most = app.config.ingest.host_batches_per_second;
        return Err(too_many(format!("more than {most} batches a second"), wait));
    }
    let (mut batch, size) = decode(headers, &body)?;
    // It is a part of the connection's buffer, which is wanted back.
    drop(body);
    reach("ingest::decoded");
    let (wait_ms, policy_version) = (batch.wait_ms.min(limits::WAIT_MS), batch.policy_version);
    let received_at = app.clock.now();
    let skew_ms = arrival::skew_ms(batch.sent_at, store::unix_millis(received_at));
    let large = Large::take(&mut batch);
    let report = Report {
        host,
        address,
        batch,
        received_at,
        skew_ms,
    };
    // From here on the writer has it, even if the agent goes away.
    let outcome = app
        .writers
        .write(report, size)
        .await
        .map_err(|_| unavailable(app, "the queue is full"))?;
    match outcome {
        Outcome::Stored { host, ack } => {
            let late = large.and_then(|large| large.submit(app, host, size));
            answer(app, host, ack, late, policy_version, wait_ms).await
        }
        Outcome::Forked => Err(Refusal::new(
            StatusCode::CONFLICT,
            code::STREAM_FORKED,
            "another copy of this host has used the stream; go on in a new one",
        )),
        Outcome::SetApart => Err(Refusal::new(
            StatusCode::CONFLICT,
            code::CLONE_SET_APART,
            "another machine reports as this host and keeps the stream; go on in a new one",
        )),
        Outcome::Blocked => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            code::CLONE_BLOCKED,
            "another machine reports as this host, and an operator has dropped this one",
        )),
        Outcome::InFlight => Err(Refusal::unavailable(
            "another process of this host was stored meanwhile; send it again",
            1,
        )),
        Outcome::Unavailable => Err(unavailable(app, "the batch could not be committed")),
        Outcome::Refused(reason) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            code::BODY_INVALID,
            reason,
        )),
    }
}

/// What of a batch goes through the lane, with what it is known by.
struct Large {
    stream: StreamId,
    instance: InstanceId,
    parts: Vec<StatePart>,
}

impl Large {
    /// Takes it out of the batch; boxed, because few batches have any.
    fn take(batch: &mut Batch) -> Option<Box<Self>> {
        if !batch.state.iter().any(lane::is_for_lane) {
            return None;
        }
        let all = std::mem::take(&mut batch.state).into_iter();
        let (parts, state) = all.partition(lane::is_for_lane);
        batch.state = state;
        Some(Box::new(Self {
            stream: batch.stream,
            instance: batch.instance,
            parts,
        }))
    }

    fn submit(self, app: &App, host: HostId, size: usize) -> Option<oneshot::Receiver<Ack>> {
        let parts = lane::Parts {
            host,
            stream: self.stream,
            instance: self.instance,
            parts: self.parts,
        };
        app.lane.submit(parts, size)
    }
}

/// A body as it was before it was compressed.
pub(super) fn unpacked<'a>(
    headers: &HeaderMap,
    body: &'a [u8],
    limit: usize,
) -> Result<Cow<'a, [u8]>, Refusal> {
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(Cow::Borrowed(body)),
        Some(encoding) if encoding == compress::ENCODING.as_bytes() => {
            let whole = compress::decompress(body, limit);
            Ok(Cow::Owned(whole.map_err(|error| match error {
                DecompressError::TooLarge { .. } => {
                    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, code::BODY_TOO_LARGE, error)
                }
                DecompressError::Invalid(_) => invalid(error),
            })?))
        }
        Some(_) => {
            let detail = "Content-Encoding may be zstd or absent";
            Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                code::UNSUPPORTED_MEDIA,
                detail,
            ))
        }
    }
}

/// 400 of a body.
pub(super) fn invalid(detail: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, code::BODY_INVALID, detail)
}

/// 429, and when there is a token again.
pub(super) fn too_many(detail: impl std::fmt::Display, wait: Duration) -> Refusal {
    let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, code::RATE_LIMITED, detail);
    Refusal {
        retry_after_s: Some(wait.as_secs() + 1),
        ..refusal
    }
}

/// A batch within every limit, and its decoded size in bytes.
fn decode(headers: &HeaderMap, body: &[u8]) -> Result<(Box<Batch>, usize), Refusal> {
    let whole = unpacked(headers, body, limits::BATCH_BYTES)?;
    let batch: Box<Batch> = codec::decode(&whole, &Limits::default()).map_err(|error| {
        let causes = anyhow::Error::from(error);
        invalid(format!("{causes:#}"))
    })?;
    check::check(&batch).map_err(|error| {
        let protocol = matches!(error, check::Invalid::Protocol { .. });
        let code = if protocol {
            code::PROTOCOL_UNSUPPORTED
        } else {
            code::BODY_INVALID
        };
        Refusal::new(StatusCode::BAD_REQUEST, code, error)
    })?;
    Ok((batch, whole.len()))
}

/// The Ack, a newer policy, commands that wait; then, if the agent can wait, whatever comes up.
async fn answer(
    app: &Arc<App>,
    host: HostId,
    ack: Ack,
    late: Option<oneshot::Receiver<Ack>>,
    policy_version: u64,
    wait_ms: u32,
) -> Result<Response<AnswerBody>, Refusal> {
    // Registered before the commands are read, so that none falls between.
    let held = (wait_ms > 0).then(|| app.answers.hold(host));
    let mut frames =
        frame::encode(&Frame::from(ack)).map_err(|error| Refusal::unavailable(error, 30))?;
    let newer = {
        let policy = app.policy.borrow();
        (policy.version > policy_version).then(|| policy.clone())
    };
    if let Some(policy) = newer {
        frames.extend(frame::encode(&Frame::from(policy)).unwrap_or_default());
    }
    if app.answers.has_waiting(host) {
        match Box::pin(commands::open_frames(&app.pool, &app.clock, host)).await {
            Ok(open) => open
                .iter()
                .for_each(|frame| frames.extend_from_slice(frame)),
            // The Ack is what matters; the commands stay open.
            Err(error) => tracing::warn!(%error, "cannot read a host's commands"),
        }
    }
    let first = Bytes::from(frames);
    let body = if held.is_none() && late.is_none() {
        AnswerBody::whole(first)
    } else {
        let wait = Duration::from_millis(u64::from(wait_ms));
        let wait = if held.is_some() { wait } else { LATE };
        AnswerBody::open(first, held, late, wait)
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(FRAMES_CONTENT_TYPE));
    Ok(response)
}

/// 503, and when to come back: the fuller the queues, the later.
fn unavailable(app: &App, detail: &str) -> Refusal {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 30"
    )]
    let most = (app.writers.load() * 30.0) as u64;
    Refusal::unavailable(detail, rand::random_range(5..=5.max(most)))
}
