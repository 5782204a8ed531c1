//! What is in the way of an answer: nothing waits for it longer than the limit, and the reason is told.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use infratrack_agent::updates::Host;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::apt::AptRoot;
use crate::state::{State, ask, write};

const LISTS: &str = "var/lib/apt/lists";

fn root() -> AptRoot {
    let states = State::all("apt");
    let state = states
        .iter()
        .find(|state| state.name == "security")
        .unwrap();
    AptRoot::new(state)
}

fn reason(host: &Host) -> String {
    let answer = ask(host, "apt");
    assert!(answer.pending.is_empty());
    answer.check.unknown.expect("nothing is known")
}

/// The list's file by how it ends.
fn list(root: &AptRoot, end: &str) -> std::path::PathBuf {
    let entries = fs::read_dir(root.keep.path().join(LISTS)).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths
        .find(|path| path.to_str().unwrap().ends_with(end))
        .unwrap()
}

#[test]
fn a_fifo_in_place_of_a_list_is_not_waited_for() {
    let root = root();
    let mut host = root.host();
    host.limit = Duration::from_secs(2);
    let release = list(&root, "_Release");
    let text = fs::read(&release).unwrap();
    fs::remove_file(&release).unwrap();
    mkfifo(&release, Mode::S_IRWXU).unwrap();
    let told = reason(&host);
    // Either this program or apt has met it first.
    assert!(
        told.contains("is no file") || told.contains("did not end"),
        "{told}"
    );
    fs::remove_file(&release).unwrap();
    fs::write(&release, text).unwrap();

    let packages = list(&root, "_Packages");
    fs::remove_file(&packages).unwrap();
    mkfifo(&packages, Mode::S_IRWXU).unwrap();
    let told = reason(&host);
    assert!(told.contains("did not end within 2 s"), "{told}");
}

#[test]
fn a_loop_of_links_in_place_of_the_lists_is_a_reason() {
    let root = root();
    let lists = root.keep.path().join(LISTS);
    fs::remove_dir_all(&lists).unwrap();
    symlink("lists", &lists).unwrap();
    let told = reason(&root.host());
    assert!(!told.is_empty(), "{told}");
}

#[test]
fn damaged_lists_are_a_reason() {
    let root = root();
    fs::write(list(&root, "_Packages"), "no list\n").unwrap();
    let told = reason(&root.host());
    assert!(told.contains("Unable to parse package file"), "{told}");
}

fn with_program(script: &str) -> (AptRoot, Host) {
    let root = root();
    let programs = root.keep.path().join("programs");
    let path = programs.join("apt-get");
    write(&path, &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut host = root.host();
    host.programs.insert(0, programs);
    (root, host)
}

#[test]
fn a_program_that_hangs_is_a_reason() {
    let (_root, mut host) = with_program("sleep 600");
    host.limit = Duration::from_millis(500);
    assert_eq!(reason(&host), "apt-get did not end within 0.5 s");
}

#[test]
fn a_program_that_says_too_much_is_a_reason() {
    let (_root, mut host) = with_program("exec cat /dev/zero");
    host.output_bytes = 1024 * 1024;
    assert_eq!(reason(&host), "apt-get said more than 1048576 bytes");
}
