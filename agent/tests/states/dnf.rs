//! Roots of dnf (4). What is pending must be what the transaction of an upgrade has.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write;

use infratrack_agent::collect::{Found, Root};
use infratrack_agent::updates::{self, Answer, Host};

use crate::rpms::{RpmRoot, is_possible};
use crate::state::{State, ask, run, write};

fn options(root: &RpmRoot) -> Vec<OsString> {
    let path = root.path();
    let place = path.display();
    vec![
        format!("--installroot={place}").into(),
        "--releasever=9".into(),
        format!("--setopt=cachedir={place}/var/cache/dnf").into(),
        format!("--setopt=reposdir={place}/etc/yum.repos.d").into(),
        format!("--setopt=logdir={place}/var/tmp").into(),
        format!("--setopt=pluginpath={place}/none").into(),
    ]
}

/// The root with its repositories configured and their metadata brought.
pub(crate) fn root(state: &State) -> RpmRoot {
    let root = RpmRoot::new(state);
    let mut configured = String::new();
    for (name, _) in state.named("repository") {
        let place = root.repository(name);
        let more = state
            .section(&format!("options {name}"))
            .unwrap_or_default();
        writeln!(
            configured,
            "[{name}]\nname={name}\nbaseurl=file://{}\nenabled=1\ngpgcheck=0\n{more}",
            place.display()
        )
        .unwrap();
    }
    write(&root.path().join("etc/yum.repos.d/all.repo"), &configured);
    let main = state.section("options").unwrap_or_default();
    write(
        &root.path().join("etc/dnf/dnf.conf"),
        &format!("[main]\n{main}"),
    );
    if state.section("not updated").is_none() && !configured.is_empty() {
        run(
            root.command("dnf")
                .args(options(&root))
                .args(["-q", "makecache"]),
            &[],
        );
    }
    let later = state.section("later").unwrap_or_default();
    write(
        &root.path().join("etc/yum.repos.d/later.repo"),
        &later.replace("ROOT", &root.path().display().to_string()),
    );
    root
}

pub(crate) fn host(root: &RpmRoot) -> Host {
    Host {
        root: Root::new(root.path()),
        env: vec![("HOME".into(), root.home().into())],
        options: vec![
            ("dnf", options(root)),
            ("rpm", vec!["--root".into(), root.path().into()]),
        ],
        ..Host::here(root.keep.path())
    }
}

/// Our answer, held against the transaction that dnf would make.
pub(crate) fn check(state: &State) -> Answer {
    let root = root(state);
    let answer = ask(&host(&root), "dnf");
    if answer.check.unknown.is_none() {
        let open = answer
            .pending
            .iter()
            .filter(|update| update.blocked.is_none());
        let open: BTreeSet<_> = open
            .map(|one| format!("{} {}", one.name, one.candidate))
            .collect();
        let mut command = root.command("dnf");
        let args = ["-C", "upgrade", "--assumeno", "--setopt=best=0"];
        let output = run(command.args(options(&root)).args(args), &[1]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            open,
            transaction(&text),
            "{}: dnf upgrade\n{text}",
            state.name
        );
    }
    answer
}

/// The rows of what a transaction would upgrade, or would if it could. Of what it would install, what is installed in another
/// version, as kernels are, replaces nothing.
fn transaction(text: &str) -> BTreeSet<String> {
    let mut packages = BTreeSet::new();
    let mut section = "";
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.starts_with(' ') {
            section = line;
            continue;
        }
        let is_replacement = lines
            .peek()
            .is_some_and(|next| next.trim().starts_with("replacing"));
        let is_wanted = section.starts_with("Upgrading:")
            || section.starts_with("Skipping packages")
            || section.starts_with("Installing:");
        let words: Vec<_> = line.split_whitespace().collect();
        if let [name, _, version, _, _, ..] = words.as_slice()
            && is_wanted
            && !is_replacement
        {
            packages.insert(format!("{name} {version}"));
        }
    }
    packages
}

#[test]
fn every_state_of_dnf_is_told_as_dnf_tells_it() {
    if is_possible() {
        State::each("dnf", 13, check);
    }
}

#[test]
#[ignore = "dnf takes its time: make soak"]
fn more_states_of_dnf_are_told_as_dnf_tells_them() {
    if is_possible() {
        State::each("dnf-more", 4, check);
    }
}

/// What rpm's database has must be what rpm prints, asked in another way.
#[test]
fn the_inventory_is_rpms() {
    if !is_possible() {
        return;
    }
    let state = State::all("dnf");
    let state = state.iter().find(|state| state.name == "epochs").unwrap();
    let root = RpmRoot::new(state);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let found = runtime.block_on(updates::rpm::installed(&host(&root)));
    let Found::Known(inventory) = found else {
        panic!("{found:?}");
    };
    let ours: BTreeSet<_> = inventory
        .packages
        .iter()
        .map(|one| format!("{} {} {}", one.name, one.version, one.arch))
        .collect();
    let mut rpm = root.command("rpm");
    let rpm = rpm.arg("--root").arg(root.path());
    let output = run(rpm.args(["-qa", "--qf", "%{NAME} %{EVR} %{ARCH}\\n"]), &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(ours, text.lines().map(str::to_owned).collect());
    assert!(
        ours.len() > 3
            && inventory
                .packages
                .iter()
                .all(|one| one.installed_at_s.is_some())
    );
}
