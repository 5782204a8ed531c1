//! Plans, states and outcomes of many providers and of every format version, against what is expected of each:
//! `collector/tests/fixtures/terraform/expected.toml`. The uploader is held against the same documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Deserialize;

use super::super::linking;
use super::apply::Counted;
use super::*;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Expected {
    kind: String,
    format: Option<String>,
    /// As the command line has it.
    line: Option<String>,
    counts: BTreeMap<String, u64>,
    checks: BTreeMap<String, u64>,
    flags: BTreeMap<String, bool>,
    resources: usize,
    operations: Vec<String>,
    errors: u64,
    diagnostics: usize,
    other_lines: u64,
    is_cut: bool,
    warnings: Vec<String>,
    gone: BTreeSet<String>,
    hidden: Vec<String>,
    lost: Vec<String>,
    remain: Vec<String>,
    marks: Vec<String>,
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/terraform")
}

fn expected() -> BTreeMap<String, Expected> {
    let text = std::fs::read_to_string(directory().join("expected.toml")).unwrap();
    toml::from_str(&text).unwrap()
}

fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(directory().join(name)).unwrap()
}

fn document_of(name: &str, bytes: &[u8]) -> Document {
    let options = Options {
        is_apply: Path::new(name).extension() == Some("jsonl".as_ref()),
        ..Options::default()
    };
    read(bytes, options, &Table::default()).unwrap_or_else(|refusal| panic!("{name}: {refusal}"))
}

/// Every document of a kind, with what is expected of it.
fn each(kind: &str, mut test: impl FnMut(&str, &Expected, Document)) {
    let mut count = 0;
    for (name, expected) in expected() {
        if expected.kind == kind {
            count += 1;
            test(&name, &expected, document_of(&name, &bytes_of(&name)));
        }
    }
    assert!(count > 2, "{count} documents of {kind}");
}

fn each_plan(mut test: impl FnMut(&str, &Expected, Plan)) {
    each("plan", |name, expected, document| {
        let Document::Plan(plan) = document else {
            panic!("{name}: {document:?}");
        };
        test(name, expected, *plan);
    });
}

/// What is to be downloaded, and all that is kept.
fn kept(document: &Document) -> (String, String) {
    let artifact = match document {
        Document::Plan(plan) => plan.artifact.text(),
        Document::State(state) => state.artifact.text(),
        Document::Apply(apply) => apply.artifact.text(),
    };
    (artifact, format!("{document:?}"))
}

fn canaries(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let found = text.match_indices("canary-").map(|(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        rest[..end].trim_end_matches('-').to_owned()
    });
    found.collect()
}

/// In base64, wherever it stands in what is encoded.
fn encoded(secret: &str) -> impl Iterator<Item = String> {
    (0..3).map(move |before| {
        let bytes = [&vec![0; before], secret.as_bytes()].concat();
        let begin = (before * 8).div_ceil(6);
        STANDARD_NO_PAD.encode(&bytes)[begin..bytes.len() * 8 / 6].to_owned()
    })
}

/// The numbers of a structure that are not 0, by name.
fn counts_of(value: &impl Serialize) -> BTreeMap<String, u64> {
    let value = serde_json::to_value(value).unwrap();
    let members = value.as_object().unwrap().iter();
    let counts = members.filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn line_of(marks: &Values) -> String {
    let each = marks
        .iter()
        .map(|(mark, values)| format!("{}={}", mark.name(), values.join(",")));
    each.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_fixture_is_expected_and_every_expectation_has_its_fixture() {
    let files = std::fs::read_dir(directory()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<_> = names.filter(|name| name != "expected.toml").collect();
    let expected = expected();
    assert_eq!(names, expected.keys().cloned().collect());
    for (name, expected) in expected {
        let text = String::from_utf8(bytes_of(&name)).unwrap();
        assert_eq!(canaries(&text), expected.gone, "{name}");
        for hidden in &expected.hidden {
            let mut forms = encoded(hidden);
            assert!(forms.any(|form| text.contains(&form)), "{name}: {hidden}");
        }
    }
}

#[test]
fn plans_are_counted_as_the_command_line_counts() {
    let mut formats = BTreeSet::new();
    each_plan(|name, expected, plan| {
        let summary = &plan.summary;
        let import = match summary.import {
            0 => String::new(),
            import => format!("{import} to import, "),
        };
        let (add, change, destroy) = (summary.add, summary.change, summary.destroy);
        let line = format!("Plan: {import}{add} to add, {change} to change, {destroy} to destroy");
        let nothing = "Plan: 0 to add, 0 to change, 0 to destroy.";
        let told = expected.line.as_deref().unwrap_or(nothing);
        let rest = told.strip_prefix(&line).unwrap_or("no such beginning");
        assert!(rest.starts_with(['.', ',']), "{name}: {line}, not {told}");

        let mut counts = counts_of(summary);
        for name in ["add", "change", "destroy"] {
            counts.remove(name);
        }
        assert_eq!(counts, expected.counts, "{name}");
        assert_eq!(counts_of(&summary.checks), expected.checks, "{name}");
        let flags = [
            ("applyable", plan.is_applyable),
            ("complete", plan.is_complete),
            ("errored", plan.is_errored),
        ];
        let flags = flags.into_iter();
        let flags = flags.filter_map(|(name, flag)| Some((name.to_owned(), flag?)));
        assert_eq!(flags.collect::<BTreeMap<_, _>>(), expected.flags, "{name}");
        for (warning, words) in plan.warnings.iter().zip(&expected.warnings) {
            assert!(warning.contains(words), "{name}: {warning}");
        }
        assert_eq!(plan.warnings.len(), expected.warnings.len(), "{name}");
        let format = format!("{}.{}", plan.format.0, plan.format.1);
        assert_eq!(Some(&format), expected.format.as_ref(), "{name}");
        formats.insert(format);
    });
    assert_eq!(
        formats.into_iter().collect::<Vec<_>>(),
        ["0.1", "0.2", "1.0", "1.1", "1.2"]
    );
}

#[test]
fn no_secret_of_a_fixture_is_kept_and_what_only_looks_like_one_is() {
    for kind in ["plan", "state", "apply"] {
        each(kind, |name, expected, document| {
            let (artifact, all) = kept(&document);
            for text in [&artifact, &all] {
                assert_eq!(canaries(text), BTreeSet::new(), "{name}: {text}");
                for secret in expected.gone.iter().chain(&expected.hidden) {
                    for form in encoded(secret) {
                        assert!(!text.contains(&form), "{name}: {secret} in base64: {text}");
                    }
                }
                for number in &expected.lost {
                    assert!(!text.contains(number), "{name}: {number}: {text}");
                }
            }
            for text in &expected.remain {
                assert!(artifact.contains(text), "{name}: {text} in {artifact}");
            }
        });
    }
}

#[test]
fn who_masks_a_plan_again_finds_nothing_more_and_counts_the_same() {
    each_plan(|name, _, plan| {
        let Document::Plan(again) = document_of(name, plan.artifact.text().as_bytes()) else {
            panic!("{name}: no plan");
        };
        assert_eq!(again.summary, plan.summary, "{name}");
        assert_eq!(again.redactions, 0, "{name}: {:?}", again.artifact);
        assert_eq!(again.artifact.text(), plan.artifact.text(), "{name}");
    });
}

#[test]
fn what_tells_a_host_is_found_in_plans_and_states() {
    each_plan(|name, expected, plan| {
        let wanted = linking::of_plan(&plan.resources);
        let lines = wanted.iter().map(|wanted| {
            let role = format!("{:?}", wanted.role).to_lowercase();
            let new = if wanted.is_new { "+" } else { "" };
            let marks = line_of(&wanted.marks);
            format!("{role}{new} {}: {marks}", wanted.name)
        });
        assert_eq!(lines.collect::<Vec<_>>(), expected.marks, "{name}");
    });
    each("state", |name, expected, document| {
        let Document::State(state) = document else {
            panic!("{name}: {document:?}");
        };
        assert_eq!(state.resources.len(), expected.resources, "{name}");
        let format = format!("{}.{}", state.format.0, state.format.1);
        assert_eq!(Some(format), expected.format, "{name}");
        let marked = state
            .resources
            .iter()
            .map(|resource| (&resource.address, linking::normal(resource.marks.clone())));
        let marked = marked.filter(|(_, marks)| !marks.is_empty());
        let lines = marked.map(|(address, marks)| format!("{address}: {}", line_of(&marks)));
        assert_eq!(lines.collect::<Vec<_>>(), expected.marks, "{name}");
    });
}

#[test]
fn outcomes_tell_what_was_done_and_how_far_it_came() {
    each("apply", |name, expected, document| {
        let Document::Apply(apply) = document else {
            panic!("{name}: {document:?}");
        };
        let line = apply.counted.map(|counted| {
            let Counted {
                add,
                change,
                remove,
                ..
            } = counted;
            format!("Apply complete! Resources: {add} added, {change} changed, {remove} destroyed.")
        });
        assert_eq!(line, expected.line, "{name}");
        let operations = apply.operations.iter().map(|operation| {
            let id = operation.id_value.as_deref().unwrap_or_default();
            let (address, action) = (&operation.address, &operation.action);
            let text = format!("{address} {action} {} {id}", operation.outcome);
            text.trim_end().to_owned()
        });
        let operations: Vec<_> = operations.collect();
        assert_eq!(operations, expected.operations, "{name}");
        assert_eq!(apply.error_count, expected.errors, "{name}");
        assert_eq!(apply.diagnostics.len(), expected.diagnostics, "{name}");
        assert_eq!(apply.other_lines, expected.other_lines, "{name}");
        assert_eq!(apply.is_cut, expected.is_cut, "{name}");
        assert!(apply.terraform_version.is_some(), "{name}");
    });
}

#[test]
fn what_windows_powershell_writes_is_read_as_the_same() {
    for name in ["modules.json", "state.json", "apply-errored.jsonl"] {
        let bytes = bytes_of(name);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let text = text.replace('\n', "\r\n");
        let units = "\u{feff}".encode_utf16().chain(text.encode_utf16());
        let utf16: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
        assert!(utf16.starts_with(&[0xff, 0xfe]));
        let (plain, other) = (document_of(name, &bytes), document_of(name, &utf16));
        assert_eq!(kept(&plain), kept(&other), "{name}");
    }
}
