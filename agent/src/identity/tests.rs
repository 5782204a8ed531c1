use infratrack_shared::spiffe;
use rcgen::{CertificateSigningRequestParams, Issuer, SanType};
use rustls_pki_types::CertificateSigningRequestDer;

use super::*;

/// Signs what `identity` asks for, as a collector would.
fn sign(identity: &Identity, host: HostId) -> Vec<Vec<u8>> {
    let csr = identity.request().expect("request");
    let csr = CertificateSigningRequestDer::from(csr.as_slice());
    let csr = CertificateSigningRequestParams::from_der(&csr).expect("valid request");
    let issuer_key = KeyPair::generate().expect("key");
    let issuer = Issuer::new(CertificateParams::default(), &issuer_key);
    let mut params = CertificateParams::default();
    let uri = spiffe::host_uri("example.org", host)
        .try_into()
        .expect("uri");
    params.subject_alt_names = vec![SanType::URI(uri)];
    let certificate = params.signed_by(&csr.public_key, &issuer).expect("signed");
    vec![certificate.der().to_vec()]
}

fn collectors() -> Collectors {
    Collectors {
        enroll_endpoint: Some("collector.example.org:8444".to_owned()),
        trust_domain: "example.org".to_owned(),
        endpoints: vec!["127.0.0.1:8443".to_owned()],
    }
}

#[test]
fn an_enrollment_is_stored_whole_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("tempdir");
    let identity = Identity::open(dir.path()).expect("opened");
    assert!(matches!(
        identity.current(),
        Err(IdentityError::NotEnrolled(_))
    ));
    let host = HostId::random();
    let chain = sign(&identity, host);
    identity
        .store_enrollment(&chain, &chain, &collectors())
        .expect("stored");
    let pair = identity.current().expect("enrolled");
    assert_eq!(pair.host, host);
    assert_eq!(identity.collectors().expect("stored"), collectors());
    assert_eq!(identity.roots().expect("stored").len(), 1);
    let mode = fs::metadata(identity.path(CURRENT))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!identity.path(NEXT_KEY).exists());
}

#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let dir = tempfile::tempdir().expect("tempdir");
    let identity = Identity::open(dir.path()).expect("opened");
    let key = |csr: Vec<u8>| {
        let csr = CertificateSigningRequestDer::from(csr);
        CertificateSigningRequestParams::from_der(&csr)
            .expect("valid")
            .public_key
    };
    let first = key(identity.request().expect("request"));
    let again = Identity::open(dir.path()).expect("opened after a crash");
    assert_eq!(key(again.request().expect("request")), first);
}

#[test]
fn the_pair_in_use_stays_until_the_renewed_one_is_promoted() {
    let dir = tempfile::tempdir().expect("tempdir");
    let identity = Identity::open(dir.path()).expect("opened");
    let host = HostId::random();
    let chain = sign(&identity, host);
    identity
        .store_enrollment(&chain, &chain, &collectors())
        .expect("stored");
    let before = identity.current().expect("enrolled").serial;
    let renewed = sign(&identity, host);
    identity.store_next(&renewed).expect("stored");
    assert_eq!(identity.current().expect("still there").serial, before);
    let next = identity.next().expect("readable").expect("there").serial;
    assert_ne!(next, before);
    identity.promote_next().expect("promoted");
    assert_eq!(identity.current().expect("there").serial, next);
    assert!(identity.next().expect("readable").is_none());
}

#[test]
fn a_damaged_renewal_is_dropped_and_the_pair_in_use_goes_on() {
    let dir = tempfile::tempdir().expect("tempdir");
    let identity = Identity::open(dir.path()).expect("opened");
    let chain = sign(&identity, HostId::random());
    identity
        .store_enrollment(&chain, &chain, &collectors())
        .expect("stored");
    fs::write(identity.path(NEXT), "half a fi").expect("written");
    assert!(identity.next().expect("readable").is_none());
    assert!(!identity.path(NEXT).exists());
    identity.current().expect("still enrolled");
}

#[test]
fn renewal_falls_between_60_and_72_percent_of_life() {
    let pair = Pair {
        key: PrivateKeyDer::Pkcs8(Vec::new().into()),
        chain: Vec::new(),
        host: HostId::random(),
        serial: String::new(),
        not_before: UnixMillis(0),
        not_after: UnixMillis(1_000_000),
    };
    assert_eq!(renew_at(&pair, 0.0), UnixMillis(600_000));
    assert_eq!(renew_at(&pair, 1.0), UnixMillis(720_000));
}

#[test]
fn a_key_that_is_in_use_is_never_asked_a_second_certificate_for() {
    let dir = tempfile::tempdir().expect("tempdir");
    let identity = Identity::open(dir.path()).expect("opened");
    let chain = sign(&identity, HostId::random());
    let key = fs::read(identity.path(NEXT_KEY)).expect("key");
    identity
        .store_enrollment(&chain, &chain, &collectors())
        .expect("stored");
    // As a crash just before the removal leaves it.
    fs::write(identity.path(NEXT_KEY), &key).expect("written");
    identity.request().expect("request");
    assert_ne!(fs::read(identity.path(NEXT_KEY)).expect("key"), key);
}

#[test]
fn who_enrolls_anew_is_not_who_it_was_about_to_become() {
    let dir = tempfile::tempdir().expect("tempdir");
    let identity = Identity::open(dir.path()).expect("opened");
    let (before, after) = (HostId::random(), HostId::random());
    let chain = sign(&identity, before);
    identity
        .store_enrollment(&chain, &chain, &collectors())
        .expect("stored");
    identity
        .store_next(&sign(&identity, before))
        .expect("stored");
    let chain = sign(&identity, after);
    identity
        .store_enrollment(&chain, &chain, &collectors())
        .expect("stored");
    assert!(identity.next().expect("read").is_none());
    assert_eq!(identity.current().expect("enrolled").host, after);
}
