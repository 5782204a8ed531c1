//! How the agent knows a collector: by the roots it trusts, or at first contact by the token's pin.
//!
//! TLS 1.3 only, but for servers that are not ours. The name is always `collector.<trust-domain>`, whatever address was dialled.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use infratrack_shared::spiffe;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use crate::identity::{self, Pair};

/// A connection with the host's certificate, to a collector below one of `roots`.
pub fn mutual(roots: &[CertificateDer<'static>], pair: Pair) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(store(roots)?)
        .with_client_auth_cert(pair.chain, pair.key)?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// A connection without a certificate of ours, to a collector below one of `roots`.
pub fn server_only(roots: &[CertificateDer<'static>]) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(store(roots)?)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// A connection for first contact, to whoever shows a chain below the root with this pin.
pub fn pinned(pin: [u8; 32]) -> Result<(ClientConfig, Arc<PinnedRoot>), Error> {
    let verifier = Arc::new(PinnedRoot {
        pin,
        found: Mutex::default(),
    });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok((config, verifier))
}

/// A connection to a server that is not ours, which the system's certificate authorities vouch for, or those in a file. TLS 1.2
/// too: stores on premise may have nothing newer, and its suites here are none that were broken.
pub fn public(authorities: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let Some(path) = authorities else {
        // What is no certificate is not trusted, and that is all.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return of_roots(roots);
    };
    let read = || format!("cannot read certificates from {}", path.display());
    for certificate in CertificateDer::pem_file_iter(path).with_context(read)? {
        roots.add(certificate.with_context(read)?)?;
    }
    ensure!(!roots.is_empty(), "{} has no certificate", path.display());
    of_roots(roots)
}

fn of_roots(roots: RootCertStore) -> anyhow::Result<ClientConfig> {
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// The name a collector must prove.
pub fn server_name(trust_domain: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(spiffe::collector_server_name(trust_domain))
        .map_err(|_| Error::General(format!("{trust_domain} is no trust domain")))
}

/// Verifies a chain against the one root in it whose key has the token's pin.
#[derive(Debug)]
pub struct PinnedRoot {
    pin: [u8; 32],
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl PinnedRoot {
    /// The root of the verified chain.
    pub fn root(&self) -> Option<CertificateDer<'static>> {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn pinned_in<'a>(&self, chain: &'a [CertificateDer<'a>]) -> Option<&'a CertificateDer<'a>> {
        chain.iter().find(|certificate| {
            x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| {
                Sha256::digest(parsed.tbs_certificate.subject_pki.raw)[..] == self.pin
            })
        })
    }
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let root = self.pinned_in(intermediates).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        // The pinned root is authentic, so what it says its fleet is called is, too.
        let trust_domain = identity::trust_domain(root).ok_or_else(unknown)?;
        let name = server_name(&trust_domain)?;
        let verified = inner.verify_server_cert(leaf, intermediates, &name, ocsp, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(root.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    Ok(store)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
