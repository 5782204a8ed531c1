//! What has not changed is not opened, and what is not known for sure is.

use std::fs::{self, File, OpenOptions};
use std::io::Write;

use infratrack_shared::backup::{KeyId, PackKind, Refs};

use super::store::Bench;
use super::whole::{described, noise};
use crate::backup::files::{Cache, FilesError};

fn bench() -> Bench {
    let bench = Bench::new();
    let tree = bench.tree();
    for dir in ["a", "b", "c"] {
        fs::create_dir(tree.join(dir)).unwrap();
        for name in ["1", "2", "3"] {
            fs::write(tree.join(dir).join(name), format!("{dir}{name}")).unwrap();
        }
    }
    fs::write(tree.join("b/large"), noise(1, 5 << 20)).unwrap();
    fs::hard_link(tree.join("b/1"), tree.join("z")).unwrap();
    bench
}

#[test]
fn a_second_run_opens_no_file_and_stores_nothing() {
    let mut bench = bench();
    let first = bench.run();
    assert_eq!(first.opened, 10);
    let mut cache = bench.cache();
    assert_eq!(cache.parent(), Some(bench.snapshot));
    let second = bench.try_run(&mut cache).unwrap();
    assert_eq!(second.opened, 0);
    // The directories above are the host's own, and may have changed.
    assert!(!bench.store.stored.contains(&PackKind::Content));
    assert!(bench.store.stored.len() <= 2, "{:?}", bench.store.stored);
    assert_eq!((second.files, second.bytes), (first.files, first.bytes));
    let kept: std::collections::HashSet<_> = bench.store.kept.iter().collect();
    let all: std::collections::HashSet<_> = bench.store.places.values().collect();
    assert!(
        all.difference(&kept).count() <= 4,
        "all that the snapshot needs"
    );
}

#[test]
fn one_changed_file_stores_its_chunks_and_the_trees_above() {
    let mut bench = bench();
    bench.run();
    fs::write(bench.tree().join("a/2"), "other").unwrap();
    fs::write(bench.tree().join("b/0 is new"), "new").unwrap();
    fs::remove_dir_all(bench.tree().join("c")).unwrap();
    let walked = bench.run();
    assert_eq!(walked.opened, 2);
    let of = |kind| bench.store.stored.iter().filter(|of| **of == kind).count();
    assert_eq!(of(PackKind::Content), 2);
    bench.restore(&walked.root);
    assert_eq!(described(&bench.out()), described(&bench.tree()));
    assert_eq!(bench.run().opened, 0);
}

#[test]
fn a_cache_that_is_damaged_or_of_another_key_or_volume_is_as_none() {
    let mut bench = bench();
    let first = bench.run();
    assert_eq!(bench.cache_of(KeyId::new([9; 16])).parent(), None);
    let path = bench
        .dir
        .path()
        .join("cache")
        .join(bench.store.volume.to_string());
    let good = fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        assert_eq!(bench.cache().parent(), None, "byte {at}");
    }
    let again = bench.run();
    assert_eq!(again.opened, first.opened);
    assert_eq!(bench.run().opened, 0);
}

#[test]
fn what_needs_a_lost_chunk_is_read_again() {
    let mut bench = bench();
    bench.run();
    let id = bench.store.key.chunk_id(b"a2");
    let (salt, counter) = bench.store.places[&id];
    let mut lost = Refs::default();
    lost.insert(salt, counter);
    let mut cache = bench.cache();
    cache.distrust(lost);
    assert_eq!(bench.try_run(&mut cache).unwrap().opened, 1);
    cache = bench.cache();
    cache.forget();
    assert_eq!(bench.try_run(&mut cache).unwrap().opened, 10);
}

#[test]
fn a_stopped_run_leaves_what_it_has_done_and_what_was_known() {
    let mut bench = bench();
    bench.store.stop_after = 5;
    let mut cache = bench.cache();
    let stopped = bench.try_run(&mut cache);
    assert!(matches!(stopped, Err(FilesError::Stopped(_))));
    cache.keep(&bench.store.places).unwrap();
    bench.store.stop_after = usize::MAX;
    let walked = bench.run();
    assert!((1..10).contains(&walked.opened), "{}", walked.opened);
    // Stopped again, in the middle: the rest is still known.
    fs::write(bench.tree().join("b/2"), "other").unwrap();
    bench.store.stop_after = bench.store.calls;
    let mut cache = bench.cache();
    assert!(bench.try_run(&mut cache).is_err());
    cache.keep(&bench.store.places).unwrap();
    bench.store.stop_after = usize::MAX;
    assert_eq!(bench.run().opened, 1);
}

/// A run that stores a little and is then stopped.
fn stopped(bench: &mut Bench) -> Cache {
    bench.store.stop_after = bench.store.calls + 5;
    let mut cache = bench.cache();
    bench.store.noted = cache.take_noted();
    assert!(bench.try_run(&mut cache).is_err());
    bench.store.stop_after = usize::MAX;
    cache
}

#[test]
fn a_run_that_comes_to_no_end_leaves_what_is_stored() {
    let mut bench = bench();
    drop(stopped(&mut bench));
    let walked = bench.run();
    assert!((1..10).contains(&walked.opened), "{}", walked.opened);
    assert_eq!(bench.restore(&walked.root).errors, []);
    assert_eq!(described(&bench.out()), described(&bench.tree()));
    assert_eq!(bench.run().opened, 0);
    // And what was known before of what it did not come to, through two such runs.
    fs::write(bench.tree().join("a/2"), "other").unwrap();
    fs::write(bench.tree().join("b/2"), "other").unwrap();
    bench.store.stop_after = bench.store.calls;
    let mut cache = bench.cache();
    assert!(bench.try_run(&mut cache).is_err());
    drop(cache);
    drop(bench.cache());
    bench.store.stop_after = usize::MAX;
    assert_eq!(bench.run().opened, 2);
}

#[test]
fn chunks_that_nobody_acknowledged_do_not_count() {
    let mut bench = bench();
    bench.store.stop_after = 5;
    let mut cache = bench.cache();
    assert!(bench.try_run(&mut cache).is_err());
    drop(cache);
    bench.store.stop_after = usize::MAX;
    assert_eq!(bench.run().opened, 10);
}

#[test]
fn whatever_a_killed_run_left_of_its_logs_the_next_is_whole() {
    let mut bench = bench();
    let cache = bench.dir.path().join("cache");
    let log = |what: &str| cache.join(format!("{}.{what}", bench.store.volume));
    let (walk, places) = (log("walk"), log("places"));
    drop(stopped(&mut bench));
    let whole = [fs::read(&walk).unwrap(), fs::read(&places).unwrap()];
    let first = bench.run();
    for (damaged, other) in [(0, 1), (1, 0)] {
        let paths = [&walk, &places];
        for at in (0..whole[damaged].len()).step_by(61) {
            let mut flipped = whole[damaged].clone();
            flipped[at] ^= 1;
            for bytes in [&whole[damaged][..at], &flipped] {
                fs::write(paths[damaged], bytes).unwrap();
                fs::write(paths[other], &whole[other]).unwrap();
                assert_eq!(bench.cache().parent(), Some(bench.snapshot), "byte {at}");
            }
        }
        let walked = bench.run();
        assert_eq!((walked.files, walked.bytes), (first.files, first.bytes));
        assert_eq!(bench.restore(&walked.root).errors, []);
        assert_eq!(described(&bench.out()), described(&bench.tree()));
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_torn_and_named() {
    let mut bench = bench();
    let path = bench.tree().join("b/large");
    let mut growing = OpenOptions::new().append(true).open(&path).unwrap();
    bench.store.meanwhile = Some(Box::new(move || growing.write_all(b"more").unwrap()));
    let walked = bench.run();
    assert_eq!(walked.errors_total, 1);
    assert_eq!(walked.errors[0].what, "changed_while_read");
    assert_eq!(walked.reason(), Some("changed_while_read"));
    bench.store.meanwhile = None;
    assert_eq!(bench.restore(&walked.root).errors, []);
    let restored = File::open(bench.out().join("b/large")).unwrap();
    assert!(restored.metadata().unwrap().len() > 5 << 20);
    assert_eq!(bench.run().opened, 1, "it is read again");
}
