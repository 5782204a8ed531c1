# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""What a play writes: a file a run, a line a record, by one append each. Format: docs/formats/ansible-ingest.md.

Nothing here waits for anybody but the disk, but `Spool.wait`, which waits for a forwarder that is getting on.
"""

import errno
import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys
import time

from ansible_collections.infratrack.infratrack.plugins.module_utils import spool_files

SYSTEM_FOLDER = "/var/spool/infratrack/ansible"
USER_FOLDER = "~/.cache/infratrack/ansible"
# Kept of the limit for how the run ended.
RESERVE_BYTES = 1024 * 1024
# A forwarder that has waited so long for an answer is not waited for.
PATIENCE_S = 1.0


def is_writable(folder):
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def folder_for(spool_dir, url):
    """The folder that runs for this collector go to. It is made."""
    if not spool_dir:
        spool_dir = SYSTEM_FOLDER if is_writable(SYSTEM_FOLDER) else USER_FOLDER
    folder = os.path.abspath(os.path.expanduser(spool_dir))
    if url:
        # Runs for another collector are not this forwarder's, nor those of another user.
        name = hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:12]
        folder = os.path.join(folder, "to-%s-%d" % (name, os.geteuid()))
    os.makedirs(folder, 0o700, exist_ok=True)
    mode = os.stat(folder).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise OSError("%s can be written by everybody" % folder)
    return folder


def encode(record):
    """A record as a line, without what makes it too long."""
    for extra in ((), ("diff",), ("stderr_tail", "message")):
        for key in extra:
            if record.pop(key, None) is not None:
                record["truncated"] = True
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=str, allow_nan=False)
        line = text.encode("utf-8", "replace")
        if len(line) < spool_files.RECORD_BYTES:
            return line + b"\n"
    return spool_files.gap(1, "too_large") + b"\n"


class Spool:
    """A run's file. Errors of the disk are counted, and told in a gap record when the disk takes one."""

    def __init__(self, folder, run, limit):
        self.folder = spool_files.Folder(folder)
        self.path = os.path.join(folder, run + ".spool")
        self.limit = limit
        self.size = 0
        self.lost = 0
        self.reason = ""
        self.torn = False
        self.process = None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        # In a folder of a group's, its members ship what is there: the agent.
        shared = os.stat(folder).st_mode & stat.S_ISGID
        self.fd = os.open(self.path, flags, 0o660 if shared else 0o600)
        try:
            if shared:
                os.fchmod(self.fd, 0o660)
            try:
                # Held for as long as this process lives: it tells runs that are under way from those that died.
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                pass
            if not self._put(("%s %s 0\n" % (spool_files.HEADER, run)).encode(), 0):
                raise OSError("the spool takes nothing: %s" % self.reason)
        except BaseException:
            os.close(self.fd)
            os.unlink(self.path)
            raise

    def write(self, *records, **options):
        """Appends the records, all or none."""
        data = b"".join([encode(record) for record in records])
        count = len(records)
        reserve = 0 if options.get("last") else RESERVE_BYTES
        if self.size + len(data) > self.limit - min(reserve, self.limit // 2):
            self.lose(count, "spool_limit")
            return
        if self.lost:
            data = spool_files.gap(self.lost, self.reason) + b"\n" + data
        if self._put(data, count):
            self.lost = 0

    def lose(self, count, reason):
        self.lost += count
        self.reason = reason

    def _put(self, data, count):
        if self.torn:
            # What stands before is half a line: the NUL says so.
            data = b"\0\n" + data
        try:
            written = os.write(self.fd, data)
        except OSError as error:
            self.lose(
                count, "disk_full" if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) else "write_failed"
            )
            return False
        if written == len(data):
            self.size += written
            self.torn = False
            return True
        self.lose(count, "disk_full")
        try:
            os.ftruncate(self.fd, self.size)
        except OSError:
            self.torn = True
            self.size += written
        return False

    def close(self):
        """Makes sure of what is not delivered yet."""
        try:
            if os.fstat(self.fd).st_nlink:
                os.fsync(self.fd)
        finally:
            os.close(self.fd)

    def forward(self, url, token, ca_file):
        """Starts the program that ships what is in the folder. It outlives us, and ends at once where one runs."""
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.join(os.path.dirname(os.path.abspath(__file__)), "forwarder.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath},
            start_new_session=True,
        )
        words = (self.folder.path, url, token, ca_file, str(self.limit))
        with self.process.stdin as pipe:
            pipe.write("\0".join(words).encode())

    def trim(self):
        """Keeps the folder within its limit, where no forwarder does."""
        if sum(size for _name, size in self.folder.runs()) > self.limit:
            held = self.folder.take()
            if held is not None:
                try:
                    self.folder.trim(self.limit)
                finally:
                    os.close(held)

    def wait(self, timeout):
        """Waits until all is delivered, for as long as a forwarder is getting on with it. What it is refused with, or None."""
        begun = time.monotonic()
        nudged = False
        while os.fstat(self.fd).st_nlink:
            now = time.monotonic()
            nudged = nudged or self._nudge()
            status, since = self._status()
            if status.startswith("refused"):
                return status
            starting = self.process is not None and self.process.poll() is None
            if now > begun + timeout or status == "away" or not (nudged or starting):
                return None
            if status in ("sending", "starting", "") and now - (since or begun) > PATIENCE_S:
                return None
            time.sleep(0.01)
        return None

    def _nudge(self):
        """Wakes the forwarder. Whether there is one."""
        try:
            fd = os.open(self.folder.own + ".wake", os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.write(fd, b"\n")
        except OSError:
            pass
        finally:
            os.close(fd)
        return True

    def _status(self):
        try:
            with open(self.folder.own + ".status") as file:
                since, _space, status = file.read(128).strip().partition(" ")
            return status, float(since)
        except (OSError, ValueError):
            return "", 0.0
