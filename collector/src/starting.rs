//! A collector whose database is not there yet: it tries again and again, and its operators' listener says why.
//!
//! Nothing else is answered meanwhile. When the database answers, the socket goes to the listener proper; who
//! connects in between waits in its queue.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use askama::Template;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::health::{Check, Health};
use crate::config::Config;
use crate::http::drain::{self, Drainer};
use crate::http::{Handler, Limits, Listener, Peer, Stats, serve};
use crate::server;
use crate::store::failure;

/// Between two tries, with a random part.
const AGAIN: Duration = Duration::from_secs(2);
/// Open answers have so long when the database is there.
const DRAIN: Duration = Duration::from_secs(2);

/// The operators' listener until the database answers.
#[derive(Debug)]
pub struct Starting {
    pub address: SocketAddr,
    socket: std::net::TcpListener,
    reason: watch::Sender<&'static str>,
    drainer: Drainer,
    serving: JoinHandle<()>,
}

impl Starting {
    /// Listens.
    pub async fn begin(config: &Config) -> anyhow::Result<Self> {
        let socket = server::bind(config.operators.listen).await?;
        let address = socket.local_addr()?;
        let socket = socket.into_std()?;
        // The same queue of connections, by another descriptor.
        let shared = TcpListener::from_std(socket.try_clone()?)?;
        let (reason, reasons) = watch::channel("the collector is starting");
        let (drainer, drain) = drain::channel();
        let listener = Listener {
            name: "operators",
            tls: server::operators_tls(config).await?,
            proxy_from: config.operators.proxy_protocol_from.clone(),
            limits: Limits::default(),
            stats: Arc::new(Stats::default()),
        };
        let serving = tokio::spawn(serve(shared, listener, Answers(reasons), drain));
        Ok(Self {
            address,
            socket,
            reason,
            drainer,
            serving,
        })
    }

    /// Tries until it works. What trying again does not mend is an error.
    pub async fn until<T>(&self, work: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
        loop {
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(database) = error.chain().find_map(|cause| cause.downcast_ref()) else {
                return Err(error);
            };
            let words = failure::words(database);
            if self.reason.send_replace(words) != words {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "waiting for the database; {}/health says so too",
                    self.address
                );
            }
            tokio::time::sleep(AGAIN.mul_f64(rand::random_range(0.5..1.0))).await;
        }
    }

    /// Why the database is waited for.
    pub fn reason(&self) -> &'static str {
        *self.reason.borrow()
    }

    /// The socket, for the listener proper.
    pub async fn end(self) -> anyhow::Result<TcpListener> {
        self.drainer.begin();
        self.serving.await.context("the first listener failed")?;
        self.drainer.finish(DRAIN).await;
        Ok(TcpListener::from_std(self.socket)?)
    }
}

#[derive(Clone)]
struct Answers(watch::Receiver<&'static str>);

impl Handler for Answers {
    type Body = Full<Bytes>;

    async fn handle(&self, _: Arc<Peer>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if is_for_a_person(&request) {
            return page(*self.0.borrow());
        }
        let is_live = request.uri().path() == "/health/live";
        let check = Check {
            name: "database",
            ok: false,
            detail: (*self.0.borrow()).to_owned(),
        };
        let health = if is_live {
            Health::of(Vec::new())
        } else {
            Health::of(vec![check])
        };
        let body = serde_json::to_vec(&health).unwrap_or_default();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = if is_live {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        response
    }
}

/// What a browser shows meanwhile; it asks again by itself.
#[derive(Template)]
#[template(path = "starting.html")]
struct StartingPage {
    nonce: String,
    style: &'static str,
    kit: &'static str,
    reason: &'static str,
}

fn is_for_a_person(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    let accept = request.headers().get(ACCEPT);
    let takes_html = accept.is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"));
    takes_html && !path.starts_with("/api/") && !path.starts_with("/health")
}

fn page(reason: &'static str) -> Response<Full<Bytes>> {
    let page = StartingPage {
        nonce: hex::encode(rand::random::<[u8; 16]>()),
        style: include_str!("../static/style.css"),
        kit: include_str!("../static/kit.css"),
        reason,
    };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{}'; frame-ancestors 'none'; base-uri 'none'",
        page.nonce
    );
    let html = page.render().unwrap_or_else(|_| reason.to_owned());
    let mut response = Response::new(Full::new(Bytes::from(html)));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}
