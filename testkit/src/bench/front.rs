//! What a request costs without a product behind it: hyper and rustls, bare, with the collector's own TLS settings.
//!
//! It decodes the batch and answers as the collector does, and stores nothing. Its CPU time per request is the
//! F of the composed limit. A process of its own, so that its time can be told from the generator's.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use infratrack_collector::agents::tls::{self, FleetTls};
use infratrack_collector::ca::Ca;
use infratrack_collector::clock::Clock;
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::wire::answer::{Ack, Frame};
use infratrack_shared::wire::batch::Batch;
use infratrack_shared::wire::{FRAMES_CONTENT_TYPE, frame};
use infratrack_shared::{compress, limits};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Serves until it is killed; `ready` is told the address.
pub async fn serve(ca_dir: &Path, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    let clock = Clock::system();
    let fleet = FleetTls::of(&Ca::open(ca_dir)?, clock.now())?;
    let acceptor = TlsAcceptor::from(Arc::new(tls::mutual(fleet, clock.clone())?));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ready(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, clock) = (acceptor.clone(), clock.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = hyper::service::service_fn(move |request| {
                let clock = clock.clone();
                async move { Ok::<_, Infallible>(respond(request, &clock).await) }
            });
            let connection = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(connection);
        });
    }
}

async fn respond(request: Request<Incoming>, clock: &Clock) -> Response<Full<Bytes>> {
    let (status, body) = match answer(request, clock).await {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}").into()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(FRAMES_CONTENT_TYPE));
    response
}

/// The Ack of a batch that is valid.
async fn answer(request: Request<Incoming>, clock: &Clock) -> anyhow::Result<Bytes> {
    let is_compressed = request.headers().contains_key(CONTENT_ENCODING);
    let body = request.into_body().collect().await?.to_bytes();
    let batch: Batch = if is_compressed {
        let whole = compress::decompress(&body, limits::BATCH_BYTES)?;
        codec::decode(&whole, &Limits::default())?
    } else {
        codec::decode(&body, &Limits::default())?
    };
    anyhow::ensure!(batch.heartbeat.is_some(), "a batch without a heartbeat");
    let ack = Ack {
        server_time: clock.unix_millis(),
        ..Ack::default()
    };
    Ok(frame::encode(&Frame::from(ack))?.into())
}
