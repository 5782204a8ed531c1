"""What real playbooks leave at the collector."""

import json
import os
import unittest

from receiver import wrong
from rig import PLAYBOOKS, Rig, by_kind, full

SECRET = "hidden-not-a-real-secret"


class Plays(Rig):
    def test_every_kind_of_outcome_is_told_and_the_play_is_as_without(self):
        without = self.play("cases.yml", callback=False)
        played = self.play(
            "cases.yml", INFRATRACK_DIFF="true", INFRATRACK_ENVIRONMENT="test", TRACEPARENT="00-0a-0b-01"
        )
        self.assertEqual(without.rc, played.rc, played.output)
        self.assertEqual(without.recap, played.recap)
        self.assertNotIn("infratrack: ", played.output)
        self.assertEqual(without.output.count("[WARNING]"), played.output.count("[WARNING]"))
        records = self.records()
        self.assertNotIn(SECRET, repr(records))
        self.assertEqual([], self.spools())
        self._recap(played, records)
        self._loops(records)
        self._hidden(records)
        self._delegated(records)
        self._unchanged(records)
        self._batches(records)
        start = records[0]
        self.assertEqual(("start", "cases.yml", False), (start["kind"], start["playbook"], start["check"]))
        self.assertEqual(("test", "00-0a-0b-01"), (start["environment"], start["traceparent"]))
        self.assertEqual(["hosts.ini"], start["inventory"])
        self.assertEqual("failed", records[-1]["outcome"])
        self.assertEqual("192.0.2.2", by_kind(records, "host", name="h2")[0]["ansible_host"])
        self.assertEqual(1, len(by_kind(records, "no_hosts", reason="matched")))
        self.assertEqual([], by_kind(records, "gap"))

    def results(self, records, name, **fields):
        tasks = {record["task"] for record in by_kind(records, "task", name=name)}
        self.assertTrue(tasks, name)
        return [record for record in by_kind(records, "result", **fields) if record["task"] in tasks]

    def _recap(self, played, records):
        stats = {}
        for record in by_kind(records, "stats"):
            stats.update(record["hosts"])
        keys = ("ok", "changed", "unreachable", "failures", "skipped", "rescued", "ignored")
        told = sorted((host, " ".join(str(counts[key]) for key in keys)) for host, counts in stats.items())
        shown = sorted((host, " ".join(word.partition("=")[2] for word in text.split())) for host, text in played.recap)
        self.assertEqual(shown, told)

    def _loops(self, records):
        loop, _other = self.results(records, "Loop")
        self.assertEqual((3, 1, 0, 1), tuple(loop["items" + key] for key in ("", "_changed", "_failed", "_skipped")))
        failing, _other = self.results(records, "Failing loop", status="failed", ignored=True)
        self.assertEqual((2, 1, 1), (failing["items"], failing["items_failed"], failing["rc"]))
        self.assertEqual({2}, {result["attempts"] for result in self.results(records, "Retried", status="ok")})
        self.assertEqual(2, len(self.results(records, "Polled", status="changed")))
        self.assertTrue(all("async_job_id" in result for result in self.results(records, "In the background")))
        rescued, _other = self.results(records, "Fails to be rescued", status="failed")
        self.assertEqual((7, "why"), (rescued["rc"], rescued["stderr_tail"]))
        self.assertEqual(2, len(self.results(records, "A handler", status="changed")))
        self.assertTrue(by_kind(records, "task", name="A handler", is_handler=True, role="small"))
        self.assertEqual(1, len(self.results(records, "Reach", status="unreachable", host="away")))
        changed, _other = by_kind(records, "task", name="Changed")[:1] * 2
        self.assertEqual(["one", "two"], changed["tags"])
        self.assertIn(changed["action"], ("ansible.builtin.command", "ansible.legacy.command"))
        self.assertEqual("cases.yml", changed["path"])
        self.assertEqual(9, changed["line"])
        self.assertTrue(by_kind(records, "task", name="Only checked", check_mode=True))
        file, _other = self.results(records, "A file", status="changed")
        self.assertIn("a line", file["diff"][0]["after"])

    def _hidden(self, records):
        for name in ("Hidden", "Hidden by a template"):
            self.assertEqual([True, True], [result.get("no_log") for result in self.results(records, name)])
        for result in self.results(records, "Hidden failure"):
            self.assertEqual(
                {"no_log": True}, {key: result[key] for key in ("no_log", "message", "stderr_tail") if key in result}
            )
        (failed,) = self.results(records, "Fails for good")
        self.assertIn("@example.com", failed["message"])

    def _delegated(self, records):
        self.assertEqual([["h2"]] * 2, [result["delegated_to"] for result in self.results(records, "For another")])
        self.assertEqual(
            [["h2"]] * 2, [result["delegated_to"] for result in self.results(records, "For another by a template")]
        )
        self.assertEqual([True] * 2, ["delegated_to" in result for result in self.results(records, "For others")])

    def _unchanged(self, records):
        numbers = {record["name"]: record["number"] for record in by_kind(records, "host")}
        (task,) = by_kind(records, "task", name="Unchanged")
        self.assertEqual((2, "%d-%d" % (numbers["h1"], numbers["h2"])), (task["ok"], task["ok_hosts"]))
        (task,) = by_kind(records, "task", name="Some are skipped")
        self.assertEqual((1, str(numbers["h2"])), (task["skipped"], task["skipped_hosts"]))
        self.assertEqual([], self.results(records, "Unchanged"))
        self.assertEqual(2, sum(task.get("ok", 0) for task in by_kind(records, "task", name="Free 3")))

    def _batches(self, records):
        batches = by_kind(records, "play", name="Batches")
        self.assertEqual([(1, 2), (2, 1)], [(play["batch"], play["host_count"]) for play in batches])
        self.assertEqual(1, len({play["play"] for play in batches}))
        self.assertEqual(3, len(self.results(records, "In batches")))
        self.assertEqual(2, sum(task.get("ok", 0) for task in by_kind(records, "task", name="Once a batch")))

    def test_no_secret_and_no_odd_text_gets_into_the_spool(self):
        played = self.play(
            "secrets.yml", "--diff", "-e", "from_outside=" + SECRET, INFRATRACK_DIFF="true", INFRATRACK_URL=None
        )
        self.assertEqual(0, played.rc, played.output)
        self.assertIn(SECRET, played.output)
        (path,) = self.spools()
        with open(path, "rb") as file:
            spool = file.read()
        self.assertNotIn(SECRET.encode(), spool)
        self.assertLess(len(spool), 64 * 1024)
        records = [json.loads(line) for line in spool.splitlines()[1:]]
        self.assertEqual([None] * len(records), [wrong(record) for record in records])
        self.assertEqual("end", records[-1]["kind"])
        (much,) = self.results(records, "Much")
        self.assertEqual(2048, len(much["stderr_tail"]))
        self.assertEqual(
            [True, True],
            [self.results(records, name)[0].get("no_log") for name in ("In items", "In items of which some fail")],
        )

    def test_two_playbooks_are_two_runs_of_one_process(self):
        played = self.play("short.yml", os.path.join(PLAYBOOKS, "short.yml"), "--check", "--limit", "h1")
        self.assertEqual(0, played.rc, played.output)
        first, second = sorted(self.records(2), key=lambda records: records[0]["playbook_number"])
        self.assertEqual([1, 2], [first[0]["playbook_number"], second[0]["playbook_number"]])
        self.assertEqual(first[0]["process"], second[0]["process"])
        self.assertEqual((True, "h1"), (first[0]["check"], first[0]["limit"]))

    @full
    def test_facts_tell_which_host_it_is_and_nothing_else(self):
        self.assertEqual(0, self.play("facts.yml").rc)
        records = self.records()
        (host,) = [record for record in by_kind(records, "host", name="h1") if "machine_id" in record]
        self.assertIn("distribution", host)
        self.assertLess(len(repr(records)), 4096)


if __name__ == "__main__":
    unittest.main()
