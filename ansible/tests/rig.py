"""Plays real playbooks with the collection as it would be installed, and says what came of it."""

import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from receiver import TOKEN, Receiver

HERE = os.path.dirname(os.path.abspath(__file__))
COLLECTION = os.path.dirname(HERE)
# The environment with the ansible-core to play with: target/ansible-2.14, say.
VENV = os.environ.get("INFRATRACK_ANSIBLE") or os.path.dirname(os.path.dirname(sys.executable))
IS_FULL = os.environ.get("INFRATRACK_TESTS") == "full"
PLAYBOOKS = os.path.join(HERE, "playbooks")

full = unittest.skipUnless(IS_FULL, "only in the full tests")


def install():
    """The collection, where Ansible and this process find it. Compiled once, as it would be."""
    folder = tempfile.mkdtemp(prefix="infratrack-plays-")
    target = os.path.join(folder, "ansible_collections", "infratrack", "infratrack")
    shutil.copytree(COLLECTION, target, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    sys.path.insert(0, folder)
    return folder


INSTALLED = install()


@atexit.register
def remove():
    shutil.rmtree(INSTALLED, ignore_errors=True)


class Played:
    """How a playbook went."""

    def __init__(self, process, output, seconds):
        self.rc = process.returncode
        self.output = output
        self.seconds = seconds
        self.recap = sorted(re.findall(r"^(\S+)\s+: (ok=.*?)\s*$", output, re.M))


class Rig(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="infratrack-play-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.spool_dir = os.path.join(self.folder, "spool")
        self.receiver = Receiver()
        self.addCleanup(self.receiver.close)
        self.addCleanup(self.end_forwarders)

    def environment(self, callback=True, **options):
        env = {
            "PATH": os.environ["PATH"],
            "HOME": self.folder,
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": INSTALLED,
            "ANSIBLE_COLLECTIONS_PATHS": INSTALLED,
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "false",
            "ANSIBLE_ASYNC_DIR": self.scratch,
            "SCRATCH": self.scratch,
        }
        if callback:
            env["ANSIBLE_CALLBACKS_ENABLED"] = "infratrack.infratrack.infratrack"
            env["INFRATRACK_SPOOL_DIR"] = self.spool_dir
            env["INFRATRACK_URL"] = self.receiver.url
            env["INFRATRACK_TOKEN"] = TOKEN
        env.update(options)
        return {key: value for key, value in env.items() if value is not None}

    def start(self, playbook, *arguments, callback=True, preexec=None, program=(), **options):
        """Starts a play, with a folder of its own for what it writes, `scratch`. `program` runs it."""
        if not os.path.isabs(playbook):
            playbook = os.path.join(PLAYBOOKS, playbook)
        self.scratch = tempfile.mkdtemp(prefix="scratch-", dir=self.folder)
        inventory = [] if "-i" in arguments else ["-i", os.path.join(PLAYBOOKS, "hosts.ini")]
        return subprocess.Popen(
            list(program) + [os.path.join(VENV, "bin", "ansible-playbook")] + inventory + [playbook] + list(arguments),
            env=self.environment(callback, **options),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=preexec,
            text=True,
        )

    def play(self, *arguments, **options):
        begun = time.monotonic()
        process = self.start(*arguments, **options)
        output = process.communicate(timeout=300)[0]
        return Played(process, output, time.monotonic() - begun)

    def until(self, condition, seconds=20.0, what="it did not come to that"):
        deadline = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.02)

    def spools(self):
        """Paths of the spools that are there."""
        return [
            os.path.join(folder, name)
            for folder, _folders, names in os.walk(self.spool_dir)
            for name in sorted(names)
            if name.endswith(".spool")
        ]

    def records(self, count=1, seconds=20.0):
        """The records of the one run that the collector has, when it has its end."""

        def ended():
            runs = [run for run in self.receiver.runs.values() if run and run[-1]["kind"] == "end"]
            return runs if len(runs) >= count else None

        runs = self.until(ended, seconds, "the collector got no end of the run")
        self.assertEqual([], self.receiver.wrong)
        self.assertEqual(count, len(runs))
        return runs[0] if count == 1 else runs

    def forwarders(self):
        """Forwarders of this test's folder that run."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as file:
                    words = file.read().split(b"\0")
                if any(word.endswith(b"/module_utils/forwarder.py") for word in words):
                    descriptors = "/proc/%s/fd" % pid
                    opened = [os.readlink(os.path.join(descriptors, fd)) for fd in os.listdir(descriptors)]
                    if any(path.startswith(self.folder) for path in opened):
                        found.append(int(pid))
            except OSError:
                pass
        return found

    def end_forwarders(self):
        for pid in self.forwarders():
            os.kill(pid, signal.SIGKILL)


def by_kind(records, kind, **fields):
    return [
        record
        for record in records
        if record["kind"] == kind and all(record.get(key) == value for key, value in fields.items())
    ]
