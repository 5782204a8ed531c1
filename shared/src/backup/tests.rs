//! Packs, trees and snapshots, whole and damaged.

use proptest::prelude::*;
use serde_bytes::ByteBuf;
use uuid::Uuid;

use super::*;
use crate::ids::{HostId, SnapshotId, VolumeId};

const VOLUME: VolumeId = VolumeId(Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0001));

fn key() -> VolumeKey {
    VolumeKey::new([7; 32])
}

fn salt(number: u8) -> Salt {
    Salt::new([number; 16])
}

/// A pack of these chunks, and its table.
fn pack(number: u8, chunks: &[&[u8]]) -> (Vec<u8>, Table) {
    let (key, mut compressor) = (key(), Compressor::new().unwrap());
    let mut builder = PackBuilder::new(VOLUME, key.id(), PackKind::Content);
    for chunk in chunks {
        let origin = (salt(number), Algorithm::Aes256Gcm);
        let packed = compressor.pack(chunk);
        builder
            .push(&key, origin, key.chunk_id(chunk), packed)
            .unwrap();
    }
    let size = builder.size();
    let (hash, bytes) = builder.finish();
    assert_eq!((hash, size), (PackHash::of(&bytes), bytes.len()));
    let table = Table::of_pack(&bytes).unwrap();
    (bytes, table)
}

fn opened(bytes: &[u8], table: &Table) -> Vec<Vec<u8>> {
    let open = |entry: &Entry| entry.open(&key(), VOLUME, &bytes[entry.bytes()]).unwrap();
    table.entries.iter().map(open).collect()
}

#[test]
fn chunks_come_out_of_a_pack_as_they_went_in() {
    let chunks: [&[u8]; 4] = [
        b"a",
        &vec![0; 100_000],
        b"not compressed",
        &vec![3; MAX_CHUNK_BYTES],
    ];
    let (bytes, table) = pack(1, &chunks);
    assert_eq!(opened(&bytes, &table), chunks);
    assert!(bytes.len() < 2_000, "{}", bytes.len());
    assert_eq!((table.volume_id, table.key_id), (VOLUME, key().id()));
    assert_eq!(pack(1, &[]).1.entries, []);
}

#[test]
fn both_algorithms_open_and_neither_opens_what_is_of_another_place() {
    let (key, mut compressor) = (key(), Compressor::new().unwrap());
    let id = key.chunk_id(b"content");
    for algorithm in [Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305] {
        let place = Sealed {
            salt: salt(1),
            algorithm,
            counter: 300,
        };
        let sealed = place
            .seal(&key, VOLUME, &id, compressor.pack(b"content"))
            .unwrap();
        assert_eq!(place.open(&key, VOLUME, &id, &sealed).unwrap(), b"content");
        let elsewhere = [
            Sealed {
                counter: 301,
                ..place
            },
            Sealed {
                salt: salt(2),
                ..place
            },
        ];
        for other in elsewhere {
            assert!(other.open(&key, VOLUME, &id, &sealed).is_err());
        }
        let (other, stranger) = (key.chunk_id(b"other"), VolumeKey::new([8; 32]));
        assert!(place.open(&key, VOLUME, &other, &sealed).is_err());
        assert!(
            place
                .open(&key, VolumeId(Uuid::nil()), &id, &sealed)
                .is_err()
        );
        assert!(place.open(&stranger, VOLUME, &id, &sealed).is_err());
    }
}

#[test]
fn a_chunk_that_is_sealed_under_anothers_id_is_refused() {
    let key = key();
    let place = Sealed {
        salt: salt(1),
        algorithm: Algorithm::Aes256Gcm,
        counter: 0,
    };
    let id = key.chunk_id(b"wanted");
    let packed = Compressor::new().unwrap().pack(b"another");
    let sealed = place.seal(&key, VOLUME, &id, packed).unwrap();
    let error = place.open(&key, VOLUME, &id, &sealed).unwrap_err();
    assert!(matches!(error, OpenError::AnotherId), "{error}");
}

#[test]
fn chunks_move_to_another_pack_without_a_key() {
    let ((first, a), (second, b)) = (pack(1, &[b"one", b"two"]), pack(2, &[b"three"]));
    let mut builder = PackBuilder::new(VOLUME, a.key_id, PackKind::Content);
    for (bytes, entry) in [(&first, &a.entries[1]), (&second, &b.entries[0])] {
        builder.take_over(entry, &bytes[entry.bytes()]).unwrap();
    }
    assert_eq!(
        builder.take_over(&a.entries[0], b"short"),
        Err(MoveError::Length)
    );
    let (_, bytes) = builder.finish();
    let table = Table::of_pack(&bytes).unwrap();
    assert_eq!(opened(&bytes, &table), [b"two".to_vec(), b"three".to_vec()]);
    assert_eq!(table.entries[0].sealed, a.entries[1].sealed);
}

#[test]
fn a_table_is_read_from_both_ends_of_a_pack() {
    let (bytes, table) = pack(1, &[b"one", &vec![9; 50_000]]);
    let size = bytes.len() as u64;
    let needed = Table::tail_bytes(bytes.last_chunk().unwrap()).unwrap();
    let tail = &bytes[bytes.len() - needed..];
    let head = &bytes[..Table::HEAD_BYTES];
    assert_eq!(Table::of_ends(head, tail, size).unwrap(), table);
    let short = Table::of_ends(head, &tail[1..], size).unwrap_err();
    assert!(matches!(short, PackError::Table { .. }), "{short}");
    let long = Table::of_ends(head, tail, size + 1).unwrap_err();
    assert!(matches!(long, PackError::Room { .. }), "{long}");
}

#[test]
fn a_pack_is_full_before_it_is_too_large() {
    let noise = |number: u32| {
        let mut bytes = vec![0; MAX_CHUNK_BYTES];
        let mut reader = blake3::Hasher::new()
            .update(&number.to_be_bytes())
            .finalize_xof();
        reader.fill(&mut bytes);
        bytes
    };
    let (key, mut compressor) = (key(), Compressor::new().unwrap());
    let mut builder = PackBuilder::new(VOLUME, key.id(), PackKind::Trees);
    let mut pushed = 0;
    while builder.has_room_for(MAX_CHUNK_BYTES + 17) {
        let chunk = noise(pushed);
        let origin = (salt(1), Algorithm::ChaCha20Poly1305);
        builder
            .push(&key, origin, key.chunk_id(&chunk), compressor.pack(&chunk))
            .unwrap();
        pushed += 1;
    }
    assert_eq!(pushed, 15);
    let again = compressor.pack(&noise(99));
    let origin = (salt(1), Algorithm::ChaCha20Poly1305);
    assert!(
        builder
            .push(&key, origin, key.chunk_id(b"x"), again)
            .is_err()
    );
    let (_, bytes) = builder.finish();
    assert!(bytes.len() <= MAX_PACK_BYTES);
    assert_eq!(Table::of_pack(&bytes).unwrap().entries.len(), 15);
}

#[test]
fn what_is_no_pack_is_said_to_be_none() {
    let (bytes, _) = pack(1, &[b"one", b"two"]);
    let changed = |at: usize, to: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = to;
        Table::of_pack(&bytes).unwrap_err().to_string()
    };
    let end = bytes.len();
    let table = end - 8 - (2 + 17 + 4 + 2 * 40);
    for (at, to, said) in [
        (0, b'X', "it does not begin as a pack of version 1"),
        (7, 2, "it does not begin as a pack of version 1"),
        (40, 9, "there is no kind 9"),
        (44, 1, "its header has other bytes where zeros should be"),
        (end - 1, 0, "it does not end as a pack"),
        (
            end - 5,
            0,
            "its table of 0 bytes does not fit what there is",
        ),
        (
            table + 18,
            7,
            "there is no algorithm 7; is this release too old?",
        ),
        (table + 23 + 33, 5, "its chunk 0 is of origin 5, of 1"),
        (table + 23 + 39, 17, "its chunk 0 is 17 bytes long"),
        (table + 23 + 40 + 35, 0, "its chunk 1 is there twice"),
        (
            table + 23 + 39,
            21,
            "its chunks have 41 bytes, between header and table are 40",
        ),
    ] {
        assert_eq!(changed(at, to), said, "at {at}");
    }
    for length in 0..end {
        assert!(Table::of_pack(&bytes[..length]).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn any_bit_of_a_pack_that_flips_is_noticed(at in 0_usize..250, bit in 0_u8..8) {
        let (mut bytes, table) = pack(1, &[b"one", b"two"]);
        let hash = PackHash::of(&bytes);
        prop_assume!(at < bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert_ne!(PackHash::of(&bytes), hash);
        // Who reads only a part, and so can't compare the whole, notices by the part.
        if let Ok(read) = Table::of_pack(&bytes) && read.key_id == table.key_id {
            let opens = |entry: &Entry| entry.open(&key(), read.volume_id, &bytes[entry.bytes()]);
            let opened: Result<Vec<_>, _> = read.entries.iter().map(opens).collect();
            prop_assert!(opened.is_err() || read.kind != table.kind);
        }
    }
}

fn node(name: &str, kind: Kind) -> Node {
    Node {
        name: ByteBuf::from(name.as_bytes()),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        user: Some("root".to_owned()),
        group: None,
        mtime_s: -1,
        mtime_ns: 999_999_999,
        content: Some(Content::of_chunks(3, &[key().chunk_id(b"abc")])),
        target: None,
        device: None,
        xattrs: Vec::new(),
        holes: Vec::new(),
        hard_link: None,
        torn: false,
    }
}

#[test]
fn a_tree_is_read_whatever_pieces_it_comes_in() {
    let nodes = [
        node("a", Kind::File),
        Node {
            xattrs: vec![(ByteBuf::from("user.x"), ByteBuf::from(vec![0xff; 65_536]))],
            ..node("b\u{fe}", Kind::Directory)
        },
        Node {
            content: None,
            target: Some(ByteBuf::from("../c")),
            ..node("c", Kind::Symlink)
        },
        Node {
            content: None,
            device: Some((8, 1)),
            ..node("d", Kind::Block)
        },
    ];
    let bytes: Vec<u8> = nodes
        .iter()
        .flat_map(|node| node.encode().unwrap())
        .collect();
    for piece in [1, 7, 1000, bytes.len()] {
        let (mut reader, mut read) = (TreeReader::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            reader.feed(piece);
            while let Some(node) = reader.next_node().unwrap() {
                read.push(node);
            }
        }
        reader.finish().unwrap();
        assert_eq!(read, nodes);
    }
    let mut cut = TreeReader::default();
    cut.feed(&bytes[..bytes.len() - 1]);
    while cut.next_node().unwrap().is_some() {}
    assert!(cut.finish().is_err());
}

#[test]
fn a_tree_that_could_lead_elsewhere_or_is_not_whole_is_refused() {
    let said = |nodes: &[Node]| {
        let mut reader = TreeReader::default();
        for node in nodes {
            reader.feed(&node.encode().unwrap());
        }
        loop {
            match reader.next_node() {
                Ok(Some(_)) => {}
                Ok(None) => break "whole".to_owned(),
                Err(error) => break error.to_string(),
            }
        }
    };
    let file = |name| node(name, Kind::File);
    for name in ["", ".", "..", "a/b", "a\0"] {
        let expected = format!("its entry 0 is named {name:?}, which no directory can have");
        assert_eq!(said(&[file(name)]), expected);
    }
    let order = "its entry 1 does not come after the one before";
    assert_eq!(said(&[file("b"), file("a")]), order);
    assert_eq!(said(&[file("a"), file("a")]), order);
    let lacks = |kind| {
        said(&[Node {
            content: None,
            ..node("a", kind)
        }])
    };
    assert_eq!(lacks(Kind::File), "its entry 0 lacks its content");
    assert_eq!(lacks(Kind::Directory), "its entry 0 lacks its content");
    assert_eq!(lacks(Kind::Symlink), "its entry 0 lacks its target");
    assert_eq!(lacks(Kind::Char), "its entry 0 lacks its device");
    assert_eq!(lacks(Kind::Fifo), "whole");
    for holes in [
        vec![(0, 4)],
        vec![(1, 1), (1, 1)],
        vec![(0, 0)],
        vec![(u64::MAX, 1)],
    ] {
        let expected = "its entry 0 has holes that are not in order within the file";
        assert_eq!(said(&[Node { holes, ..file("a") }]), expected);
    }
}

fn snapshot() -> (Head, Manifest) {
    let mut refs = Refs::default();
    refs.insert(salt(1), 0);
    let head = Head {
        volume_id: VOLUME,
        snapshot_id: SnapshotId(Uuid::nil()),
        host_id: HostId::default(),
        key_id: key().id(),
        salt: salt(9),
        algorithm: Algorithm::Aes256Gcm,
        started_at_ms: 1,
        ended_at_ms: 2,
        state: SnapshotState::Incomplete,
        kind: SnapshotKind::Files,
        files: 1,
        bytes: 3,
        refs,
    };
    let manifest = Manifest {
        root: Content::of_chunks(3, &[key().chunk_id(b"abc")]),
        hostname: "web-1".to_owned(),
        source: vec!["/srv".to_owned()],
        agent: "0.1.0".to_owned(),
        errors: vec![Unread {
            path: "/srv/secret".to_owned(),
            what: "permission denied".to_owned(),
        }],
        errors_total: 1,
        counted: None,
    };
    (head, manifest)
}

#[test]
fn a_snapshots_head_is_read_by_anybody_and_its_manifest_with_the_key_only() {
    let (head, manifest) = snapshot();
    let bytes = head.seal(&manifest, &key()).unwrap();
    assert_eq!(Head::of_snapshot(&bytes).unwrap(), head);
    assert_eq!(Manifest::open(&bytes, &key()).unwrap(), (head, manifest));
    let stranger = VolumeKey::new([8; 32]);
    let error = Manifest::open(&bytes, &stranger).unwrap_err();
    assert!(matches!(error, SnapshotError::Key(_)), "{error}");
    let is_there = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(!is_there(b"secret") && !is_there(b"/srv") && !is_there(b"web-1"));
}

#[test]
fn any_byte_of_a_snapshot_that_changes_keeps_it_shut() {
    let (head, manifest) = snapshot();
    let whole = head.seal(&manifest, &key()).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        assert!(Manifest::open(&bytes, &key()).is_err(), "byte {at}");
        assert!(Manifest::open(&whole[..at], &key()).is_err(), "{at} bytes");
    }
}

#[test]
fn a_key_shows_nothing_of_itself() {
    let key = VolumeKey::new([0x5a; 32]);
    let document = key.to_document(VOLUME);
    let shown = format!("{key:?} {document:?}");
    assert!(
        !shown.contains("90") && !shown.to_lowercase().contains("5a5a"),
        "{shown}"
    );
    let read = KeyDocument::decode(&document.encode().unwrap()).unwrap();
    assert_eq!((read.volume_id, read.key().id()), (VOLUME, key.id()));
}
