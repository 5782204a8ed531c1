//! Plans of the real `terraform`, where the machine has one: every count is the one that it prints itself, and the value of
//! a sensitive variable is nowhere in what is kept. The built-in provider needs no registry.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use infratrack_collector::changes::terraform::{
    self, Action, Document, Options, Part, Plan, Table,
};

/// Of a sensitive variable.
const CANARY: &str = "hunter2-not-a-real-secret";
const VARIABLE: &str = r#"
variable "s" {
  type      = string
  sensitive = true
  default   = "hunter2-not-a-real-secret"
}
"#;

/// What is planned, over what was applied before.
struct Case {
    name: &'static str,
    /// Applied one after another.
    before: &'static [&'static str],
    planned: &'static str,
    arguments: &'static [&'static str],
    /// `import`, `move`, `forget`, `read`, `replace`, failed checks, entries of `resource_drift`.
    more: [u64; 7],
}

const CASES: &[Case] = &[
    Case {
        name: "create",
        before: &[],
        planned: r#"resource "terraform_data" "a" { input = { password = var.s, n = 9007199254740993, url = "https://u:${urlencode(var.s)}@h/", b = base64encode("user:${var.s}") } }
            resource "terraform_data" "each" {
              for_each = toset(["x \"y\"", "b"])
              input    = each.key
            }
            output "o" {
              value     = terraform_data.a.input
              sensitive = true
            }"#,
        arguments: &[],
        more: [0; 7],
    },
    Case {
        name: "no changes",
        before: &[r#"resource "terraform_data" "a" { input = var.s }"#],
        planned: r#"resource "terraform_data" "a" { input = var.s }"#,
        arguments: &[],
        more: [0; 7],
    },
    Case {
        // What a provider computed has lost its mark.
        name: "update",
        before: &[r#"resource "terraform_data" "a" { input = { password = var.s, n = 1 } }"#],
        planned: r#"resource "terraform_data" "a" { input = { password = "${var.s}2", n = 2 } }"#,
        arguments: &[],
        more: [0; 7],
    },
    Case {
        name: "replace, destroyed first",
        before: &[r#"resource "terraform_data" "a" { triggers_replace = 1 }"#],
        planned: r#"resource "terraform_data" "a" { triggers_replace = 2 }"#,
        arguments: &[],
        more: [0, 0, 0, 0, 1, 0, 0],
    },
    Case {
        name: "replace, created first",
        before: &[r#"resource "terraform_data" "a" {
                triggers_replace = 1
                lifecycle { create_before_destroy = true }
            }"#],
        planned: r#"resource "terraform_data" "a" {
                triggers_replace = 2
                lifecycle { create_before_destroy = true }
            }"#,
        arguments: &[],
        more: [0, 0, 0, 0, 1, 0, 0],
    },
    Case {
        name: "destroy",
        before: &[r#"resource "terraform_data" "a" { count = 3 }"#],
        planned: r#"resource "terraform_data" "a" { count = 3 }"#,
        arguments: &["-destroy"],
        more: [0; 7],
    },
    Case {
        name: "import",
        before: &[],
        planned: r#"resource "terraform_data" "a" { input = 1 }
            import {
              to = terraform_data.a
              id = "an-id"
            }"#,
        arguments: &[],
        more: [1, 0, 0, 0, 0, 0, 0],
    },
    Case {
        name: "moved, one of them updated",
        before: &[r#"resource "terraform_data" "a" { input = 1 }
            resource "terraform_data" "b" { input = 1 }"#],
        planned: r#"resource "terraform_data" "c" { input = 1 }
            resource "terraform_data" "d" { input = 2 }
            moved {
              from = terraform_data.a
              to   = terraform_data.c
            }
            moved {
              from = terraform_data.b
              to   = terraform_data.d
            }"#,
        arguments: &[],
        more: [0, 2, 0, 0, 0, 0, 0],
    },
    Case {
        // All that the built-in provider has of drift: an entry that counts nowhere.
        name: "moved, seen by a refresh alone",
        before: &[r#"resource "terraform_data" "a" { input = var.s }"#],
        planned: r#"resource "terraform_data" "c" { input = var.s }
            moved {
              from = terraform_data.a
              to   = terraform_data.c
            }"#,
        arguments: &["-refresh-only"],
        more: [0, 0, 0, 0, 0, 0, 1],
    },
    Case {
        name: "removed without being destroyed",
        before: &[r#"resource "terraform_data" "a" { input = var.s }"#],
        planned: r"removed {
              from = terraform_data.a
              lifecycle { destroy = false }
            }",
        arguments: &[],
        more: [0, 0, 1, 0, 0, 0, 0],
    },
    Case {
        name: "unknown values, deferred data, checks",
        before: &[],
        planned: r#"resource "terraform_data" "a" { input = var.s }
            resource "terraform_data" "b" { input = terraform_data.a.id }
            data "terraform_remote_state" "r" {
              backend = "local"
              config  = { path = "nowhere-${terraform_data.a.id}" }
            }
            check "passes" {
              assert {
                condition     = var.s != ""
                error_message = "no"
              }
            }
            check "fails" {
              assert {
                condition     = var.s == ""
                error_message = "the name ${nonsensitive(var.s)} is bad"
              }
            }"#,
        arguments: &[],
        more: [0, 0, 0, 1, 0, 1, 0],
    },
    Case {
        name: "errored by a precondition",
        before: &[],
        planned: r#"resource "terraform_data" "a" {}
            resource "terraform_data" "b" {
              lifecycle {
                precondition {
                  condition     = var.s == ""
                  error_message = "no"
                }
              }
            }"#,
        arguments: &[],
        more: [0, 0, 0, 0, 0, 1, 0],
    },
];

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new("terraform")
        .args(arguments)
        .current_dir(dir)
        .env("TF_IN_AUTOMATION", "1")
        .env("CHECKPOINT_DISABLE", "1")
        .env_remove("TF_CLI_CONFIG_FILE")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn is_there() -> bool {
    let asked = Command::new("terraform").arg("version").output();
    asked.is_ok_and(|output| output.status.success())
}

/// The plan of a case, as JSON and as the command line counts it.
fn planned(case: &Case) -> (Vec<u8>, String) {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("main.tf");
    for text in case.before {
        std::fs::write(&main, format!("{VARIABLE}{text}")).unwrap();
        let applied = run(
            dir.path(),
            &["apply", "-auto-approve", "-input=false", "-no-color"],
        );
        assert!(applied.status.success(), "{}: {applied:?}", case.name);
    }
    std::fs::write(&main, format!("{VARIABLE}{}", case.planned)).unwrap();
    let mut arguments = vec!["plan", "-input=false", "-no-color", "-out=p"];
    arguments.extend(case.arguments);
    let said = run(dir.path(), &arguments);
    let shown = run(dir.path(), &["show", "-json", "p"]);
    assert!(shown.status.success(), "{}: {said:?} {shown:?}", case.name);
    (shown.stdout, String::from_utf8(said.stdout).unwrap())
}

fn read(document: &[u8]) -> Plan {
    match terraform::read(document, Options::default(), &Table::default()) {
        Ok(Document::Plan(plan)) => *plan,
        other => panic!("{other:?}"),
    }
}

/// The line of a plan's counts, as the command line has it.
fn line(plan: &Plan) -> String {
    let summary = &plan.summary;
    let import = match summary.import {
        0 => String::new(),
        import => format!("{import} to import, "),
    };
    let (add, change, destroy) = (summary.add, summary.change, summary.destroy);
    format!("Plan: {import}{add} to add, {change} to change, {destroy} to destroy")
}

#[test]
#[expect(clippy::print_stderr, reason = "whoever reads the log is to know")]
fn counts_are_those_of_the_command_line_and_no_secret_is_kept() {
    if !is_there() {
        eprintln!("SKIPPED: there is no terraform on this machine");
        return;
    }
    std::thread::scope(|scope| {
        for half in CASES.chunks(CASES.len().div_ceil(2)) {
            scope.spawn(move || half.iter().for_each(check));
        }
    });
}

fn check(case: &Case) {
    let (document, said) = planned(case);
    let plan = read(&document);
    let name = case.name;
    match said.lines().find(|text| text.starts_with("Plan: ")) {
        Some(told) => {
            let told = told.split('.').next().unwrap_or_default();
            assert_eq!(line(&plan), told, "{name}");
        }
        None => assert_eq!(
            line(&plan),
            "Plan: 0 to add, 0 to change, 0 to destroy",
            "{name}: {said}"
        ),
    }
    let summary = &plan.summary;
    let drifted = plan.resources.iter().filter(|it| it.part == Part::Drift);
    let drifted: Vec<_> = drifted.collect();
    assert!(drifted.iter().all(|it| it.previous_address.is_some()));
    let more = [
        summary.import,
        summary.moved,
        summary.forget,
        summary.read,
        summary.replace,
        summary.checks.fail,
        drifted.len() as u64,
    ];
    assert_eq!(more, case.more, "{name}");
    assert_eq!(summary.unrecognised + summary.drift, 0, "{name}");
    let kept = format!("{plan:?}");
    for form in [
        CANARY,
        "aHVudGVyMi1ub3QtYS1yZWFsLXNlY3JldA",
        "h1bnRlcjItbm90LWEtcmVhbC1zZWNyZXQ",
    ] {
        assert!(!kept.contains(form), "{name}: {kept}");
    }
    if document
        .windows(CANARY.len())
        .any(|window| window == CANARY.as_bytes())
        && name != "destroy"
    {
        let is_shown = plan
            .resources
            .iter()
            .any(|resource| resource.action != Action::NoOp);
        assert!(
            !is_shown || plan.redactions > 0 || !said.contains("sensitive"),
            "{name}"
        );
    }
    // Whoever masked it before posts the same.
    let again = read(plan.artifact.text().as_bytes());
    assert_eq!(again.summary, plan.summary, "{name}");
    assert_eq!(again.redactions, 0, "{name}: {:?}", plan.artifact);
}
