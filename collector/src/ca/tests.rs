use rcgen::{BasicConstraints, IsCa};
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

fn csr() -> Vec<u8> {
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "root of all evil");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.serialize_request(&key).expect("csr").der().to_vec()
}

fn presented(issued: &Issued) -> Presented {
    Presented::read(&issued.certificate).expect("parses")
}

#[test]
fn a_ca_is_made_once_and_its_keys_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("tempdir");
    let made = Ca::open_or_create(dir.path(), "example.org", NOW).expect("made");
    let again = Ca::open_or_create(dir.path(), "other.org", NOW).expect("opened");
    assert_eq!(
        made.root_pin(NOW).expect("signs"),
        again.root_pin(NOW).expect("signs")
    );
    assert_eq!(again.trust_domain(), "example.org");
    for file in ["root.key", "issuing.key"] {
        let mode = std::fs::metadata(dir.path().join(file))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn of_many_that_would_make_a_ca_at_once_one_does() {
    let dir = tempfile::tempdir().expect("tempdir");
    let begin = std::sync::Barrier::new(8);
    let make = || {
        begin.wait();
        let ca = Ca::open_or_create(dir.path(), "example.org", NOW).expect("made");
        ca.root_pin(NOW).expect("signs")
    };
    let pins: std::collections::HashSet<_> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        makers
            .into_iter()
            .map(|maker| maker.join().expect("made"))
            .collect()
    });
    assert_eq!(pins.len(), 1);
}

#[test]
fn a_host_certificate_takes_only_the_key_from_its_request() {
    let dir = tempfile::tempdir().expect("tempdir");
    let ca = Ca::open_or_create(dir.path(), "example.org", NOW).expect("made");
    let host = HostId::random();
    let request = Request::parse(&csr()).expect("valid");
    let issued = ca
        .issue_host(&request, host, NOW, Duration::days(30))
        .expect("signed");
    let Presented { serial, uri, .. } = Presented::read(&issued.certificate).expect("parses");
    assert_eq!(serial, issued.serial);
    assert_eq!(spiffe::host_of_uri(&uri, "example.org"), Some(host));
    let (_, parsed) = x509_parser::parse_x509_certificate(&issued.certificate).expect("parses");
    assert!(!parsed.is_ca());
    assert_eq!(parsed.subject().to_string(), format!("CN={host}"));
    assert_eq!(parsed.validity().not_before.to_datetime(), NOW - BACKDATE);
    let usage = parsed
        .extended_key_usage()
        .expect("parses")
        .expect("there")
        .value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
}

#[test]
fn a_damaged_request_and_another_kind_of_key_are_refused() {
    let mut damaged = csr();
    if let Some(last) = damaged.last_mut() {
        *last ^= 1;
    }
    assert!(matches!(Request::parse(&damaged), Err(CaError::Csr(_))));
    assert!(matches!(Request::parse(b"nonsense"), Err(CaError::Csr(_))));
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .expect("csr");
    assert!(matches!(Request::parse(csr.der()), Err(CaError::CsrKey)));
}

#[test]
fn a_missing_or_swapped_key_is_named() {
    let (a, b) = (
        tempfile::tempdir().expect("tempdir"),
        tempfile::tempdir().expect("tempdir"),
    );
    for dir in [&a, &b] {
        Ca::open_or_create(dir.path(), "example.org", NOW).expect("made");
    }
    std::fs::copy(b.path().join("issuing.key"), a.path().join("issuing.key")).expect("copied");
    let error = Ca::open(a.path()).expect_err("refused");
    assert!(
        error.to_string().contains("not the key of issuing.pem"),
        "{error}"
    );
    std::fs::remove_file(a.path().join("issuing.key")).expect("removed");
    let error = Ca::open(a.path()).expect_err("refused");
    assert!(
        error.to_string().contains("issuing.key is missing"),
        "{error}"
    );
}

/// A CA one hour into a rotation that began at [`NOW`].
fn rotated() -> (Ca, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("tempdir");
    Ca::open_or_create(dir.path(), "example.org", NOW).expect("made");
    rotation::rotate(dir.path(), NOW, Duration::HOUR).expect("rotated");
    (Ca::open(dir.path()).expect("opened"), dir)
}

#[test]
fn a_rotated_ca_is_trusted_before_it_signs() {
    let (ca, _dir) = rotated();
    assert_eq!(ca.trust_bundle().len(), 2);
    let [old, new] = ca.generations() else {
        panic!("two generations")
    };
    let request = Request::parse(&csr()).expect("valid");
    let before = NOW + Duration::HOUR - Duration::SECOND;
    for (now, signer) in [(before, old), (NOW + Duration::HOUR, new)] {
        assert_eq!(ca.root_pin(now).expect("signs"), signer.root_pin());
        let issued = ca
            .issue_host(&request, HostId::random(), now, Duration::days(30))
            .expect("signed");
        assert!(ca.accepts(&presented(&issued)));
        let chain = ca.chain_of(issued.certificate.to_vec());
        assert_eq!(chain[1].as_slice(), signer.issuing.as_ref());
    }
}

#[test]
fn one_rotation_ends_before_the_next_begins() {
    let (ca, dir) = rotated();
    let again = rotation::rotate(dir.path(), NOW, Duration::HOUR);
    assert!(matches!(again, Err(CaError::Rotating)), "{again:?}");
    // Not before the next one signs, and not the only one that does.
    let early = rotation::retire(dir.path(), NOW);
    assert!(matches!(early, Err(CaError::NothingToRetire)), "{early:?}");
    let later = NOW + Duration::days(40);
    rotation::retire(dir.path(), later).expect("retired");
    let last = rotation::retire(dir.path(), later);
    assert!(matches!(last, Err(CaError::NothingToRetire)), "{last:?}");
    let after = Ca::open(dir.path()).expect("opened");
    assert_eq!(after.trust_bundle().len(), 1);
    assert!(after.change() > ca.change());
    // What the retired one signed is still its own, and no more accepted.
    let request = Request::parse(&csr()).expect("valid");
    let issued = ca
        .issue_host(&request, HostId::random(), NOW, Duration::days(30))
        .expect("signed");
    assert!(!after.accepts(&presented(&issued)));
    let (_, key) = ca.sign_message(b"words").expect("signed");
    assert!(after.signer(&key).is_some());
    // The retired one's keys are not needed any more.
    for key in ["root.key", "issuing.key"] {
        std::fs::remove_file(dir.path().join(key)).expect("removed");
    }
    Ca::open(dir.path()).expect("opened");
    rotation::rotate(dir.path(), later, Duration::HOUR).expect("the next one");
}

#[test]
fn a_rotation_without_the_old_root_key_changes_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    Ca::open_or_create(dir.path(), "example.org", NOW).expect("made");
    let key = dir.path().join("root.key");
    let kept = std::fs::read(&key).expect("there");
    std::fs::remove_file(&key).expect("removed");
    let error = rotation::rotate(dir.path(), NOW, Duration::HOUR).expect_err("refused");
    assert!(error.to_string().contains("root.key"), "{error}");
    assert_eq!(Ca::open(dir.path()).expect("opened").change(), 0);
    std::fs::write(&key, kept).expect("written");
    rotation::rotate(dir.path(), NOW, Duration::HOUR).expect("rotated");
}
