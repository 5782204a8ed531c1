//! Who this host is: its key and certificate, the roots it trusts, the collectors it knows.
//!
//! Key and chain stand in one file, so that one rename replaces both. A renewed pair waits beside the one
//! in use until a collector has acknowledged something over it; the one in use is never deleted before.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use infratrack_shared::ids::HostId;
use infratrack_shared::spiffe;
use infratrack_shared::time::UnixMillis;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::failpoint::reach;

const CURRENT: &str = "identity.pem";
const NEXT: &str = "identity.next.pem";
const NEXT_KEY: &str = "next.key";
const COLLECTORS: &str = "collectors.json";
const ROOTS: &str = "roots.pem";

/// Why there is no usable identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("this host is not enrolled: {} is missing; run infratrack-agent enroll", .0.display())]
    NotEnrolled(PathBuf),
    #[error("cannot {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("a key or certificate request could not be made")]
    Key(#[source] rcgen::Error),
}

/// A key with its certificate.
#[derive(Debug)]
pub struct Pair {
    pub key: PrivateKeyDer<'static>,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub host: HostId,
    pub serial: String,
    pub not_before: UnixMillis,
    pub not_after: UnixMillis,
}

/// What enrollment said of the collectors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collectors {
    pub trust_domain: String,
    /// `host:port` of the agent listeners.
    pub endpoints: Vec<String>,
    /// `host:port` of the enrollment listener that this host was enrolled at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enroll_endpoint: Option<String>,
}

/// The identity's directory.
#[derive(Clone, Debug)]
pub struct Identity {
    dir: PathBuf,
}

impl Identity {
    /// The identity below a state directory, which is made with mode 0700 where it is missing.
    pub fn open(state_dir: &Path) -> Result<Self, IdentityError> {
        let dir = state_dir.join("identity");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| IdentityError::File {
                doing: "make",
                path: dir.clone(),
                source,
            })?;
        Ok(Self { dir })
    }

    /// Whether there is a certificate.
    pub fn is_enrolled(&self) -> bool {
        self.path(CURRENT).exists()
    }

    /// The pair in use.
    pub fn current(&self) -> Result<Pair, IdentityError> {
        self.pair(CURRENT)?
            .ok_or_else(|| IdentityError::NotEnrolled(self.path(CURRENT)))
    }

    /// The pair that is to be tried, if one was renewed. A damaged one is moved out of the way.
    pub fn next(&self) -> Result<Option<Pair>, IdentityError> {
        match self.pair(NEXT) {
            Err(IdentityError::Damaged { .. }) => {
                self.discard_next()?;
                Ok(None)
            }
            other => other,
        }
    }

    /// The renewed pair worked: it is the one in use from here on.
    pub fn promote_next(&self) -> Result<(), IdentityError> {
        let (from, to) = (self.path(NEXT), self.path(CURRENT));
        fs::rename(&from, &to)
            .and_then(|()| sync_dir(&self.dir))
            .map_err(|source| IdentityError::File {
                doing: "rename",
                path: from,
                source,
            })?;
        reach("identity::promoted");
        self.remove(NEXT_KEY)
    }

    /// The renewed pair is refused: forget it, and the key it was made from.
    pub fn discard_next(&self) -> Result<(), IdentityError> {
        self.remove(NEXT)?;
        self.remove(NEXT_KEY)
    }

    /// A request for a new certificate, DER. The key is on the disk before this returns, and is the same
    /// until its certificate is stored: a lost answer is answered again.
    pub fn request(&self) -> Result<Vec<u8>, IdentityError> {
        let key = self.next_key()?;
        // Only the key is taken from it.
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .map_err(IdentityError::Key)?;
        Ok(csr.der().to_vec())
    }

    /// Stores the certificate for the last [`Identity::request`], to be tried.
    pub fn store_next(&self, chain: &[impl AsRef<[u8]>]) -> Result<(), IdentityError> {
        self.store_pair(NEXT, chain)
    }

    /// Stores a first enrollment. The certificate comes last: with it, the host is enrolled.
    pub fn store_enrollment(
        &self,
        chain: &[impl AsRef<[u8]>],
        roots: &[impl AsRef<[u8]>],
        collectors: &Collectors,
    ) -> Result<(), IdentityError> {
        self.store_roots(roots)?;
        let text = serde_json::to_string_pretty(collectors).unwrap_or_default();
        self.write(COLLECTORS, &text)?;
        // A pair of who this host was before would be tried first.
        self.remove(NEXT)?;
        self.store_pair(CURRENT, chain)
    }

    /// Replaces the roots to trust.
    pub fn store_roots(&self, roots: &[impl AsRef<[u8]>]) -> Result<(), IdentityError> {
        self.write(
            ROOTS,
            &roots
                .iter()
                .map(|root| pem("CERTIFICATE", root.as_ref()))
                .collect::<String>(),
        )
    }

    /// The roots to trust.
    pub fn roots(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let path = self.path(ROOTS);
        let text = read(&path)?.ok_or_else(|| IdentityError::NotEnrolled(path.clone()))?;
        certificates(&text, &path)
    }

    /// The collectors.
    pub fn collectors(&self) -> Result<Collectors, IdentityError> {
        let path = self.path(COLLECTORS);
        let text = read(&path)?.ok_or_else(|| IdentityError::NotEnrolled(path.clone()))?;
        serde_json::from_str(&text).map_err(|error| IdentityError::Damaged {
            path,
            reason: error.to_string(),
        })
    }

    fn store_pair(&self, name: &str, chain: &[impl AsRef<[u8]>]) -> Result<(), IdentityError> {
        let mut text = self.next_key()?.serialize_pem();
        text.extend(
            chain
                .iter()
                .map(|certificate| pem("CERTIFICATE", certificate.as_ref())),
        );
        self.write(name, &text)?;
        self.remove(NEXT_KEY)
    }

    fn next_key(&self) -> Result<KeyPair, IdentityError> {
        let path = self.path(NEXT_KEY);
        let kept = read(&path)?.and_then(|text| KeyPair::from_pem(&text).ok());
        // A crash between storing a pair and removing this file leaves a key that is in use.
        let in_use = read(&self.path(CURRENT))?.unwrap_or_default();
        if let Some(key) = kept.filter(|key| !in_use.starts_with(&key.serialize_pem())) {
            return Ok(key);
        }
        let key = KeyPair::generate().map_err(IdentityError::Key)?;
        self.write(NEXT_KEY, &key.serialize_pem())?;
        Ok(key)
    }

    fn pair(&self, name: &str) -> Result<Option<Pair>, IdentityError> {
        let path = self.path(name);
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        let damaged = |reason: String| IdentityError::Damaged {
            path: path.clone(),
            reason,
        };
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| damaged(error.to_string()))?;
        let chain = certificates(&text, &path)?;
        let leaf = chain
            .first()
            .ok_or_else(|| damaged("it has no certificate".to_owned()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|error| damaged(error.to_string()))?;
        let host = host_of(&parsed).ok_or_else(|| damaged("it names no host".to_owned()))?;
        let validity = parsed.validity();
        let serial = parsed.raw_serial_as_string().replace(':', "");
        let (not_before, not_after) = (
            validity.not_before.timestamp() * 1000,
            validity.not_after.timestamp() * 1000,
        );
        Ok(Some(Pair {
            key,
            host,
            serial,
            not_before: UnixMillis(not_before),
            not_after: UnixMillis(not_after),
            chain,
        }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file of mode 0600 whole or not at all.
    fn write(&self, name: &str, text: &str) -> Result<(), IdentityError> {
        let path = self.path(name);
        let temporary = self.path(&format!("{name}.tmp"));
        let write = || -> io::Result<()> {
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_dir(&self.dir)
        };
        write().map_err(|source| IdentityError::File {
            doing: "write",
            path: path.clone(),
            source,
        })
    }

    fn remove(&self, name: &str) -> Result<(), IdentityError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(IdentityError::File {
                doing: "remove",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }
}

/// When to renew: uniformly between 60 and 72 % of the certificate's life; `part` is 0 to 1.
pub fn renew_at(pair: &Pair, part: f64) -> UnixMillis {
    let life = pair.not_after.millis_since(pair.not_before) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a certificate's life in milliseconds"
    )]
    pair.not_before
        .plus_millis((life * (0.60 + 0.12 * part)) as i64)
}

/// The trust domain that a root certificate names.
pub fn trust_domain(root: &[u8]) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(root).ok()?;
    spiffe::trust_domain_of_uri(&uri_of(&parsed)?).map(str::to_owned)
}

fn host_of(leaf: &x509_parser::certificate::X509Certificate<'_>) -> Option<HostId> {
    uri_of(leaf)?.rsplit_once("/host/")?.1.parse().ok()
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

fn certificates(text: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let damaged = |reason: String| IdentityError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    all.map_err(|error| damaged(error.to_string()))
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File {
            doing: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..body.len())
        .step_by(64)
        .filter_map(|at| body.get(at..body.len().min(at + 64)))
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
