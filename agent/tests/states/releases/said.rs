//! What apt says to people of what it would upgrade, from its other outputs than those that the check reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Output;

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Candidates that are in an archive of fixes themselves, or take the place of a version that is: of `apt list --all-versions`,
/// which has the newest first. `NAME/SUITE,SUITE VERSION ARCH [upgradable from: VERSION]`.
pub(super) fn fixes(output: &Output) -> BTreeSet<String> {
    let mut fixes = BTreeSet::new();
    let mut candidate: Option<String> = None;
    for line in text(output).lines() {
        let Some((name, rest)) = line.split_once('/') else {
            candidate = None;
            continue;
        };
        let words: Vec<_> = rest.split(' ').collect();
        let [suites, version, arch, ..] = words[..] else {
            continue;
        };
        if line.contains("[upgradable from") {
            candidate = Some(format!("{name} {arch} {version}"));
        } else if line.contains("[installed") {
            candidate = None;
        }
        let is_fix = suites.split(',').any(|suite| suite.ends_with("-security"));
        if is_fix && let Some(candidate) = &candidate {
            fixes.insert(candidate.clone());
        }
    }
    fixes
}

/// Whether lists of an archive of fixes are there.
pub(super) fn has_security_lists(root: &Path) -> bool {
    let entries = fs::read_dir(root.join("var/lib/apt/lists")).unwrap();
    let mut names = entries.map(|entry| entry.unwrap().file_name());
    names.any(|name| {
        let name = name.to_str().unwrap();
        name.contains("security") && name.ends_with("Release")
    })
}

/// What would be upgraded, and where each comes from: `Inst NAME [VERSION] (VERSION LABEL:RELEASE/SUITE, … [ARCH])`.
pub(super) fn simulated(output: &Output) -> BTreeMap<String, Vec<String>> {
    let mut simulated = BTreeMap::new();
    for line in text(output).lines() {
        let Some(rest) = line.strip_prefix("Inst ") else {
            continue;
        };
        let (name, rest) = rest.split_once(' ').unwrap();
        // One that is not installed is no update.
        let Some((_, rest)) = rest.strip_prefix('[').and_then(|it| it.split_once("] (")) else {
            continue;
        };
        let (version, rest) = rest.split_once(' ').unwrap();
        let (origins, arch) = rest.split_once(" [").unwrap();
        let arch = arch.split(']').next().unwrap();
        let origins = origins.split(", ").map(str::to_owned).collect();
        let name = name.split(':').next().unwrap();
        simulated.insert(format!("{name} {arch} {version}"), origins);
    }
    simulated
}
