use time::macros::datetime;
use uuid::Uuid;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

fn ca() -> (Ca, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("tempdir");
    let ca = Ca::open_or_create(dir.path(), "example.org", NOW).expect("made");
    (ca, dir)
}

fn issued() -> Entry {
    Entry::Issued(Issued {
        serial: ByteBuf::from([0x41; 16]),
        certificate: ByteBuf::from([0x30, 0x03]),
        issued_at: UnixMillis(1_767_225_600_000),
        not_after: UnixMillis(1_769_817_600_000),
        token_id: Some("tokn".to_owned()),
        host: Host {
            host_id: HostId(Uuid::from_bytes([7; 16])),
            name: "web-01".to_owned(),
            machine_id: None,
            tags: vec!["prod".to_owned()],
            created_at: UnixMillis(1),
        },
    })
}

fn revoked() -> Entry {
    Entry::Revoked(Revoked {
        serial: ByteBuf::from([0x41; 16]),
        host_id: HostId(Uuid::from_bytes([7; 16])),
        revoked_at: UnixMillis(1_767_225_600_000),
        by: "ada".to_owned(),
        reason: "lost".to_owned(),
    })
}

fn name(entry: &Entry) -> Key {
    key(
        datetime!(2026-01-31 00:00 UTC).date(),
        &[0x41; 16],
        entry.kind(),
    )
    .expect("a name")
}

#[test]
fn an_entry_has_the_bytes_it_always_had() {
    let text = |entry| hex::encode(codec::encode(&entry).expect("encodes"));
    assert_eq!(text(issued()), include_str!("recorded/issued.hex").trim());
    assert_eq!(text(revoked()), include_str!("recorded/revoked.hex").trim());
    assert_eq!(
        name(&issued()).as_str(),
        "ca-log/2026-01-31/41414141414141414141414141414141.issued"
    );
}

#[test]
fn what_was_sealed_is_believed_and_nothing_else_is() {
    let (ca, _dir) = ca();
    for entry in [issued(), revoked()] {
        let (name, object) = (name(&entry), seal(&ca, &entry).expect("sealed"));
        assert_eq!(unseal(&ca, &name, &object).expect("believed"), entry);
        for at in 0..object.len() {
            let mut turned = object.to_vec();
            turned[at] ^= 1;
            assert!(unseal(&ca, &name, &turned).is_err(), "byte {at} turned");
        }
        for length in 0..object.len() {
            assert!(unseal(&ca, &name, &object[..length]).is_err());
        }
    }
}

#[test]
fn an_object_under_another_name_or_of_another_ca_is_refused() {
    let (ca, _dir) = ca();
    let (other, _other_dir) = self::ca();
    let object = seal(&ca, &issued()).expect("sealed");
    let error = unseal(&ca, &name(&revoked()), &object).expect_err("another kind");
    assert!(matches!(error, LogError::Misplaced), "{error}");
    let day = datetime!(2026-01-31 00:00 UTC).date();
    let elsewhere = key(day, &[0x42; 16], Kind::Issued).expect("a name");
    let error = unseal(&ca, &elsewhere, &object).expect_err("another serial");
    assert!(matches!(error, LogError::Misplaced), "{error}");
    let error = unseal(&other, &name(&issued()), &object).expect_err("another CA");
    assert!(matches!(error, LogError::Signer), "{error}");
}

#[test]
fn a_certificate_is_no_entry_and_an_entry_no_certificate() {
    let (ca, _dir) = ca();
    let message = codec::encode(&issued()).expect("encodes");
    // Signed without the words that say what it is.
    let (signature, signer) = ca.sign_message(&message).expect("signed");
    let object = Object {
        signature: ByteBuf::from(signature),
        signer: ByteBuf::from(signer),
        entry: ByteBuf::from(message),
    };
    let object = codec::encode(&object).expect("encodes");
    let error = unseal(&ca, &name(&issued()), &object).expect_err("another context");
    assert!(matches!(error, LogError::Signature), "{error}");
}

#[test]
fn names_of_what_is_too_old_come_before_all_others() {
    let before = key_before_kept(NOW).expect("a name");
    let named = |at: OffsetDateTime| key(at.date(), &[0; 16], Kind::Issued).expect("a name");
    assert!(named(NOW - KEPT - Duration::DAY) < before);
    assert!(named(NOW - KEPT) > before);
    assert!(named(NOW) > before);
}
