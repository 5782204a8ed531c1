//! The certificate authority: root, online issuing CA, and the leaves it gives out (RFC 5280).
//!
//! ECDSA P-256 throughout. Keys are files of mode 0600 below `<data_dir>/ca`; several collectors share
//! them by sharing the files. From a CSR only the public key is taken.

pub mod signature;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use infratrack_shared::ids::HostId;
use infratrack_shared::spiffe;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber, SigningKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

/// Clocks of hosts may be this far behind when they first use a certificate.
const BACKDATE: Duration = Duration::minutes(5);
const ROOT_LIFETIME: Duration = Duration::days(3650);
const ISSUING_LIFETIME: Duration = Duration::days(1825);
/// Lifetime of the certificates of a collector's own listeners.
pub const SERVER_LIFETIME: Duration = Duration::days(30);

/// What went wrong with a key, certificate or request.
#[derive(Debug, Error)]
pub enum CaError {
    #[error("cannot read or write {}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is missing: the CA needs root.pem, issuing.pem and issuing.key together", .0.display())]
    Missing(PathBuf),
    #[error("{} is not what it should be: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("the certificate request is damaged or its signature is wrong")]
    Csr(#[source] rcgen::Error),
    #[error("the certificate request's key must be ECDSA P-256")]
    CsrKey,
    #[error("a certificate could not be signed")]
    Sign(#[source] rcgen::Error),
}

/// The online part of the CA: everything it takes to issue.
pub struct Ca {
    trust_domain: String,
    root: CertificateDer<'static>,
    issuing: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate that was signed just now.
#[derive(Clone, Debug)]
pub struct Issued {
    pub serial: Vec<u8>,
    pub certificate: CertificateDer<'static>,
    pub not_after: OffsetDateTime,
}

/// The public key of a request, proven to be the sender's.
pub struct Request {
    public_key: rcgen::PublicKey,
    pub spki_sha256: [u8; 32],
}

impl Request {
    /// Checks a PKCS #10 request (RFC 2986): shape, self-signature, kind of key.
    pub fn parse(csr: &[u8]) -> Result<Self, CaError> {
        let csr = CertificateSigningRequestDer::from(csr);
        let parsed = CertificateSigningRequestParams::from_der(&csr).map_err(CaError::Csr)?;
        if *parsed.public_key.algorithm() != rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::CsrKey);
        }
        let spki_sha256 = Sha256::digest(parsed.public_key.subject_public_key_info()).into();
        Ok(Self {
            public_key: parsed.public_key,
            spki_sha256,
        })
    }
}

impl Ca {
    /// Opens the CA in `dir`, or makes one where there is none.
    pub fn open_or_create(
        dir: &Path,
        trust_domain: &str,
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        if !dir.join("issuing.pem").exists() {
            Self::create(dir, trust_domain, now)?;
        }
        Self::open(dir)
    }

    /// Opens the CA in `dir`.
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        let root = read_certificate(&dir.join("root.pem"))?;
        let issuing = read_certificate(&dir.join("issuing.pem"))?;
        let key_path = dir.join("issuing.key");
        let pem = read(&key_path)?;
        let damaged = |reason: String| CaError::Damaged {
            path: key_path.clone(),
            reason,
        };
        let key = KeyPair::from_pem(&pem).map_err(|error| damaged(error.to_string()))?;
        let issuer =
            Issuer::from_ca_cert_der(&issuing, key).map_err(|error| damaged(error.to_string()))?;
        if spki_of(&issuing).as_deref() != Some(&issuer.key().subject_public_key_info()[..]) {
            return Err(damaged("it is not the key of issuing.pem".to_owned()));
        }
        let trust_domain = trust_domain_of(&root).ok_or_else(|| CaError::Damaged {
            path: dir.join("root.pem"),
            reason: "it names no trust domain (URI SAN spiffe://…)".to_owned(),
        })?;
        Ok(Self {
            trust_domain,
            root,
            issuing,
            issuer,
        })
    }

    /// Makes a root and an issuing CA. What is half made after a crash is made again.
    fn create(dir: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<(), CaError> {
        std::fs::create_dir_all(dir).map_err(|source| CaError::File {
            path: dir.to_owned(),
            source,
        })?;
        let root_key = KeyPair::generate().map_err(CaError::Sign)?;
        let mut params = ca_params("Infratrack root CA", trust_domain, now, ROOT_LIFETIME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        let root = params.self_signed(&root_key).map_err(CaError::Sign)?;
        let root_issuer = Issuer::new(params, &root_key);
        let issuing_key = KeyPair::generate().map_err(CaError::Sign)?;
        let mut params = ca_params("Infratrack issuing CA", trust_domain, now, ISSUING_LIFETIME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let issuing = params
            .signed_by(&issuing_key, &root_issuer)
            .map_err(CaError::Sign)?;
        write_secret(&dir.join("root.key"), &root_key.serialize_pem())?;
        write_secret(&dir.join("issuing.key"), &issuing_key.serialize_pem())?;
        write_secret(&dir.join("root.pem"), &root.pem())?;
        // Last: `open_or_create` takes its presence for a whole CA.
        write_secret(&dir.join("issuing.pem"), &issuing.pem())
    }

    /// The name of the fleet.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The issuing CA's certificate.
    pub fn issuing(&self) -> &CertificateDer<'static> {
        &self.issuing
    }

    /// SHA-256 of the root's `SubjectPublicKeyInfo`: what enrollment tokens pin.
    pub fn root_pin(&self) -> [u8; 32] {
        let spki = spki_of(&self.root).unwrap_or_default();
        Sha256::digest(spki).into()
    }

    /// Signs a host's certificate: client authentication only, named by its SPIFFE id.
    pub fn issue_host(
        &self,
        request: &Request,
        host: HostId,
        now: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<Issued, CaError> {
        let mut params = leaf_params(&host.to_string(), now, lifetime);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = spiffe::host_uri(&self.trust_domain, host)
            .try_into()
            .map_err(CaError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        self.sign(params, &request.public_key)
    }

    /// Signs the certificate of one of the collector's own listeners; answers its chain with the root
    /// (which enrolling agents look for by its pin) and its key.
    pub fn issue_server(
        &self,
        now: OffsetDateTime,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CaError> {
        let key = KeyPair::generate().map_err(CaError::Sign)?;
        let name = spiffe::collector_server_name(&self.trust_domain);
        let mut params = leaf_params(&name, now, SERVER_LIFETIME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().map_err(CaError::Sign)?)];
        let issued = self.sign(params, &key)?;
        let chain = vec![issued.certificate, self.issuing.clone(), self.root.clone()];
        Ok((chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }

    /// Signs what is no certificate. `message` begins with words that no certificate begins with, so that
    /// neither can be passed off as the other.
    pub fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, CaError> {
        self.issuer.key().sign(message).map_err(CaError::Sign)
    }

    /// A key for symmetric use, the same at every collector that has the issuing key: an HMAC under it.
    pub fn derived_key(&self, context: &[u8]) -> [u8; 32] {
        let mac = Hmac::<Sha256>::new_from_slice(&self.issuer.key().serialize_der());
        let mut mac = mac.expect("HMAC takes a key of any length");
        mac.update(context);
        mac.finalize().into_bytes().into()
    }

    /// The certificate whose key signed, if it is one of this CA's: by the SHA-256 of its key.
    pub fn signer(&self, spki_sha256: &[u8]) -> Option<&CertificateDer<'static>> {
        let same = |certificate: &&CertificateDer<'_>| {
            spki_of(certificate).is_some_and(|spki| Sha256::digest(spki)[..] == *spki_sha256)
        };
        Some(&self.issuing).filter(same)
    }

    /// SHA-256 of the issuing key's `SubjectPublicKeyInfo`.
    pub fn issuing_key_id(&self) -> [u8; 32] {
        Sha256::digest(self.issuer.key().subject_public_key_info()).into()
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Issued, CaError> {
        let mut serial: [u8; 16] = rand::random();
        // Positive and never shorter: the first octet's top bit is clear and the octet not zero.
        if let Some(first) = serial.first_mut() {
            *first = *first & 0x7f | 0x40;
        }
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let not_after = params.not_after;
        let certificate = params.signed_by(key, &self.issuer).map_err(CaError::Sign)?;
        Ok(Issued {
            serial: serial.to_vec(),
            certificate: certificate.der().clone(),
            not_after,
        })
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ca({})", self.trust_domain)
    }
}

/// The CA, shared by everything that issues.
pub type SharedCa = Arc<Ca>;

fn ca_params(
    name: &str,
    trust_domain: &str,
    now: OffsetDateTime,
    lifetime: Duration,
) -> CertificateParams {
    let mut params = leaf_params(name, now, lifetime);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Ok(uri) = spiffe::trust_domain_uri(trust_domain).try_into() {
        params.subject_alt_names = vec![SanType::URI(uri)];
    }
    params
}

fn leaf_params(name: &str, now: OffsetDateTime, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - BACKDATE;
    params.not_after = now + lifetime;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// The `SubjectPublicKeyInfo` of a certificate, DER.
pub fn spki_of(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.tbs_certificate.subject_pki.raw.to_vec())
}

/// The serial number of a certificate as the tables have it, and the URI it names its host by.
pub fn serial_and_uri(certificate: &CertificateDer<'_>) -> Option<(Vec<u8>, String)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some((parsed.raw_serial().to_vec(), uri_of(&parsed)?))
}

fn trust_domain_of(root: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(root).ok()?;
    spiffe::trust_domain_of_uri(&uri_of(&parsed)?).map(str::to_owned)
}

fn uri_of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        if let x509_parser::extensions::GeneralName::URI(uri) = name {
            Some((*uri).to_owned())
        } else {
            None
        }
    })
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, CaError> {
    CertificateDer::from_pem_slice(read(path)?.as_bytes()).map_err(|error| CaError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn read(path: &Path) -> Result<String, CaError> {
    std::fs::read_to_string(path).map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            return CaError::Missing(path.to_owned());
        }
        CaError::File {
            path: path.to_owned(),
            source,
        }
    })
}

/// Writes a file of mode 0600 whole or not at all.
pub fn write_secret(path: &Path, text: &str) -> Result<(), CaError> {
    let write = || -> std::io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        path.parent()
            .map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
    };
    write().map_err(|source| CaError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
