//! Who takes spans by OTLP over HTTP, or hangs, or refuses.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What it does with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    #[default]
    Take,
    Hang,
    Refuse,
}

#[derive(Default)]
struct Seen {
    manner: Manner,
    hung: u32,
    heads: String,
    requests: Vec<ExportTraceServiceRequest>,
}

/// See the module; ends with the test.
pub(crate) struct Receiver {
    pub(crate) endpoint: String,
    seen: Arc<Mutex<Seen>>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Seen {
            manner,
            ..Seen::default()
        }));
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&seen));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self {
            endpoint,
            seen,
            serving,
        }
    }

    pub(crate) fn be(&self, manner: Manner) {
        self.seen.lock().unwrap().manner = manner;
    }

    /// Requests that were left hanging.
    pub(crate) fn hung(&self) -> u32 {
        self.seen.lock().unwrap().hung
    }

    /// The heads of all requests.
    pub(crate) fn heads(&self) -> String {
        self.seen.lock().unwrap().heads.clone()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let seen = self.seen.lock().unwrap();
        let resources = seen.requests.iter().flat_map(|taken| &taken.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Everything that was taken.
    pub(crate) fn text(&self) -> String {
        format!("{:?}", self.seen.lock().unwrap().requests)
    }
}

async fn take(State(seen): State<Arc<Mutex<Seen>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let manner = {
        let mut seen = seen.lock().unwrap();
        write!(seen.heads, "{headers:?}").unwrap();
        match seen.manner {
            Manner::Take => {
                let request = ExportTraceServiceRequest::decode(body).unwrap();
                seen.requests.push(request);
            }
            Manner::Hang => seen.hung += 1,
            Manner::Refuse => {}
        }
        seen.manner
    };
    match manner {
        Manner::Take => StatusCode::OK,
        Manner::Hang => std::future::pending().await,
        Manner::Refuse => StatusCode::BAD_REQUEST,
    }
}

/// An attribute as text.
pub(crate) fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|found| found.key == name)?;
    let value = found.value.as_ref()?.value.as_ref()?;
    if let Value::StringValue(text) = value {
        return Some(text.clone());
    }
    if let Value::IntValue(number) = value {
        return Some(number.to_string());
    }
    Some(format!("{value:?}"))
}
