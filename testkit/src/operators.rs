//! Calls of a collector's operators' listener, as a script makes them. One connection a call.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// An answer has at most so many bytes.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// And comes within this.
const LIMIT: Duration = Duration::from_secs(30);

/// Where and as whom.
#[derive(Clone, Debug)]
pub struct Operators {
    pub address: SocketAddr,
    /// An API token.
    pub token: String,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub etag: Option<String>,
    pub body: Bytes,
}

impl Operators {
    pub async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Answers the document where the collector made what was asked for.
    pub async fn create(
        &self,
        path: &str,
        what: &serde_json::Value,
    ) -> anyhow::Result<serde_json::Value> {
        let body = Bytes::from(what.to_string());
        let (status, answer) = self.call(Method::POST, path, body).await?;
        anyhow::ensure!(
            status.is_success(),
            "{path}: {status} {}",
            String::from_utf8_lossy(&answer)
        );
        serde_json::from_slice(&answer).with_context(|| format!("the answer of {path}"))
    }

    /// Any call, with more headers; fails where no whole answer came.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let answer = tokio::time::timeout(LIMIT, self.ask(method, path, headers, body)).await;
        let cannot = || format!("cannot ask the operators' listener at {}", self.address);
        answer
            .context("no answer in time")
            .flatten()
            .with_context(cannot)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let answer = self.send(method, path, &[], body).await?;
        Ok((answer.status, answer.body))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(
                header::AUTHORIZATION,
                format!("Bearer {}", self.token.trim()),
            )
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let etag = response.headers().get(header::ETAG);
        let etag = etag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), ANSWER_BYTES)
            .collect()
            .await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        Ok(Answer { status, etag, body })
    }
}
