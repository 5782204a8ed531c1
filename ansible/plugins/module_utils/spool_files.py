# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""The files of a spool folder, for who ships them and who keeps the folder small: docs/formats/ansible-ingest.md.

Used by the forwarder and the writer; imports nothing of the collection.
"""

import fcntl
import os
import stat
import time

HEADER = "infratrack-ansible-spool 1"
BATCH_RECORDS = 500
BATCH_BYTES = 256 * 1024
RECORD_BYTES = 64 * 1024
WITHOUT_LOCKS_S = 86400.0


def stamp():
    """The time as RFC 3339 in UTC with milliseconds."""
    now = time.time()
    return "%s.%03dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)), now % 1 * 1000)


def gap(count, reason):
    """A record in place of `count` that are not there."""
    return b'{"kind":"gap","count":%d,"reason":"%s","at":"%s"}' % (count, reason.encode(), stamp().encode())


def lock(fd):
    """Whether nobody else holds the file's lock; then we do. Locks go with their process, and are not inherited."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        # A file system without locks: a run is over when nothing was written for a day.
        return time.time() - os.fstat(fd).st_mtime > WITHOUT_LOCKS_S


def replace(path, text):
    """Writes a small file whole or not at all."""
    part = path + ".part"
    with open(part, "w") as file:
        file.write(text)
    os.replace(part, path)


class Folder:
    """A spool folder, and the files beside the runs in it."""

    def __init__(self, path):
        self.path = path
        self.own = os.path.join(path, "forwarder-%d" % os.geteuid())
        # In a group's folder the agent ships what several users write: one lock for all of them.
        self.shared = bool(os.stat(path).st_mode & stat.S_ISGID)

    def runs(self):
        """Names of the runs that are here, the oldest first."""
        found = []
        for entry in os.scandir(self.path):
            if entry.name.endswith(".spool"):
                try:
                    info = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid():
                    found.append((info.st_mtime, entry.name[:-6], info.st_size))
        return [(name, size) for _mtime, name, size in sorted(found)]

    def take(self):
        """The lock of the one who ships from here, or None."""
        path = os.path.join(self.path, "forwarder.lock") if self.shared else self.own + ".lock"
        mode = 0o660 if self.shared else 0o600
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        info = os.fstat(fd)
        if info.st_mode & 0o777 != mode and info.st_uid == os.geteuid():
            os.fchmod(fd, mode)
        if lock(fd):
            return fd
        os.close(fd)
        return None

    def trim(self, limit, dropped=lambda name: None):
        """Takes the records out of the oldest finished runs until all are within the limit. Only with the lock."""
        runs = self.runs()
        total = sum(size for _name, size in runs)
        for name, size in runs:
            if total <= limit:
                return
            dropped(name)
            total -= size - trim_run(self.path, name, size)


def trim_run(path, name, size):
    """Leaves what was perhaps sent, a gap with the count of the rest, and how the run ended. Answers its size then."""
    try:
        run = Run(path, name)
    except (OSError, ValueError):
        return size
    try:
        if run.trimmed or not lock(run.fd):
            return size
        kept, tail, count = [], [], 0
        seq = run.base
        with open(run.fd, "rb", closefd=False) as file:
            file.seek(run.start)
            for line in file:
                seq += 1
                if seq <= run.acked:
                    continue
                if seq <= run.sent:
                    kept.append(line)
                elif line.startswith((b'{"kind":"stats"', b'{"kind":"end"')) and line.endswith(b"}\n"):
                    tail.append(line)
                else:
                    count += 1
        if count < 2:
            return size
        kept.append(gap(count, "spool_limit") + b"\n")
        if not tail or not tail[-1].startswith(b'{"kind":"end"'):
            tail.append(interrupted() + b"\n")
        header = b"%s %s %d trimmed\n" % (HEADER.encode(), name.encode(), max(run.acked, run.base))
        part = run.path + ".part"
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            # Who ships may be of the group.
            os.fchmod(fd, os.fstat(run.fd).st_mode & 0o777)
            file.write(header + b"".join(kept) + b"".join(tail))
            size = file.tell()
        os.replace(part, run.path)
        return size
    except OSError:
        return size
    finally:
        run.close()


def interrupted():
    return b'{"kind":"end","at":"%s","outcome":"interrupted"}' % stamp().encode()


class Run:
    """A run's spool: a line a record, numbered from 1, behind a header."""

    def __init__(self, folder, name):
        self.name = name
        self.path = os.path.join(folder, name + ".spool")
        self.state = os.path.join(folder, name + ".acked")
        self.fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._open()
        except BaseException:
            os.close(self.fd)
            raise
        self.rejected = {}
        self.batch_records = BATCH_RECORDS
        self.ended = False
        self.live = True

    def _open(self):
        header = os.pread(self.fd, 256, 0).partition(b"\n")
        words = header[0].decode("ascii", "replace").split(" ")
        if not header[1] or " ".join(words[:2]) != HEADER or len(words) < 4 or words[2] != self.name:
            raise ValueError("not a spool")
        self.start = len(header[0]) + 1
        self.base = int(words[3])
        self.trimmed = "trimmed" in words
        self.acked = self.sent = self.base
        try:
            with open(self.state) as file:
                acked, sent = file.read().split()
            self.acked, self.sent = max(self.base, int(acked)), max(self.base, int(sent))
        except (OSError, ValueError):
            pass
        self.seek(self.acked)

    def close(self):
        os.close(self.fd)

    def note(self):
        """Remembers how far the collector is, and what it may have got."""
        replace(self.state, "%d %d\n" % (self.acked, self.sent))

    def seek(self, acked):
        """The next record to send is the one after `acked`."""
        self.acked = acked
        self.offset = self.start
        skip = acked - self.base
        while skip > 0:
            data = os.pread(self.fd, 1 << 20, self.offset)
            lines = data.count(b"\n")
            if not lines:
                break
            if lines < skip:
                self.offset += data.rfind(b"\n") + 1
                skip -= lines
                continue
            position = -1
            for _line in range(skip):
                position = data.find(b"\n", position + 1)
            self.offset += position + 1
            return
        # The collector has more than we have written: then there is nothing to send, and perhaps there will be.
        self.acked = acked - skip if skip > 0 else acked

    def take(self):
        """Records to send now, and whether that is all there is: [] where there are none yet."""
        if self.acked < self.base:
            # A collector that forgot what it had, and we keep it no longer.
            return [gap(1, "not_kept") for _seq in range(min(self.base - self.acked, BATCH_RECORDS))]
        data = os.pread(self.fd, BATCH_BYTES + RECORD_BYTES, self.offset)
        lines = data.split(b"\n")
        rest = lines.pop()
        if not lines and len(rest) > RECORD_BYTES:
            return [gap(1, "damaged")] if self._skip_to_newline() else []
        records, size = [], 0
        self.taken = []
        for line in lines:
            record = self._record(self.acked + 1 + len(records), line)
            size += len(record) + 1
            if records and (size > BATCH_BYTES - 128 or len(records) == self.batch_records):
                break
            records.append(record)
            self.taken.append(len(line) + 1)
        return records

    def _record(self, seq, line):
        if seq in self.rejected:
            return gap(1, self.rejected[seq])
        if b"\0" in line or not (line.startswith(b'{"kind":"') and line.endswith(b"}")):
            return gap(1, "damaged")
        if len(line) > RECORD_BYTES:
            return gap(1, "too_large")
        return line

    def _skip_to_newline(self):
        """Makes one record of a line without end."""
        offset = self.offset
        while True:
            data = os.pread(self.fd, 1 << 20, offset)
            if not data:
                return False
            found = data.find(b"\n")
            if found >= 0:
                self.taken = [offset + found + 1 - self.offset]
                return True
            offset += len(data)

    def advance(self, acked):
        """The collector has everything up to `acked`, perhaps less than was sent."""
        count = acked - self.acked
        if self.acked >= self.base and 0 <= count <= len(self.taken):
            self.offset += sum(self.taken[:count])
            self.acked = acked
        else:
            self.seek(acked)
        self.rejected = {seq: reason for seq, reason in self.rejected.items() if seq > acked}
        self.batch_records = BATCH_RECORDS

    def is_delivered(self):
        """Whether all is sent and nothing more will come."""
        size = os.fstat(self.fd).st_size
        if self.offset < size:
            return False
        tail = os.pread(self.fd, 256, max(self.start, size - 256))
        lines = tail.split(b"\n")
        return len(lines) > 1 and lines[-2].startswith(b'{"kind":"end"')

    def finish(self):
        """Ends a run whose play is gone without an end. Whether something was written."""
        if self.live and not lock(self.fd):
            return False
        self.live = False
        if self.is_delivered():
            return False
        size = os.fstat(self.fd).st_size
        tail = os.pread(self.fd, 256, max(self.start, size - 256))
        if size > self.offset and tail.endswith(b"\n"):
            return True  # written between our reading and its end
        torn = b"" if size == self.start or tail.endswith(b"\n") else b"\0\n"
        os.write(self.fd, torn + interrupted() + b"\n")
        return True

    def remove(self):
        os.unlink(self.path)
        try:
            os.unlink(self.state)
        except OSError:
            pass
