//! GET over HTTP/1.1, one connection kept open: every step has a time limit, every answer a length.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{HOST, RANGE, RETRY_AFTER};
use http::{HeaderMap, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::times::Times;
use crate::backup::restore::lanes::Trouble;

/// Name look-up, TCP and TLS.
const CONNECT: Duration = Duration::from_secs(20);
/// To the head of an answer.
const HEAD: Duration = Duration::from_secs(60);
/// From one part of an answer to the next.
const PART: Duration = Duration::from_secs(30);
/// Names of this host that a bucket's may be.
const LOCAL_NAMES: &str = ".localhost";
/// In answers of AWS, where the bucket is.
const REGION: &str = "x-amz-bucket-region";
/// What is read of a refusal.
const REFUSAL_BYTES: usize = 64 * 1024;

/// What is asked for. The URL is signed, and nobody else's.
pub(super) struct Request {
    pub(super) url: Zeroizing<String>,
    pub(super) range: Option<Range<u64>>,
    /// The longest answer.
    pub(super) limit: usize,
}

/// Asks one server after another's end.
pub(super) struct Client {
    tls: Arc<ClientConfig>,
    times: Arc<Times>,
    open: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    pub(super) fn new(tls: Arc<ClientConfig>, times: Arc<Times>) -> Self {
        let open = None;
        Self { tls, times, open }
    }

    /// The body of the answer: of a range all of it.
    pub(super) async fn get(&mut self, request: &Request) -> Result<Vec<u8>, Trouble> {
        let uri: Uri = request
            .url
            .parse()
            .map_err(|error| Trouble::Never(io::Error::other(error)))?;
        let open = self.open.take().filter(|open| !open.is_closed());
        let mut sender = match open {
            Some(sender) => sender,
            None => limited(CONNECT, "connect", self.connect(&uri)).await?,
        };
        let asked =
            head(&uri, request.range.as_ref()).map_err(|error| Trouble::Never(other(error)))?;
        let sent = async {
            sender.ready().await?;
            sender.send_request(asked).await
        };
        let sent = async { sent.await.map_err(anyhow::Error::from) };
        let response = limited(HEAD, "answer", sent).await?;
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            return Err(self.refused(parts.status, &parts.headers, body).await);
        }
        if request.range.is_some() && parts.status != StatusCode::PARTIAL_CONTENT {
            return Err(unreadable("it answers with another range"));
        }
        let bytes = collected(body, request.limit).await?;
        let wanted = request.range.as_ref().map(|range| range.end - range.start);
        if wanted.is_some_and(|wanted| wanted != bytes.len() as u64) {
            return Err(unreadable("the range is cut off"));
        }
        self.open = Some(sender);
        Ok(bytes)
    }

    async fn connect(&self, uri: &Uri) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        let host = uri.host().context("its URL has no host")?;
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let bare = bare(host);
        let stream = if bare.ends_with(LOCAL_NAMES) {
            // Not every resolver knows them (RFC 6761).
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await
        } else {
            TcpStream::connect((bare, port)).await
        };
        let stream = stream.with_context(|| format!("cannot connect to {host}:{port}"))?;
        stream.set_nodelay(true)?;
        if !is_tls {
            return shake_hands(stream).await;
        }
        let name = ServerName::try_from(bare.to_owned())?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await;
        shake_hands(stream.with_context(|| format!("the TLS handshake with {host} failed"))?).await
    }

    /// What a refusal means: some go over, and of some no object is ever had.
    async fn refused(&self, status: StatusCode, headers: &HeaderMap, body: Incoming) -> Trouble {
        let asked = headers.get(RETRY_AFTER);
        let asked = asked.and_then(|value| value.to_str().ok()?.parse().ok());
        let asked = asked.map(Duration::from_secs);
        let said = collected(body, REFUSAL_BYTES).await.unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let code = said.split_once("<Code>");
        let code = code.and_then(|(_, rest)| Some(rest.split_once("</Code>")?.0));
        let why = why(status, code.unwrap_or_default(), headers);
        match status {
            StatusCode::NOT_FOUND => Trouble::Never(io::Error::new(io::ErrorKind::NotFound, why)),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Trouble::Again(asked, io::Error::other(why))
            }
            StatusCode::FORBIDDEN if self.times.correct(headers) => {
                Trouble::Again(Some(Duration::ZERO), io::Error::other(why))
            }
            status if status.is_server_error() => Trouble::Unreadable(asked, io::Error::other(why)),
            _ => Trouble::Never(io::Error::other(why)),
        }
    }
}

/// A refusal in words, with what can be done about it.
fn why(status: StatusCode, code: &str, headers: &HeaderMap) -> String {
    let region = headers.get(REGION).and_then(|value| value.to_str().ok());
    let advice = match code {
        "NoSuchBucket" => "there is no such bucket",
        "InvalidAccessKeyId" | "NotSignedUp" | "SignatureDoesNotMatch" => {
            "the credentials are wrong"
        }
        "ExpiredToken" | "InvalidToken" => "the session is over: get new credentials",
        "AccessDenied" => "the credentials must allow s3:ListBucket and s3:GetObject",
        "RequestTimeTooSkewed" => "set this host's clock",
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "TemporaryRedirect" => {
            "the bucket is in another region, or behind another endpoint"
        }
        _ => "",
    };
    let said = format!("S3 answered {status} {code}");
    let said = [said.trim_end(), advice].join(": ");
    let said = said.trim_end_matches(": ");
    match region.filter(|_| !status.is_server_error()) {
        Some(region) => format!("{said} (it is in {region})"),
        None => said.to_owned(),
    }
}

/// A host's name or address, without brackets.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Whether it is this one.
pub(super) fn is_local(host: &str) -> bool {
    let host = bare(host);
    let address = host.parse::<IpAddr>();
    host == "localhost" || host.ends_with(LOCAL_NAMES) || address.is_ok_and(|ip| ip.is_loopback())
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped or the peer is gone, and who asks hears why.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

fn head(uri: &Uri, range: Option<&Range<u64>>) -> anyhow::Result<http::Request<Empty<Bytes>>> {
    let authority = uri.authority().context("its URL has no host")?.as_str();
    let path = uri.path_and_query().context("its URL has no path")?;
    let mut request = http::Request::get(path.as_str()).header(HOST, authority);
    if let Some(range) = range {
        let last = range.end.saturating_sub(1);
        request = request.header(RANGE, format!("bytes={}-{last}", range.start));
    }
    Ok(request.body(Empty::new())?)
}

async fn limited<T>(
    limit: Duration,
    step: &str,
    work: impl Future<Output = anyhow::Result<T>>,
) -> Result<T, Trouble> {
    let Ok(done) = timeout(limit, work).await else {
        let why = format!("it did not {step} within {limit:?}");
        return Err(Trouble::Again(None, io::Error::other(why)));
    };
    done.map_err(|error| {
        if is_stranger(&error) {
            Trouble::Never(other(error))
        } else {
            Trouble::Again(None, other(error))
        }
    })
}

/// Whether nobody vouches for the server: that does not go over.
fn is_stranger(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let inner = cause.downcast_ref().and_then(io::Error::get_ref);
        let of_tls = inner.and_then(|inner| inner.downcast_ref());
        matches!(of_tls, Some(rustls::Error::InvalidCertificate(_)))
    })
}

async fn collected(body: Incoming, limit: usize) -> Result<Vec<u8>, Trouble> {
    let mut body = Limited::new(body, limit);
    let mut bytes = Vec::new();
    loop {
        let part = timeout(PART, body.frame()).await;
        match part.map_err(|_| unreadable("its answer does not go on"))? {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    bytes.extend_from_slice(data);
                }
            }
            Some(Err(error)) => return Err(Trouble::Unreadable(None, io::Error::other(error))),
            None => return Ok(bytes),
        }
    }
}

fn unreadable(why: &str) -> Trouble {
    Trouble::Unreadable(None, io::Error::other(why.to_owned()))
}

fn other(error: anyhow::Error) -> io::Error {
    io::Error::other(error)
}
