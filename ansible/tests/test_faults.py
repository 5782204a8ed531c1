"""Plays while everything around them fails: their result and time are as ever, and what was accepted is not lost."""

import os
import shutil
import signal
import socket
import subprocess
import unittest

from rig import Rig, by_kind, full


def unused_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Faults(Rig):
    # What a play may take longer: less than a wait for what never comes, but on a machine that does many other things.
    SLACK_S = 20.0 * max(1.0, os.getloadavg()[0] / os.cpu_count())

    # How it goes without the callback, played once.
    without = None

    def plays_as_without(self, **options):
        """Plays with the fault, as it goes without the callback."""
        without = Faults.without = Faults.without or self.play("short.yml", callback=False)
        played = self.play("short.yml", **dict({"INFRATRACK_FLUSH_TIMEOUT": "60"}, **options))
        self.assertEqual((without.rc, without.recap), (played.rc, played.recap), played.output)
        self.assertLess(played.seconds, without.seconds + self.SLACK_S)
        return played

    def goes_with_the_next_run(self, count=2):
        """Another play takes along what is left."""
        self.assertEqual(count - 1, len(self.spools()))
        self.end_forwarders()
        self.assertEqual(0, self.play("short.yml").rc)
        for records in self.records(count):
            self.assertEqual("ok", records[-1]["outcome"])
            self.assertEqual(2, len(by_kind(records, "result", status="changed")))
            self.assertEqual([], by_kind(records, "gap"))
        self.until(lambda: not self.spools() and not self.forwarders(), what="something is left")

    def test_a_collector_that_is_down(self):
        url, self.receiver.url = self.receiver.url, "http://127.0.0.1:%d" % unused_port()
        down = self.receiver.url
        self.plays_as_without()
        (spool,) = self.spools()
        # The folder is the address': the collector comes back where it was.
        self.end_forwarders()
        self.receiver.url = url
        self.assertEqual(0, self.play("short.yml").rc)
        self.records()
        self.assertEqual([spool], self.spools(), down)

    def test_a_collector_that_does_not_answer(self):
        self.receiver.fault = lambda *_: "hang"
        self.plays_as_without()
        self.assertGreater(self.receiver.faults, 0)
        self.receiver.fault = None
        self.receiver.hold.set()
        self.goes_with_the_next_run()

    def test_a_play_that_is_killed_is_interrupted(self):
        process = self.start("long.yml")
        self.until(lambda: os.path.exists(os.path.join(self.scratch, "waits")), 60)
        process.kill()
        process.wait()
        records = self.records()
        self.assertEqual("interrupted", records[-1]["outcome"])
        self.assertEqual(1, len(by_kind(records, "result", status="changed")))
        self.assertEqual(1, sum(task.get("ok", 0) for task in by_kind(records, "task")))
        self.until(lambda: not self.spools() and not self.forwarders(), what="something is left")
        self.end_sleepers(process)

    def test_a_play_that_is_told_to_stop_is_interrupted(self):
        process = self.start("long.yml")
        self.until(lambda: os.path.exists(os.path.join(self.scratch, "waits")), 60)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]
        self.assertNotEqual(0, process.returncode, output)
        self.assertNotIn("infratrack: ", output)
        records = self.records()
        self.assertEqual("interrupted", records[-1]["outcome"])
        self.assertEqual([], by_kind(records, "gap"))
        self.end_sleepers(process)

    def end_sleepers(self, process):
        """What a killed play's workers left running: they hold its scratch folder's name in their environment."""
        if not process.stdout.closed:
            process.stdout.close()
        mark = b"SCRATCH=" + self.scratch.encode() + b"\0"
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/environ" % pid, "rb") as file:
                    if mark in file.read():
                        os.kill(int(pid), signal.SIGKILL)
            except OSError:
                pass

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("mount"), "needs a file system of its own")
    def test_a_file_system_without_room(self):
        os.mkdir(self.spool_dir)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", self.spool_dir], check=False)
        if mounted.returncode:
            self.skipTest("no mounts here")
        self.addCleanup(subprocess.run, ["umount", "-l", self.spool_dir], check=True)
        with open(os.path.join(self.spool_dir, "filler"), "wb") as file:
            try:
                file.write(b"x" * 65536)
                file.flush()
            except OSError:
                pass
        played = self.plays_as_without()
        self.assertIn("infratrack: reporting of plays is off", played.output)

    def test_a_spool_that_cannot_be_written(self):
        with open(self.spool_dir, "w"):
            pass
        played = self.plays_as_without()
        self.assertEqual(1, played.output.count("infratrack: reporting of plays is off"))

    @full
    def test_an_address_without_tls(self):
        self.receiver.url = "http://collector.example"
        played = self.plays_as_without()
        self.assertIn("use https", " ".join(played.output.split()))

    @full
    def test_a_token_that_is_refused_is_said_once(self):
        # On a busy machine a play may be over before the answer is there: then the next one says it.
        for plays in range(1, 6):
            played = self.plays_as_without(INFRATRACK_TOKEN="itk_another")
            told = " ".join(played.output.split()).count("the collector refuses the token: status 401")
            if told:
                break
        self.assertEqual(1, told)
        self.goes_with_the_next_run(plays + 1)

    @full
    def test_a_collector_that_fails_then_not(self):
        self.receiver.fault = lambda *_: (500, {})
        self.plays_as_without()
        self.assertGreater(self.receiver.faults, 0)
        self.receiver.fault = None
        self.goes_with_the_next_run()

    @full
    def test_answers_that_are_cut(self):
        cuts = []

        def cut_every_other(_receiver, _batch):
            cuts.append(1)
            return "cut" if len(cuts) % 2 else None

        self.receiver.fault = cut_every_other
        self.plays_as_without()
        records = self.records()
        self.assertEqual(2, len(by_kind(records, "result", status="changed")))
        self.assertGreater(self.receiver.faults, 0)

    @full
    def test_a_token_file_for_all_to_read_is_not_used(self):
        token = os.path.join(self.folder, "token")
        with open(token, "w") as file:
            file.write("itk_0123456789abcdef\n")
        os.chmod(token, 0o644)
        played = self.plays_as_without(INFRATRACK_TOKEN=None, INFRATRACK_TOKEN_FILE=token)
        self.assertIn("chmod 600", played.output)
        os.chmod(token, 0o600)
        self.plays_as_without(INFRATRACK_TOKEN=None, INFRATRACK_TOKEN_FILE=token)
        self.records()

    @full
    def test_without_a_collector_the_agent_finds_the_run(self):
        os.mkdir(self.spool_dir)
        os.chmod(self.spool_dir, 0o2770)
        self.plays_as_without(INFRATRACK_URL=None)
        (spool,) = self.spools()
        self.assertEqual(self.spool_dir, os.path.dirname(spool))
        self.assertEqual(0o660, os.stat(spool).st_mode & 0o777)
        self.assertEqual([], self.forwarders())

    @full
    def test_plays_at_the_same_time_share_a_forwarder(self):
        processes = [self.start("short.yml") for _play in range(3)]
        for process in processes:
            self.assertEqual(0, process.wait(120))
            process.stdout.close()
        self.records(3)
        self.until(lambda: not self.spools() and not self.forwarders(), what="something is left")


if __name__ == "__main__":
    unittest.main()
