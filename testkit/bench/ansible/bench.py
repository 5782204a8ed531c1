"""What callbacks cost a play: none, one that does nothing, ours, and ARA's. `make bench-plays` runs it.

Variants take turns, so that what else the machine does hits all. CPU is that of ansible-playbook with all its children;
`with forwarder` also counts what a variant leaves behind, for which this process waits as the parent of orphans.
"""

import argparse
import ctypes
import datetime
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, os.path.join(ROOT, "ansible", "tests"))
from receiver import TOKEN, Receiver  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36
WORK = {
    "one": ("1 host x 40 trivial tasks", "trivial.yml", 1),
    "fifty": ("50 hosts x 40 trivial tasks", "trivial.yml", 50),
    "modules": ("10 hosts, facts and 20 modules", "modules.yml", 10),
}


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.folder = tempfile.mkdtemp(prefix="infratrack-bench-plays-")
        self.receiver = Receiver()
        self.server = None
        collection = os.path.join(self.folder, "ansible_collections", "infratrack", "infratrack")
        shutil.copytree(
            os.path.join(ROOT, "ansible"), collection, ignore=shutil.ignore_patterns("tests", "__pycache__")
        )

    def close(self):
        self.receiver.close()
        if self.server:
            self.server.terminate()
            self.server.wait()
        shutil.rmtree(self.folder)

    def environment(self, variant, scratch):
        env = {
            "PATH": os.environ["PATH"],
            "HOME": self.folder,
            "LC_ALL": "C.UTF-8",
            "SCRATCH": scratch,
            "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
            "ANSIBLE_COLLECTIONS_PATH": self.folder,
            "ANSIBLE_CALLBACK_PLUGINS": os.path.join(HERE, "callback_plugins"),
            "ANSIBLE_FORKS": "10",
            "ANSIBLE_LOCALHOST_WARNING": "false",
        }
        if variant == "noop":
            env["ANSIBLE_CALLBACKS_ENABLED"] = "noop"
        elif variant == "ours":
            env["ANSIBLE_CALLBACKS_ENABLED"] = "infratrack.infratrack.infratrack"
            env["INFRATRACK_URL"] = self.receiver.url
            env["INFRATRACK_TOKEN"] = TOKEN
            env["INFRATRACK_SPOOL_DIR"] = os.path.join(self.folder, "spool")
        elif variant.startswith("ara"):
            env["ANSIBLE_CALLBACK_PLUGINS"] = self.ara("-m", "ara.setup.callback_plugins")
            env["ANSIBLE_ACTION_PLUGINS"] = self.ara("-m", "ara.setup.action_plugins")
            env["ARA_BASE_DIR"] = os.path.join(self.folder, variant)
            if variant == "ara-http":
                self.serve_ara(env)
                env["ARA_API_CLIENT"] = "http"
                env["ARA_API_SERVER"] = "http://127.0.0.1:%d" % self.arguments.ara_port
        return env

    def ara(self, *words):
        done = subprocess.run(
            [os.path.join(self.arguments.ara, "bin", "python")] + list(words),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def serve_ara(self, env):
        if self.server is None:
            programs = os.path.join(self.arguments.ara, "bin")
            subprocess.run([os.path.join(programs, "ara-manage"), "migrate"], env=env, check=True, capture_output=True)
            address = "127.0.0.1:%d" % self.arguments.ara_port
            command = [
                os.path.join(programs, "gunicorn"),
                "--workers=4",
                "--bind",
                address,
                "--log-level=error",
                "ara.server.wsgi",
            ]
            self.server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(5)

    def play(self, variant, work):
        """(wall, CPU of the play, CPU with what it left behind), in seconds."""
        _title, playbook, hosts = WORK[work]
        scratch = tempfile.mkdtemp(dir=self.folder)
        venv = self.arguments.ara if variant.startswith("ara") else self.arguments.venv
        inventory = ",".join("h%d" % number for number in range(1, hosts + 1)) + ","
        command = [
            os.path.join(venv, "bin", "ansible-playbook"),
            "-i",
            inventory,
            "-c",
            "local",
            os.path.join(HERE, playbook),
        ]
        env = self.environment(variant, scratch)
        runs = len(self.receiver.runs)
        begun = time.monotonic()
        with open(os.path.join(self.folder, "output"), "w+") as output:
            process = subprocess.Popen(
                command, env=env, cwd=self.folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
            _pid, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - begun
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                output.seek(0)
                raise SystemExit("%s: %s" % (variant, output.read()[-2000:]))
        cpu = everything = usage.ru_utime + usage.ru_stime
        everything += self.left_behind()
        if variant == "ours":
            (run,) = list(self.receiver.runs.values())[runs:]
            if run[-1]["kind"] != "end" or self.receiver.wrong:
                raise SystemExit("records are missing: %s" % self.receiver.wrong)
        shutil.rmtree(scratch)
        return wall, cpu, everything

    def left_behind(self):
        """CPU of the processes that the play left, when all have ended."""
        cpu = 0.0
        # ARA's server is a child too, and does not end.
        deadline = time.monotonic() + (30 if self.server is None else 2)
        while time.monotonic() < deadline:
            try:
                pid, _status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid:
                cpu += usage.ru_utime + usage.ru_stime
            else:
                time.sleep(0.01)
        return cpu


def measure(bench, work, rounds, variants):
    taken = {variant: [] for variant in variants}
    for number in range(rounds):
        order = variants[number % len(variants) :] + variants[: number % len(variants)]
        for variant in order:
            taken[variant].append(bench.play(variant, work))
            print(
                "%s %d %s: %.2f s, CPU %.2f, with forwarder %.2f" % ((work, number + 1, variant) + taken[variant][-1]),
                flush=True,
            )
    return taken


def table(taken):
    lines = []
    for variant, rows in taken.items():
        median = [statistics.median(row[column] for row in rows) for column in range(3)]
        ratio = [
            statistics.median(row[column] / none[column] for row, none in zip(rows, taken["none"]))
            for column in range(3)
        ]
        lines.append(
            "| %s | %.2f | %.3f | %.2f | %.3f | %.2f | %.3f |"
            % (variant, median[0], ratio[0], median[1], ratio[1], median[2], ratio[2])
        )
    return lines


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--venv", default=os.path.join(ROOT, "target", "ansible-2.19"))
    parser.add_argument("--ara", help="an environment with ARA: target/ara")
    parser.add_argument("--ara-port", type=int, default=18123)
    parser.add_argument("--rounds", default="one=5,fifty=2,modules=3", help="what to play, and how often")
    parser.add_argument("--document")
    arguments = parser.parse_args()
    arguments.venv = os.path.abspath(arguments.venv)
    arguments.ara = arguments.ara and os.path.abspath(arguments.ara)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    variants = ["none", "noop", "ours"] + (["ara", "ara-http"] if arguments.ara else [])
    version = subprocess.run(
        [os.path.join(arguments.venv, "bin", "ansible"), "--version"], capture_output=True, text=True, check=True
    )
    words = " ".join(
        ["testkit/bench/ansible/bench.py"] + [os.path.relpath(w, ROOT) if os.path.isabs(w) else w for w in sys.argv[1:]]
    )
    lines = [
        "%s, `%s`: %s, %d cores, Linux %s, load %.1f when it began. Ratios are medians of rounds, each against that round's `none`."
        % (
            datetime.date.today(),
            words,
            version.stdout.splitlines()[0],
            os.cpu_count(),
            platform.release().partition("-")[0],
            os.getloadavg()[0],
        )
    ]
    bench = Bench(arguments)
    try:
        for text in arguments.rounds.split(","):
            work, _is, rounds = text.partition("=")
            taken = measure(bench, work, int(rounds), variants)
            lines += ["", "%s, %s rounds:" % (WORK[work][0], rounds), ""]
            lines += [
                "| callback | wall s | of none | CPU s of the play | of none | CPU s with forwarder | of none |",
                "| --- " + "| ---: " * 6 + "|",
            ]
            lines += table(taken)
    finally:
        bench.close()
    text = "\n".join(lines)
    print(text)
    if arguments.document:
        with open(arguments.document) as file:
            document = file.read()
        pattern = r"(<!-- begin plays -->\n).*?(<!-- end plays -->)"
        document, count = re.subn(pattern, lambda found: found[1] + text + "\n" + found[2], document, flags=re.S)
        if not count:
            raise SystemExit("%s has no place for it" % arguments.document)
        with open(arguments.document, "w") as file:
            file.write(document)


if __name__ == "__main__":
    main()
