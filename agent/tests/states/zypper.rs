//! Roots of zypper. What would be installed must be what a dry run of an update says.

use std::collections::BTreeSet;
use std::fmt::Write;

use infratrack_agent::collect::Root;
use infratrack_agent::updates::{Answer, Host};

use crate::rpms::{RpmRoot, is_possible};
use crate::state::{State, ask, run, write};

/// Our answer, held against zypper's.
pub(crate) fn check(state: &State) -> Answer {
    let root = RpmRoot::new(state);
    let mut configured = String::new();
    for (name, _) in state.named("repository") {
        writeln!(
            configured,
            "[{name}]\nname={name}\nbaseurl=file://{}\nenabled=1\nautorefresh=0\ngpgcheck=0\ntype=rpm-md",
            root.repository(name).display()
        )
        .unwrap();
    }
    write(&root.path().join("etc/zypp/repos.d/all.repo"), &configured);
    let zypper = || {
        let mut command = root.command("zypper");
        command
            .arg("--root")
            .arg(root.path())
            .arg("--non-interactive");
        command
    };
    if state.section("not updated").is_none() {
        run(zypper().arg("refresh"), &[]);
    }
    let host = Host {
        root: Root::new(root.path()),
        env: vec![("HOME".into(), root.home().into())],
        options: vec![
            ("zypper", vec!["--root".into(), root.path().into()]),
            ("rpm", vec!["--root".into(), root.path().into()]),
        ],
        ..Host::here(root.keep.path())
    };
    let answer = ask(&host, "zypper");
    if answer.check.unknown.is_none() {
        let open = answer
            .pending
            .iter()
            .filter(|update| update.blocked.is_none());
        let open: BTreeSet<_> = open.map(|one| one.name.clone()).collect();
        let mut update = zypper();
        let output = run(update.args(["--no-refresh", "update", "--dry-run"]), &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines = text.lines();
        let is_heading = |line: &str| line.contains(" going to be upgraded:");
        let said: BTreeSet<_> = if lines.any(is_heading) {
            let names = lines.take_while(|line| line.starts_with(' '));
            names
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
                .collect()
        } else {
            BTreeSet::new()
        };
        assert_eq!(open, said, "{}: zypper update", state.name);
    }
    answer
}

#[test]
fn every_state_of_zypper_is_told_as_zypper_tells_it() {
    if is_possible() {
        State::each("zypper", 5, check);
    }
}
