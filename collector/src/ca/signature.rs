//! ECDSA P-256 with SHA-256 (FIPS 186-5), for what is signed outside of certificates and TLS.

use rustls::SignatureScheme;
use rustls_pki_types::CertificateDer;

/// Whether `signature` (ASN.1) over `message` was made with the key of `certificate`, which must be P-256.
pub fn verifies(certificate: &CertificateDer<'_>, message: &[u8], signature: &[u8]) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return false;
    };
    // The point alone: one of another curve has another length and is refused.
    let key = &parsed.tbs_certificate.subject_pki.subject_public_key.data;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let schemes = provider.signature_verification_algorithms.mapping;
    let p256 = schemes
        .iter()
        .find(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256)
        .and_then(|(_, algorithms)| {
            let curve = rustls_pki_types::alg_id::ECDSA_P256;
            algorithms
                .iter()
                .find(|one| one.public_key_alg_id() == curve)
        });
    p256.is_some_and(|p256| p256.verify_signature(key, message, signature).is_ok())
}
