# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""infratrack-plan over the collector's fixtures: documents of many providers and of every format version. What leaves the
machine has none of their secrets, and everything in it that is counted."""

import base64
import collections
import contextlib
import io
import json
import pathlib
import re
import tempfile
import unittest

from test_infratrack_plan import PROGRAM, program

try:
    import tomllib
except ImportError:  # before Python 3.11
    tomllib = None

FIXTURES = pathlib.Path(PROGRAM).parents[2] / "collector/tests/fixtures/terraform"
ACTIONS = {
    "no-op": ("no_op",),
    "create": ("add",),
    "read": ("read",),
    "update": ("change",),
    "delete": ("destroy",),
    "delete,create": ("add", "destroy", "replace"),
    "create,delete": ("add", "destroy", "replace"),
    "forget": ("forget",),
    "create,forget": ("add", "forget"),
}


def encoded(secret):
    """In base64, wherever it stands in what is encoded."""
    for before in range(3):
        data = b"\0" * before + secret.encode()
        yield base64.b64encode(data).decode()[-(-before * 8 // 6) : len(data) * 8 // 6]


def counted(plan):
    """What the collector counts in a plan: changes, and checks."""
    counts = collections.Counter()
    for resource in plan.get("resource_changes", ()):
        change = resource["change"]
        counts.update(ACTIONS.get(",".join(change["actions"]), ("unrecognised",)))
        counts["import"] += "importing" in change
        counts["move"] += "previous_address" in resource
    counts["drift"] = sum(one["change"]["actions"] != ["no-op"] for one in plan.get("resource_drift", ()))
    counts["deferred"] = len(plan.get("deferred_changes", ()))
    counts["actions"] = len(plan.get("action_invocations", ()))
    counts["outputs"] = sum(one["actions"] != ["no-op"] for one in plan.get("output_changes", {}).values())
    checks = collections.Counter(check["status"] for check in plan.get("checks", ()))
    return {name: count for name, count in counts.items() if count}, dict(checks)


@unittest.skipUnless(FIXTURES.exists(), "the collector's fixtures are not here")
@unittest.skipUnless(tomllib, "expectations are TOML, which Python before 3.11 can't read")
class Fixtures(unittest.TestCase):
    def each(self, kind=None):
        text = (FIXTURES / "expected.toml").read_text(encoding="utf-8")
        for name, expected in tomllib.loads(text).items():
            if kind in (None, expected["kind"]):
                stage = "apply" if name.endswith(".jsonl") else None
                yield name, expected, program.redact((FIXTURES / name).read_bytes(), stage)

    def test_no_secret_leaves_the_machine_and_what_only_looks_like_one_does(self):
        for name, expected, document in self.each():
            with self.subTest(name):
                summary = program.summary(document, None)
                for text in (document.body, summary):
                    self.assertNotIn("canary-", text)
                    for secret in expected.get("gone", []) + expected.get("hidden", []):
                        for form in encoded(secret):
                            self.assertNotIn(form, text)
                    for number in expected.get("lost", ()):
                        self.assertNotIn(number, text)
                for text in expected.get("remain", ()):
                    self.assertIn(text, document.body)
                self.assertEqual(document.kind, expected["kind"])

    def test_what_is_sent_is_counted_as_the_document_was(self):
        for name, expected, document in self.each("plan"):
            with self.subTest(name):
                wanted = dict(expected.get("counts", {}))
                line = expected.get("line", "Plan: 0 to add, 0 to change, 0 to destroy.")
                for word in ("add", "change", "destroy"):
                    count = int(re.search("([0-9]+) to " + word, line).group(1))
                    wanted.update({word: count} if count else {})
                sent = json.loads(document.body)
                self.assertEqual(counted(sent), (wanted, expected.get("checks", {})))
                told = {name: count for name, count in document.counts.items() if count}
                self.assertEqual(told, {name: count for name, count in wanted.items() if name in document.counts})
                self.assertTrue(line.startswith(document.line()), document.line())
                self.assertIn(program.markdown(document.line()), program.summary(document, None))
                flags = {flag: sent[flag] for flag in ("applyable", "complete", "errored") if flag in sent}
                self.assertEqual(flags, expected.get("flags", {}))
                self.assertEqual(sent["format_version"], expected["format"])
        for name, expected, document in self.each("state"):
            with self.subTest(name):
                resources = json.loads(document.body)["values"]["root_module"]["resources"]
                self.assertEqual(len(resources), expected["resources"])

    def test_of_plans_without_marks_what_tells_a_host_is_sent_and_of_others_nothing_beside_the_values(self):
        def leaves(value):
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
            return {str(value)} if inner is None else {leaf for item in inner for leaf in leaves(item)}

        count = 0
        for name, expected, document in self.each("plan"):
            with self.subTest(name):
                sent, wanted = {}, {}
                plan = json.loads(document.body)
                for resource in plan.get("resource_changes", []) + plan.get("resource_drift", []):
                    if program.MARKS in resource:
                        sent.setdefault(resource["address"], set()).update(leaves(resource[program.MARKS]))
                for line in expected.get("marks", ()) if expected["format"].startswith("0") else ():
                    address, values = line.split(" ", 1)[1].split(": ")
                    values = {value for mark in values.split() for value in mark.split("=")[1].split(",")}
                    wanted.setdefault(address, set()).update(values)
                    count += 1
                self.assertEqual(sent, wanted)
        self.assertGreater(count, 5)

    def test_the_table_of_hosts_is_the_collectors(self):
        text = (FIXTURES / "../../../src/changes/terraform/links/known.rs").read_text(encoding="utf-8")
        shapes = dict.fromkeys(("InstanceId", "Serial", "Uuid"), "id")
        shapes.update({"Mac": "mac", "PublicAddress": "address", "PrivateAddress": "address"})
        wanted = {}
        for kinds, rules in re.findall(r'&\[((?:\s*"\w+",?)+\s*)\],\s*&\[(.*?)\]', text, re.DOTALL):
            found = re.findall(r'"([^"]+)",\s*Mark::(\w+)', rules)
            own = {(tuple(path.split("/")), shapes[mark]) for path, mark in found if mark in shapes}
            wanted.update((kind, own) for kind in re.findall(r"\w+", kinds))
        ours = {kind: {rule for rule in rules if rule[1] not in ("host", "tag")} for kind, rules in program.RULES.items()}
        self.assertEqual(ours, wanted)
        self.assertGreater(len(wanted), 30)

    def test_outcomes_keep_every_operation(self):
        for name, expected, document in self.each("apply"):
            with self.subTest(name):
                events = [json.loads(line) for line in document.body.splitlines()]
                ends = [event for event in events if event["type"] in ("apply_complete", "apply_errored")]
                wanted = [words for words in expected.get("operations", ()) if " started" not in words]
                self.assertEqual(len(ends), len(wanted))
                self.assertEqual(sum(event["type"] == "diagnostic" for event in events), expected.get("diagnostics", 0))

    def test_what_is_sent_is_not_masked_again(self):
        for name, _, document in self.each():
            with self.subTest(name):
                stage = "apply" if name.endswith(".jsonl") else None
                again = program.redact(document.body.encode("utf-8"), stage)
                self.assertEqual((again.body, again.redactions), (document.body, 0))

    def test_what_windows_powershell_writes_is_the_same(self):
        for name, _, document in self.each("plan"):
            with self.subTest(name):
                text = (FIXTURES / name).read_text(encoding="utf-8").replace("\n", "\r\n")
                utf16 = b"\xff\xfe" + text.encode("utf-16-le")
                self.assertEqual(program.redact(utf16).body, document.body)

    def test_a_dry_run_of_a_file_writes_what_is_sent(self):
        with tempfile.TemporaryDirectory() as directory:
            output = pathlib.Path(directory, "sent.json")
            arguments = ["plan", str(FIXTURES / "aws.json"), "--output", str(output), "--quiet"]
            # Without a URL nothing is sent.
            with contextlib.redirect_stderr(io.StringIO()):
                self.assertEqual(program.main(arguments, {}), 0)
            self.assertNotIn("canary-", output.read_text(encoding="utf-8"))
