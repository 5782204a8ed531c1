//! TLS of the two listeners that agents reach: 1.3 only, no tickets, no resumption.
//!
//! A resumed session skips the client-certificate verifier, so there is none. The server's certificate is
//! from the fleet's own CA and is replaced while the listener runs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::UnixTime;
use thiserror::Error;
use time::OffsetDateTime;

use crate::ca::{Ca, CaError};
use crate::clock::Clock;

/// Why a listener's TLS can't be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("no certificate for the listener")]
    Ca(#[from] CaError),
    #[error("TLS cannot be configured")]
    Rustls(#[from] rustls::Error),
    #[error("client certificates cannot be verified")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The certificate the listeners show, replaceable.
#[derive(Debug)]
pub struct ServerCertificate(RwLock<Arc<CertifiedKey>>);

impl ServerCertificate {
    /// The first certificate.
    pub fn issue(ca: &Ca, now: OffsetDateTime) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(RwLock::new(certified(ca, now)?))))
    }

    /// A fresh certificate for handshakes from here on.
    pub fn renew(&self, ca: &Ca, now: OffsetDateTime) -> Result<(), TlsError> {
        let fresh = certified(ca, now)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.0.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

/// The collector's clock, by which certificates of agents are valid or not.
#[derive(Debug)]
struct TlsClock(Clock);

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().unix_timestamp()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// For the agent listener: everyone shows a certificate of the fleet's CA.
pub fn mutual(
    ca: &Ca,
    certificate: Arc<ServerCertificate>,
    clock: Clock,
) -> Result<ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.root().clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    let builder = builder()?.with_client_cert_verifier(verifier);
    let mut config = without_resumption(builder.with_cert_resolver(certificate));
    config.time_provider = Arc::new(TlsClock(clock));
    Ok(config)
}

/// For the enrollment listener: whoever comes, comes with a token.
pub fn server_only(certificate: Arc<ServerCertificate>) -> Result<ServerConfig, TlsError> {
    Ok(without_resumption(
        builder()?
            .with_no_client_auth()
            .with_cert_resolver(certificate),
    ))
}

/// TLS 1.3 with the one crypto provider.
pub fn builder() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, rustls::Error>
{
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])
}

fn without_resumption(mut config: ServerConfig) -> ServerConfig {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config
}

fn certified(ca: &Ca, now: OffsetDateTime) -> Result<Arc<CertifiedKey>, TlsError> {
    let (chain, key) = ca.issue_server(now)?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
