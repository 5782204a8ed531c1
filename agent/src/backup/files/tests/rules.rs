//! What may be read, and what is left out.

use std::fs;
use std::os::unix::fs::symlink;

use super::store::Bench;
use super::whole::described;
use crate::backup::files::FilesError;

fn path(bench: &Bench, below: &str) -> String {
    bench.dir.path().join(below).to_str().unwrap().to_owned()
}

#[test]
fn what_is_excluded_is_left_out_and_what_is_asked_for_is_not() {
    let mut bench = Bench::new();
    for name in [
        "keep",
        "a.tmp",
        "cache/x",
        "sub/a.tmp",
        "sub/cache/y",
        "sub/keep.tmp",
    ] {
        let file = bench.tree().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, name).unwrap();
    }
    let anchored = format!("{}/cache/", path(&bench, "tree"));
    bench.files.excludes = vec!["*.tmp".into(), "!keep.tmp".into(), anchored];
    let walked = bench.run();
    bench.restore(&walked.root);
    let there = |name: &str| bench.out().join(name).exists();
    assert!(there("keep") && there("sub/cache/y") && there("sub/keep.tmp"));
    assert!(!there("a.tmp") && !there("cache") && !there("sub/a.tmp"));
}

#[test]
fn what_is_not_allowed_is_refused_before_anything_is_read() {
    let mut bench = Bench::new();
    let outside = tempfile::TempDir::new().unwrap();
    fs::create_dir(outside.path().join("in")).unwrap();
    symlink(outside.path(), bench.tree().join("out")).unwrap();
    let dotted = path(&bench, "tree/../tree");
    for refused in ["/etc", "relative", "/", dotted.as_str(), "/\0"] {
        bench.files.paths = vec![path(&bench, "tree"), refused.to_owned()];
        let mut cache = bench.cache();
        let error = bench.try_run(&mut cache).unwrap_err();
        assert!(matches!(error, FilesError::NotAllowed { .. }), "{refused}");
        assert_eq!(error.reason(), Some("path_not_allowed"));
    }
    bench.files.paths = vec![path(&bench, "tree"), path(&bench, "tree/out/in")];
    let mut cache = bench.cache();
    let error = bench.try_run(&mut cache).unwrap_err();
    assert!(matches!(error, FilesError::LeadsOut { .. }));
    assert!(bench.store.stored.is_empty());
}

#[test]
fn several_paths_are_one_tree_and_one_that_is_missing_is_named() {
    let mut bench = Bench::new();
    for name in ["one/a", "two/b", "two/c/d", "three/e"] {
        let file = bench.tree().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, name).unwrap();
    }
    symlink("one", bench.tree().join("link")).unwrap();
    let asked = [
        "tree/one",
        "tree/two/c",
        "tree/missing",
        "tree/link",
        "tree/two/b",
    ];
    bench.files.paths = asked.iter().map(|below| path(&bench, below)).collect();
    let walked = bench.run();
    let named: Vec<_> = walked.errors.iter().map(|e| e.path.clone()).collect();
    assert_eq!(
        named,
        [path(&bench, "tree/missing"), path(&bench, "tree/link")]
    );
    bench.restore(&walked.root);
    fs::remove_dir_all(bench.tree().join("three")).unwrap();
    let names = |lines: Vec<String>| -> Vec<String> {
        lines
            .iter()
            .map(|l| l.split(' ').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        names(described(&bench.out())),
        names(described(&bench.tree()))
    );
    bench.files.paths = vec![path(&bench, "tree/missing")];
    let mut cache = bench.cache();
    let error = bench.try_run(&mut cache).unwrap_err();
    assert!(matches!(error, FilesError::NothingThere));
}

#[test]
fn a_path_within_another_is_in_the_tree_once_and_whole() {
    let mut bench = Bench::new();
    for name in ["a/b/x", "a/b/c/d", "a/e"] {
        let file = bench.tree().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, name).unwrap();
    }
    bench.files.paths.push(path(&bench, "tree/a/b/c"));
    let walked = bench.run();
    assert_eq!(walked.files, 3);
    bench.restore(&walked.root);
    assert_eq!(described(&bench.out()), described(&bench.tree()));
}
