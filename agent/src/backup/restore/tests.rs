//! What is damaged, hostile or half done: no file is there that is not whole.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use infratrack_shared::backup::{
    Content, Head, Kind, Manifest, Node, PackKind, Salt, SnapshotKind, SnapshotState,
};
use infratrack_shared::ids::{HostId, SnapshotId};
use serde_bytes::ByteBuf;

use super::*;
use crate::backup::chunks::Chunks;
use crate::backup::files::tests::store::Bench;

fn packs(bench: &Bench) -> Vec<PathBuf> {
    let dir = bench.store.bucket.join("backups");
    let dir = dir.join(bench.store.volume.to_string()).join("packs");
    let below = fs::read_dir(dir).unwrap().map(|dir| dir.unwrap().path());
    below
        .flat_map(|dir| fs::read_dir(dir).unwrap())
        .map(|pack| pack.unwrap().path())
        .collect()
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn bench() -> (Bench, Content) {
    let mut bench = Bench::new();
    fs::write(bench.tree().join("a"), noise(20_000)).unwrap();
    fs::write(bench.tree().join("b"), b"small").unwrap();
    fs::write(bench.tree().join("c"), noise(3 << 20)).unwrap();
    let root = bench.run().root;
    (bench, root)
}

#[test]
fn a_flipped_byte_is_found_and_no_file_has_it() {
    let (bench, root) = bench();
    for path in packs(&bench) {
        let good = fs::read(&path).unwrap();
        let step = (good.len() / 60).max(1);
        for at in (0..48)
            .chain((48..good.len()).step_by(step))
            .chain(good.len() - 60..good.len())
        {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, bad).unwrap();
            let bucket = Bucket::open(&bench.store.bucket, bench.store.volume).unwrap();
            assert_eq!(bucket.check_packs().len(), 1, "byte {at}");
            fs::remove_dir_all(bench.dir.path().join("out")).unwrap();
            fs::create_dir(bench.dir.path().join("out")).unwrap();
            let restored = bench.restore(&root);
            let mut missing = 0;
            for name in ["a", "b", "c"] {
                match fs::read(bench.out().join(name)) {
                    Ok(bytes) => assert_eq!(bytes, fs::read(bench.tree().join(name)).unwrap()),
                    Err(_) => missing += 1,
                }
            }
            assert!(missing == 0 || restored.errors_total > 0, "byte {at}");
            let is_sealed = (48..good.len() - 200).contains(&at);
            assert!(!is_sealed || restored.errors_total > 0, "byte {at}");
        }
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn what_is_there_already_is_left_and_what_is_not_the_same_is_written_anew() {
    let (bench, root) = bench();
    assert_eq!(bench.restore(&root).left, 0);
    let again = bench.restore(&root);
    assert_eq!((again.left, again.errors_total), (3, 0));
    // As large and as old, with another byte.
    let path = bench.out().join("c");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[2_000_000] ^= 1;
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&bytes).unwrap();
    file.set_modified(time).unwrap();
    fs::remove_file(bench.out().join("a")).unwrap();
    fs::write(bench.out().join(".infratrack-restore.half"), b"not ours").unwrap();
    let again = bench.restore(&root);
    assert_eq!((again.left, again.errors_total), (1, 0));
    for name in ["a", "b", "c"] {
        let there = fs::read(bench.out().join(name)).unwrap();
        assert_eq!(there, fs::read(bench.tree().join(name)).unwrap());
    }
    let entries = fs::read_dir(bench.out()).unwrap().count();
    assert_eq!(entries, 4, "nothing else is left");
}

#[test]
fn only_what_is_asked_for_is_restored() {
    let (bench, root) = bench();
    let options = Options {
        paths: vec![format!("{}/b", bench.tree().display())],
        ..Options::default()
    };
    let restored = bench.restore_with(&root, &options);
    assert_eq!((restored.files, restored.errors_total), (1, 0));
    assert_eq!(fs::read_dir(bench.out()).unwrap().count(), 1);
}

#[test]
fn a_symlink_in_the_target_is_not_followed() {
    let (bench, root) = bench();
    let elsewhere = tempfile::TempDir::new().unwrap();
    fs::create_dir_all(bench.out().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), bench.out()).unwrap();
    let restored = bench.restore(&root);
    assert_eq!(restored.errors_total, 1);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn outside_of_the_allowed_paths_nothing_is_written_and_above_them_all_stays_as_it_is() {
    let (mut bench, _) = bench();
    let folder = bench.tree().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("inner"), b"inner").unwrap();
    let root = bench.run().root;
    let mode = fs::Permissions::from_mode(0o700);
    fs::create_dir_all(bench.out()).unwrap();
    fs::set_permissions(bench.out(), mode.clone()).unwrap();
    fs::set_permissions(bench.tree(), fs::Permissions::from_mode(0o755)).unwrap();
    let options = Options {
        allowed: Some(vec![folder.clone(), "/nowhere".into()]),
        ..Options::default()
    };
    let restored = bench.restore_with(&root, &options);
    // The three files beside it.
    assert_eq!(
        (restored.files, restored.errors_total),
        (1, 3),
        "{restored:?}"
    );
    let there = fs::read(bench.out().join("folder/inner")).unwrap();
    assert_eq!(there, b"inner");
    assert_eq!(fs::read_dir(bench.out()).unwrap().count(), 1);
    let above = fs::metadata(bench.out()).unwrap().permissions().mode();
    assert_eq!(above & 0o777, mode.mode());
}

fn node(name: &[u8], kind: Kind, content: Option<Content>) -> Node {
    Node {
        name: ByteBuf::from(name),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        user: None,
        group: None,
        mtime_s: 0,
        mtime_ns: 0,
        content,
        target: None,
        device: None,
        xattrs: Vec::new(),
        holes: Vec::new(),
        hard_link: None,
        torn: false,
    }
}

#[test]
fn hostile_trees_write_nothing_outside_and_are_named() {
    let mut bench = Bench::new();
    let id = bench.store.store(PackKind::Content, b"evil").unwrap();
    let four = || Some(Content::of_chunks(4, &[id]));
    let file = |name: &[u8]| node(name, Kind::File, four());
    let long = node(b"long", Kind::File, Some(Content::of_chunks(9, &[id])));
    let short = node(b"short", Kind::File, Some(Content::of_chunks(1, &[id])));
    let mut link = node(b"a", Kind::Symlink, None);
    link.target = Some(ByteBuf::from(b"/tmp".as_slice()));
    let none = infratrack_shared::backup::ChunkId::new([1; 32]);
    let lost = node(b"lost", Kind::File, Some(Content::of_chunks(4, &[none])));
    let trees = [
        vec![file(b"..")],
        vec![file(b"")],
        vec![file(b".")],
        vec![file(b"x/y")],
        vec![file(b"twice"), file(b"twice")],
        vec![link.clone(), file(b"a")],
        vec![long],
        vec![short],
        vec![lost],
        vec![node(
            b"dir",
            Kind::Directory,
            Some(Content::of_chunks(4, &[id])),
        )],
    ];
    let mut roots = Vec::new();
    for tree in trees {
        let bytes: Vec<u8> = tree
            .iter()
            .flat_map(|node| node.encode().unwrap())
            .collect();
        let id = bench.store.store(PackKind::Trees, &bytes).unwrap();
        roots.push(Content::of_chunks(bytes.len() as u64, &[id]));
    }
    bench.store.finish();
    for (at, root) in roots.iter().enumerate() {
        assert!(bench.restore(root).errors_total > 0, "tree {at}");
    }
    let out = fs::read_dir(bench.dir.path().join("out")).unwrap();
    let mut names: Vec<_> = out
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    // What stood before the wrong entry is good.
    assert!(
        names
            .iter()
            .all(|name| ["a", "dir", "twice"].contains(&name.as_str())),
        "{names:?}"
    );
}

#[test]
fn a_snapshot_is_found_opened_listed_and_dumped() {
    let (bench, root) = bench();
    let head = Head {
        volume_id: bench.store.volume,
        snapshot_id: bench.snapshot,
        host_id: HostId::random(),
        key_id: bench.store.key.id(),
        salt: Salt::new([5; 16]),
        algorithm: infratrack_shared::backup::Algorithm::ChaCha20Poly1305,
        started_at_ms: 1,
        ended_at_ms: 2,
        state: SnapshotState::Ok,
        kind: SnapshotKind::Files,
        files: 3,
        bytes: 1,
        refs: infratrack_shared::backup::Refs::default(),
    };
    let manifest = Manifest {
        root: root.clone(),
        hostname: "host".into(),
        source: Vec::new(),
        agent: String::new(),
        errors: Vec::new(),
        errors_total: 0,
        counted: None,
    };
    let sealed = head.seal(&manifest, &bench.store.key).unwrap();
    let volumes = Bucket::volumes(&Folder::new(&bench.store.bucket)).unwrap();
    assert_eq!(volumes, [bench.store.volume]);
    let dir = bench
        .store
        .bucket
        .join(format!("backups/{}/snapshots", bench.store.volume));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(bench.snapshot.to_string()), sealed).unwrap();
    fs::write(dir.join(SnapshotId::random().to_string()), b"damaged").unwrap();
    let bucket = Bucket::open(&bench.store.bucket, bench.store.volume).unwrap();
    let latest = bucket.latest().unwrap();
    assert_eq!(latest, bench.snapshot);
    let (_, opened) = Manifest::open(&bucket.snapshot(latest).unwrap(), &bench.store.key).unwrap();
    let mut names = Vec::new();
    let from = bench.fetcher(&bucket);
    list(from, &opened.root, &Options::default(), &mut |path, _| {
        names.push(path.to_vec());
    })
    .unwrap();
    let name = bench.tree().join("c");
    assert!(names.contains(&name.as_os_str().as_encoded_bytes().to_vec()));
    let mut out = Vec::new();
    dump(from, &root, Some(name.as_os_str()), &mut out).unwrap();
    assert!(out == fs::read(&name).unwrap());
    let none = dump(from, &root, Some(OsStr::new("/none")), &mut out);
    assert!(matches!(none, Err(RestoreError::NoFile(_))));
    let verified = verify(from, &root, &Options::default(), &Meter::default()).unwrap();
    assert_eq!((verified.files, verified.errors_total), (3, 0));
}
