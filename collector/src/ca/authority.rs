//! One generation of the CA: a root, the issuing CA below it, and the files they are in.
//!
//! A later generation's issuing CA also has a certificate by the root before it, so that who trusts only that
//! root can verify what the later one signs.

use std::path::Path;

use infratrack_shared::spiffe;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use super::{CaError, Place, key_ids, leaf_params, read_certificate, spki_of, write_secret};

const ROOT_LIFETIME: Duration = Duration::days(3650);
const ISSUING_LIFETIME: Duration = Duration::days(1825);

/// A root with its issuing CA.
pub struct Authority {
    pub root: CertificateDer<'static>,
    pub issuing: CertificateDer<'static>,
    /// The issuing CA's certificate by the root before this one.
    pub cross: Option<CertificateDer<'static>>,
    /// `None` where it signs no more.
    pub(super) issuer: Option<Issuer<'static, KeyPair>>,
    pub signs_from: OffsetDateTime,
    pub retired_at: Option<OffsetDateTime>,
    /// How what the issuing CA signs names it.
    key_id: Option<Vec<u8>>,
}

/// What a new generation is called and by whom it is introduced.
pub(super) struct Names<'a> {
    pub(super) trust_domain: &'a str,
    /// Told apart by people and by path building; empty for the first.
    pub(super) suffix: &'a str,
    /// Where the root is that signs for this one.
    pub(super) predecessor: Option<&'a Path>,
}

impl Authority {
    /// Opens the generation in a directory below the place; of a retired one, the certificates alone.
    pub(super) fn open(
        place: &Place,
        generation: &Path,
        signs_from: OffsetDateTime,
        retired_at: Option<OffsetDateTime>,
    ) -> Result<Self, CaError> {
        let dir = place.dir.join(generation);
        let root = read_certificate(&dir.join("root.pem"))?;
        let issuing = read_certificate(&dir.join("issuing.pem"))?;
        let cross = match read_certificate(&dir.join("issuing.cross.pem")) {
            Err(CaError::Missing(_)) => None,
            other => Some(other?),
        };
        let issuer = match retired_at {
            Some(_) => None,
            None => Some(place.issuer(&dir.join("issuing.key"), &issuing)?),
        };
        Ok(Self {
            key_id: key_ids(&issuing).0,
            root,
            issuing,
            cross,
            issuer,
            signs_from,
            retired_at,
        })
    }

    /// Makes a root and an issuing CA in a directory below the place. What is half made after a crash is made again.
    pub(super) fn create(
        place: &Place,
        generation: &Path,
        names: &Names<'_>,
        now: OffsetDateTime,
    ) -> Result<(), CaError> {
        let dir = place.dir.join(generation);
        std::fs::create_dir_all(&dir).map_err(|source| CaError::File {
            path: dir.clone(),
            source,
        })?;
        let root_key = KeyPair::generate().map_err(CaError::Sign)?;
        let name = format!("Infratrack root CA{}", names.suffix);
        let mut params = ca_params(&name, names.trust_domain, now, ROOT_LIFETIME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        let root = params.self_signed(&root_key).map_err(CaError::Sign)?;
        let root_issuer = Issuer::new(params, &root_key);
        let issuing_key = KeyPair::generate().map_err(CaError::Sign)?;
        let name = format!("Infratrack issuing CA{}", names.suffix);
        let mut params = ca_params(&name, names.trust_domain, now, ISSUING_LIFETIME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let issuing = params
            .signed_by(&issuing_key, &root_issuer)
            .map_err(CaError::Sign)?;
        write_secret(&dir.join("root.key"), &root_key.serialize_pem())?;
        write_secret(&dir.join("issuing.key"), &issuing_key.serialize_pem())?;
        write_secret(&dir.join("root.pem"), &root.pem())?;
        if let Some(predecessor) = names.predecessor {
            let root = read_certificate(&predecessor.join("root.pem"))?;
            let by = place.issuer(&predecessor.join("root.key"), &root)?;
            let cross = params.signed_by(&issuing_key, &by).map_err(CaError::Sign)?;
            write_secret(&dir.join("issuing.cross.pem"), &cross.pem())?;
        }
        // Last: its presence is taken for a whole CA.
        write_secret(&dir.join("issuing.pem"), &issuing.pem())
    }

    /// Whether it is accepted.
    pub fn is_accepted(&self) -> bool {
        self.retired_at.is_none()
    }

    /// SHA-256 of the root's `SubjectPublicKeyInfo`: what enrollment tokens pin.
    pub fn root_pin(&self) -> [u8; 32] {
        Sha256::digest(spki_of(&self.root).unwrap_or_default()).into()
    }

    /// Whether its issuing key is the one that signed a certificate, by [`super::issuer_key_id`] of that.
    pub(super) fn is_issuer(&self, key_id: Option<&[u8]>) -> bool {
        key_id.is_some() && key_id == self.key_id.as_deref()
    }
}

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
