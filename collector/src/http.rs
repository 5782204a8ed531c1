//! The one accept loop under all three listeners: sockets, PROXY protocol, TLS, limits, drain.
//!
//! Everything a stranger can make us hold is bounded here: connections in all, handshakes at once, pending
//! ones per address, and the time of each step. What a request may cost is bounded by its handler, through
//! [`body::read`].

pub mod body;
pub mod drain;
mod pending;
mod proxy;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::ca::Presented;
use drain::Drain;
use pending::PendingByAddress;
pub(crate) use pending::network;

/// hyper's buffer for a request head; agents' and browsers' heads fit with room.
const HEAD_BYTES: usize = 16 * 1024;
/// How long a client's part of a handshake may take before its turn goes to the next one: some round trips.
const TURN: Duration = Duration::from_millis(250);
/// Pause after an error of `accept` that will not pass by itself at once (EMFILE, ENFILE, ENOMEM).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections, handshakes included.
    pub connections: usize,
    /// TLS handshakes that are worked on.
    pub handshakes: usize,
    /// Connections of one address that have not finished their handshake.
    pub pending_per_address: usize,
    /// PROXY header and TLS handshake together.
    pub handshake: Duration,
    /// From the handshake to the first request's head.
    pub first_head: Duration,
    /// Between requests, and for the head of a later one.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            handshakes: 64,
            pending_per_address: 32,
            handshake: Duration::from_secs(10),
            first_head: Duration::from_secs(10),
            idle: Duration::from_secs(90),
        }
    }
}

/// One listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// For the log.
    pub name: &'static str,
    /// `None`: plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Peers that must begin with a PROXY protocol v2 header; from others it is refused.
    pub proxy_from: Vec<IpNet>,
    pub limits: Limits,
    pub stats: Arc<Stats>,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address that a trusted proxy named, else the socket's.
    pub address: SocketAddr,
    /// Of the leaf certificate that the handshake verified.
    pub certificate: Option<Presented>,
    /// Whether the handshake verified one, of whatever form.
    pub has_certificate: bool,
}

/// What happened at a listener since it started.
#[derive(Debug, Default)]
pub struct Stats {
    pub accepted: AtomicU64,
    pub open: AtomicU64,
    pub refused_full: AtomicU64,
    pub refused_pending: AtomicU64,
    pub failed_handshakes: AtomicU64,
    pub accept_errors: AtomicU64,
}

/// Answers requests of one connection.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Where its body fails, the connection ends, so that nobody takes a part for the whole.
    type Body: http_body::Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static;

    /// Answers one request.
    fn handle(
        &self,
        peer: Arc<Peer>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Accepts until the drain begins, then returns; connections end by themselves, see [`drain`].
pub async fn serve<H: Handler>(socket: TcpListener, listener: Listener, handler: H, drain: Drain) {
    let connections = Arc::new(Semaphore::new(listener.limits.connections));
    let handshakes = Arc::new(Semaphore::new(listener.limits.handshakes));
    let pending = PendingByAddress::new(listener.limits.pending_per_address);
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = drain.begun() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                listener.stats.accept_errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, listener = listener.name, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        listener.stats.accepted.fetch_add(1, Ordering::Relaxed);
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            listener.stats.refused_full.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let connection = Connection {
            listener: listener.clone(),
            handler: handler.clone(),
            handshakes: Arc::clone(&handshakes),
            pending: pending.clone(),
            drain: drain.clone(),
        };
        let guard = drain.enter();
        tokio::spawn(async move {
            let stats = Arc::clone(&connection.listener.stats);
            stats.open.fetch_add(1, Ordering::Relaxed);
            connection.run(stream, address).await;
            stats.open.fetch_sub(1, Ordering::Relaxed);
            drop((permit, guard));
        });
    }
}

struct Connection<H> {
    listener: Listener,
    handler: H,
    handshakes: Arc<Semaphore>,
    pending: PendingByAddress,
    drain: Drain,
}

impl<H: Handler> Connection<H> {
    async fn run(self, mut stream: TcpStream, socket: SocketAddr) {
        if let Err(error) = tune(&stream) {
            tracing::debug!(%error, "cannot set socket options");
        }
        let limits = self.listener.limits;
        let deadline = tokio::time::Instant::now() + limits.handshake;
        let from_proxy = trusted(&self.listener.proxy_from, socket.ip());
        let address = if from_proxy {
            match tokio::time::timeout_at(deadline, proxy::read_header(&mut stream)).await {
                Ok(Ok(address)) => address.unwrap_or(socket),
                Ok(Err(_)) | Err(_) => return self.handshake_failed(),
            }
        } else {
            socket
        };
        let Some(pending) = self.pending.enter(address.ip()) else {
            self.listener
                .stats
                .refused_pending
                .fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Some(tls) = self.listener.tls.clone() else {
            drop(pending);
            return self
                .requests(
                    stream,
                    Peer {
                        address,
                        certificate: None,
                        has_certificate: false,
                    },
                )
                .await;
        };
        let handshake = self.handshake(tls, stream);
        let Ok(Some(stream)) = tokio::time::timeout_at(deadline, handshake).await else {
            return self.handshake_failed();
        };
        drop(pending);
        let verified = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first);
        let has_certificate = verified.is_some();
        let certificate = verified.and_then(Presented::read);
        self.requests(
            stream,
            Peer {
                address,
                certificate,
                has_certificate,
            },
        )
        .await;
    }

    /// A turn is for what costs us: it is taken when the client has said its first words, and given back by
    /// a client that is slow with its last. So none waits for one that dribbles.
    async fn handshake(
        &self,
        tls: Arc<ServerConfig>,
        stream: TcpStream,
    ) -> Option<TlsStream<TcpStream>> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream)
            .await
            .ok()?;
        let turn = self.handshakes.acquire().await.ok()?;
        let mut rest = std::pin::pin!(hello.into_stream(tls));
        if let Ok(done) = tokio::time::timeout(TURN, rest.as_mut()).await {
            return done.ok();
        }
        drop(turn);
        rest.await.ok()
    }

    async fn requests(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send, peer: Peer) {
        let limits = self.listener.limits;
        let peer = Arc::new(peer);
        let first = Arc::new(tokio::sync::Notify::new());
        let seen = Arc::clone(&first);
        let handler = self.handler;
        let service = hyper::service::service_fn(move |request| {
            seen.notify_one();
            let (handler, peer) = (handler.clone(), Arc::clone(&peer));
            async move { Ok::<_, std::convert::Infallible>(handler.handle(peer, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Also the idle time between requests.
            .header_read_timeout(limits.idle)
            .max_buf_size(HEAD_BYTES)
            .pipeline_flush(false)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut waiting = true;
        let mut draining = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, listener = self.listener.name, "connection ended");
                    }
                    return;
                }
                () = first.notified(), if waiting => waiting = false,
                () = tokio::time::sleep(limits.first_head), if waiting => return,
                () = self.drain.begun(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.drain.over() => return,
            }
        }
    }

    fn handshake_failed(&self) {
        self.listener
            .stats
            .failed_handshakes
            .fetch_add(1, Ordering::Relaxed);
    }
}

fn trusted(networks: &[IpNet], address: IpAddr) -> bool {
    networks
        .iter()
        .any(|network| network.contains(&address.to_canonical()))
}

/// Writes leave at once; a peer that is gone is noticed within 30 s, whether we write or not.
fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))
}
