//! States whose outputs were written by hand, after what their tools' documentation and sources say: of package managers that
//! this machine can't have. A program is its answers: `--- run PROGRAM WORDS`, where all words must be among its arguments,
//! with a first line `exit N` where that is not 0, and lines `complains: …`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use infratrack_agent::collect::Root;
use infratrack_agent::updates::{Answer, Host};

use crate::state::{State, ask, write};

fn check(state: &State) -> Answer {
    let keep = tempfile::tempdir().unwrap();
    let root = keep.path().join("root");
    fs::create_dir_all(&root).unwrap();
    state.write_files(&root);
    let programs = keep.path().join("programs");
    fs::create_dir_all(&programs).unwrap();
    let mut scripts: BTreeMap<&str, String> = BTreeMap::new();
    for (index, (call, said)) in state.named("run").into_iter().enumerate() {
        let (program, words) = call.split_once(' ').unwrap_or((call, ""));
        let (mut output, mut complaint, mut code) = (String::new(), String::new(), "0");
        for line in said.lines() {
            match (line.strip_prefix("exit "), line.strip_prefix("complains: ")) {
                (Some(exit), _) => code = exit,
                (_, Some(text)) => writeln!(complaint, "{text}").unwrap(),
                _ => writeln!(output, "{line}").unwrap(),
            }
        }
        // The separators of rpm's and dnf's records can't be seen in a text.
        let output = output.replace('␟', "\x1f").replace("␞\n", "\x1e\n");
        let place = programs.join(format!("{index}.out"));
        write(&place, &output);
        write(&place.with_extension("err"), &complaint);
        let script = scripts.entry(program).or_default();
        let conditions = words
            .split_whitespace()
            .map(|word| match word.strip_prefix('!') {
                Some(word) => {
                    format!("case \" $* \" in *' {word} '*) false ;; *) true ;; esac && ")
                }
                None => format!("case \" $* \" in *' {word} '*) true ;; *) false ;; esac && "),
            });
        let conditions: String = conditions.collect();
        writeln!(
            script,
            "if {conditions}true; then cat {0}.out; cat {0}.err >&2; exit {code}; fi",
            programs.join(index.to_string()).display()
        )
        .unwrap();
    }
    for (program, script) in scripts {
        let path = programs.join(program);
        write(
            &path,
            &format!("#!/bin/sh\n{script}echo \"not written: $0 $*\" >&2\nexit 99\n"),
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (link, target) in state.named("link") {
        symlink(target.trim(), programs.join(link)).unwrap();
    }
    let host = Host {
        root: Root::new(&root),
        programs: vec![programs],
        ..Host::here(keep.path())
    };
    ask(&host, state.section("ask").unwrap().trim())
}

#[test]
fn every_written_state_is_told() {
    State::each("written", 30, check);
}
