# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""Ships spooled Ansible runs to the collector: docs/formats/ansible-ingest.md.

The callback plugin starts this file as a program of its own, detached from the play, once a run; whoever gets the
folder's lock ships what all runs left there, the others end at once. It ends when nothing is left to ship, when the
collector refuses the token, or some time after the last play when the collector is away. It imports little: its start
is part of what a run costs. What it needs comes over standard input, so that no token is in arguments or environment.
"""

import os
import select
import stat
import sys
import time

# As a program it has no path but its own folder.
sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from client import Collector  # noqa: E402
from spool_files import Folder, Run, gap, replace  # noqa: E402

POLL_S = 1.0
BACKOFF_S = 60.0
GIVE_UP_S = 120.0
HEADER_S = 10.0
CONFLICTS = 8


def keep(write, *arguments):
    """Writes where the disk takes it. Where not, sending goes on: it is what makes room."""
    try:
        return write(*arguments)
    except OSError:
        return None


class Refused(Exception):
    """The token is not accepted."""


class Forwarder:
    def __init__(self, folder, collector, limit):
        self.folder = folder
        self.collector = collector
        self.limit = limit
        self.runs = {}
        self.pending = False
        self.status = None
        self.failures = 0
        self.conflicts = 0
        self.not_before = 0.0
        self.needed_at = time.monotonic()
        self.wake = self._wake()
        self.say("starting")

    def _wake(self):
        """A pipe with a name, by which plays say that there is something to send."""
        path = self.folder.own + ".wake"
        try:
            os.mkfifo(path, 0o600)
        except FileExistsError:
            pass
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError("%s is no named pipe" % path)
        return fd

    def say(self, status):
        """Tells plays how it stands, so that none waits for nothing."""
        if status != self.status or status == "sending":
            self.status = status
            keep(replace, self.folder.own + ".status", "%.3f %s\n" % (time.monotonic(), status))

    def work(self):
        """Ships until there is nothing to ship. Whether that was for good."""
        while True:
            self.look()
            more = False
            for name in list(self.runs):
                if time.monotonic() >= self.not_before:
                    more |= self.ship(name)
            if not self.runs and not self.pending:
                return False
            if more:
                continue
            now = time.monotonic()
            if any(run.live for run in self.runs.values()):
                self.needed_at = now
            elif now - self.needed_at > GIVE_UP_S:
                return True
            left = self.not_before - now
            select.select([self.wake], [], [], max(0.01, min(left, 10.0)) if left > 0 else POLL_S)
            try:
                os.read(self.wake, 4096)
            except BlockingIOError:
                pass

    def look(self):
        """Opens the runs that are there."""
        names = self.folder.runs()
        if sum(size for _name, size in names) > self.limit:
            self.folder.trim(self.limit, self.drop)
        present = {name for name, _size in names}
        for name in list(self.runs):
            if name not in present:
                self.drop(name)
        self.pending = False
        for name in present:
            if name not in self.runs:
                try:
                    self.runs[name] = Run(self.folder.path, name)
                except FileNotFoundError:
                    pass
                except (OSError, ValueError):
                    self.set_aside(name)

    def set_aside(self, name):
        """Keeps what is no spool, where nobody trips over it. A moment after it was made its header may be on the way."""
        path = os.path.join(self.folder.path, name + ".spool")
        if time.time() - os.lstat(path).st_mtime > HEADER_S:
            os.replace(path, path[: -len(".spool")] + ".damaged")
        else:
            self.pending = True

    def drop(self, name):
        run = self.runs.pop(name, None)
        if run is not None:
            run.close()

    def ship(self, name):
        """Sends what a run has. Whether there may be more at once."""
        run = self.runs[name]
        records = run.take()
        if not records:
            if run.is_delivered():
                run.remove()
                self.drop(name)
                return False
            return bool(keep(run.finish))
        first = run.acked + 1
        run.sent = max(run.sent, run.acked + len(records))
        keep(run.note)
        self.say("sending")
        body = b'{"run":"%s","first_seq":%d,"records":[%s]}' % (name.encode(), first, b",".join(records))
        try:
            answer = self.collector.post(body)
        except OSError as error:
            return self.away(str(error))
        if answer.status == 200:
            return self.accepted(run, answer.acked())
        if answer.status == 409 and answer.acked() is not None and answer.acked() != run.acked:
            self.conflicts += 1
            if self.conflicts > CONFLICTS:
                return self.away("it does not know what it wants")
            run.seek(answer.acked())
            self.say("ok")
            return True
        if answer.status in (400, 413, 422):
            return self.rejected(run, records, answer)
        if answer.status in (401, 403):
            self.say("refused %d" % answer.status)
            raise Refused()
        return self.away("status %d" % answer.status, answer.retry_after())

    def accepted(self, run, acked):
        if acked is None or acked <= run.acked:
            return self.away("an answer without progress")
        run.advance(acked)
        keep(run.note)
        self.failures = self.conflicts = 0
        self.needed_at = time.monotonic()
        self.say("ok")
        return True

    def rejected(self, run, records, answer):
        """Puts a gap in place of what the collector can't take, found by its answer or by halves."""
        index = 0 if len(records) == 1 else answer.record()
        if index is None or index >= len(records):
            run.batch_records = max(1, len(records) // 2)
            return True
        if records[index].startswith(b'{"kind":"gap"'):
            return self.away("not even a gap is taken")
        run.rejected[run.acked + 1 + index] = "rejected_%d" % answer.status
        return True

    def away(self, _reason, retry_after=0.0):
        """Waits: longer each time, and never as long as others do."""
        self.collector.disconnect()
        share = int.from_bytes(os.urandom(2), "big") / 65536.0
        if retry_after:
            pause = retry_after * (1.0 + share)
        else:
            pause = 0.2 + share * min(BACKOFF_S, 2.0**self.failures)
        self.failures = min(self.failures + 1, 10)
        self.not_before = time.monotonic() + pause
        self.say("away")
        return False


def main():
    folder, url, token, ca_file, limit = sys.stdin.buffer.read().decode().split("\0")
    os.close(0)
    os.umask(0o077)
    try:
        os.nice(5)
    except OSError:
        pass
    folder = Folder(folder)
    held = folder.take()
    while held is not None:
        try:
            if Forwarder(folder, Collector(url, token, ca_file), int(limit)).work():
                return
        except Refused:
            return
        # A play may have come between our last look and now, and its forwarder has found the lock taken.
        os.close(held)
        held = folder.take() if folder.runs() else None


if __name__ == "__main__":
    main()
