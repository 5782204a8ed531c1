"""Redaction, the writer of spools, and where a run comes from: without a play."""

import errno
import json
import os
import subprocess
import time
import unittest
from unittest import mock

from rig import Rig

from ansible_collections.infratrack.infratrack.plugins.module_utils import origin, redact, spool, spool_files

SECRET = "hunter2-not-a-real"


class Redacts(unittest.TestCase):
    def test_what_looks_like_a_secret_is_gone(self):
        pem = "-----BEGIN RSA PRIVATE KEY-----\n%s\n-----END RSA PRIVATE KEY-----" % SECRET
        texts = [
            "password=" + SECRET,
            "PASSWORD: '%s'" % SECRET,
            '{"db_password": "%s x y"}' % SECRET,
            "{'api_key': '%s'}" % SECRET,
            '"{\\"token\\": \\"%s and more\\"}"' % SECRET,
            "mysql --password %s -u root" % SECRET,
            "curl -H 'Authorization: Bearer %s'" % SECRET,
            "Authorization: Basic %s==" % SECRET,
            "cloning https://user:%s@example.com/a.git failed" % SECRET,
            "cloning https://%s@example.com/a.git failed" % SECRET,
            "postgres://app:a/b@%s@db/app" % SECRET,
            "secret_access_key = " + SECRET,
            "client_secret=%s&x=1" % SECRET,
            "before\n%s\nafter" % pem,
            pem[:40] + SECRET,
            "ghp_0123456789012345" + SECRET,
            "AWS_SECRET_ACCESS_KEY=" + SECRET,
            "-----BEGIN PRIVATE KEY-----" + SECRET,
        ]
        for text in texts:
            self.assertNotIn("hunter2", redact.head(text, 4096), text)
        self.assertNotIn("AKIA", redact.head("key AKIAIOSFODNN7EXAMPLE is", 100))
        self.assertNotIn("salt", redact.head("root:$6$saltsalt$hashhashhashhash:1", 100))
        self.assertNotIn("MIIE", redact.tail("MIIEowIBAAK/abc+\nMIIE==\n-----END RSA PRIVATE KEY-----\nend", 100))
        self.assertEqual("a " + redact.MASK, redact.head("a xyzzy-1", 100, ("xyzzy-1",)))

    def test_the_rest_stays(self):
        for text in (
            "non-zero return code",
            "passed: 3, failed: 1",
            "no package matching 'nginx' is available",
            "https://example.com/a?b=c",
        ):
            self.assertEqual(text, redact.head(text, 4096))

    def test_any_text_becomes_one_that_can_be_stored(self):
        text = redact.head("a\0b\ud800c\x1b[31md\te\n\u20ac", 100)
        self.assertEqual("a\ufffdb?c\ufffd[31md\te\n\u20ac", text)
        self.assertEqual(10, len(redact.head("x" * 10**7, 10)))
        self.assertEqual(10, len(redact.tail("x" * 10**7, 10)))
        # What is cut in two is not shown.
        text = "x " * (redact.WINDOW // 2 - 10) + "https://user:" + SECRET * 3 + "@h/"
        self.assertNotIn("hunter2", redact.head(text, 10**6))
        self.assertNotIn("hunter2", redact.tail(SECRET + "@h/ " + "x " * (redact.WINDOW // 2), 10**6))

    def test_hostile_texts_cost_little(self):
        parts = [
            "a",
            "pass_",
            "password ",
            "://",
            "a://",
            "eyJ",
            "-----BEGIN PRIVATE KEY ",
            "bearer ",
            '\\"',
            "'",
            "password='",
            "--password",
            "A/+=",
            "$6$",
            'token:\\"',
            "authorization",
            "\0",
            "a.b-",
        ]
        for part in parts:
            text = part * (10**6 // len(part))
            begun = time.process_time()
            redact.head(text, 4096)
            redact.tail(text, 4096)
            self.assertLess(time.process_time() - begun, 0.5, part)


class Spools(Rig):
    def new(self, limit=1 << 28):
        os.makedirs(self.spool_dir, exist_ok=True)
        made = spool.Spool(self.spool_dir, "11111111-1111-4111-8111-111111111111", limit)
        self.addCleanup(lambda: os.close(made.fd))
        return made

    def lines(self, made):
        with open(made.path, "rb") as file:
            return file.read().split(b"\n")[1:-1]

    def test_a_full_disk_is_a_gap_with_a_count(self):
        made = self.new()
        made.write({"kind": "a"})
        with mock.patch.object(spool.os, "write", side_effect=OSError(errno.ENOSPC, "full")):
            made.write({"kind": "b"}, {"kind": "c"})
            made.write({"kind": "d"})
        made.write({"kind": "e"})
        lines = [json.loads(text) for text in self.lines(made)]
        self.assertEqual(["a", "gap", "e"], [record["kind"] for record in lines])
        self.assertEqual((3, "disk_full"), (lines[1]["count"], lines[1]["reason"]))

    def test_half_a_line_is_taken_back_or_marked(self):
        made = self.new()
        write = os.write

        def half(fd, data):
            return write(fd, data[: len(data) // 2])

        with mock.patch.object(spool.os, "write", side_effect=half):
            made.write({"kind": "lost"})
            with mock.patch.object(spool.os, "ftruncate", side_effect=OSError(errno.EIO, "broken")):
                made.write({"kind": "torn"})
        made.write({"kind": "whole"})
        lines = self.lines(made)
        self.assertEqual([True, False, False], [b"\0" in text for text in lines])
        self.assertEqual((2, "whole"), (json.loads(lines[1])["count"], json.loads(lines[2])["kind"]))

    def test_its_limit_leaves_room_for_the_end(self):
        made = self.new(65536)
        for _number in range(1000):
            made.write({"kind": "result", "message": "x" * 100})
        self.assertLess(os.path.getsize(made.path), 65536 // 2 + 200)
        made.write({"kind": "end"}, last=True)
        last = [json.loads(text) for text in self.lines(made)][-2:]
        self.assertEqual(["gap", "end"], [record["kind"] for record in last])
        self.assertEqual("spool_limit", last[0]["reason"])

    def test_records_are_cut_to_what_the_collector_takes(self):
        long = "\U0001f600" * 20000
        record = json.loads(spool.encode({"kind": "result", "message": "short", "diff": [{"before": long}]}))
        self.assertEqual((True, "short"), (record["truncated"], record["message"]))
        self.assertEqual("gap", json.loads(spool.encode({"kind": "x", "host": long}))["kind"])
        self.assertIn("object", spool.encode({"kind": "x", "odd": object()}).decode())
        spool.encode({"kind": "x", "half": "\ud800"}).decode("utf-8")

    def test_a_run_is_finished_only_when_its_process_is(self):
        made = self.new()
        probe = "import fcntl,sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        command = ["/usr/bin/python3", "-c", probe, made.path]
        self.assertNotEqual(0, subprocess.run(command, capture_output=True).returncode)
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        self.assertNotEqual(0, subprocess.run(command, capture_output=True).returncode)

    def test_a_folder_for_everybody_is_not_used(self):
        os.makedirs(self.spool_dir)
        os.chmod(self.spool_dir, 0o777)
        with self.assertRaises(OSError):
            spool.folder_for(self.spool_dir, "")
        one, other = spool.folder_for(self.spool_dir, "https://a.example"), spool.folder_for(
            self.spool_dir, "https://b.example"
        )
        self.assertNotEqual(one, other)
        self.assertEqual(0o700, os.stat(one).st_mode & 0o777)

    def test_the_limit_holds_without_a_forwarder_too(self):
        made = self.new(1000)
        for number in range(3):
            name = "0000000%d-1111-4111-8111-111111111111" % number
            with open(os.path.join(self.spool_dir, name + ".spool"), "w") as file:
                file.write("%s %s 0\n" % (spool_files.HEADER, name) + '{"kind":"task"}\n' * 400)
        made.trim()
        self.assertLess(sum(os.path.getsize(path) for path in self.spools()), 2000)

    def test_in_a_groups_folder_the_group_ships_what_was_trimmed_too(self):
        os.makedirs(self.spool_dir, exist_ok=True)
        os.chmod(self.spool_dir, 0o2770)
        made = self.new()
        made.write(*[{"kind": "x", "n": n} for n in range(9)])
        size = os.path.getsize(made.path)
        self.assertLess(spool_files.trim_run(self.spool_dir, os.path.basename(made.path)[:-6], size), size)
        held = made.folder.take()
        self.assertIsNotNone(held)
        os.close(held)
        for path in (made.path, os.path.join(self.spool_dir, "forwarder.lock")):
            self.assertEqual(0o660, os.stat(path).st_mode & 0o777)


class Comes(unittest.TestCase):
    CASES = {
        "github": (
            {
                "GITHUB_ACTIONS": "true",
                "GITHUB_REPOSITORY": "o/r",
                "GITHUB_SHA": "abc",
                "GITHUB_RUN_ID": "7",
                "GITHUB_RUN_ATTEMPT": "2",
                "GITHUB_REF": "refs/heads/main",
                "GITHUB_REF_NAME": "main",
                "GITHUB_SERVER_URL": "https://github.com",
                "GITHUB_ACTOR": "ada",
            },
            {
                "repository": "o/r",
                "commit": "abc",
                "run_id": "7",
                "run_attempt": "2",
                "branch": "main",
                "actor": "ada",
                "run_url": "https://github.com/o/r/actions/runs/7",
            },
        ),
        "gitlab": (
            {
                "GITLAB_CI": "true",
                "CI_COMMIT_SHA": "m",
                "CI_MERGE_REQUEST_SOURCE_BRANCH_SHA": "h",
                "CI_PIPELINE_ID": "9",
                "CI_MERGE_REQUEST_IID": "3",
            },
            {"commit": "h", "merge_commit": "m", "run_id": "9", "pull_request": "3"},
        ),
        "jenkins": (
            {"JENKINS_URL": "u", "GIT_URL": "https://x:y@h/r.git", "BUILD_TAG": "t"},
            {"repository": "https://h/r.git", "run_id": "t"},
        ),
        "circleci": (
            {"CIRCLECI": "true", "CIRCLE_PULL_REQUEST": "https://github.com/o/r/pull/5"},
            {"pull_request": "5"},
        ),
        "buildkite": (
            {
                "BUILDKITE": "true",
                "BUILDKITE_COMMIT": "HEAD",
                "BUILDKITE_PULL_REQUEST": "false",
                "BUILDKITE_BUILD_ID": "b",
            },
            {"run_id": "b"},
        ),
        "azure": (
            {"TF_BUILD": "True", "BUILD_SOURCEVERSION": "m", "SYSTEM_PULLREQUEST_SOURCECOMMITID": "h"},
            {"commit": "h", "merge_commit": "m"},
        ),
        "bitbucket": ({"BITBUCKET_COMMIT": "c", "BITBUCKET_PR_ID": "4"}, {"commit": "c", "pull_request": "4"}),
        "awx": (
            {"JOB_ID": "12", "AWX_HOST": "https://awx", "PROJECT_REVISION": "r"},
            {"run_id": "12", "commit": "r", "run_url": "https://awx/#/jobs/playbook/12"},
        ),
        "semaphore": (
            {"SEMAPHORE_TASK_DETAILS_ID": "8", "SEMAPHORE_TASK_DETAILS_USERNAME": "bob"},
            {"run_id": "8", "actor": "bob"},
        ),
    }

    def test_each_ci_tells_what_it_tells(self):
        for name, (env, told) in self.CASES.items():
            self.assertEqual(dict(told, ci_provider=name), origin.correlation(env))

    def test_what_is_said_explicitly_counts(self):
        env = dict(self.CASES["github"][0], INFRATRACK_CHANGE_ID="c-1", INFRATRACK_COMMIT="mine", TRACEPARENT="00-1")
        found = origin.correlation(env)
        self.assertEqual(("c-1", "mine", "00-1"), (found["change_id"], found["commit"], found["traceparent"]))

    def test_git_tells_of_a_repository(self):
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            script = (
                "git init -q . && git -c user.name=a -c user.email=b commit -q --allow-empty -m x && "
                "git remote add origin https://user:%s@example.com/r.git" % SECRET
            )
            subprocess.run(script, shell=True, cwd=folder, check=True)
            os.mkdir(os.path.join(folder, "deep"))
            found = origin.Git(os.path.join(folder, "deep")).answer()
        self.assertEqual(
            (False, "https://example.com/r.git", 40), (found["dirty"], found["remote"], len(found["commit"]))
        )
        self.assertEqual({}, origin.Git("/").answer())


if __name__ == "__main__":
    unittest.main()
