//! TLS of the two listeners that agents reach: 1.3 only, no tickets, no resumption.
//!
//! A resumed session skips the client-certificate verifier, so there is none. The server's certificate is
//! from the fleet's own CA and is replaced while the listener runs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
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

/// What the listeners show and whom they accept, both replaceable while they run.
#[derive(Debug)]
pub struct FleetTls {
    certificate: RwLock<Arc<CertifiedKey>>,
    clients: RwLock<Arc<dyn ClientCertVerifier>>,
}

impl FleetTls {
    /// By the CA as it is.
    pub fn of(ca: &Ca, now: OffsetDateTime) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            certificate: RwLock::new(certified(ca, now)?),
            clients: RwLock::new(clients(ca)?),
        }))
    }

    /// A fresh certificate, and the CA's roots of this moment, for handshakes from here on.
    pub fn renew(&self, ca: &Ca, now: OffsetDateTime) -> Result<(), TlsError> {
        let (certificate, clients) = (certified(ca, now)?, clients(ca)?);
        *self
            .certificate
            .write()
            .unwrap_or_else(PoisonError::into_inner) = certificate;
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = clients;
        Ok(())
    }

    fn clients(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.clients.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for FleetTls {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificate = self.certificate.read();
        Some(Arc::clone(
            &certificate.unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

impl ClientCertVerifier for FleetTls {
    /// No hints: an agent has one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.clients().verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients()
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients().supported_verify_schemes()
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
pub fn mutual(fleet: Arc<FleetTls>, clock: Clock) -> Result<ServerConfig, TlsError> {
    let clients: Arc<dyn ClientCertVerifier> = Arc::<FleetTls>::clone(&fleet);
    let builder = builder()?.with_client_cert_verifier(clients);
    let mut config = without_resumption(builder.with_cert_resolver(fleet));
    config.time_provider = Arc::new(TlsClock(clock));
    Ok(config)
}

/// For the enrollment listener: whoever comes, comes with a token.
pub fn server_only(fleet: Arc<FleetTls>) -> Result<ServerConfig, TlsError> {
    Ok(without_resumption(
        builder()?.with_no_client_auth().with_cert_resolver(fleet),
    ))
}

/// The one crypto provider.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS 1.3 with the one crypto provider.
pub fn builder() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, rustls::Error>
{
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
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

/// Who is accepted: whoever has a certificate below a root that is.
fn clients(ca: &Ca) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for one in ca.accepted() {
        roots.add(one.root.clone())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}
