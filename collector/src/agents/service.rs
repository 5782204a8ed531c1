//! The routes of the agent and the enrollment listener.
//!
//! Whose request it is comes from the certificate of the connection and is checked again for each request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use infratrack_shared::ids::HostId;
use infratrack_shared::limits;
use infratrack_shared::wire::problem::code;
use infratrack_shared::wire::{self, path};
use infratrack_shared::{codec, spiffe};
use serde::Serialize;
use tokio::time::Instant;
use tracing::Span;

use crate::agents::answer::AnswerBody;
use crate::agents::enroll::{self, Enrolled};
use crate::agents::problem::Refusal;
use crate::agents::{backup, ingest, plays, renew, returning};
use crate::app::App;
use crate::http::body::{self, BodyError, MinRate};
use crate::http::{Handler, Peer};
use crate::metrics::method_name;
use crate::traces;

/// A request is answered within this, once it is there as a whole. Agents wait 30 s.
const ANSWER: Duration = Duration::from_secs(20);

/// Answers on the agent listener.
#[derive(Clone, Debug)]
pub struct Agents(pub Arc<App>);

/// Answers on the enrollment listener.
#[derive(Clone, Debug)]
pub struct Enrollment(pub Arc<App>);

impl Handler for Agents {
    type Body = AnswerBody;

    // No `async fn`: that would have room for the request twice.
    fn handle(
        &self,
        peer: Arc<Peer>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<AnswerBody>> {
        let asked = Asked::of(&request);
        let span = match asked.route {
            path::BATCH => traces::batch(asked.route),
            _ => Span::none(),
        };
        let done = self.route(peer, request);
        traces::within(
            span,
            done.map(|done| asked.answered(&self.0, "agents", done)),
        )
    }
}

/// What is counted of a request. Small: every request holds it.
struct Asked {
    route: &'static str,
    method: &'static str,
    started: Instant,
}

impl Asked {
    fn of(request: &Request<Incoming>) -> Self {
        let routes = [
            path::BATCH,
            path::PLAYS,
            path::RENEW,
            path::ENROLL,
            path::CHALLENGE,
            path::RETURN,
        ];
        let called = request.uri().path();
        let route = routes.into_iter().find(|route| *route == called);
        let route = route.or_else(|| backup::route_of(called));
        let method = match route {
            Some(path::PACKS | path::SNAPSHOTS) => method_name(request.method()),
            _ if request.method() == Method::POST => "POST",
            _ => "other",
        };
        Self {
            method,
            route: route.unwrap_or("none"),
            started: Instant::now(),
        }
    }

    fn answered(
        self,
        app: &App,
        listener: &'static str,
        done: Result<Response<AnswerBody>, Refusal>,
    ) -> Response<AnswerBody> {
        let response = done.unwrap_or_else(Refusal::into_response);
        let (status, took) = (response.status(), self.started.elapsed());
        traces::is_answered(status);
        app.metrics
            .request(listener, self.method, self.route, status, took);
        response
    }
}

impl Agents {
    async fn route(
        &self,
        peer: Arc<Peer>,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let app = &self.0;
        let host = within(host_of(app, &peer)).await?;
        traces::is_of_host(host);
        if backup::route_of(request.uri().path()).is_some() {
            // Boxed: see below.
            return Box::pin(backup::answer(app, host, request)).await;
        }
        let limit = match request.uri().path() {
            path::BATCH => limits::BATCH_WIRE_BYTES,
            path::PLAYS => limits::PLAYS_BYTES,
            path::RENEW => limits::ENROLL_BYTES,
            other => return Err(not_found(other)),
        };
        only_post(request.method())?;
        let (head, body) = request.into_parts();
        let body = read(body, limit).await?;
        if head.uri.path() == path::RENEW {
            // Boxed: a future is as large as its largest part, for every heartbeat too.
            let renewed =
                Box::pin(within(renew::renew(app, host, peer.address.ip(), &body))).await?;
            return message(StatusCode::OK, &renewed);
        }
        if head.uri.path() == path::PLAYS {
            let taken = Box::pin(within(plays::take(app, host, &head.headers, body))).await?;
            return message(StatusCode::OK, &taken);
        }
        let address = peer.address.ip().to_canonical();
        within(ingest::batch(app, host, address, &head.headers, body)).await
    }
}

impl Handler for Enrollment {
    type Body = AnswerBody;

    fn handle(
        &self,
        peer: Arc<Peer>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<AnswerBody>> {
        let asked = Asked::of(&request);
        let done = self.route(peer, request);
        done.map(|done| asked.answered(&self.0, "enroll", done))
    }
}

impl Enrollment {
    async fn route(
        &self,
        peer: Arc<Peer>,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let (head, body) = request.into_parts();
        let app = &self.0;
        let called = head.uri.path();
        if ![path::ENROLL, path::CHALLENGE, path::RETURN].contains(&called) {
            return Err(not_found(called));
        }
        only_post(&head.method)?;
        let body = read(body, limits::ENROLL_BYTES).await?;
        if called == path::CHALLENGE {
            return message(StatusCode::OK, &returning::challenge(app, &body)?);
        }
        if called == path::RETURN {
            let returned = within(returning::come_back(app, peer.address.ip(), &body)).await?;
            return message(StatusCode::OK, &returned);
        }
        match within(enroll::enroll(app, peer.address.ip(), &body)).await? {
            Enrolled::Done(response) => message(StatusCode::OK, &response),
            Enrolled::Pending(pending) => message(StatusCode::ACCEPTED, &pending),
        }
    }
}

/// What a database keeps waiting for too long is answered without it. No `async fn`: that would have room for
/// `work` twice.
pub(super) fn within<T>(
    work: impl Future<Output = Result<T, Refusal>>,
) -> impl Future<Output = Result<T, Refusal>> {
    let late = || Refusal::unavailable("the database does not answer", 10);
    tokio::time::timeout(ANSWER, work).map(move |done| done.unwrap_or_else(|_| Err(late())))
}

/// The host that the connection's certificate speaks for, as of this request.
async fn host_of(app: &App, peer: &Peer) -> Result<HostId, Refusal> {
    let unknown =
        |detail: &str| Refusal::new(StatusCode::UNAUTHORIZED, code::CERTIFICATE_UNKNOWN, detail);
    let certificate = peer
        .certificate
        .as_ref()
        .ok_or_else(|| unknown("the certificate names no host (URI SAN)"))?;
    let ca = app.ca.load();
    // The handshake asked the same, perhaps long ago.
    if !ca.accepts(certificate) {
        return Err(unknown("the CA that issued the certificate was retired"));
    }
    let named = spiffe::host_of_uri(&certificate.uri, ca.trust_domain());
    drop(ca);
    let named = named.ok_or_else(|| unknown("the certificate names no host of this fleet"))?;
    let listed = app.certificates.check(&certificate.serial).await?;
    if listed == named {
        Ok(named)
    } else {
        Err(unknown("the certificate's serial is another host's"))
    }
}

pub(super) fn only_post(method: &Method) -> Result<(), Refusal> {
    if method == Method::POST {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        code::METHOD_NOT_ALLOWED,
        "POST only",
    ))
}

pub(super) fn not_found(path: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        code::NOT_FOUND,
        format!("nothing is at {path}"),
    )
}

pub(super) async fn read(body: Incoming, limit: usize) -> Result<Bytes, Refusal> {
    let read = body::read(body, limit, MinRate::default()).await;
    read.map_err(unread)
}

/// Why a body was not read.
pub(super) fn unread(error: BodyError) -> Refusal {
    match error {
        BodyError::TooLarge { .. } => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, code::BODY_TOO_LARGE, error)
        }
        BodyError::TooSlow { .. } => {
            Refusal::new(StatusCode::REQUEST_TIMEOUT, code::BODY_TOO_SLOW, error)
        }
        BodyError::Gone(_) => Refusal::new(StatusCode::BAD_REQUEST, code::BODY_INVALID, error),
    }
}

pub(super) fn message<T: Serialize>(
    status: StatusCode,
    body: &T,
) -> Result<Response<AnswerBody>, Refusal> {
    let body = codec::encode(body).map_err(|error| Refusal::unavailable(error, 30))?;
    let mut response = Response::new(AnswerBody::whole(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(wire::CONTENT_TYPE));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_a_request_holds_is_small() {
        let handle = |agents: &'static Agents, peer, request| agents.handle(peer, request);
        // Each connection has one, and each request has it moved: 10 KiB of it took 6 % of the CPU time.
        assert!(size(handle) <= 2048, "{} bytes", size(handle));
    }
}
