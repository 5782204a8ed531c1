# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""infratrack-plan: rule by rule, against a receiver, and with the real terraform where the machine has one."""

import base64
import codecs
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import random
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
from unittest import mock

from receiver import CHANGE, TAKEN, TOKEN, Receiver, problem

PROGRAM = str(pathlib.Path(__file__).resolve().parents[1] / "bin" / "infratrack-plan")
CANARY = "hunter2-not-a-real-secret"
CANARIES = (CANARY, "aHVudGVyMi1ub3QtYS1yZWFsLXNlY3JldA", "h1bnRlcjItbm90LWEtcmVhbC1zZWNyZXQ")


def _load():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("infratrack_plan", PROGRAM)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("infratrack_plan", loader))
    loader.exec_module(module)
    return module


program = _load()


def plan(*changes, **more):
    document = {"format_version": "1.2", "terraform_version": "1.11.4", "resource_changes": list(changes)}
    return json.dumps(dict(document, **more))


def change(before=None, after=None, kind="aws_instance", actions=("update",), address=None, **more):
    members = {"actions": list(actions), "before": before, "after": after}
    members.update(more)
    return {"address": address or kind + ".a", "mode": "managed", "type": kind, "name": "a", "change": members}


def redacted(text, stage=None, **more):
    document = program.redact(text if isinstance(text, bytes) else text.encode("utf-8"), stage, **more)
    if document.kind == "apply":
        return document, [json.loads(line) for line in document.body.splitlines()]
    return document, json.loads(document.body)


def kept(*arguments, **more):
    """Both sides of one change."""
    _, document = redacted(plan(change(*arguments, **more)))
    found = document["resource_changes"][0]["change"]
    return found.get("before"), found.get("after")


CHANGED, SAME = {"redacted": True, "changed": True}, {"redacted": True, "changed": False}


class Rules(unittest.TestCase):
    def test_marked_values_are_masked_on_both_sides_and_say_whether_they_changed(self):
        sides = kept(
            {"a": "first", "b": ["x", {"c": "y"}], "d": "z"},
            {"a": "second", "b": ["x", {"c": "y"}], "d": "z"},
            before_sensitive={"a": True},
            after_sensitive={"b": [False, {"c": True}]},
        )
        self.assertEqual(sides[0], {"a": CHANGED, "b": ["x", {"c": SAME}], "d": "z"})
        self.assertEqual(sides[1], {"a": CHANGED, "b": ["x", {"c": SAME}], "d": "z"})
        self.assertEqual(kept(None, {"a": "b"}, after_sensitive=True), (None, CHANGED))
        # What becomes unknown, or another shape, has its own marks.
        sides = kept({"a": {"k": "short"}}, {}, before_sensitive={"a": {"k": True}}, after_unknown={"a": True})
        self.assertEqual(sides, ({"a": {"k": CHANGED}}, {}))
        sides = kept({"a": {"k": "short"}}, {"a": "text"}, before_sensitive={"a": {"k": True}})
        self.assertEqual(sides, ({"a": {"k": CHANGED}}, {"a": "text"}))

    def test_names_make_secrets_and_flags_stay(self):
        value = {"password": "pw", "secret_arn": "arn", "token": None, "use_token": True, "client-secret": ["x"]}
        self.assertEqual(
            kept(value, value)[1],
            {"password": SAME, "secret_arn": "arn", "token": None, "use_token": True, "client-secret": SAME},
        )
        # A flag that becomes a text is none.
        self.assertEqual(kept({"token": False}, {"token": "t"}), ({"token": CHANGED}, {"token": CHANGED}))
        for name in "password DB_PASSWORD client-secret user_data_base64 access_token kubeconfig".split():
            self.assertTrue(program.is_secret_name(name), name)
        for name in "name secret_arn token_ttl password_length access_key_id user_data_replace_on_change".split():
            self.assertFalse(program.is_secret_name(name), name)

    def test_lists_of_names_are_those_of_the_collector(self):
        source = pathlib.Path(PROGRAM).parents[2] / "collector/src/changes/terraform/names.rs"
        if not source.exists():
            self.skipTest("the collector's source is not here")
        text = source.read_text()
        for name in (
            "SECRET_NAMES",
            "PLAIN_ENDS",
            "SECRET_TYPES",
            "PLAIN_OF_SECRET_TYPES",
            "COMMON_WORDS",
            "REFERENCES",
        ):
            block = text.split("const %s:" % name)[1].split("= [")[1].split("];")[0]
            self.assertEqual(sorted(json.loads("[%s]" % block.strip().rstrip(","))), sorted(getattr(program, name)))

    def test_pairs_and_kubernetes_secrets_are_masked(self):
        value = {
            "environment": [{"name": "DB_PASSWORD", "value": "v"}, {"name": "PORT", "value": "80"}],
            "manifest": {"kind": "Secret", "data": {"a": "b"}, "metadata": {"name": "n"}},
        }
        found = kept(value, value)[0]
        self.assertEqual(
            found["environment"], [{"name": "DB_PASSWORD", "value": SAME}, {"name": "PORT", "value": "80"}]
        )
        self.assertEqual(found["manifest"], {"kind": "Secret", "data": SAME, "metadata": {"name": "n"}})

    def test_either_name_makes_a_pair_and_texts_have_objects_of_kubernetes_too(self):
        self.assertEqual(
            kept(None, {"e": [{"name": "x", "key": "password", "value": "v"}]})[1]["e"][0]["value"], CHANGED
        )
        text = '{"kind":"Secret","stringData":{"a":"b"}}'
        self.assertEqual(kept(None, {"c": text})[1], {"c": '{"kind":"Secret","stringData":"[redacted]"}'})

    def test_what_looks_masked_hides_nothing_beside_it(self):
        sides = kept(
            {"a": SAME, "b": None}, {"a": "found-elsewhere", "b": "found-elsewhere"}, after_sensitive={"b": True}
        )
        self.assertEqual(sides[1], {"a": "[redacted]", "b": CHANGED})

    def test_types_make_secrets_and_their_values_are_found_elsewhere(self):
        for kind in ("random_password", "vault_generic_secret", "aws_secretsmanager_secret_version"):
            document, found = redacted(
                plan(
                    change(None, {"result": "correct-horse", "length": program.Number("13").text}, kind=kind),
                    change(None, {"triggers": {"p": "correct-horse battery"}}, kind="null_resource"),
                )
            )
            changes = [one["change"]["after"] for one in found["resource_changes"]]
            self.assertEqual(changes[0], {"result": CHANGED, "length": "13"})
            self.assertEqual(changes[1], {"triggers": {"p": "[redacted] battery"}})
            self.assertEqual(document.redactions, 2)

    def test_a_secret_is_found_in_every_form(self):
        secret = 'p<a>&"ss w\\örd/1+'
        secrets = program.Secrets()
        secrets.add(secret)
        scrubber = secrets.scrubber()
        go = json.dumps(secret, ensure_ascii=False)
        for character in "<>&":
            go = go.replace(character, "\\u%04x" % ord(character))
        texts = [secret, json.dumps({"a": secret}), json.dumps(json.dumps({"a": secret}, ensure_ascii=False)), go]
        texts += [json.dumps(go), json.dumps(json.dumps(secret))]
        for quoted in (
            urllib.parse.quote(secret, safe=""),
            urllib.parse.quote_plus(secret),
            urllib.parse.quote(secret),
        ):
            texts += [quoted, quoted.replace("%C3%B6", "%c3%b6").replace("%3C", "%3c") if quoted.islower() else quoted]
        texts.append(codecs.decode(b"p%3ca%3e%26%22ss%20w%5c%c3%b6rd%2f1%2b", "ascii"))
        for before in ("", "u", "us", "user:"):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                texts.append(encode((before + secret + ":after").encode("utf-8")).decode("ascii"))
        for text in texts:
            clean = scrubber.text("x%sy" % text)
            self.assertIn("[redacted]", clean, text)
            self.assertTrue(scrubber.finds("x%sy" % text))

    def test_short_values_are_not_looked_for_and_parts_of_documents_and_lines_are(self):
        secrets = program.Secrets()
        line = "MIIEvQIBADANBgkqhkiG9w0B"
        inner = '{"a":"inner-secret","n":123456,"b":true}'
        for value in ("short", program.Number("12345"), inner, "-----BEGIN KEY-----\n  %s\nend\n" % line):
            secrets.add(value)
        text = "short 12345 inner-secret 123456 true %s end" % line
        self.assertEqual(secrets.scrubber().text(text), "short 12345 [redacted] [redacted] true [redacted] end")

    def test_the_longest_of_several_secrets_is_taken_out(self):
        secrets = program.Secrets()
        for value in ("secret", "secret-and-more", "and-more-of-it"):
            secrets.add(value)
        # Both ways of searching.
        for around in ("", "." * 100000):
            scrubber = secrets.scrubber()
            self.assertEqual(
                scrubber.text(around + "asecret-and-more-of-it secret!"), around + "a[redacted]-of-it [redacted]!"
            )
            self.assertEqual(scrubber.count, 2)

    def test_sensitive_variables_outputs_and_constants_are_found_everywhere(self):
        names = [
            "value-of-v",
            "default-of-w",
            "output-of-o",
            "given-to-m",
            "of-the-provider",
            "in-prior-state",
            "drifted-one",
        ]
        document, found = redacted(
            plan(
                change(None, {"x": " ".join(names)}, address='a.b["value-of-v"]'),
                variables={"v": {"value": names[0]}, "w": {"value": "plain-value"}},
                configuration={
                    "provider_config": {"p": {"expressions": {"token": {"constant_value": names[4]}}}},
                    "root_module": {
                        "variables": {"v": {"sensitive": True}, "w_secret": {"default": names[1]}},
                        "module_calls": {
                            "m": {
                                "expressions": {"inner": {"constant_value": names[3]}},
                                "module": {"variables": {"inner": {"sensitive": True}}},
                            }
                        },
                    },
                },
                planned_values={"outputs": {"o": {"sensitive": True, "value": names[2]}}},
                prior_state={
                    "values": {
                        "root_module": {
                            "child_modules": [
                                {
                                    "resources": [
                                        {"type": "x", "values": {"a": names[5]}, "sensitive_values": {"a": True}}
                                    ]
                                }
                            ]
                        }
                    }
                },
                resource_drift=[change({"a": "0"}, {"a": names[6]}, after_sensitive={"a": True}, address="c.d")],
                checks=[
                    {
                        "status": "fail",
                        "address": {"to_display": "check.c"},
                        "instances": [{"problems": [{"message": names[0]}]}],
                    }
                ],
            )
        )
        for name in names:
            self.assertNotIn(name, document.body)
        self.assertEqual(
            set(found), {"format_version", "terraform_version", "resource_changes", "resource_drift", "checks"}
        )
        self.assertEqual(found["resource_changes"][0]["address"], 'a.b["[redacted]"]')
        self.assertEqual(document.counts["drift"], 1)
        self.assertEqual(document.problems, [("check.c: fail", "[redacted]")])

    def test_texts_that_are_documents_lose_their_secrets_by_name(self):
        inner = '\n{"user": "u", "password": "pw", "n": 1.50}'
        self.assertEqual(kept(None, {"c": inner})[1], {"c": '{"user":"u","password":"[redacted]","n":1.50}'})
        self.assertEqual(kept(None, {"c": '{"user": "u"}'})[1], {"c": '{"user": "u"}'})
        # Also where a number in it is a secret.
        value = {"c": '{"n": 123456, "password": "pw"}', "pin": 123456}
        self.assertEqual(
            kept(None, value, after_sensitive={"pin": True})[1],
            {"c": '{"n":"[redacted]","password":"[redacted]"}', "pin": CHANGED},
        )

    def test_numbers_stay_as_they_are_written_and_unknown_elements_keep_their_place(self):
        text = (
            '{"format_version":"1.2","resource_changes":[{"address":"a.b","type":"a","change":{"actions":["update"],'
            '"before":{"n":9007199254740993},"after":{"n":0.10,"big":1e400,"l":[null,"b"]},"after_unknown":{"id":true,"l":[true,false]}}}]}'
        )
        body = program.redact(text.encode()).body
        for part in ('"before":{"n":9007199254740993}', '"after":{"n":0.10,"big":1e400,"l":[null,"b"]}'):
            self.assertIn(part, body)

    def test_values_of_documents_without_marks_are_not_kept(self):
        text = plan(change({"x": "open-sesame", "y": 1}, {"x": "other-sesame", "y": 1})).replace('"1.2"', '"0.2"')
        document, found = redacted(text)
        self.assertNotIn("sesame", document.body)
        self.assertEqual(found["resource_changes"][0]["change"]["after"], {"x": CHANGED, "y": SAME})
        self.assertTrue(document.warnings)

    def test_what_could_be_anything_is_no_mark_of_a_host(self):
        for shape, taken, left in (
            (
                "id",
                ("i-0123412341234abcd", "389012345", "fr-par-1/c3a1e2f4-0b1d-4e5a-9a8b-112233445566"),
                ("i-hunter2hunter2", "12345", CANARY, "x/c3a1e2f4-0b1d-4e5a-9a8b-112233445566", "ab" * 16, "389012345\n"),
            ),
            ("mac", ("52:54:00:ab:cd:ef", "52-54-00-AB-CD-EF"), ("52:54:00:ab:cd:eg", "525400abcdef")),
            (
                "address",
                ("192.0.2.1", "2001:db8::1", "192.0.2.1/24"),
                ("fe80::1%" + CANARY, "192.0.2.1/" + CANARY, "999.1.1.1", "::1", "\u0661\u0669\u0662.0.2.1"),
            ),
            ("host", ("web-1.example.net",), ("see the wiki", ".x", "web_1")),
        ):
            for text in taken:
                self.assertTrue(program.has_shape(shape, text), text)
            for text in left:
                self.assertFalse(program.has_shape(shape, text), text)

    def test_what_is_masked_and_code_are_left_as_they_should_be(self):
        sides = kept({"a": SAME, "password": CHANGED}, {"a": SAME, "password": CHANGED})
        self.assertEqual(sides[0], {"a": SAME, "password": CHANGED})
        document, _ = redacted(plan(change(None, {}, generated_config='password = "x"', importing={"id": "i-1"})))
        self.assertNotIn("generated_config", document.body)
        self.assertEqual(document.counts["import"], 1)
        self.assertEqual(redacted('{"format_version":"1.2","output_changes":{}}')[1]["resource_changes"], [])

    def test_states_lose_outputs_and_marked_values(self):
        text = json.dumps(
            {
                "format_version": "1.0",
                "values": {
                    "outputs": {"o": {"sensitive": True, "value": CANARY}},
                    "root_module": {
                        "resources": [
                            {"address": "a.b", "type": "a", "values": {"i": "x" + CANARY}, "sensitive_values": {}}
                        ],
                        "child_modules": [
                            {
                                "resources": [
                                    {
                                        "address": "m.a.b",
                                        "type": "a",
                                        "values": {"s": 1},
                                        "sensitive_values": {"s": True},
                                    }
                                ]
                            }
                        ],
                    },
                },
            }
        )
        document, found = redacted(text)
        values = [one["values"] for one in found["values"]["root_module"]["resources"]]
        self.assertEqual(values, [{"i": "x[redacted]"}, {"s": CHANGED}])
        self.assertEqual((document.kind, document.line()), ("state", "State: 2 resources"))
        self.assertEqual(redacted('{"format_version":"1.0"}')[0].kind, "state")
        # Before format 1.0 nothing marks what is sensitive.
        self.assertNotIn(CANARY, redacted(text.replace('"1.0"', '"0.1"').replace("x" + CANARY, "short"))[0].body)
        self.assertNotIn("short", redacted(text.replace('"1.0"', '"0.1"').replace("x" + CANARY, "short"))[0].body)

    def test_events_of_an_apply_lose_outputs_and_their_values(self):
        events = [
            {"@level": "info", "type": "version", "terraform": "1.11.4"},
            {
                "@level": "error",
                "type": "diagnostic",
                "diagnostic": {"severity": "error", "summary": "s", "detail": CANARY},
            },
            {"@level": "info", "type": "apply_progress", "hook": {}},
            {"@level": "info", "type": "apply_complete", "hook": {"resource": {"addr": "a.b"}, "action": "create"}},
            {
                "@level": "info",
                "type": "change_summary",
                "changes": {"add": 1, "change": 0, "remove": 2, "operation": "apply"},
            },
            {
                "@level": "info",
                "type": "outputs",
                "outputs": {"o": {"sensitive": True, "value": CANARY}, "p": {"value": 1}},
            },
        ]
        text = "[command]terraform apply\n" + "\n".join(map(json.dumps, events))
        document, found = redacted(text, "apply")
        self.assertEqual(
            [event["type"] for event in found], ["version", "diagnostic", "apply_complete", "change_summary"]
        )
        self.assertNotIn(CANARY, document.body)
        self.assertEqual(document.line(), "Apply: 1 added, 0 changed, 2 destroyed")
        self.assertEqual(document.warnings, ["1 lines are no events"])
        # Secrets that only the plan tells.
        more = program.Secrets()
        more.add("only-in-the-plan")
        event = json.dumps({"@level": "info", "type": "diagnostic", "diagnostic": {"detail": "x only-in-the-plan"}})
        self.assertNotIn("only-in-the-plan", redacted(event, "apply", more=more)[0].body)

    def test_what_is_no_document_is_refused_by_what_it_is_and_without_a_part_of_it(self):
        for text, words in (
            ("", "the document is empty"),
            ("$ terraform show -json p\n{}", "begins with other text at character 0"),
            ('{"version":4,"serial":1,"lineage":"x","resources":[]}', "a raw state snapshot"),
            ('{"plan_format_version":"1.0","provider_schemas":{}}', "HCP Terraform's redacted rendering"),
            (plan() + " Done.", "more text at character"),
            ('{"format_version":"1.2","resource_changes":[{"addr', "cut off"),
            ('{"format_version":"1.2","resource_changes":[', "cut off"),
            ('{"format_version":"1.2","x":hunter2}', "not JSON at character 28"),
            ('{"format_version":"1.2","resource_changes":[1 2]}', "not JSON at character 46"),
            ('{"format_version":"2.0","resource_changes":[]}', "format_version is not known"),
            ('{"resource_changes":[]}', "there is no format_version"),
            ('{"a":1}', "neither a plan nor a state"),
            ("[]", "a JSON list"),
            ('"{}"', "with quotes around"),
            ('{"@level":"info","type":"version"}', "the stream of events of `terraform plan -json`"),
            ('{"format_version":"1.2","resource_changes":[{}]}', "resource 1 has no"),
            ('{"format_version":"1.2","format_version":"1.1"}', "stands twice"),
            ('{"format_version":"1.2","planned_values":' + "[" * 100000, "too deep"),
        ):
            with self.assertRaises(program.Refusal, msg=text[:60]) as raised:
                program.redact(text.encode("utf-8"))
            self.assertIn(words, str(raised.exception))
            self.assertNotIn("hunter2", str(raised.exception))
        with self.assertRaises(program.Refusal):
            program.redact(b"Apply complete! Resources: 1 added", "apply")
        self.assertEqual(program.redact(b'{"resource_changes":[]}', is_lenient=True).kind, "plan")

    def test_utf_16_with_or_without_a_mark_is_the_same_text(self):
        text = plan(change({}, {"é": "😀"}))
        text = json.dumps(json.loads(text), ensure_ascii=False)
        wanted = program.redact(text.encode("utf-8")).body
        for data in (
            codecs.BOM_UTF8 + text.encode("utf-8"),
            codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
            codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
            text.encode("utf-16-le"),
            text.encode("utf-16-be"),
        ):
            self.assertEqual(program.redact(data).body, wanted)
        with self.assertRaises(program.Refusal):
            program.redact(b"\xff\xfe{")

    def test_redacting_what_is_redacted_changes_nothing(self):
        dice = random.Random(7)

        def value(depth):
            kind = dice.randrange(9 if depth else 6)
            if kind < 6:
                return [None, True, dice.randrange(10**7), "s%d-secret" % dice.randrange(40), "", '{"token":"x"}'][kind]
            if kind == 6:
                return [value(depth - 1) for _ in range(dice.randrange(3))]
            names = ("a", "b", "password", "kind", "data", "name", "value", "s3-secret")
            return {name: value(depth - 1) for name in dice.sample(names, dice.randrange(5))}

        def marks(one):
            if dice.randrange(4) == 0:
                return True
            if isinstance(one, dict):
                return {name: marks(member) for name, member in one.items()}
            return [marks(item) for item in one] if isinstance(one, list) else False

        for round_ in range(150):
            changes = []
            for _ in range(3):
                before, after = {"x": value(3), "y": value(2)}, {"x": value(3), "z": value(2)}
                kind = dice.choice(["aws_instance", "random_password"])
                members = {"before_sensitive": marks(before), "after_sensitive": marks(after)}
                changes.append(change(before, after, kind, after_unknown=marks(after), **members))
            text = plan(*changes).replace('"1.2"', dice.choice(['"1.2"', '"1.2"', '"0.1"']))
            once = program.redact(text.encode("utf-8"))
            twice = program.redact(once.body.encode("utf-8"))
            self.assertEqual(once.body, twice.body, round_)
            self.assertEqual(twice.redactions, 0, round_)


class Claims(unittest.TestCase):
    def said(self, env, **given):
        with mock.patch.object(program, "git", lambda *_: ""), mock.patch.object(
            program, "_workspace", lambda env: env.get("TF_WORKSPACE")
        ):
            return program.claims(env, given)

    def test_every_ci_says_what_its_variables_say(self):
        for env, wanted in (
            (
                {
                    "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "o/r", "GITHUB_SHA": "c1", "GITHUB_REF": "refs/heads/main",
                    "GITHUB_REF_NAME": "main", "GITHUB_RUN_ID": "7", "GITHUB_SERVER_URL": "https://g.example", "GITHUB_ACTOR": "ann",
                },
                ("github", "o/r", "c1", None, "main", None, "7", "https://g.example/o/r/actions/runs/7", "ann"),
            ),
            (
                {
                    "GITLAB_CI": "true", "CI_PROJECT_PATH": "g/p", "CI_COMMIT_SHA": "m", "CI_MERGE_REQUEST_SOURCE_BRANCH_SHA": "h",
                    "CI_MERGE_REQUEST_IID": "3", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "f", "CI_PIPELINE_ID": "9",
                    "CI_PIPELINE_URL": "https://l.example/9", "GITLAB_USER_LOGIN": "bob",
                },
                ("gitlab", "g/p", "h", "m", "f", "3", "9", "https://l.example/9", "bob"),
            ),
            (
                {
                    "JENKINS_URL": "https://j.example", "GIT_URL": "https://u:pw@git.example/a.git", "GIT_COMMIT": "c", "CHANGE_ID": "4",
                    "CHANGE_BRANCH": "f", "BUILD_TAG": "jenkins-a-1", "BUILD_URL": "https://j.example/1", "CHANGE_AUTHOR": "cy",
                },
                ("jenkins", "https://git.example/a.git", "c", None, "f", "4", "jenkins-a-1", "https://j.example/1", "cy"),
            ),
            (
                {
                    "CIRCLECI": "true", "CIRCLE_PROJECT_USERNAME": "o", "CIRCLE_PROJECT_REPONAME": "r", "CIRCLE_SHA1": "c",
                    "CIRCLE_BRANCH": "f", "CIRCLE_PULL_REQUEST": "https://g.example/o/r/pull/12", "CIRCLE_WORKFLOW_ID": "w",
                    "CIRCLE_BUILD_URL": "https://c.example/1", "CIRCLE_USERNAME": "dan",
                },
                ("circleci", "o/r", "c", None, "f", "12", "w", "https://c.example/1", "dan"),
            ),
            (
                {
                    "BUILDKITE": "true", "BUILDKITE_REPO": "git@g.example:o/r.git", "BUILDKITE_COMMIT": "HEAD", "BUILDKITE_BRANCH": "f",
                    "BUILDKITE_PULL_REQUEST": "false", "BUILDKITE_BUILD_ID": "b", "BUILDKITE_BUILD_URL": "https://b.example/1",
                    "BUILDKITE_BUILD_CREATOR": "Eve",
                },
                ("buildkite", "git@g.example:o/r.git", None, None, "f", None, "b", "https://b.example/1", "Eve"),
            ),
            (
                {
                    "TF_BUILD": "True", "BUILD_REPOSITORY_URI": "https://org@dev.example/p/_git/r", "BUILD_SOURCEVERSION": "m",
                    "SYSTEM_PULLREQUEST_SOURCECOMMITID": "h", "SYSTEM_PULLREQUEST_SOURCEBRANCH": "refs/heads/f",
                    "SYSTEM_PULLREQUEST_PULLREQUESTID": "5", "BUILD_BUILDID": "8", "SYSTEM_COLLECTIONURI": "https://dev.example/org/",
                    "SYSTEM_TEAMPROJECT": "p", "BUILD_REQUESTEDFOREMAIL": "f@x.example",
                },
                (
                    "azure", "https://dev.example/p/_git/r", "h", "m", "refs/heads/f", "5", "8",
                    "https://dev.example/org/p/_build/results?buildId=8", "f@x.example",
                ),
            ),
            (
                {
                    "BITBUCKET_COMMIT": "c", "BITBUCKET_REPO_FULL_NAME": "o/r", "BITBUCKET_BRANCH": "f", "BITBUCKET_PR_ID": "6",
                    "BITBUCKET_PIPELINE_UUID": "{u}", "BITBUCKET_STEP_TRIGGERER_UUID": "{t}",
                },
                ("bitbucket", "o/r", "c", None, "f", "6", "{u}", None, "{t}"),
            ),
            (
                {
                    "ATLANTIS_TERRAFORM_VERSION": "1.11.4", "PULL_NUM": "2", "BASE_REPO_OWNER": "o", "BASE_REPO_NAME": "r",
                    "HEAD_COMMIT": "c", "HEAD_BRANCH_NAME": "f", "PULL_URL": "https://g.example/o/r/pull/2", "USER_NAME": "gil",
                },
                ("atlantis", "o/r", "c", None, "f", "2", None, "https://g.example/o/r/pull/2", "gil"),
            ),
            (
                {"TFC_RUN_ID": "run-1", "TFC_CONFIGURATION_VERSION_GIT_COMMIT_SHA": "c", "TFC_CONFIGURATION_VERSION_GIT_BRANCH": "f"},
                ("hcp", None, "c", None, "f", None, "run-1", None, None),
            ),
            (
                {"TERRATEAM_RUN_KIND": "pr", "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "o/r", "GITHUB_SHA": "c"},
                ("terrateam", "o/r", "c", None, None, None, None, None, None),
            ),
        ):  # fmt: skip
            found = self.said(env)
            names = (
                "ci-provider",
                "repository",
                "commit",
                "merge-commit",
                "branch",
                "pull-request",
                "run-id",
                "run-url",
                "actor",
            )
            self.assertEqual(tuple(found.get(name) for name in names), wanted)

    def test_a_pull_request_of_github_has_its_heads_commit(self):
        with tempfile.TemporaryDirectory() as folder:
            event = os.path.join(folder, "event.json")
            with open(event, "w", encoding="utf-8") as file:
                json.dump({"pull_request": {"number": 12, "head": {"sha": "head"}}}, file)
            env = {
                "GITHUB_ACTIONS": "true",
                "GITHUB_SHA": "merge",
                "GITHUB_EVENT_NAME": "pull_request",
                "GITHUB_EVENT_PATH": event,
            }
            found = self.said(env)
        self.assertEqual((found["commit"], found["merge-commit"], found["pull-request"]), ("head", "merge", "12"))

    def test_what_is_asked_for_wins_and_claims_fit_into_headers(self):
        env = {
            "GITLAB_CI": "1",
            "CI_PROJECT_PATH": "g/p",
            "INFRATRACK_REPOSITORY": "x/y",
            "INFRATRACK_ENVIRONMENT": "prod",
        }
        env.update(
            {
                "TRACEPARENT": "00-" + "a" * 32,
                "TF_WORKSPACE": "eu",
                "GITLAB_USER_LOGIN": "zoë\r\nX: y",
                "CI_PIPELINE_URL": "javascript:1",
            }
        )
        found = self.said(env, environment="stage", branch="b" * 600)
        self.assertEqual((found["repository"], found["environment"], found["workspace"]), ("x/y", "stage", "eu"))
        self.assertEqual((found["actor"], len(found["branch"])), ("zo???X: y", 512))
        self.assertEqual(found["traceparent"], env["TRACEPARENT"])
        self.assertNotIn("run-url", found)

    def test_without_a_ci_git_is_asked_and_not_waited_for(self):
        with tempfile.TemporaryDirectory() as folder:
            slow = os.path.join(folder, "git")
            with open(slow, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\nexec sleep 30\n")
            os.chmod(slow, 0o755)
            began = time.monotonic()
            with mock.patch.dict(os.environ, {"PATH": folder + ":" + os.environ["PATH"]}), mock.patch.object(
                program, "GIT_S", 0.2
            ):
                self.assertEqual(program.claims({}, {}).get("commit"), None)
            self.assertLess(time.monotonic() - began, 5)


class Summary(unittest.TestCase):
    def test_texts_are_nothing_but_themselves(self):
        for text in (
            "<script>alert(1)</script>",
            "[x](https://evil.example)",
            "@everyone `a` *b* |c| #1 _d_ www.evil.example",
            "a\n## b",
        ):
            shown = program.markdown(text)
            for part in ("<", "[", "](", "@", "`", "*", "|", " #1", "\n", "://", "www."):
                self.assertNotIn(part, shown)
        self.assertEqual(program.markdown("aws_instance.web"), "aws_instance.web")

    def test_the_table_is_capped_and_drift_stands_apart(self):
        changes = [change({}, {}, address="a.b%d" % number) for number in range(60)]
        drift = [change({"a": 1}, {"a": 2}, address="d.e")]
        failed = [{"status": "fail", "address": {"to_display": "check.c"}, "instances": []}]
        document, _ = redacted(plan(*changes, resource_drift=drift, checks=failed, errored=True))
        text = program.summary(document, "https://i.example/changes/1", {"warnings": ["from the collector"]})
        for part in (
            "Plan&#58; 0 to add, 60 to change, 0 to destroy",
            "| a.b49 | update |",
            "and 10 more",
            "outside of Terraform",
        ):
            self.assertIn(part, text)
        for part in (
            "| d.e | update |",
            "check.c&#58; fail",
            "run that failed",
            "from the collector",
            "(https://i.example/changes/1)",
        ):
            self.assertIn(part, text)
        self.assertNotIn("a.b50 ", text)


class Sending(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.file = os.path.join(self.folder.name, "plan.json")
        with open(self.file, "w", encoding="utf-8") as file:
            file.write(plan(change({"a": "x"}, {"a": CANARY}, after_sensitive={"a": True})))
        backoff = mock.patch.object(program, "BACKOFF_S", 0.01)
        backoff.start()
        self.addCleanup(backoff.stop)

    def run_it(self, receiver, *arguments, token=TOKEN, **env):
        env.update({"INFRATRACK_URL": receiver.url if receiver else "", "INFRATRACK_TOKEN": token})
        out = io.TextIOWrapper(io.BytesIO(), "utf-8")
        err = io.StringIO()
        with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
            code = program.main([*arguments] or [self.file], env)
        out.flush()
        said = out.buffer.getvalue().decode("utf-8")
        for text in (said, err.getvalue()):
            self.assertNotIn(CANARY, text)
            self.assertNotIn(TOKEN, text)
        if receiver:
            self.assertEqual(receiver.wrong, [])
        return code, said, err.getvalue()

    def test_a_plan_is_sent_once_with_its_headers(self):
        with Receiver() as receiver:
            summary = os.path.join(self.folder.name, "s.md")
            code, out, err = self.run_it(
                receiver, "plan", self.file, "--exit-code", "2", "--environment", "prod", GITHUB_STEP_SUMMARY=summary
            )
        self.assertEqual((code, err), (0, ""))
        self.assertIn("%s/changes/%s" % (receiver.url, CHANGE), out)
        ((headers, _, document),) = receiver.requests
        said = {name.lower(): value for name, value in headers.items()}
        for name, value in (("stage", "plan"), ("exit-code", "2"), ("environment", "prod")):
            self.assertEqual(said["infratrack-" + name], value)
        self.assertNotIn(CANARY, document)
        with open(summary, encoding="utf-8") as file:
            text = file.read()
        self.assertIn("1 to change", text)
        self.assertNotIn(CANARY, text)

    def test_what_may_help_is_tried_again_with_the_same_bytes(self):
        answers = [
            None,
            problem(503, "Service Unavailable", "d"),
            problem(429, "Too Many Requests", "d"),
            (500, {}, b"<html>"),
        ]
        with Receiver(*answers) as receiver:
            code, _, err = self.run_it(receiver, self.file, "--fail")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(len(receiver.requests), 5)
        self.assertEqual(len({data for _, data, _ in receiver.requests}), 1)

    def test_five_tries_are_all(self):
        with Receiver(*[problem(503, "Service Unavailable", "d")] * 9) as receiver:
            code, _, err = self.run_it(receiver, self.file)
        self.assertEqual((code, len(receiver.requests)), (0, 5))
        self.assertIn("503 (Service Unavailable: d) (tried 5 times)", err)

    def test_retry_after_is_honoured_and_not_beyond_the_time_there_is(self):
        with Receiver((429, {"Retry-After": "1"}, {})) as receiver:
            began = time.monotonic()
            self.assertEqual(self.run_it(receiver, self.file, "--fail")[0], 0)
            self.assertGreaterEqual(time.monotonic() - began, 1)
        with Receiver((503, {"Retry-After": "3600"}, {})) as receiver:
            self.assertEqual(self.run_it(receiver, self.file, "--fail")[0], 1)
            self.assertEqual(len(receiver.requests), 1)

    def test_refusals_are_final_and_told_by_title_and_detail(self):
        for status, title in (
            (400, "Bad Request"),
            (401, "Unauthorized"),
            (403, "Forbidden"),
            (422, "Unprocessable Entity"),
        ):
            with Receiver(problem(status, title, "no\n::error::" + TOKEN)) as receiver:
                code, _, err = self.run_it(receiver, self.file, "--fail")
            self.assertEqual((code, len(receiver.requests)), (1, 1))
            self.assertIn("%d (%s: no ::error::[redacted])" % (status, title), err)
            self.assertEqual(len(err.splitlines()), 1)

    def test_silence_ends_and_nobody_there_is_no_failure_of_the_pipeline(self):
        with Receiver(30) as receiver:
            began = time.monotonic()
            code, _, err = self.run_it(receiver, self.file, "--timeout", "0.5")
            self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(code, 0)
        self.assertIn("in time", err)
        self.assertIn("the pipeline goes on", err)
        receiver = Receiver()
        receiver.server_close()
        code, _, err = self.run_it(receiver, self.file, "--fail")
        self.assertEqual(code, 1)
        self.assertIn("can't be reached", err)

    def test_the_token_does_not_follow_redirects(self):
        with Receiver() as other, Receiver((307, {"Location": other.url + "/ingest/terraform"}, {})) as receiver:
            self.assertEqual(self.run_it(receiver, self.file, "--fail")[0], 1)
            self.assertEqual(other.requests, [])

    def test_wrong_usage_is_64_and_http_is_for_loopback(self):
        for arguments in (["--nope"], ["a", "b", "c"], [self.file, "--exit-code", "x"], [self.file, "--timeout", "-1"]):
            self.assertEqual(self.run_it(None, *arguments)[0], 64)
        for url in ("http://collector.example", "https://u:p@collector.example", "ftp://x", "https://h:x", "https://"):
            self.assertEqual(self.run_it(None, self.file, "--url", url)[0], 64, url)

    def test_without_url_or_token_nothing_is_sent_and_it_is_said(self):
        code, _, err = self.run_it(None, self.file)
        self.assertEqual(code, 0)
        self.assertIn("no URL was given", err)
        with Receiver() as receiver:
            self.assertIn("no token was given", self.run_it(receiver, self.file, token="")[2])
            code, _, err = self.run_it(receiver, self.file, "--fail", token="a b")
        self.assertEqual((code, receiver.requests), (1, []))
        self.assertIn("characters that no token has", err)

    def test_a_token_may_stand_in_a_file(self):
        name = os.path.join(self.folder.name, "token")
        with open(name, "w", encoding="utf-8") as file:
            file.write(TOKEN + "\n")
        with Receiver() as receiver:
            self.assertEqual(self.run_it(receiver, self.file, "--fail", "--token-file", name, token="")[0], 0)

    @unittest.skipUnless(shutil.which("openssl"), "there is no openssl on this machine")
    def test_https_is_verified(self):
        key, certificate = (os.path.join(self.folder.name, name) for name in ("key.pem", "ca.pem"))
        subprocess.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split()
            + ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        with Receiver() as receiver:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
            port = receiver.server_address[1]
            url = ["--url", "https://localhost:%d" % port]
            code, _, err = self.run_it(receiver, self.file, "--fail", *url)
            self.assertEqual((code, receiver.requests), (1, []))
            self.assertIn("certificate is not trusted", err)
            # The name counts, too.
            other = ["--url", "https://127.0.0.1:%d" % port, "--ca-file", certificate]
            self.assertEqual(self.run_it(receiver, self.file, "--fail", *other)[0], 1)
            self.assertEqual(self.run_it(receiver, self.file, "--fail", *url, "--ca-file", certificate)[0], 0)
            self.assertEqual(len(receiver.requests), 1)
        self.assertIn("can't be read", self.run_it(None, self.file, "--fail", *url, "--ca-file", self.file)[2])

    def test_plan_files_are_shown_and_what_is_shown_is_never_printed(self):
        name, tool = (os.path.join(self.folder.name, name) for name in ("tfplan", "tofu"))
        with open(name, "wb") as file:
            file.write(b"PK\x03\x04")
        with open(tool, "w", encoding="utf-8") as file:
            file.write('#!/bin/sh\n[ "$1 $2 $3" = "show -json %s" ] || exit 9\n' % name)
            file.write('echo "%s ${INFRATRACK_TOKEN-none}" >&2\nexec cat %s\n' % (CANARY, self.file))
        os.chmod(tool, 0o755)
        with Receiver() as receiver:
            self.assertEqual(self.run_it(receiver, name, "--fail", "--terraform", tool)[0], 0)
            self.assertIn("update", receiver.requests[0][2])
            os.rename(self.file, self.file + "x")
            code, _, err = self.run_it(receiver, name, "--fail", "--terraform", tool)
        self.assertEqual(code, 1)
        self.assertIn("`show -json` of the plan file failed with exit code 1", err)

    def test_a_certificate_that_is_not_trusted_is_final(self):
        error = program.urllib.error.URLError(program.ssl.SSLCertVerificationError(1, "x"))
        error.reason.verify_message = "self-signed certificate"
        with mock.patch.object(program.Collector, "_once", side_effect=error) as once:
            code, _, err = self.run_it(None, self.file, "--fail", "--url", "https://collector.example")
        self.assertEqual((code, once.call_count), (1, 1))
        self.assertIn("not trusted: self-signed", err)

    def test_a_dry_run_sends_nothing_and_prints_what_would_be(self):
        with Receiver() as receiver:
            code, out, _ = self.run_it(
                receiver, self.file, "--dry-run", "--output", os.path.join(self.folder.name, "o")
            )
        self.assertEqual((code, receiver.requests), (0, []))
        self.assertEqual(json.loads(out)["resource_changes"][0]["change"]["after"], {"a": CHANGED})
        with open(os.path.join(self.folder.name, "o"), encoding="utf-8") as file:
            self.assertEqual(file.read(), out)

    def test_the_file_and_the_options_come_in_any_order(self):
        for words in (("plan", "--dry-run", self.file), ("--dry-run", "plan", self.file), (self.file, "--dry-run")):
            code, out, err = self.run_it(None, *words)
            self.assertEqual(code, 0, err)
            self.assertEqual(json.loads(out)["resource_changes"][0]["change"]["after"], {"a": CHANGED})
        self.assertEqual(self.run_it(None, "plan", "--dry-run", self.file, self.file)[0], 64)

    def test_an_apply_of_which_only_the_exit_code_is_known_is_sent(self):
        with Receiver() as receiver:
            self.assertEqual(self.run_it(receiver, "apply", os.devnull, "--exit-code", "1", "--fail")[0], 0)
            self.assertEqual(receiver.requests[0][1], b"")
            self.assertEqual(self.run_it(receiver, "apply", os.devnull, "--fail")[0], 1)

    def test_bugs_are_told_without_the_document(self):
        with mock.patch.object(program, "redact", side_effect=ValueError(CANARY)):
            code, _, err = self.run_it(None, self.file, "--fail")
        self.assertEqual(code, 1)
        self.assertIn("ValueError at line", err)


class Large(unittest.TestCase):
    def test_a_large_plan(self):
        """Prints what it took. 50 MB where INFRATRACK_LARGE_MB says so."""
        size = float(os.environ.get("INFRATRACK_LARGE_MB", "3")) * 1e6
        changes, written, number = [], 0, 0
        while written < size:
            value = (
                {"id": "i-%016d" % number, "password": "pw-%d-%016x" % (number, number * 7919)}
                if number % 10 == 0
                else {}
            )
            value.update(
                {
                    "tags": {"Name": "host-%d" % number, "note": "x" * 200},
                    "private_ip": "10.0.%d.%d" % (number >> 8, number & 255),
                }
            )
            value["disks"] = [
                {"device_name": "/dev/sd" + letter, "volume_id": "vol-%d%s" % (number, letter)}
                for letter in "bcdefghijk"
            ]
            one = json.dumps(change(value, dict(value, type="t3.large"), address="a.b[%d]" % number))
            changes.append(one)
            written += len(one)
            number += 1
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "p.json")
            with open(name, "w", encoding="utf-8") as file:
                file.write('{"format_version":"1.2","resource_changes":[%s]}' % ",".join(changes))
            code = "import resource,runpy,sys,time\nsys.argv=['p',%r,'--dry-run']\nbegan=time.monotonic()\ntry:\n runpy.run_path(%r,run_name='__main__')\nexcept SystemExit as e:\n assert not e.code\nprint('%%.1f s, %%d MB at most' %% (time.monotonic()-began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024),file=sys.stderr)"
            done = subprocess.run(
                [sys.executable, "-c", code % (name, PROGRAM)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=True,
            )
        said = done.stderr.decode("utf-8").splitlines()
        self.assertIn("%d to change" % number, said[0])
        print("\n%.0f MB, %d resources: %s" % (written / 1e6, number, said[1]), file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
