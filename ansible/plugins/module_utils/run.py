# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""A run as records: hosts, plays, tasks, results, and how it ended. The callback's hooks call it, one after another.

Tasks are keyed by their ids and hosts by their names, since events of several tasks come in any order. What left hosts as
they were is counted in memory, and written when the task is over.
"""

import os
import platform
import socket
import time

from ansible.release import __version__ as ansible_version

from ansible_collections.infratrack.infratrack.plugins.module_utils import origin
from ansible_collections.infratrack.infratrack.plugins.module_utils.outcome import Outcomes, raw, whole

OPEN_TASKS = 64
STATS_HOSTS = 250
IN_STEP = ("linear", "debug", "ansible.builtin.linear", "ansible.builtin.debug")


class Clock:
    """Times as text, of which most share their second."""

    def __init__(self):
        self.second = None
        self.text = ""

    def __call__(self):
        now = time.time()
        second = int(now)
        if second != self.second:
            self.text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self.second = second
        return "%s.%03dZ" % (self.text, (now - second) * 1000)


class Task:
    """A task under way: what it is, and the hosts it left as they were."""

    __slots__ = ("uuid", "definition", "written", "ok", "skipped", "ended")

    def __init__(self, task_uuid, definition):
        self.uuid = task_uuid
        self.definition = definition
        self.written = False
        self.ok = []
        self.skipped = []
        self.ended = None


def ranges(numbers):
    """Numbers as text: `0-3,7`."""
    parts = []
    first = last = None
    for number in sorted(set(numbers)):
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None:
            parts.append("%d" % first if first == last else "%d-%d" % (first, last))
        first = last = number
    if first is not None:
        parts.append("%d" % first if first == last else "%d-%d" % (first, last))
    return ",".join(parts)


class Run:
    """One playbook of one command, and the spool that it goes to."""

    def __init__(self, spool, path, redactor, with_diff):
        self.spool = spool
        self.redactor = redactor
        self.outcomes = Outcomes(redactor, with_diff)
        self._path = path
        self._base = os.path.dirname(path)
        self._now = Clock()
        self._git = origin.Git(self._base)
        self._start = None
        self._check = False
        self._tasks = {}
        self._hosts = {}
        self._names = {}
        self._facts = set()
        self._started = {}
        self._batches = {}
        self._batch = 0
        self._play = None
        self._linear = True

    def started(self, args, process, number, keys):
        """Has the first record ready, for when git has answered. `keys` override those of the environment."""
        keys = dict(origin.correlation(os.environ), **keys)
        self._check = bool(args.get("check"))
        record = {
            "kind": "start",
            "at": self._now(),
            "format": 1,
            "process": process,
            "playbook_number": number,
            "ansible_version": ansible_version,
            "python_version": platform.python_version(),
            "controller": self.redactor.text(socket.gethostname()),
            "user": self.redactor.text(origin.user(os.environ, keys.get("actor"))),
            "playbook": self.redactor.text(os.path.basename(self._path)),
            "playbook_path": self.redactor.text(self._path, 1024),
            "check": self._check,
            "diff": bool(args.get("diff")),
            "limit": self.redactor.text(args.get("subset"), 1024),
            "tags": self.redactor.texts(args.get("tags")),
            "skip_tags": self.redactor.texts(args.get("skip_tags")),
            "forks": whole(args.get("forks")),
            "inventory": self.redactor.texts(args.get("inventory"), self._inventory_name),
        }
        record.update((key, self.redactor.text(value, 512)) for key, value in keys.items())
        self._start = {key: value for key, value in record.items() if value not in (None, [])}

    def play_started(self, play):
        self._flush()
        self._play = str(play._uuid)
        self._linear = play.strategy in IN_STEP
        batch = self._batches[self._play] = self._batches.get(self._play, 0) + 1
        self._batch = batch
        records = []
        numbers = [self._host(host, records) for host in self._batch_hosts(play)]
        record = {
            "kind": "play",
            "at": self._now(),
            "play": self._play,
            "name": self.redactor.text(play.get_name()),
            "batch": batch,
            "pattern": self.redactor.text(
                play.hosts if isinstance(play.hosts, str) else ",".join(map(str, play.hosts)), 1024
            ),
            "strategy": self.redactor.text(play.strategy),
            "hosts": ranges(numbers),
            "host_count": len(numbers),
        }
        self._write(*records + [record])

    def no_hosts(self, reason):
        self._write({"kind": "no_hosts", "at": self._now(), "play": self._play, "reason": reason})

    def task_started(self, task, is_handler):
        if self._linear or len(self._tasks) > OPEN_TASKS:
            self._flush()
        self._task(task, is_handler)

    def host_started(self, host, task):
        self._started[host.name, task._uuid] = self._now()

    def ok(self, result):
        data = raw(result)
        host = result._host
        if "ansible_facts" in data and host.name not in self._facts:
            self._facts_of(host, data["ansible_facts"])
        if result.is_changed():
            self._result(result, data, "changed")
        elif data.get("attempts", 1) != 1 or ("ansible_job_id" in data and not data.get("finished", 1)):
            self._result(result, data, "ok")
        else:
            self._unchanged(result, host, "ok")

    def skipped(self, result):
        self._unchanged(result, result._host, "skipped")

    def failed(self, result, status, ignored):
        self._result(result, raw(result), status, ignored)

    def finished(self, stats):
        """The recap as Ansible gives it, and the end."""
        hosts = sorted(stats.processed)
        recap = {self.redactor.text(host): stats.summarize(host) for host in hosts}
        outcome = "ok"
        for counts in recap.values():
            if counts["failures"]:
                outcome = "failed"
                break
            if counts["unreachable"]:
                outcome = "unreachable"
        names = list(recap)
        records = [
            {"kind": "stats", "hosts": {name: recap[name] for name in names[first : first + STATS_HOSTS]}}
            for first in range(0, max(1, len(names)), STATS_HOSTS)
        ]
        self.end(outcome, *records)

    def end(self, outcome, *records):
        """The run's last records."""
        self._flush()
        self._write(*records + ({"kind": "end", "at": self._now(), "outcome": outcome},), last=True)

    def _write(self, *records, **options):
        if self._start is not None:
            start, self._start = self._start, None
            git = self._git.answer()
            if git:
                start["git"] = {
                    key: self.redactor.text(value, 512) if isinstance(value, str) else value
                    for key, value in git.items()
                }
            records = (start,) + records
        self.spool.write(*records, **options)

    @staticmethod
    def _inventory_name(source):
        """A file's name. Hosts that were named on the command line are told by `host` records."""
        return "(hosts)" if "," in source else os.path.basename(source.rstrip("/"))

    @staticmethod
    def _batch_hosts(play):
        """The hosts of the batch, by the inventory, which is restricted to it."""
        try:
            return play.get_variable_manager()._inventory.get_hosts(play.hosts)
        except Exception:
            return []

    def _host(self, host, records=None):
        """A host's number in this run. The first time it is told by a record."""
        name = host.name
        number = self._hosts.get(name)
        if number is None:
            number = self._hosts[name] = len(self._hosts)
            self._names[name] = self.redactor.text(name)
            record = {"kind": "host", "number": number, "name": self._names[name]}
            address = host.vars.get("ansible_host")
            if isinstance(address, str) and "{" not in address:
                record["ansible_host"] = self.redactor.text(address)
            if records is None:
                self._write(record)
            else:
                records.append(record)
        return number

    def _task(self, task, is_handler=None):
        """The task under way, by its id."""
        key = task._uuid
        entry = self._tasks.get(key)
        if entry is None:
            entry = self._tasks[key] = Task(str(key), self._definition(task, is_handler))
        return entry

    def _definition(self, task, is_handler):
        path, _colon, line = str(task.get_path() or "").rpartition(":")
        if path.startswith(self._base + os.sep):
            path = path[len(self._base) + 1 :]
        try:
            action = task.resolved_action
        except Exception:
            action = None
        role = getattr(task, "_role", None)
        check = task.check_mode
        if is_handler is None:
            is_handler = type(task).__name__ == "Handler"
        record = {
            "at": self._now(),
            "name": self.redactor.text(task.name or task.action),
            "action": self.redactor.text(action or task.action),
            "role": self.redactor.text(role.get_name()) if role else None,
            "path": self.redactor.text(path, 1024) if path else None,
            "line": whole(line),
            "tags": sorted(self.redactor.texts(task.tags)),
            "is_handler": is_handler or None,
            "check_mode": (check if isinstance(check, bool) else self._check) or None,
        }
        return {key: value for key, value in record.items() if value not in (None, [])}

    def _task_record(self, task):
        """What there is to tell of the task since the last time."""
        record = {"kind": "task", "task": task.uuid, "play": self._play, "batch": self._batch}
        if not task.written:
            task.written = True
            record.update(task.definition)
        return record

    def _flush(self):
        """Tells of the tasks that are over, and of whom they left as they were."""
        tasks, self._tasks = self._tasks, {}
        records = []
        for task in tasks.values():
            if task.written and not task.ok and not task.skipped:
                continue  # its results say when they ended
            record = self._task_record(task)
            if task.ended:
                record["ended_at"] = task.ended
            for key in ("ok", "skipped"):
                numbers = getattr(task, key)
                if numbers:
                    record[key] = len(numbers)
                    record[key + "_hosts"] = ranges(numbers)
            records.append(record)
        if records:
            self._write(*records)

    def _unchanged(self, result, host, key):
        task = self._task(result._task)
        getattr(task, key).append(self._host(host))
        task.ended = self._now()
        self._started.pop((host.name, result._task._uuid), None)

    def _result(self, result, data, status, ignored=False):
        task = self._task(result._task)
        host = result._host
        records = []
        self._host(host, records)
        if not task.written:
            records.append(self._task_record(task))
        task.ended = self._now()
        record = {
            "kind": "result",
            "task": task.uuid,
            "batch": self._batch,
            "host": self._names[host.name],
            "status": status,
            "started_at": self._started.pop((host.name, result._task._uuid), None),
            "ended_at": task.ended,
        }
        if ignored:
            record["ignored"] = True
        self.outcomes.fill(record, result._task, data, status)
        records.append({key: value for key, value in record.items() if value is not None})
        self._write(*records)

    def _facts_of(self, host, facts):
        """What tells which host it is, of the facts that were gathered."""
        if not hasattr(facts, "get"):
            return
        record = {}
        for key in ("machine_id", "distribution", "distribution_version", "fqdn", "product_uuid"):
            value = facts.get("ansible_" + key, facts.get(key))
            if isinstance(value, str) and value and value != "NA":
                record[key] = self.redactor.text(value)
        if record:
            self._facts.add(host.name)
            number = self._host(host)
            self._write(dict({"kind": "host", "number": number, "name": self._names[host.name]}, **record))
