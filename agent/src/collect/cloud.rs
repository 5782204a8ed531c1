//! `facts.cloud`: what Amazon's instance metadata service says of the instance, where it is configured.
//!
//! Version 2 of the service only: a token by `PUT`, then values with it, as "Use the Instance Metadata
//! Service to access instance metadata" and "Instance metadata categories" in the Amazon EC2 User Guide
//! have it. Facts, never an identity: whoever answers at the address may say anything. Plain HTTP to one
//! configured address, through no proxy and after no redirect; answers are bounded in time and size.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Reason;
use super::fact::to_value;

/// The service is on the instance's own host, and answers in a millisecond.
const EACH: Duration = Duration::from_secs(2);
const BODY_BYTES: usize = 16 * 1024;
/// Long enough for one collection.
const TOKEN_SECONDS: &str = "60";
const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// "Retrieve the instance identity document for an EC2 instance" in the Amazon EC2 User Guide.
const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
/// The longest value taken: an id, a name, an address.
const VALUE_BYTES: usize = 128;

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Facts {
    provider: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    availability_zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_ipv4: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_ipv4: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<String>,
}

/// What is taken of the instance identity document.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    account_id: Option<String>,
}

/// The body of `facts.cloud`; values the service does not have are left out.
pub(super) async fn collect(service: &str) -> Result<rmpv::Value, Reason> {
    let service = Service::new(service)?;
    let token = service.token().await?;
    let get = async |path: &str| {
        let path = format!("/latest/meta-data/{path}");
        let text = service.find(&path, &token).await?;
        text.map(|text| value(&path, &text)).transpose()
    };
    let facts = Facts {
        provider: "aws",
        instance_id: get("instance-id").await?,
        instance_type: get("instance-type").await?,
        region: get("placement/region").await?,
        availability_zone: get("placement/availability-zone").await?,
        image_id: get("ami-id").await?,
        local_ipv4: get("local-ipv4").await?,
        public_ipv4: get("public-ipv4").await?,
        account_id: match service.find(DOCUMENT, &token).await? {
            Some(document) => account(&document)?,
            None => None,
        },
    };
    to_value(&facts)
}

/// One line of plain characters; a page of HTML is none.
fn value(path: &str, text: &str) -> Result<String, Reason> {
    let text = text.trim();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > VALUE_BYTES || !is_plain {
        return Err(format!("{path}: no value but something else"));
    }
    Ok(text.to_owned())
}

fn account(document: &str) -> Result<Option<String>, Reason> {
    let document: Document =
        serde_json::from_str(document).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    let account = document.account_id;
    account.map(|account| value(DOCUMENT, &account)).transpose()
}

/// Where the service is.
#[derive(Debug)]
struct Service {
    /// `host:port`, to connect to.
    address: String,
    host: HeaderValue,
}

impl Service {
    fn new(service: &str) -> Result<Self, Reason> {
        let (address, authority) = address(service)?;
        let host = HeaderValue::try_from(authority).map_err(|error| error.to_string())?;
        Ok(Self { address, host })
    }

    async fn token(&self) -> Result<HeaderValue, Reason> {
        let ttl = (TOKEN_TTL, HeaderValue::from_static(TOKEN_SECONDS));
        let (status, text) = self.ask(Method::PUT, "/latest/api/token", ttl).await?;
        if status != StatusCode::OK {
            return Err(format!("no token from the metadata service: {status}"));
        }
        let mut token = HeaderValue::try_from(text.trim())
            .map_err(|_| "the metadata service's token is none".to_owned())?;
        token.set_sensitive(true);
        Ok(token)
    }

    /// The text at `path`; `None` where there is nothing.
    async fn find(&self, path: &str, token: &HeaderValue) -> Result<Option<String>, Reason> {
        match self.ask(Method::GET, path, (TOKEN, token.clone())).await? {
            (StatusCode::OK, text) => Ok(Some(text)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, _) => Err(format!("{path}: {status}")),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        header: (&'static str, HeaderValue),
    ) -> Result<(StatusCode, String), Reason> {
        timeout(EACH, self.exchange(method, path, header))
            .await
            .map_err(|_| format!("no answer within {} ms", EACH.as_millis()))
            .and_then(|answer| answer)
            .map_err(|reason| format!("{path}: {reason}"))
    }

    /// One request on a connection of its own: the service closes it after each.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        (name, value): (&'static str, HeaderValue),
    ) -> Result<(StatusCode, String), Reason> {
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|error| format!("cannot connect to {}: {error}", self.address))?;
        let broken = |error: hyper::Error| format!("the connection broke: {error}");
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(BODY_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.host.clone())
            .header(name, value)
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        // Ends when the sender and the answer are dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the metadata service's connection broke");
            }
        });
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(broken)?
            .into_parts();
        let body = Limited::new(body, BODY_BYTES)
            .collect()
            .await
            .map_err(|error| format!("its answer cannot be read: {error}"))?;
        let text = String::from_utf8(body.to_bytes().into())
            .map_err(|_| "its answer is no text".to_owned())?;
        Ok((head.status, text))
    }
}

/// `host:port` and the authority of `http://host[:port]`. Checked with the configuration, too.
pub(crate) fn address(service: &str) -> Result<(String, String), Reason> {
    let uri: Uri = service
        .parse()
        .map_err(|error| format!("{service:?} is no URL: {error}"))?;
    let authority = uri
        .authority()
        .filter(|authority| !authority.as_str().contains('@'));
    match (uri.scheme_str(), authority, uri.path(), uri.query()) {
        (Some("http"), Some(authority), "" | "/", None) => {
            let port = authority.port_u16().unwrap_or(80);
            Ok((
                format!("{}:{port}", authority.host()),
                authority.to_string(),
            ))
        }
        _ => Err(format!("{service:?} is not of the form http://host")),
    }
}

#[cfg(test)]
mod tests;
