//! Requests that the collector itself makes, to addresses from its configuration or from who stands there.
//!
//! Each has a time limit and its answer a size; redirects are not followed, and where https was begun with, nothing
//! else is spoken.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use tokio::time::timeout;

use crate::agents::tls;

/// From the first packet to the last byte of the answer.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);
/// The longest answer.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Makes requests.
#[derive(Clone, Debug)]
pub struct Fetch {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum FetchError {
    #[error("no answer within {TIME_LIMIT:?}")]
    Late,
    #[error("it can't be reached")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("its answer broke off or is longer than {MAX_BYTES} bytes")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Fetch {
    /// Trusts the CA in a file, or those that this machine trusts. `plain`: http may be spoken.
    pub fn new(ca_file: Option<&Path>, plain: bool) -> anyhow::Result<Self> {
        let config = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .context("TLS cannot be set up")?
            .with_root_certificates(roots(ca_file)?)
            .with_no_client_auth();
        let builder = HttpsConnectorBuilder::new().with_tls_config(config);
        let builder = if plain {
            builder.https_or_http()
        } else {
            builder.https_only()
        };
        let mut plain_connector = HttpConnector::new();
        plain_connector.enforce_http(false);
        plain_connector.set_connect_timeout(Some(TIME_LIMIT / 2));
        let connector = builder.enable_http1().wrap_connector(plain_connector);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client })
    }

    /// Sends a request and reads its answer whole.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, FetchError> {
        let fetched = async {
            let request = request.map(|body| Full::new(Bytes::from(body)));
            let sent = self.client.request(request).await;
            let (head, body) = sent.map_err(FetchError::Unreachable)?.into_parts();
            let body = Limited::new(body, MAX_BYTES).collect().await;
            let body = body.map_err(FetchError::Body)?.to_bytes();
            Ok(Response::from_parts(head, body.to_vec()))
        };
        let ended = timeout(TIME_LIMIT, fetched).await;
        ended.unwrap_or(Err(FetchError::Late))
    }
}

impl<'c> openidconnect::AsyncHttpClient<'c> for Fetch {
    type Error = FetchError;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, FetchError>> + Send + 'c>>;

    fn call(&'c self, request: Request<Vec<u8>>) -> Self::Future {
        Box::pin(self.send(request))
    }
}

fn roots(ca_file: Option<&Path>) -> anyhow::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("cannot read {}", path.display()))?;
        for certificate in certificates {
            roots
                .add(certificate)
                .with_context(|| format!("{} has a certificate that is none", path.display()))?;
        }
        anyhow::ensure!(!roots.is_empty(), "{} has no certificate", path.display());
    } else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    }
    Ok(Arc::new(roots))
}
