# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""Plans of the real `terraform`, where the machine has one: what leaves the machine is counted as the command line counts,
and the value of a sensitive variable is nowhere in it. The cases are those of collector/tests/it/changes/real.rs; the built-in
provider needs no registry."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from receiver import CHANGE, TOKEN, Receiver
from test_infratrack_plan import CANARIES, CANARY, PROGRAM, program

VARIABLE = 'variable "s" {\n  type = string\n  sensitive = true\n  default = "%s"\n}\n' % CANARY
# name, applied before, planned, arguments, members of the counts
CASES = (
    (
        "create",
        "",
        """resource "terraform_data" "a" {
          input = { password = var.s, url = "https://u:${urlencode(var.s)}@h/", b = base64encode("user:${var.s}"), n = 5 }
        }
        resource "terraform_data" "j" { input = nonsensitive(jsonencode({ plain = jsonencode({ a = "<${var.s}>" }) })) }
        resource "terraform_data" "each" {
          for_each = toset(["x \\"y\\"", "b"])
          input    = each.key
        }
        output "o" {
          value     = terraform_data.a.input
          sensitive = true
        }""",
        (),
        {},
    ),
    (
        "no changes",
        'resource "terraform_data" "a" { input = var.s }',
        'resource "terraform_data" "a" { input = var.s }',
        (),
        {},
    ),
    (
        # What a provider computed has lost its mark.
        "update",
        'resource "terraform_data" "a" { input = { password = var.s, n = 1 } }',
        'resource "terraform_data" "a" { input = { password = "${var.s}2", n = 2 } }',
        (),
        {},
    ),
    (
        "replace, destroyed first",
        'resource "terraform_data" "a" { triggers_replace = 1 }',
        'resource "terraform_data" "a" { triggers_replace = 2 }',
        (),
        {},
    ),
    (
        "replace, created first",
        'resource "terraform_data" "a" {\ntriggers_replace = 1\nlifecycle { create_before_destroy = true }\n}',
        'resource "terraform_data" "a" {\ntriggers_replace = 2\nlifecycle { create_before_destroy = true }\n}',
        (),
        {},
    ),
    (
        "destroy",
        'resource "terraform_data" "a" { count = 3 }',
        'resource "terraform_data" "a" { count = 3 }',
        ("-destroy",),
        {},
    ),
    (
        "import",
        "",
        'resource "terraform_data" "a" { input = 1 }\nimport {\nto = terraform_data.a\nid = "an-id"\n}',
        (),
        {"import": 1},
    ),
    (
        "moved, one of them updated",
        'resource "terraform_data" "a" { input = 1 }\nresource "terraform_data" "b" { input = 1 }',
        """resource "terraform_data" "c" { input = 1 }
        resource "terraform_data" "d" { input = 2 }
        moved {
          from = terraform_data.a
          to   = terraform_data.c
        }
        moved {
          from = terraform_data.b
          to   = terraform_data.d
        }""",
        (),
        {"move": 2},
    ),
    (
        # All that the built-in provider has of drift: an entry that counts nowhere.
        "moved, seen by a refresh alone",
        'resource "terraform_data" "a" { input = var.s }',
        """resource "terraform_data" "c" { input = var.s }
        moved {
          from = terraform_data.a
          to   = terraform_data.c
        }""",
        ("-refresh-only",),
        {"drift entries": 1},
    ),
    (
        "removed without being destroyed",
        'resource "terraform_data" "a" { input = var.s }',
        "removed {\nfrom = terraform_data.a\nlifecycle { destroy = false }\n}",
        (),
        {"forget": 1},
    ),
    (
        "unknown values, deferred data, checks",
        "",
        """resource "terraform_data" "a" { input = var.s }
        resource "terraform_data" "b" { input = terraform_data.a.id }
        data "terraform_remote_state" "r" {
          backend = "local"
          config  = { path = "nowhere-${terraform_data.a.id}" }
        }
        check "fails" {
          assert {
            condition     = var.s == ""
            error_message = "the name ${nonsensitive(var.s)} is bad"
          }
        }""",
        (),
        {"read": 1},
    ),
    (
        "errored by a precondition",
        "",
        """resource "terraform_data" "a" {}
        resource "terraform_data" "b" {
          lifecycle {
            precondition {
              condition     = var.s == ""
              error_message = "no"
            }
          }
        }""",
        (),
        {},
    ),
)


def terraform(folder, *arguments):
    env = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    env.update({"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"})
    return subprocess.run(
        ("terraform",) + arguments,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def send(folder, receiver, *arguments):
    """As a pipeline runs it: everything that it prints, and the summary."""
    summary = os.path.join(folder, "summary.md")
    env = {"PATH": os.environ["PATH"], "HOME": folder, "GITHUB_STEP_SUMMARY": summary}
    env.update({"INFRATRACK_URL": receiver.url, "INFRATRACK_TOKEN": TOKEN})
    done = subprocess.run(
        (sys.executable, PROGRAM) + arguments + ("--fail",),
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    told = done.stdout.decode("utf-8") + pathlib.Path(summary).read_text(encoding="utf-8")
    return done.returncode, told


@unittest.skipUnless(shutil.which("terraform"), "there is no terraform on this machine")
class Real(unittest.TestCase):
    def test_counts_are_those_of_the_command_line_and_no_secret_leaves(self):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for _ in pool.map(self.check, CASES):
                pass

    def check(self, case):
        name, before, planned, arguments, more = case
        with tempfile.TemporaryDirectory() as folder, Receiver() as receiver:
            main = pathlib.Path(folder) / "main.tf"
            if before:
                main.write_text(VARIABLE + before)
                self.assertEqual(terraform(folder, "apply", "-auto-approve", "-input=false").returncode, 0, name)
            main.write_text(VARIABLE + planned)
            said = terraform(folder, "plan", "-input=false", "-no-color", "-out=p", *arguments).stdout.decode("utf-8")
            code, told = send(folder, receiver, "plan", "p")
        self.assertEqual((code, receiver.wrong), (0, []), told)
        ((_, _, sent),) = receiver.requests
        for form in CANARIES:
            self.assertNotIn(form, sent, name)
            self.assertNotIn(form, told, name)
        lines = [line.split(".")[0] for line in said.splitlines() if line.startswith("Plan: ")]
        document = program.redact(sent.encode("utf-8"))
        self.assertEqual(document.line(), lines[0] if lines else "Plan: 0 to add, 0 to change, 0 to destroy", name)
        self.assertIn(document.line() + ";", told)
        self.assertIn("/changes/" + CHANGE, told)
        for count in ("import", "move", "forget", "read", "drift"):
            self.assertEqual(document.counts[count], more.get(count, 0), "%s: %s" % (name, count))
        drifted = json.loads(sent).get("resource_drift", [])
        self.assertEqual(len(drifted), more.get("drift entries", 0), name)
        self.assertTrue(all("previous_address" in one for one in drifted), name)
        # Who redacts it again finds nothing.
        self.assertEqual((document.body, document.redactions), (sent, 0), name)

    def test_the_events_of_an_apply_and_the_state_after_it_have_no_secret(self):
        with tempfile.TemporaryDirectory() as folder, Receiver() as receiver:
            (pathlib.Path(folder) / "main.tf").write_text(
                VARIABLE + 'resource "terraform_data" "a" { input = { password = var.s } }\n'
                'resource "terraform_data" "b" { input = nonsensitive("x-${var.s}") }\n'
                'check "c" {\nassert {\ncondition = var.s == ""\nerror_message = "bad: ${nonsensitive(var.s)}"\n}\n}\n'
                'output "o" {\nvalue = var.s\nsensitive = true\n}'
            )
            terraform(folder, "plan", "-input=false", "-out=p")
            applied = terraform(folder, "apply", "-json", "-auto-approve", "p")
            state = terraform(folder, "show", "-json")
            for kind, data in (("apply", applied.stdout), ("state", state.stdout)):
                (pathlib.Path(folder) / kind).write_bytes(data)
            code, told = send(folder, receiver, "apply", "apply", "--plan", "p", "--exit-code", str(applied.returncode))
            self.assertEqual(code, 0, told)
            self.assertIn("Apply: 2 added, 0 changed, 0 destroyed", told)
            code, told_too = send(folder, receiver, "state", "state")
            self.assertEqual(code, 0, told_too)
        self.assertIn(CANARY, applied.stdout.decode("utf-8"))
        self.assertIn(CANARY, state.stdout.decode("utf-8"))
        kinds = []
        for headers, _, sent in receiver.requests:
            kinds += [value for name, value in headers.items() if name.lower() == "infratrack-stage"]
            for form in CANARIES:
                self.assertNotIn(form, sent + told + told_too)
        self.assertEqual(kinds, ["apply", "state"])
        self.assertEqual(len(json.loads(receiver.requests[1][2])["values"]["root_module"]["resources"]), 2)


if __name__ == "__main__":
    unittest.main()
