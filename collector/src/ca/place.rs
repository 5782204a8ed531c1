//! Where a CA is: its certificates in a directory, its keys beside them or given with the configuration.

use std::path::{Path, PathBuf};

use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{CaError, read, spki_of, write_secret};
use crate::config::Config;
use crate::secret::{Secret, SecretError};

/// The place of a CA.
#[derive(Clone, Debug)]
pub struct Place {
    pub dir: PathBuf,
    /// PEM: keys, and the certificates of issuing CA and root.
    given: Option<Secret>,
}

impl From<&Path> for Place {
    fn from(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            given: None,
        }
    }
}

impl Place {
    /// The configured one.
    pub async fn of(config: &Config) -> Result<Self, SecretError> {
        Ok(Self {
            dir: config.data_dir.join("ca"),
            given: config.ca.keys().await?,
        })
    }

    /// Whether its keys are not files of its own.
    pub fn has_given_keys(&self) -> bool {
        self.given.is_some()
    }

    /// Writes the certificates that are given with the keys into an empty directory; `false` where no keys are given.
    pub(super) fn take_certificates(&self) -> Result<bool, CaError> {
        let Some(given) = &self.given else {
            return Ok(false);
        };
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(given.expose().as_bytes())
            .filter_map(Result::ok)
            .collect();
        let has_key = |certificate: &CertificateDer<'_>| self.key_of(certificate).is_some();
        let is_root = |certificate: &CertificateDer<'_>| {
            x509_parser::parse_x509_certificate(certificate)
                .is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer())
        };
        let root = certificates.iter().find(|one| is_root(one));
        let root = root.ok_or_else(|| CaError::NotGiven("certificate of a root".to_owned()))?;
        let issuing = certificates
            .iter()
            .find(|one| !is_root(one) && has_key(one));
        let issuing = issuing.ok_or_else(|| {
            CaError::NotGiven("certificate of an issuing CA with its key".to_owned())
        })?;
        std::fs::create_dir_all(&self.dir).map_err(|source| CaError::File {
            path: self.dir.clone(),
            source,
        })?;
        write_secret(&self.dir.join("root.pem"), &pem(root))?;
        write_secret(&self.dir.join("issuing.pem"), &pem(issuing))?;
        Ok(true)
    }

    /// The key of a certificate: among those that are given, else in its file.
    pub(super) fn issuer(
        &self,
        key_path: &Path,
        certificate: &CertificateDer<'static>,
    ) -> Result<Issuer<'static, KeyPair>, CaError> {
        let damaged = |reason: String| CaError::Damaged {
            path: key_path.to_owned(),
            reason,
        };
        let pem = key_path.with_extension("pem");
        let name = pem.file_name().unwrap_or_default().to_string_lossy();
        let key = match self.key_of(certificate) {
            Some(key) => key,
            None if self.given.is_some() && !key_path.exists() => {
                return Err(CaError::NotGiven(format!("key of {}", pem.display())));
            }
            None => {
                KeyPair::from_pem(&read(key_path)?).map_err(|error| damaged(error.to_string()))?
            }
        };
        let issuer = Issuer::from_ca_cert_der(certificate, key)
            .map_err(|error| damaged(error.to_string()))?;
        if spki_of(certificate).as_deref() != Some(&issuer.key().subject_public_key_info()[..]) {
            return Err(damaged(format!("it is not the key of {name}")));
        }
        Ok(issuer)
    }

    /// The key of a certificate among those that are given.
    fn key_of(&self, certificate: &CertificateDer<'_>) -> Option<KeyPair> {
        let wanted = spki_of(certificate)?;
        PrivatePkcs8KeyDer::pem_slice_iter(self.given.as_ref()?.expose().as_bytes())
            .filter_map(Result::ok)
            .filter_map(|key| KeyPair::try_from(&key).ok())
            .find(|key| key.subject_public_key_info() == wanted)
    }
}

/// The text of a certificate (RFC 7468).
fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}
