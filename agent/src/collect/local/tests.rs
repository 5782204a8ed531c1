//! What an operator's directory may hold, the hostile included.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value as Json, json};

use super::*;
use crate::collect::fixture;

fn told(files: &[(&str, &str)]) -> Json {
    let (keep, _) = fixture::host(files);
    fixture::json(&collect(keep.path()).unwrap())
}

#[test]
fn each_file_stands_under_its_stem_and_other_files_are_left_alone() {
    let told = told(&[
        ("rack.json", r#"{"row": 4, "owner": "db\u0000team"}"#),
        ("a.b.json", "[1.5, null, true]"),
        ("README", "no"),
        (".hidden.json", "1"),
    ]);
    let expected = json!({"a.b": [1.5, null, true], "rack": {"row": 4, "owner": "db\0team"}});
    assert_eq!(told, expected);
}

#[test]
fn a_broken_file_names_itself_and_its_line_and_harms_no_other() {
    let told = told(&[
        ("bad.json", "{\n  \"a\": 1,\n  oops\n}"),
        ("good.json", "1"),
    ]);
    let reason = told["bad"]["unknown"].as_str().unwrap();
    assert!(
        reason.starts_with("bad.json: ") && reason.contains("line 3"),
        "{reason}"
    );
    assert_eq!(told["good"], 1);
}

#[test]
fn without_the_directory_there_are_no_facts_and_no_complaint() {
    let (keep, _) = fixture::host(&[]);
    let body = collect(&keep.path().join("facts.d")).unwrap();
    assert_eq!(body, Value::Map(Vec::new()));
}

#[test]
fn what_is_too_large_too_deep_or_too_much_is_refused() {
    let large = format!("\"{}\"", "x".repeat(64 * 1024));
    let fits = format!("{}{}", "[".repeat(16), "]".repeat(16));
    let deep = format!("[{fits}]");
    let many = format!("[{}0]", "0,".repeat(30_000));
    let told = told(&[
        ("deep.json", &deep),
        ("fits.json", &fits),
        ("large.json", &large),
        ("many1.json", &many),
        ("many2.json", &many),
    ]);
    assert_eq!(told["deep"]["unknown"], "deep.json: nested deeper than 16");
    assert!(told["fits"].is_array());
    assert_eq!(told["large"]["unknown"], "large.json: larger than 64 KiB");
    assert!(told["many1"].is_array());
    assert_eq!(
        told["many2"]["unknown"],
        "many2.json: more than 50000 values with the files before it"
    );
}

#[test]
fn files_over_the_limit_are_counted_and_not_read() {
    let names: Vec<_> = (0..70).map(|n| format!("f{n:02}.json")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let told = told(&files);
    assert_eq!(told.as_object().unwrap().len(), 65);
    assert_eq!(
        told["*"]["unknown"],
        "70 files; only the first 64 by name are read"
    );
}

#[test]
fn fifos_devices_and_directories_are_refused_without_waiting() {
    let (keep, _) = fixture::host(&[("dir.json/x", "")]);
    mkfifo(&keep.path().join("fifo.json"), Mode::S_IRWXU).unwrap();
    symlink("/dev/zero", keep.path().join("zero.json")).unwrap();
    let told = fixture::json(&collect(keep.path()).unwrap());
    assert_eq!(told["dir"]["unknown"], "dir.json: not a regular file");
    assert_eq!(told["fifo"]["unknown"], "fifo.json: not a regular file");
    assert_eq!(
        told["zero"]["unknown"],
        "zero.json: a link out of the directory"
    );
}

#[test]
fn links_are_followed_inside_the_directory_only() {
    let (keep, _) = fixture::host(&[("d/..data/a.json", "1"), ("secret", "2")]);
    let directory = keep.path().join("d");
    symlink("..data/a.json", directory.join("a.json")).unwrap();
    symlink("../secret", directory.join("b.json")).unwrap();
    symlink("nowhere", directory.join("c.json")).unwrap();
    let told = fixture::json(&collect(&directory).unwrap());
    assert_eq!(told["a"], 1);
    assert_eq!(told["b"]["unknown"], "b.json: a link out of the directory");
    assert!(told["c"]["unknown"].is_string());
    assert!(fs::exists(keep.path().join("secret")).unwrap());
}
