//! What a release wrote into a bucket is read by every later one: each directory in `tests/backup/` has the objects of a release, sealed with
//! the key of 32 bytes 0, 1, 2, …; and where content is cut never moves, or everything would be uploaded again.
//!
//! `INFRATRACK_RECORD=1 cargo test -p infratrack-shared --test backup` writes what is missing for this release and never overwrites.

use std::fs;
use std::path::PathBuf;

use infratrack_shared::backup::{
    Algorithm, ChunkId, Chunker, Compressor, Content, Head, KeyDocument, Kind, Manifest, Node,
    PackBuilder, PackHash, PackKind, Refs, Salt, Sizes, SnapshotKind, SnapshotState, Table,
    TreeReader, Unread, VolumeKey,
};
use infratrack_shared::ids::{HostId, SnapshotId, VolumeId};
use serde_bytes::ByteBuf;
use uuid::Uuid;

const RELEASES: &[&str] = &["0.1.0"];
const VOLUME: VolumeId = VolumeId(Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0001));
const CONTENT: &[u8] = b"infratrack infratrack infratrack infratrack infratrack\n";

fn key() -> VolumeKey {
    VolumeKey::new(std::array::from_fn(|at| {
        u8::try_from(at).expect("32 are few")
    }))
}

fn recorded(release: &str, name: &str, fresh: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/backup")
        .join(release);
    let path = folder.join(name);
    let is_newest = RELEASES.last() == Some(&release);
    if is_newest && std::env::var_os("INFRATRACK_RECORD").is_some() && !path.exists() {
        fs::create_dir_all(&folder).expect("the folder can be made");
        fs::write(&path, fresh()).expect("the file can be written");
    }
    fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; INFRATRACK_RECORD=1 writes it", path.display())
    })
}

/// Bytes that everybody can make: BLAKE3 of nothing, extended.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn cuts(sizes: Sizes) -> Vec<usize> {
    let (chunker, content) = (Chunker::new(&key(), sizes), noise(8 << 20));
    let mut rest = content.as_slice();
    let mut lengths = Vec::new();
    while !rest.is_empty() {
        let length = chunker.cut(rest);
        lengths.push(length);
        rest = &rest[length..];
    }
    lengths
}

#[test]
fn content_is_cut_where_it_always_was() {
    assert_eq!(
        cuts(Sizes::USUAL),
        [
            568_421, 651_863, 286_562, 618_861, 487_165, 924_277, 1_099_100, 1_042_652, 544_851,
            926_626, 1_238_230
        ]
    );
    assert_eq!(
        cuts(Sizes::DATABASE),
        [
            408_374, 160_047, 408_549, 243_314, 286_562, 411_878, 257_949, 369_200, 66_999,
            705_340, 262_223, 266_916, 294_733, 305_824, 524_047, 165_693, 293_135, 248_118,
            544_851, 297_389, 215_064, 414_173, 280_159, 297_977, 571_183, 88_911
        ]
    );
}

#[test]
fn a_key_derives_what_it_always_did() {
    assert_eq!(key().id().to_string(), "a11faab18a56c22f8de56375241857ae");
    assert_eq!(
        key().chunk_id(CONTENT).to_string(),
        "e0b8e7590c24b161dcd9e521dc98ad3f78d42b7f579c41d044fe7e10f5641fd7"
    );
}

fn node(id: ChunkId) -> Node {
    Node {
        name: ByteBuf::from("a file"),
        kind: Kind::File,
        mode: 0o640,
        uid: 1000,
        gid: 1000,
        user: Some("web".to_owned()),
        group: Some("web".to_owned()),
        mtime_s: 1_795_000_000,
        mtime_ns: 123_456_789,
        content: Some(Content::of_chunks(CONTENT.len() as u64, &[id])),
        target: None,
        device: None,
        xattrs: vec![(ByteBuf::from("user.origin"), ByteBuf::from("here"))],
        holes: vec![(8, 4)],
        hard_link: Some(7),
        torn: true,
    }
}

fn pack() -> Vec<u8> {
    let (key, mut compressor) = (key(), Compressor::new().expect("in memory"));
    let mut builder = PackBuilder::new(VOLUME, key.id(), PackKind::Content);
    let content = noise(2000);
    for (number, algorithm) in [(1, Algorithm::Aes256Gcm), (2, Algorithm::ChaCha20Poly1305)] {
        for chunk in [CONTENT, &content] {
            // The same content once for each algorithm would be there twice.
            let chunk = [chunk, &[number]].concat();
            let (id, packed) = (key.chunk_id(&chunk), compressor.pack(&chunk));
            let origin = (Salt::new([number; 16]), algorithm);
            builder
                .push(&key, origin, id, packed)
                .expect("there is room");
        }
    }
    builder.finish().1
}

fn snapshot() -> (Head, Manifest) {
    let mut refs = Refs::default();
    for counter in [0, 1, 2, 5] {
        refs.insert(Salt::new([1; 16]), counter);
    }
    refs.insert(Salt::new([2; 16]), 65_535);
    let head = Head {
        volume_id: VOLUME,
        snapshot_id: SnapshotId(Uuid::from_u128(2)),
        host_id: HostId(Uuid::from_u128(3)),
        key_id: key().id(),
        salt: Salt::new([3; 16]),
        algorithm: Algorithm::Aes256Gcm,
        started_at_ms: 1_795_000_000_000,
        ended_at_ms: 1_795_000_060_000,
        state: SnapshotState::Incomplete,
        kind: SnapshotKind::Files,
        files: 1,
        bytes: CONTENT.len() as u64,
        refs,
    };
    let manifest = Manifest {
        root: Content::of_lists(1 << 40, &[key().chunk_id(b"a list")]),
        hostname: "web-1".to_owned(),
        source: vec!["/srv".to_owned()],
        agent: "0.1.0".to_owned(),
        errors: vec![Unread {
            path: "/srv/private".to_owned(),
            what: "permission denied".to_owned(),
        }],
        errors_total: 1,
        counted: None,
    };
    (head, manifest)
}

#[test]
fn packs_of_every_release_open() {
    for release in RELEASES {
        let bytes = recorded(release, "pack", pack);
        let table = Table::of_pack(&bytes).unwrap();
        assert_eq!((table.volume_id, table.key_id), (VOLUME, key().id()));
        let opened = table.entries.iter().map(|entry| {
            let (sealed, volume_id) = (&bytes[entry.bytes()], table.volume_id);
            entry.open(&key(), volume_id, sealed).unwrap()
        });
        let expected = [1, 2].into_iter().flat_map(|number| {
            let with = |chunk: &[u8]| [chunk, &[number]].concat();
            [with(CONTENT), with(&noise(2000))]
        });
        assert!(opened.eq(expected), "{release}");
    }
    let hash = PackHash::of(&recorded("0.1.0", "pack", pack)).to_string();
    assert_eq!(
        hash,
        "7d9498e79f0fd33fdb9cae2564af5263b994e636216454ba5c3ce8b08ce55e8c"
    );
}

#[test]
fn trees_of_every_release_are_read() {
    let expected = node(key().chunk_id(CONTENT));
    for release in RELEASES {
        let bytes = recorded(release, "tree", || expected.encode().unwrap());
        let mut reader = TreeReader::default();
        reader.feed(&bytes);
        assert_eq!(
            reader.next_node().unwrap(),
            Some(expected.clone()),
            "{release}"
        );
        reader.finish().unwrap();
    }
}

#[test]
fn snapshots_of_every_release_open() {
    let expected = snapshot();
    for release in RELEASES {
        let fresh = || expected.0.seal(&expected.1, &key()).unwrap();
        let bytes = recorded(release, "snapshot", fresh);
        assert_eq!(
            Manifest::open(&bytes, &key()).unwrap(),
            expected,
            "{release}"
        );
    }
}

#[test]
fn the_insides_of_wrapped_keys_of_every_release_are_read() {
    for release in RELEASES {
        let fresh = || key().to_document(VOLUME).encode().unwrap().to_vec();
        let document = KeyDocument::decode(&recorded(release, "key", fresh)).unwrap();
        assert_eq!((document.format, document.volume_id), (1, VOLUME));
        assert_eq!(document.key().id(), key().id(), "{release}");
    }
}
