//! The certificate authority: root, online issuing CA, and the leaves it gives out (RFC 5280).
//!
//! ECDSA P-256 throughout. Keys are files of mode 0600 below `<data_dir>/ca`, or a secret that is configured; several
//! collectors share them by sharing either. From a CSR only the public key is taken. While the CA is being rotated there are
//! two generations of it ([`rotation`]): both are accepted, and the later one signs from its time on.

pub mod authority;
pub mod dependents;
pub mod live;
pub mod place;
pub mod rotation;
pub mod signature;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use infratrack_shared::ids::HostId;
use infratrack_shared::spiffe;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber, SigningKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::ParsedExtension;

pub use place::Place;

use authority::{Authority, Names};
use rotation::Rotation;

/// Clocks of hosts may be this far behind when they first use a certificate.
const BACKDATE: Duration = Duration::minutes(5);
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
    #[error("{} is missing: the CA needs root.pem, issuing.pem and issuing.key together, and root.key to be rotated", .0.display())]
    Missing(PathBuf),
    #[error("{} is not what it should be: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("the certificate request is damaged or its signature is wrong")]
    Csr(#[source] rcgen::Error),
    #[error("the certificate request's key must be ECDSA P-256")]
    CsrKey,
    #[error("a certificate could not be signed")]
    Sign(#[source] rcgen::Error),
    #[error("ca.key_file has no {0}")]
    NotGiven(String),
    #[error("the CA is being rotated; retire the old generation first")]
    Rotating,
    #[error("there is no generation to retire: none is followed by one that signs")]
    NothingToRetire,
    #[error("no generation of the CA may sign")]
    NoSigner,
}

/// Everything it takes to issue.
pub struct Ca {
    trust_domain: String,
    change: u32,
    /// Oldest first.
    generations: Vec<Authority>,
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
        Self::open_or_create_at(&Place::from(dir), trust_domain, now)
    }

    /// Likewise of any place. Where its keys are given there is a CA, and none is made.
    pub fn open_or_create_at(
        place: &Place,
        trust_domain: &str,
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        let is_there = || place.dir.join("issuing.pem").exists();
        if is_there() {
            return Self::open_at(place);
        }
        // Of collectors that start at once over the same files, one makes it; the others find it.
        let _alone = alone(&place.dir)?;
        if !is_there() && !place.take_certificates()? {
            let names = Names {
                trust_domain,
                suffix: "",
                predecessor: None,
            };
            Authority::create(place, Path::new(""), &names, now)?;
        }
        Self::open_at(place)
    }

    /// Opens the CA in `dir`.
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        Self::open_at(&Place::from(dir))
    }

    /// Opens the CA of a place.
    pub fn open_at(place: &Place) -> Result<Self, CaError> {
        let dir = &place.dir;
        let rotation = Rotation::read(dir)?;
        let open = |generation: &rotation::Generation| {
            Authority::open(
                place,
                &generation.dir,
                generation.signs_from,
                generation.retired_at,
            )
        };
        let generations: Vec<Authority> = rotation
            .generations
            .iter()
            .map(open)
            .collect::<Result<_, _>>()?;
        let trust_domain = generations
            .first()
            .and_then(|first| trust_domain_of(&first.root))
            .ok_or_else(|| CaError::Damaged {
                path: dir.join("root.pem"),
                reason: "it names no trust domain (URI SAN spiffe://…)".to_owned(),
            })?;
        Ok(Self {
            trust_domain,
            change: rotation.change,
            generations,
        })
    }

    /// The name of the fleet.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// How often its generations have changed.
    pub fn change(&self) -> u32 {
        self.change
    }

    /// Every generation, oldest first, retired ones too.
    pub fn generations(&self) -> &[Authority] {
        &self.generations
    }

    /// The generations whose certificates are accepted, oldest first.
    pub fn accepted(&self) -> impl DoubleEndedIterator<Item = &Authority> {
        self.generations.iter().filter(|one| one.is_accepted())
    }

    /// The generation that signs at `now`.
    pub fn signing(&self, now: OffsetDateTime) -> Result<&Authority, CaError> {
        let mut latest = self.accepted().rev();
        latest
            .find(|one| one.signs_from <= now)
            .ok_or(CaError::NoSigner)
    }

    /// The roots to accept, DER.
    pub fn trust_bundle(&self) -> Vec<ByteBuf> {
        let roots = self.accepted().map(|one| ByteBuf::from(one.root.to_vec()));
        roots.collect()
    }

    /// A host's certificate, and that of the issuing CA it is from.
    pub fn chain_of(&self, certificate: Vec<u8>) -> Vec<ByteBuf> {
        let leaf = CertificateDer::from(certificate.as_slice());
        let by = issuer_key_id(&leaf);
        let mut all = self.generations.iter();
        let by = all.find(|one| one.is_issuer(by.as_deref()));
        let issuing = by.map(|by| ByteBuf::from(by.issuing.to_vec()));
        [ByteBuf::from(certificate)]
            .into_iter()
            .chain(issuing)
            .collect()
    }

    /// Whether a certificate that one of the CA's keys signed is from a generation that is still accepted.
    pub fn accepts(&self, certificate: &Presented) -> bool {
        let by = certificate.issuer_key_id.as_deref();
        self.accepted().any(|one| one.is_issuer(by))
    }

    /// SHA-256 of the root's `SubjectPublicKeyInfo`: what enrollment tokens made at `now` pin.
    pub fn root_pin(&self, now: OffsetDateTime) -> Result<[u8; 32], CaError> {
        self.signing(now).map(Authority::root_pin)
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
        sign(self.signing(now)?, params, &request.public_key)
    }

    /// Signs the certificate of one of the collector's own listeners; answers its chain with the root
    /// (which enrolling agents look for by its pin) and its key. Who trusts or pins the root before finds it
    /// in the chain too, with the certificate that leads there: also after that root was retired, so that
    /// who slept through the rotation still knows us.
    pub fn issue_server(
        &self,
        now: OffsetDateTime,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CaError> {
        let key = KeyPair::generate().map_err(CaError::Sign)?;
        let name = spiffe::collector_server_name(&self.trust_domain);
        let mut params = leaf_params(&name, now, SERVER_LIFETIME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().map_err(CaError::Sign)?)];
        let signing = self.signing(now)?;
        let issued = sign(signing, params, &key)?;
        let mut chain = vec![issued.certificate, signing.issuing.clone()];
        chain.extend(signing.cross.clone());
        chain.push(signing.root.clone());
        let at = self
            .generations
            .iter()
            .position(|one| one.root == signing.root);
        let before = at.and_then(|at| self.generations.get(at.checked_sub(1)?));
        chain.extend(before.map(|before| before.root.clone()));
        Ok((chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }

    /// Signs what is no certificate, and names the key by the SHA-256 of its `SubjectPublicKeyInfo`. The
    /// oldest key that is accepted, because every collector knows that one. `message` begins with words that
    /// no certificate begins with, so that neither can be passed off as the other.
    pub fn sign_message(&self, message: &[u8]) -> Result<(Vec<u8>, [u8; 32]), CaError> {
        let key = self.keys().next().ok_or(CaError::NoSigner)?;
        let signature = key.sign(message).map_err(CaError::Sign)?;
        Ok((
            signature,
            Sha256::digest(key.subject_public_key_info()).into(),
        ))
    }

    /// The certificate whose key signed, if it is one of this CA's, by the SHA-256 of the key. Retired ones
    /// too: what they signed before is still theirs.
    pub fn signer(&self, spki_sha256: &[u8]) -> Option<&CertificateDer<'static>> {
        let issuing = self.generations.iter().map(|one| &one.issuing);
        let mut same = issuing.filter(|certificate| {
            spki_of(certificate).is_some_and(|spki| Sha256::digest(spki)[..] == *spki_sha256)
        });
        same.next()
    }

    /// Keys for symmetric use, the same at every collector that has the issuing keys: HMACs under them. The
    /// first is to be used, the others are good too.
    pub fn derived_keys(&self, context: &[u8]) -> Vec<[u8; 32]> {
        let derive = |key: &KeyPair| {
            let mac = Hmac::<Sha256>::new_from_slice(&key.serialize_der());
            let mut mac = mac.expect("HMAC takes a key of any length");
            mac.update(context);
            mac.finalize().into_bytes().into()
        };
        self.keys().map(derive).collect()
    }

    fn keys(&self) -> impl Iterator<Item = &KeyPair> {
        self.generations
            .iter()
            .filter_map(|one| one.issuer.as_ref().map(Issuer::key))
    }
}

fn sign(
    by: &Authority,
    mut params: CertificateParams,
    key: &impl PublicKeyData,
) -> Result<Issued, CaError> {
    let issuer = by.issuer.as_ref().ok_or(CaError::NoSigner)?;
    let mut serial: [u8; 16] = rand::random();
    // Positive and never shorter: the first octet's top bit is clear and the octet not zero.
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let not_after = params.not_after;
    let certificate = params.signed_by(key, issuer).map_err(CaError::Sign)?;
    Ok(Issued {
        serial: serial.to_vec(),
        certificate: certificate.der().clone(),
        not_after,
    })
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ca({})", self.trust_domain)
    }
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

/// What a certificate says of itself, read once for all requests of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// As the tables have it.
    pub serial: Vec<u8>,
    /// What it names its host by.
    pub uri: String,
    issuer_key_id: Option<Vec<u8>>,
}

impl Presented {
    /// `None` where it is damaged or names nobody.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Some(Self {
            serial: parsed.raw_serial().to_vec(),
            uri: uri_of(&parsed)?,
            issuer_key_id: key_ids_of(&parsed).1,
        })
    }
}

/// Until the file is dropped, nobody else who asks the same makes a CA in `dir`.
fn alone(dir: &Path) -> Result<File, CaError> {
    let path = dir.join(".lock");
    let locked = std::fs::create_dir_all(dir)
        .and_then(|()| File::options().create(true).append(true).open(&path))
        .and_then(|file| file.lock().map(|()| file));
    locked.map_err(|source| CaError::File { path, source })
}

/// The identifiers of a certificate's own key and of the one that signed it (RFC 5280, 4.2.1.1 and .2).
fn key_ids(certificate: &CertificateDer<'_>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    x509_parser::parse_x509_certificate(certificate)
        .map_or((None, None), |(_, parsed)| key_ids_of(&parsed))
}

fn key_ids_of(
    parsed: &x509_parser::certificate::X509Certificate<'_>,
) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let (mut own, mut by) = (None, None);
    for extension in parsed.extensions() {
        let parsed = extension.parsed_extension();
        if let ParsedExtension::SubjectKeyIdentifier(id) = parsed {
            own = Some(id.0.to_vec());
        } else if let ParsedExtension::AuthorityKeyIdentifier(id) = parsed {
            by = id.key_identifier.as_ref().map(|id| id.0.to_vec());
        }
    }
    (own, by)
}

/// The identifier of the key that signed a certificate, as the certificate says.
fn issuer_key_id(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    key_ids(certificate).1
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
            .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|source| CaError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
