//! Replays every file of `fuzz/corpus/<target>/` through its target.
//!
//! `INFRATRACK_RECORD=1 cargo test -p infratrack-testkit --test it` first writes the files that are
//! made by rule (`corpus/made.rs`) and missing; what a fuzzer found is added by hand, under any name.

mod made;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use infratrack_testkit::fuzz::TARGETS;

/// Fewer files than this, and something has been lost.
const LEAST: usize = 80;
const MOST: usize = 280;
const MOST_BYTES: usize = 400 * 1024;

fn corpus() -> PathBuf {
    root().join("fuzz/corpus")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_kept_input_passes_its_target() {
    if std::env::var_os("INFRATRACK_RECORD").is_some() {
        made::write_missing(&root(), &corpus());
    }
    let (mut files, mut bytes) = (0, 0);
    for (name, target) in TARGETS {
        let directory = corpus().join(name);
        let inputs = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let before = files;
        for input in inputs {
            let path = input.expect("readable").path();
            let input = fs::read(&path).expect("readable");
            let started = Instant::now();
            // Names the file where the target itself panics.
            let replayed = std::panic::catch_unwind(|| target(&input));
            assert!(replayed.is_ok(), "{} broke its target", path.display());
            let took = started.elapsed();
            assert!(took.as_secs() < 5, "{} took {took:?}", path.display());
            files += 1;
            bytes += input.len();
        }
        assert!(files >= before + 4, "{name} has hardly a corpus");
    }
    assert!((LEAST..=MOST).contains(&files), "{files} files");
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
}

#[test]
fn every_target_has_a_binary_and_no_corpus_is_without_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root().join(directory)).expect("is there");
        let names = entries.map(|entry| {
            let name = entry.expect("readable").file_name();
            let name = name.to_str().expect("ASCII").to_owned();
            name.trim_end_matches(".rs").to_owned()
        });
        names.collect()
    };
    assert_eq!(names("fuzz/fuzz_targets"), targets);
    assert_eq!(names("fuzz/corpus"), targets);
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("is there");
    for target in targets {
        assert!(
            manifest.contains(&format!("name = \"{target}\"")),
            "{target}"
        );
    }
}
