//! What is posted: bodies of any size in pieces that repeat, over a connection that stays open as long as the collector
//! keeps it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// An answer takes no longer than this, or the measurement ends.
const LIMIT: Duration = Duration::from_secs(600);
/// Bytes of one piece that is sent at once.
const FRAME: usize = 256 * 1024;

/// A body: pieces, each so many times.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    pieces: VecDeque<(Bytes, u64)>,
}

impl Pieces {
    /// One after the other.
    pub fn of(pieces: impl IntoIterator<Item = (Bytes, u64)>) -> Self {
        Self {
            pieces: pieces.into_iter().filter(|piece| piece.1 > 0).collect(),
        }
    }

    /// As it is.
    pub fn whole(bytes: &Bytes) -> Self {
        let frames = (0..bytes.len()).step_by(FRAME);
        let frames = frames.map(|at| bytes.slice(at..bytes.len().min(at + FRAME)));
        Self::of(frames.map(|frame| (frame, 1)).collect::<Vec<_>>())
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        let pieces = self.pieces.iter();
        pieces
            .map(|(piece, times)| piece.len() as u64 * times)
            .sum()
    }

    /// Whether it has any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `each` with all of it.
    pub fn read<E>(&self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        for (piece, times) in &self.pieces {
            for _ in 0..*times {
                each(piece)?;
            }
        }
        Ok(())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some((piece, times)) = self.pieces.front_mut() else {
            return Poll::Ready(None);
        };
        let frame = piece.clone();
        *times -= 1;
        if *times == 0 {
            self.pieces.pop_front();
        }
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// What the collector answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Answer {
    /// The status, and a problem's type.
    pub fn told(&self) -> String {
        let code = self.body["type"].as_str().unwrap_or_default();
        format!("{} {code}", self.status.as_u16()).trim().to_owned()
    }
}

/// A client that posts.
#[derive(Debug)]
pub struct Poster {
    address: SocketAddr,
    token: String,
    sender: SendRequest<Pieces>,
}

impl Poster {
    /// Connects with an API token.
    pub async fn connect(address: SocketAddr, token: &str) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            token: token.to_owned(),
            sender: open(address).await?,
        })
    }

    /// Posts, and reads the whole answer.
    pub async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Pieces,
    ) -> anyhow::Result<Answer> {
        let answer = tokio::time::timeout(LIMIT, self.send(path, headers, body)).await;
        answer
            .context("no answer in time")
            .flatten()
            .with_context(|| format!("POST {path}"))
    }

    async fn send(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Pieces,
    ) -> anyhow::Result<Answer> {
        if self.sender.ready().await.is_err() {
            self.sender = open(self.address).await?;
        }
        let mut request = Request::post(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-api-token", &self.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.sender.send_request(request.body(body)?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&body)
            .with_context(|| format!("{status} {}", String::from_utf8_lossy(&body)))?;
        Ok(Answer { status, body })
    }
}

async fn open(address: SocketAddr) -> anyhow::Result<SendRequest<Pieces>> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
