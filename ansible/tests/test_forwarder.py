"""The forwarder by itself, against a collector that fails in every way it may."""

import json
import os
import resource
import signal
import subprocess
import sys
import unittest
import uuid

from receiver import TOKEN
from rig import Rig, by_kind, full

from ansible_collections.infratrack.infratrack.plugins.module_utils import client

AT = "2026-11-22T12:00:00.000Z"


def line(**record):
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def result(number, **more):
    return line(
        kind="result", task="t", batch=1, host="h", status="changed", ended_at=AT, message="m%d" % number, **more
    )


END = line(kind="end", at=AT, outcome="ok")


class Forwards(Rig):
    def setUp(self):
        super().setUp()
        os.mkdir(self.spool_dir)

    def spool(self, *lines, run=None, base=0, header=None):
        run = run or str(uuid.uuid4())
        path = os.path.join(self.spool_dir, run + ".spool")
        with open(path, "wb") as file:
            file.write(header or b"infratrack-ansible-spool 1 %s %d\n" % (run.encode(), base))
            file.write(b"".join(lines))
        return run

    def forward(self, limit=1 << 28, token=TOKEN, wait=30, url=None, ca_file="", preexec=None):
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.join(os.path.dirname(client.__file__), "forwarder.py")],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=preexec,
        )
        self.addCleanup(process.stderr.close)
        words = (self.spool_dir, url or self.receiver.url, token, ca_file, str(limit))
        process.stdin.write("\0".join(words).encode())
        process.stdin.close()
        if wait:
            process.wait(wait)
            self.assertEqual(b"", process.stderr.read())
        return process

    def stored(self, run):
        self.assertEqual([], self.receiver.wrong)
        return self.receiver.runs[run]

    def status(self):
        names = [name for name in os.listdir(self.spool_dir) if name.endswith(".status")]
        if not names:
            return None
        (name,) = names
        with open(os.path.join(self.spool_dir, name)) as file:
            return file.read().split(" ", 1)[1].strip()

    def test_many_records_come_in_order_in_batches_and_leave_nothing(self):
        run = self.spool(*[result(number) for number in range(3000)] + [END])
        self.forward()
        records = self.stored(run)
        self.assertEqual(["m%d" % number for number in range(3000)], [record.get("message") for record in records[:-1]])
        self.assertEqual(7, self.receiver.requests)
        self.assertEqual([], self.spools())

    def test_big_records_make_smaller_batches(self):
        run = self.spool(*[result(0, stderr_tail="x" * 60000) for _number in range(20)] + [END])
        self.forward()
        self.assertEqual(21, len(self.stored(run)))
        self.assertEqual(5, self.receiver.requests)

    def test_a_hole_is_filled_from_where_the_collector_is(self):
        run = self.spool(*[result(number) for number in range(1200)] + [END])
        forgot = []

        def forget(receiver, batch):
            if batch["first_seq"] > 600 and not forgot:
                forgot.append(1)
                del receiver.runs[run][100:]

        self.receiver.fault = forget
        self.forward()
        self.assertEqual([1], forgot)
        self.assertEqual(1201, len(self.stored(run)))
        self.assertIn(409, [status for _at, status in self.receiver.answers])

    def test_what_the_collector_has_is_not_sent_again(self):
        run = self.spool(*[result(number) for number in range(700)] + [END])
        self.receiver.runs[run] = [json.loads(result(number)) for number in range(600)]
        self.forward()
        self.assertEqual(701, len(self.stored(run)))

    def test_a_refused_record_becomes_a_gap_whether_it_is_named_or_not(self):
        for status in (413, 422):
            for is_named in (True, False):
                with self.subTest(status=status, is_named=is_named):
                    run = self.spool(*[result(number) for number in range(40)] + [END])

                    def refuse(_receiver, batch):
                        for index, record in enumerate(batch["records"]):
                            if record.get("message") == "m23":
                                return status, (
                                    {"errors": [{"pointer": "/records/%d/message" % index}]} if is_named else {}
                                )

                    self.receiver.fault = refuse
                    self.forward()
                    records = self.stored(run)
                    self.assertEqual(
                        [("rejected_%d" % status, 1)], [(g["reason"], g["count"]) for g in by_kind(records, "gap")]
                    )
                    self.assertEqual("gap", records[23]["kind"])
                    self.assertEqual(41, len(records))

    def test_damaged_lines_become_gaps(self):
        run = self.spool(result(0), b'{"kind":"result","ta\0\n', b"\0\0\0\0\n", b"x" * 400000 + b"\n", result(1), END)
        self.forward()
        self.assertEqual(
            ["result", "gap", "gap", "gap", "result", "end"], [record["kind"] for record in self.stored(run)]
        )

    def test_a_run_that_broke_off_in_a_line_is_interrupted(self):
        run = self.spool(result(0), b'{"kind":"result","task":"t')
        self.forward()
        records = self.stored(run)
        self.assertEqual(["result", "gap", "end"], [record["kind"] for record in records])
        self.assertEqual("interrupted", records[-1]["outcome"])

    def test_a_forwarder_that_is_killed_anywhere_loses_and_doubles_nothing(self):
        runs = [self.spool(*[result(number) for number in range(2000)] + [END]) for _run in range(3)]
        for kill_after in range(1, 9):
            seen = self.receiver.requests
            process = self.forward(wait=0)
            self.until(lambda: self.receiver.requests > seen or process.poll() is not None)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        self.forward()
        for run in runs:
            self.assertEqual(2001, len(self.stored(run)))
        self.assertEqual([], self.spools())

    def test_a_full_disk_does_not_keep_it_from_sending(self):
        run = self.spool(*[result(number) for number in range(1200)] + [END])
        process = self.forward(preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)))
        self.assertEqual(0, process.returncode)
        self.assertEqual(1201, len(self.stored(run)))
        self.assertEqual([], self.spools())

    def test_a_collector_that_contradicts_itself_is_left_alone_for_a_while(self):
        self.spool(*[result(number) for number in range(5)] + [END])
        answers = []

        def contradict(*_):
            answers.append(1)
            return 409, {"acked_seq": 1 + len(answers) % 2}

        self.receiver.fault = contradict
        process = self.forward(wait=0)
        self.until(lambda: self.status() == "away")
        process.kill()
        process.wait()
        self.assertLess(len(answers), 20)

    def test_a_refused_token_ends_it_and_keeps_the_run(self):
        self.spool(result(0), END)
        self.forward(token="itk_wrong")
        self.assertEqual("refused 401", self.status())
        self.assertEqual(1, len(self.spools()))
        self.assertEqual(1, self.receiver.requests)

    def test_it_waits_as_long_as_it_is_told(self):
        run = self.spool(result(0), END)
        times = []

        def busy(receiver, _batch):
            times.append(1)
            return (503, {}, {"Retry-After": "1"}) if len(times) < 3 else None

        self.receiver.fault = busy
        self.forward()
        self.assertEqual(2, len(self.stored(run)))
        self.assertEqual(3, self.receiver.requests)

    def test_over_its_limit_the_oldest_run_keeps_how_it_ended(self):
        old = self.spool(*[result(number) for number in range(4000)] + [line(kind="stats", hosts={}), END])
        os.utime(os.path.join(self.spool_dir, old + ".spool"), (1, 1))
        new = self.spool(*[result(number) for number in range(100)] + [END])
        self.forward(limit=300000)
        self.assertEqual(["gap", "stats", "end"], [record["kind"] for record in self.stored(old)])
        self.assertEqual((4000, "spool_limit"), tuple(self.stored(old)[0][key] for key in ("count", "reason")))
        self.assertEqual(101, len(self.stored(new)))

    def test_what_may_have_been_sent_is_never_numbered_anew(self):
        run = self.spool(*[result(number) for number in range(4000)] + [END])
        # The collector took 500, and its answer was lost.
        self.receiver.runs[run] = [json.loads(result(number)) for number in range(500)]
        with open(os.path.join(self.spool_dir, run + ".acked"), "w") as file:
            file.write("200 500\n")
        self.forward(limit=1000)
        records = self.stored(run)
        self.assertEqual((500, 3500), (len(by_kind(records, "result")), records[500]["count"]))
        self.assertEqual("end", records[501]["kind"])

    def test_a_collector_that_lost_what_is_no_longer_here_gets_gaps(self):
        run = self.spool(result(5), END, base=5)
        self.forward()
        self.assertEqual(["gap"] * 5 + ["result", "end"], [record["kind"] for record in self.stored(run)])
        self.assertEqual("not_kept", self.stored(run)[0]["reason"])

    def test_links_and_what_is_no_spool_are_left_alone(self):
        os.symlink("/etc/passwd", os.path.join(self.spool_dir, "a.spool"))
        name = self.spool(header=b"something else\n")
        os.utime(os.path.join(self.spool_dir, name + ".spool"), (1, 1))
        self.forward()
        left = {name for name in os.listdir(self.spool_dir) if not name.startswith("forwarder-")}
        self.assertEqual({"a.spool", name + ".damaged"}, left)
        self.assertEqual(0, self.receiver.requests)

    def test_plain_http_is_for_this_machine_and_addresses_are_as_they_should_be(self):
        good = {
            "https://a.example": (True, "a.example", 443, ""),
            "https://a.example:8080/x/": (True, "a.example", 8080, "/x"),
            "http://[::1]:80": (False, "::1", 80, ""),
            "http://localhost": (False, "localhost", 80, ""),
        }
        for url, parts in good.items():
            self.assertEqual(parts, client.split_url(url))
        for url in (
            "http://a.example",
            "http://127.evil.example",
            "ftp://a",
            "https://u:p@a",
            "https://",
            "a",
            "https://a?b",
            "https://a\r\nb",
        ):
            with self.assertRaises(ValueError, msg=url):
                client.split_url(url)

    @full
    def test_tls_is_verified(self):
        from receiver import Receiver

        key = os.path.join(self.folder, "server.pem")
        subprocess.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=test "
            "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out ca.pem && cat key.pem ca.pem > server.pem",
            shell=True,
            cwd=self.folder,
            check=True,
            capture_output=True,
        )
        receiver = Receiver(tls=key)
        self.addCleanup(receiver.close)
        run = self.spool(result(0), END)
        process = self.forward(url=receiver.url, wait=0)
        self.until(lambda: self.status() == "away")
        process.kill()
        process.wait()
        self.assertEqual(0, receiver.requests)
        self.forward(url=receiver.url, ca_file=os.path.join(self.folder, "ca.pem"))
        self.assertEqual(2, len(receiver.runs[run]))


if __name__ == "__main__":
    unittest.main()
