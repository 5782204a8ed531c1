"""Plays that report to a collector as it is shipped, with its own Postgres, which is killed while they go on."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import unittest
import urllib.request

from rig import COLLECTION, Rig

ROOT = os.path.dirname(COLLECTION)
PROGRAM = os.environ.get("INFRATRACK_COLLECTOR") or os.path.join(ROOT, "target", "debug", "infratrack-collector")
HOSTS, TASKS = 5, 12
PLAY = """- name: Many
  hosts: all
  gather_facts: false
  tasks:
    - name: Each
      ansible.builtin.command: "true"
"""


def unused_ports(count):
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


class Collector:
    """One collector, always on the same ports."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        # Its Postgres runs as another user.
        os.chmod(folder, 0o755)
        os.makedirs(os.path.join(folder, "data"))
        agents, enroll, operators = unused_ports(3)
        self.url = "http://127.0.0.1:%d" % operators
        sections = zip(("agents", "enroll", "operators"), (agents, enroll, operators))
        text = 'data_dir = "%s/data"\n' % folder
        text += "".join('[%s]\nlisten = "127.0.0.1:%d"\n' % section for section in sections)
        with open(os.path.join(folder, "collector.toml"), "w", encoding="ascii") as file:
            file.write(text)
        self.token = None

    def arguments(self, *command):
        return [PROGRAM, *command, "--config", os.path.join(self.folder, "collector.toml")]

    def start(self):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.process = subprocess.Popen(self.arguments("serve"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, how=signal.SIGTERM):
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def get(self, path):
        """A document, or None where it does not answer."""
        request = urllib.request.Request(self.url + path)
        if self.token:
            request.add_header("Authorization", "Bearer " + self.token)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return None

    def run(self):
        """The one change, and its one run."""
        changes = self.get("/api/v1/changes")
        if not changes or not changes["items"]:
            return None, None
        change = changes["items"][0]["id"]
        known = self.get("/api/v1/changes/" + change)
        return change, known["runs"][0] if known and known["runs"] else None


class Real(Rig):
    def setUp(self):
        super().setUp()
        folder = os.path.join(self.folder, "collector")
        os.chmod(self.folder, 0o755)
        os.mkdir(folder)
        self.collector = Collector(folder)
        self.addCleanup(self.collector.end)
        self.collector.start()
        self.until(lambda: self.collector.get("/health/live"), 120.0, "the collector does not answer")
        made = subprocess.run(self.collector.arguments("token", "admin"), stdout=subprocess.PIPE, check=True)
        self.collector.token = made.stdout.decode("ascii").split()[-1]
        self.reported = {
            "INFRATRACK_URL": self.collector.url,
            "INFRATRACK_TOKEN": self.collector.token,
            "INFRATRACK_FLUSH_TIMEOUT": "60",
        }

    def written(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def results(self, change, run):
        return self.collector.get("/api/v1/changes/%s/runs/%s/results?limit=500" % (change, run["id"]))["items"]

    def test_a_collector_that_is_killed_in_the_middle_gets_every_result_once(self):
        head, task = PLAY.split("    - name: Each\n")
        play = self.written("many.yml", head + ("    - name: Each\n" + task) * TASKS)
        hosts = "".join("m%d ansible_connection=local\n" % number for number in range(HOSTS))
        inventory = self.written("many.ini", hosts)
        process = self.start(play, "-i", inventory, **self.reported)
        self.until(lambda: self.collector.run()[1], 60.0, "nothing was told")
        self.collector.end(signal.SIGKILL)
        self.assertIsNone(process.poll(), "the play ended before the collector did")
        # Away for long enough that the forwarder finds nobody.
        time.sleep(1.0)
        self.collector.start()
        output = process.communicate(timeout=300)[0]
        ended = time.monotonic()
        self.assertEqual(0, process.returncode, output)
        recap = re.findall(r"^(m\d+)\s+: ok=(\d+)\s+changed=(\d+)", output, re.M)
        self.assertEqual([("m%d" % number, str(TASKS), str(TASKS)) for number in range(HOSTS)], sorted(recap))

        def succeeded():
            change, run = self.collector.run()
            return (change, run) if run and run["outcome"] == "succeeded" else None

        change, run = self.until(succeeded, 60.0, "the run has no end in the collector")
        print("everything was there %.1f s after the end" % (time.monotonic() - ended))
        self.assertEqual(HOSTS * TASKS, run["summary"]["changed"])
        results = self.results(change, run)
        self.assertEqual(HOSTS * TASKS, len([one for one in results if one["status"] == "changed"]))
        self.assertEqual(HOSTS * TASKS, len({(one["host"], one["task"]) for one in results}))
        self.until(lambda: not self.spools(), what="something is left in the spool")

    def test_a_play_that_is_killed_is_shown_as_interrupted(self):
        process = self.start("long.yml", **self.reported)
        waits = os.path.join(self.scratch, "waits")
        self.until(lambda: os.path.exists(waits), 60.0, "the play does not get that far")
        process.kill()
        # Not to the end of its output, which the task still has open.
        process.wait(60)
        process.stdout.close()

        def interrupted():
            change, run = self.collector.run()
            return (change, run) if run and run["outcome"] == "interrupted" else None

        change, run = self.until(interrupted, 60.0, "the run is not interrupted")
        self.assertEqual(["changed"], [one["status"] for one in self.results(change, run)])


if __name__ == "__main__":
    unittest.main()
