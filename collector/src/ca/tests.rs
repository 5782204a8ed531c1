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

#[test]
fn a_ca_is_made_once_and_its_keys_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("tempdir");
    let made = Ca::open_or_create(dir.path(), "example.org", NOW).expect("made");
    let again = Ca::open_or_create(dir.path(), "other.org", NOW).expect("opened");
    assert_eq!(made.root_pin(), again.root_pin());
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
fn a_host_certificate_takes_only_the_key_from_its_request() {
    let dir = tempfile::tempdir().expect("tempdir");
    let ca = Ca::open_or_create(dir.path(), "example.org", NOW).expect("made");
    let host = HostId::random();
    let request = Request::parse(&csr()).expect("valid");
    let issued = ca
        .issue_host(&request, host, NOW, Duration::days(30))
        .expect("signed");
    let (serial, uri) = serial_and_uri(&issued.certificate).expect("parses");
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
