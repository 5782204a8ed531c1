//! One keep-alive HTTP/1.1 connection to a collector: requests up, answers down as frames.
//!
//! Every step has a time limit. An error after the request left means "outcome unknown": the resend finds
//! out. An answer that is dropped before its end closes the connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, RANGE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use infratrack_shared::codec::{self, Limits};
use infratrack_shared::wire::CONTENT_TYPE as MSGPACK;
use infratrack_shared::wire::answer::Frame;
use infratrack_shared::wire::frame::FrameReader;
use infratrack_shared::wire::problem::{Problem, code};
use infratrack_shared::{compress, limits};
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

mod pieces;

pub use self::pieces::Pieces;

/// Name look-up and TCP connect.
const CONNECT: Duration = Duration::from_secs(10);
/// TLS and HTTP handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From the request to the head of its answer: a collector answers after COMMIT, which may wait its turn.
const HEAD: Duration = Duration::from_secs(30);
/// From the last byte of a pack to the answer: the collector writes it to S3 and to its tables.
const STORED: Duration = Duration::from_secs(120);
/// For a connection that has ended to say why.
const SETTLE: Duration = Duration::from_millis(200);
/// For the rest of an answer beyond the time it may be held.
const SLACK: Duration = Duration::from_secs(15);

/// Why a request has no answer, or not the one hoped for.
#[derive(Debug, Error)]
pub enum UplinkError {
    #[error("cannot connect to {endpoint}")]
    Connect {
        endpoint: String,
        source: std::io::Error,
    },
    #[error("{endpoint} did not {step} within {limit:?}")]
    Slow {
        endpoint: String,
        step: &'static str,
        limit: Duration,
    },
    /// The TLS handshake failed: not our collector, or we are not its host.
    #[error("the TLS handshake with {endpoint} failed")]
    Tls {
        endpoint: String,
        source: std::io::Error,
    },
    /// Whether the request was carried out is not known.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    #[error("the collector answered {status} {}", problem.code)]
    Refused {
        status: StatusCode,
        problem: Problem,
        retry_after: Option<Duration>,
    },
    #[error("the collector's answer is not understood")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer ended before it was acknowledged")]
    Unacknowledged,
    #[error("the request cannot be encoded")]
    Encode(#[from] codec::EncodeError),
}

impl UplinkError {
    /// Whether the collector said that our certificate has expired: in its answer, or in the handshake.
    pub fn is_expired(&self) -> bool {
        if let Self::Refused { problem, .. } = self {
            return problem.code == code::CERTIFICATE_EXPIRED;
        }
        let first: &(dyn std::error::Error + 'static) = self;
        let mut causes = std::iter::successors(Some(first), |error| error.source());
        causes.any(|cause| {
            // An `io::Error` says what it wraps by `get_ref` alone.
            let wrapped = cause.downcast_ref::<std::io::Error>();
            let alert = wrapped.and_then(|error| error.get_ref()?.downcast_ref());
            matches!(
                alert,
                Some(rustls::Error::AlertReceived(
                    AlertDescription::CertificateExpired
                ))
            )
        })
    }
}

/// Where to and as whom.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    pub name: ServerName<'static>,
    pub tls: Arc<ClientConfig>,
}

/// One open connection.
#[derive(Debug)]
pub struct Connection {
    endpoint: String,
    sender: SendRequest<Either<Full<Bytes>, Pieces>>,
    /// Why the connection ended by itself; a refused certificate shows here before any request is sent.
    ended: oneshot::Receiver<hyper::Error>,
}

/// An answer whose body may be held open.
#[derive(Debug)]
pub struct Answer {
    endpoint: String,
    body: Incoming,
    reader: FrameReader,
    limit: Duration,
    deadline: Instant,
}

impl Connection {
    /// Connects and shakes hands.
    pub async fn open(endpoint: &Endpoint) -> Result<Self, UplinkError> {
        let address = endpoint.address.clone();
        let slow = |step, limit| UplinkError::Slow {
            endpoint: address.clone(),
            step,
            limit,
        };
        let stream = timeout(CONNECT, TcpStream::connect(&address))
            .await
            .map_err(|_| slow("take the connection", CONNECT))?
            .map_err(|source| UplinkError::Connect {
                endpoint: address.clone(),
                source,
            })?;
        if let Err(error) = tune(&stream) {
            tracing::debug!(%error, "cannot set socket options");
        }
        let connector = TlsConnector::from(Arc::clone(&endpoint.tls));
        let stream = timeout(HANDSHAKE, connector.connect(endpoint.name.clone(), stream))
            .await
            .map_err(|_| slow("finish the TLS handshake", HANDSHAKE))?
            .map_err(|source| UplinkError::Tls {
                endpoint: address.clone(),
                source,
            })?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(16 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(UplinkError::Broken)?;
        let (end, ended) = oneshot::channel();
        // Ends when the sender is dropped or the peer is gone.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                end.send(error).ok();
            }
        });
        Ok(Self {
            endpoint: address,
            sender,
            ended,
        })
    }

    /// Whether nobody hung up yet.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request that is answered with frames, the body held for at most `wait`.
    pub async fn stream<T: Serialize>(
        &mut self,
        path: &'static str,
        body: &T,
        wait: Duration,
    ) -> Result<Answer, UplinkError> {
        let response = self.send(path, body, true).await?;
        let limit = wait + SLACK;
        Ok(Answer {
            endpoint: self.endpoint.clone(),
            body: response.into_body(),
            reader: FrameReader::default(),
            limit,
            deadline: Instant::now() + limit,
        })
    }

    /// Sends a request that is answered with one document, and says with which status.
    pub async fn call<T: Serialize, R: DeserializeOwned>(
        &mut self,
        path: &'static str,
        body: &T,
    ) -> Result<(StatusCode, R), UplinkError> {
        self.answered(path, body, false).await
    }

    /// Likewise a request that may be compressed.
    pub async fn call_packed<T: Serialize, R: DeserializeOwned>(
        &mut self,
        path: &'static str,
        body: &T,
    ) -> Result<(StatusCode, R), UplinkError> {
        self.answered(path, body, true).await
    }

    async fn answered<T: Serialize, R: DeserializeOwned>(
        &mut self,
        path: &'static str,
        body: &T,
        may_compress: bool,
    ) -> Result<(StatusCode, R), UplinkError> {
        let response = self.send(path, body, may_compress).await?;
        let status = response.status();
        let body = self.collect(response.into_body()).await?;
        let answer = codec::decode(&body, &Limits::bytes(limits::FRAME_BYTES))
            .map_err(|error| UplinkError::Answer(error.into()))?;
        Ok((status, answer))
    }

    async fn send<T: Serialize>(
        &mut self,
        path: &'static str,
        body: &T,
        may_compress: bool,
    ) -> Result<Response<Incoming>, UplinkError> {
        let body = codec::encode(body)?;
        let mut request = self.request(Method::POST, http::Uri::from_static(path));
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MSGPACK));
        let compressed = may_compress.then(|| compress::compress(&body)).flatten();
        let body = match compressed {
            Some(compressed) => {
                headers.insert(
                    CONTENT_ENCODING,
                    HeaderValue::from_static(compress::ENCODING),
                );
                compressed
            }
            None => body,
        };
        *request.body_mut() = Either::Left(Full::new(Bytes::from(body)));
        self.exchange(request).await
    }

    /// Sends bytes in pieces that `feed` gives as fast as they may leave. How long they may take is for `feed` to say. A conflict
    /// is an answer too.
    pub async fn put<F: Future<Output = ()>>(
        &mut self,
        path: &str,
        length: u64,
        feed: impl FnOnce(mpsc::Sender<Bytes>) -> F,
    ) -> Result<(StatusCode, Bytes), UplinkError> {
        let mut request = self.request(Method::PUT, uri(path)?);
        let (pieces, body) = Pieces::new(length);
        *request.body_mut() = Either::Right(body);
        let ready = timeout(HEAD, self.sender.ready()).await;
        let ready = ready.map_err(|_| self.slow("take a request", HEAD))?;
        if let Err(error) = ready {
            return Err(UplinkError::Broken(self.why(error).await));
        }
        let mut answered = pin!(self.sender.send_request(request));
        let answered = tokio::select! {
            // It may have heard enough before the end.
            answered = &mut answered => Ok(answered),
            () = feed(pieces) => timeout(STORED, answered).await,
        };
        let response = match answered.map_err(|_| self.slow("store what it was sent", STORED))? {
            Ok(response) => response,
            Err(error) => return Err(UplinkError::Broken(self.why(error).await)),
        };
        let status = response.status();
        if !status.is_success() && status != StatusCode::CONFLICT {
            return Err(self.refused(response).await?);
        }
        Ok((status, self.collect(response.into_body()).await?))
    }

    /// Fetches bytes, at most `limit` of them: all, or those of a range with both ends in it.
    pub async fn get(
        &mut self,
        path: &str,
        range: Option<(u64, u64)>,
        limit: usize,
    ) -> Result<Bytes, UplinkError> {
        let mut request = self.request(Method::GET, uri(path)?);
        if let Some((first, last)) = range {
            let range = HeaderValue::from_str(&format!("bytes={first}-{last}"))
                .map_err(|error| UplinkError::Answer(error.into()))?;
            request.headers_mut().insert(RANGE, range);
        }
        let response = self.exchange(request).await?;
        if range.is_some() && response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(UplinkError::Answer("it is not the range".into()));
        }
        self.fetch(response.into_body(), limit).await
    }

    fn request(&self, method: Method, uri: http::Uri) -> Request<Either<Full<Bytes>, Pieces>> {
        let mut request = Request::new(Either::Left(Full::default()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        if let Ok(host) = HeaderValue::from_str(&self.endpoint) {
            request.headers_mut().insert(HOST, host);
        }
        request
    }

    async fn exchange(
        &mut self,
        request: Request<Either<Full<Bytes>, Pieces>>,
    ) -> Result<Response<Incoming>, UplinkError> {
        let answered = async {
            // The last answer's end may still be on its way through.
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let answered = timeout(HEAD, answered).await;
        let response = match answered.map_err(|_| self.slow("answer", HEAD))? {
            Ok(response) => response,
            Err(error) => return Err(UplinkError::Broken(self.why(error).await)),
        };
        self.succeeded(response).await
    }

    async fn succeeded(
        &self,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, UplinkError> {
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refused(response).await?)
    }

    /// A large body: each part of it in time, not the whole.
    async fn fetch(&self, body: Incoming, limit: usize) -> Result<Bytes, UplinkError> {
        let mut body = Limited::new(body, limit);
        let said = usize::try_from(body.size_hint().lower()).unwrap_or(limit);
        let mut bytes = BytesMut::with_capacity(said.min(limit));
        loop {
            let frame = timeout(SLACK, body.frame()).await;
            match frame.map_err(|_| self.slow("go on with its answer", SLACK))? {
                Some(frame) => {
                    let frame = frame.map_err(UplinkError::Answer)?;
                    if let Some(data) = frame.data_ref() {
                        bytes.extend_from_slice(data);
                    }
                }
                None => return Ok(bytes.freeze()),
            }
        }
    }

    /// What ended the connection, where `error` says only that it has ended.
    async fn why(&mut self, error: hyper::Error) -> hyper::Error {
        if !error.is_closed() && !error.is_canceled() {
            return error;
        }
        // Its task is at its end, or there.
        match timeout(SETTLE, &mut self.ended).await {
            Ok(Ok(cause)) => cause,
            _ => error,
        }
    }

    /// The refusal in a response. Its body may be anything: it is a hint, the status decides.
    async fn refused(&self, response: Response<Incoming>) -> Result<UplinkError, UplinkError> {
        let status = response.status();
        let seconds = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let body = self.collect(response.into_body()).await?;
        let problem = codec::decode(&body, &Limits::bytes(limits::FRAME_BYTES)).unwrap_or_default();
        Ok(UplinkError::Refused {
            status,
            problem,
            retry_after: seconds.map(Duration::from_secs),
        })
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, UplinkError> {
        let body = timeout(SLACK, Limited::new(body, limits::FRAME_BYTES).collect())
            .await
            .map_err(|_| self.slow("finish its answer", SLACK))?;
        Ok(body.map_err(UplinkError::Answer)?.to_bytes())
    }

    fn slow(&self, step: &'static str, limit: Duration) -> UplinkError {
        UplinkError::Slow {
            endpoint: self.endpoint.clone(),
            step,
            limit,
        }
    }
}

impl Answer {
    /// The next frame; `None` at the answer's end. Cancel safe.
    pub async fn next_frame(&mut self) -> Result<Option<Frame>, UplinkError> {
        loop {
            let frame = self
                .reader
                .next_frame()
                .map_err(|error| UplinkError::Answer(error.into()))?;
            if frame.is_some() {
                return Ok(frame);
            }
            let data = timeout_at(self.deadline, self.body.frame()).await;
            let data = data.map_err(|_| UplinkError::Slow {
                endpoint: self.endpoint.clone(),
                step: "end its answer",
                limit: self.limit,
            })?;
            match data {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.reader.push(data);
                    }
                }
                Some(Err(error)) => return Err(UplinkError::Broken(error)),
                None => return Ok(None),
            }
        }
    }
}

fn uri(path: &str) -> Result<http::Uri, UplinkError> {
    path.parse()
        .map_err(|error: http::uri::InvalidUri| UplinkError::Answer(error.into()))
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
