//! Outputs of the written states, cut and joined by chance: whatever a program says, there is an answer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use infratrack_agent::updates::{self, Host};

use crate::apt::AptRoot;
use crate::state::{State, ask, write};

const PROGRAMS: [&str; 7] = [
    "apk",
    "apt-cache",
    "apt-config",
    "apt-get",
    "dnf",
    "rpm",
    "zypper",
];
const ROUNDS: usize = 12;

/// The same numbers each time.
struct Chance(usize);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most.max(1)
    }

    fn output(&mut self, outputs: &[Vec<u8>]) -> Vec<u8> {
        let mut said = Vec::new();
        for _ in 0..4 {
            let output = &outputs[self.below(outputs.len())];
            let (from, to) = (self.below(output.len()), self.below(output.len() + 1));
            said.extend_from_slice(&output[from.min(to)..from.max(to)]);
            said.push(u8::try_from(self.below(256)).unwrap());
        }
        said
    }
}

fn outputs() -> Vec<Vec<u8>> {
    let states = State::all("written");
    let outputs = states.iter().flat_map(|state| state.named("run"));
    let outputs = outputs.map(|(_, output)| output.replace('␟', "\x1f").replace('␞', "\x1e"));
    outputs.map(String::into_bytes).collect()
}

fn program(path: &Path, said: &[u8], code: usize) {
    let output = path.with_extension("out");
    let script = format!("#!/bin/sh\ncat {}\nexit {code}\n", output.display());
    write(path, &script);
    fs::write(output, said).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A root in which every package manager has what it is not asked without.
fn root() -> AptRoot {
    let states = State::all("apt");
    let state = states
        .iter()
        .find(|state| state.name == "security")
        .unwrap();
    let root = AptRoot::new(state);
    let place = root.keep.path();
    write(&place.join("lib/apk/db/installed"), "P:a\nV:1-r0\n");
    write(&place.join("var/cache/apk/APKINDEX.x.tar.gz"), "");
    write(&place.join("etc/zypp/repos.d/a.repo"), "[a]\n");
    for repository in ["zypp/raw/a", "dnf/baseos-0123456789abcdef"] {
        let path = place.join("var/cache").join(repository);
        write(&path.join("repodata/repomd.xml"), "");
    }
    root
}

#[test]
fn no_output_is_met_by_a_panic() {
    let (outputs, root, mut chance) = (outputs(), root(), Chance(7));
    let programs = root.keep.path().join("programs");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut answered = 0;
    for round in 0..ROUNDS {
        for name in PROGRAMS {
            let code = [0, 0, 0, 100][chance.below(4)];
            program(&programs.join(name), &chance.output(&outputs), code);
        }
        let mut host = root.host();
        host.programs = vec![programs.clone()];
        if round % 2 == 0 {
            // With what the real one says of its lists it comes further.
            fs::remove_file(programs.join("apt-get")).unwrap();
            host.programs.extend(Host::here("/").programs);
        }
        for name in ["apk", "apt", "dnf", "zypper"] {
            answered += usize::from(ask(&host, name).check.unknown.is_none());
        }
        runtime.block_on(updates::rpm::installed(&host));
    }
    assert!(answered > 0, "nothing was taken for an answer");
}
