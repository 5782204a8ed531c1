use proptest::prelude::*;

use super::*;

const SMALL: Limits = Limits {
    bytes: 1024,
    items: 8,
    depth: 3,
    string_bytes: 16,
};

fn refusal(bytes: &[u8]) -> String {
    decode::<rmpv::Value>(bytes, &SMALL)
        .expect_err("must be refused")
        .to_string()
}

#[test]
fn every_limit_is_held_and_named() {
    assert_eq!(
        refusal(&[0xc0; 1025]),
        "document of 1025 bytes is over the limit of 1024 bytes"
    );
    assert_eq!(
        refusal(&[0x98, 1, 1, 1, 1, 1, 1, 1, 1]),
        "more than 8 items (limit reached at byte 8)"
    );
    assert_eq!(
        refusal(&[0x91, 0x91, 0x91, 0x91, 0xc0]),
        "nested deeper than 3 (at byte 4)"
    );
    let mut long = vec![0xb1];
    long.extend([b'a'; 17]);
    assert_eq!(
        refusal(&long),
        "string or binary of 17 bytes at byte 0 is over the limit of 16 bytes"
    );
    assert_eq!(
        refusal(&[0xc0, 0xc0]),
        "1 bytes trail the document's end at byte 1"
    );
    assert_eq!(
        refusal(&[0x92, 0xc0]),
        "document ends in the middle of the value at byte 2"
    );
    assert_eq!(refusal(&[0xc1]), "byte 0 is no MessagePack marker");
    assert_eq!(
        refusal(&[]),
        "document ends in the middle of the value at byte 0"
    );
}

#[test]
fn what_just_fits_is_taken() {
    assert_eq!(
        check(&[0x91, 0x91, 0x91, 0xc0], &SMALL).expect("depth 3"),
        4
    );
    assert_eq!(
        check(&[0x97, 1, 1, 1, 1, 1, 1, 1], &SMALL).expect("8 items"),
        8
    );
    let mut longest = vec![0xb0 - 0x10 + 16];
    longest.extend([b'a'; 16]);
    assert_eq!(check(&longest, &SMALL).expect("16 bytes"), 1);
}

#[test]
fn lengths_of_4_gib_cost_nothing() {
    for marker in [0xdd_u8, 0xdf, 0xdb, 0xc6, 0xc9] {
        let mut body = vec![marker, 0xff, 0xff, 0xff, 0xff];
        body.extend([0xc0; 3]);
        assert!(
            decode::<rmpv::Value>(&body, &Limits::default()).is_err(),
            "{marker:#x}"
        );
    }
}

#[test]
fn a_million_levels_are_refused_without_recursion() {
    let body = vec![0x91; 1_000_000];
    let error = decode::<rmpv::Value>(&body, &Limits::default()).expect_err("too deep");
    assert_eq!(error.to_string(), "nested deeper than 32 (at byte 33)");
}

#[test]
fn the_depth_the_walk_allows_also_decodes() {
    let mut body = vec![0x91; limits::DEPTH];
    body.push(0xc0);
    decode::<rmpv::Value>(&body, &Limits::default()).expect("just as deep as allowed");
}

proptest! {
    #[test]
    fn the_walk_accepts_exactly_what_a_decoder_reads_to_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut rest = bytes.as_slice();
        let read = rmpv::decode::read_value_with_max_depth(&mut rest, 1000).is_ok() && rest.is_empty();
        let checked = check(&bytes, &Limits::default());
        // rmpv reads 0xc1, the marker that is none, as nil.
        prop_assume!(!matches!(checked, Err(DecodeError::Reserved { .. })));
        prop_assert_eq!(checked.is_ok(), read);
    }

    #[test]
    fn bodies_survive_the_way_through_a_value(text in ".{0,40}", number in any::<i64>()) {
        let body = (text, number);
        let value = to_value(&body).expect("encodes");
        let back: (String, i64) = decode_value(&value).expect("decodes");
        prop_assert_eq!(back, body);
    }
}
