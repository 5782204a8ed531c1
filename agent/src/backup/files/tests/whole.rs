//! Everything that a file system can have comes back as it was.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use infratrack_shared::backup::PackKind;
use proptest::prelude::*;
use rustix::fs::{Mode, XattrFlags, lgetxattr, lsetxattr, mkfifoat};

use super::store::Bench;

/// A line for each entry: all that has to be the same.
pub(crate) fn described(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    describe(root, root, &mut lines);
    lines.sort();
    lines
}

fn describe(root: &Path, path: &Path, lines: &mut Vec<String>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let what = if kind.is_file() {
        let bytes = fs::read(path).unwrap();
        format!("file {} {}", bytes.len(), blake3::hash(&bytes))
    } else if kind.is_symlink() {
        format!("symlink {:?}", fs::read_link(path).unwrap())
    } else {
        let is = (kind.is_dir(), kind.is_fifo(), kind.is_socket());
        format!("{is:?}")
    };
    let mut buffer = [0; 1000];
    let xattrs = ["user.test", "system.posix_acl_access"].map(|name| {
        let length = lgetxattr(path, name, &mut buffer).unwrap_or(0);
        buffer[..length].to_vec()
    });
    let links = if kind.is_dir() { 0 } else { meta.nlink() };
    let (mode, owner) = (meta.mode(), (meta.uid(), meta.gid()));
    let time = (meta.mtime(), meta.mtime_nsec());
    let name = path.strip_prefix(root).unwrap();
    lines.push(format!(
        "{name:?} {what} {mode:o} {owner:?} {time:?} {links} {xattrs:?}"
    ));
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            describe(root, &entry.unwrap().path(), lines);
        }
    }
}

pub(crate) fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn sparse(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(&noise(1, 300_000), 20 << 20).unwrap();
    file.write_all_at(b"later", 40 << 20).unwrap();
}

#[test]
fn every_kind_of_entry_comes_back_as_it_was() {
    let mut bench = Bench::new();
    let tree = bench.tree();
    let at = |name: &str| tree.join(name);
    fs::write(at("empty"), b"").unwrap();
    fs::write(at("one"), b"1").unwrap();
    fs::write(at("many chunks"), noise(2, 5 << 20)).unwrap();
    fs::write(at("grüße-日本"), b"unicode").unwrap();
    fs::write(tree.join(OsStr::from_bytes(b"not\xff\xfeutf8\n")), b"bytes").unwrap();
    fs::write(at(&"n".repeat(255)), b"long").unwrap();
    sparse(&at("sparse"));
    fs::create_dir_all(at("dir/empty")).unwrap();
    fs::write(at("dir/a"), b"linked").unwrap();
    fs::hard_link(at("dir/a"), at("dir/b")).unwrap();
    fs::hard_link(at("dir/a"), at("z-link")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink("/nowhere/at all", at("dangling")).unwrap();
    mkfifoat(rustix::fs::CWD, at("fifo"), Mode::RUSR).unwrap();
    let _listener = UnixListener::bind(at("socket")).unwrap();
    let deep = at(&"d/".repeat(150));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), b"deep").unwrap();
    fs::write(at("setuid"), b"x").unwrap();
    let set = |name: &str, mode| fs::set_permissions(at(name), Permissions::from_mode(mode));
    set("setuid", 0o6755).unwrap();
    // As far as the file system of the tests has them.
    let _ = lsetxattr(at("one"), "user.test", b"value", XattrFlags::empty());
    let acl = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x01\0\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
    let _ = lsetxattr(
        at("one"),
        "system.posix_acl_access",
        acl,
        XattrFlags::empty(),
    );
    set("dir/empty", 0o1500).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    File::open(at("one")).unwrap().set_modified(old).unwrap();
    File::open(at("dir")).unwrap().set_modified(old).unwrap();
    let before = described(&tree);

    let walked = bench.run();
    assert_eq!(walked.errors, []);
    assert_eq!(walked.reason(), None);
    let restored = bench.restore(&walked.root);
    assert_eq!(restored.errors, []);
    assert_eq!(restored.files, walked.files);
    assert_eq!(described(&bench.out()), before);
    let blocks = |path: &Path| fs::metadata(path).unwrap().blocks();
    assert!(blocks(&bench.out().join("sparse")) < 2_000);
    let of_content = |kind: &&PackKind| **kind == PackKind::Content;
    let stored = bench.store.stored.iter().filter(of_content).count();
    assert!(stored < 30, "holes are not read: {stored}");
    let inode = |name: &str| fs::metadata(bench.out().join(name)).unwrap().ino();
    assert_eq!(inode("dir/a"), inode("z-link"));
}

#[test]
fn a_file_of_mode_000_is_read_by_root_and_named_for_anyone_else() {
    let mut bench = Bench::new();
    let secret = bench.tree().join("secret");
    fs::write(&secret, b"secret").unwrap();
    fs::write(bench.tree().join("other"), b"other").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o0)).unwrap();
    let walked = bench.run();
    if nix::unistd::Uid::effective().is_root() {
        assert_eq!(walked.errors_total, 0);
        return;
    }
    assert_eq!(walked.errors_total, 1);
    assert_eq!(walked.errors[0].path, secret.to_str().unwrap());
    assert_eq!(walked.reason(), Some("unreadable_files"));
    bench.restore(&walked.root);
    assert!(bench.out().join("other").exists());
    assert!(!bench.out().join("secret").exists());
}

#[derive(Clone, Debug)]
enum Made {
    File(usize),
    Directory(Vec<(u8, Made)>),
    Symlink(Vec<u8>),
}

fn made() -> impl Strategy<Value = Made> {
    let leaf = prop_oneof![
        prop_oneof![Just(0), 1_usize..2_000, Just(3 << 20)].prop_map(Made::File),
        proptest::collection::vec(1_u8.., 1..20).prop_map(Made::Symlink),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        proptest::collection::vec((b'0'.., inner), 0..6).prop_map(Made::Directory)
    })
}

fn make(path: &Path, made: &Made) {
    match made {
        Made::File(length) => fs::write(path, noise(3, *length)).unwrap(),
        Made::Symlink(target) => symlink(OsStr::from_bytes(target), path).unwrap(),
        Made::Directory(entries) => {
            fs::create_dir(path).unwrap();
            for (name, entry) in entries {
                let name = path.join(OsStr::from_bytes(&[b'.', b'n', *name]));
                if name.symlink_metadata().is_err() {
                    make(&name, entry);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tree_comes_back_as_it_was(made in made()) {
        let mut bench = Bench::new();
        make(&bench.tree().join("x"), &made);
        let walked = bench.run();
        prop_assert_eq!(&walked.errors, &[]);
        let again = bench.run();
        prop_assert_eq!(again.opened, 0);
        // The directories above are the host's own, and may have changed.
        prop_assert!(bench.store.stored.len() <= 2);
        let restored = bench.restore(&walked.root);
        prop_assert_eq!(restored.errors, []);
        prop_assert_eq!(described(&bench.out()), described(&bench.tree()));
    }
}
