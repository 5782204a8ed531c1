# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""Reports plays to an Infratrack collector.

A hook appends to a file and returns: no network, no threads, nothing that can wait for somebody. What ships the file is
a program of its own (module_utils/forwarder.py) or the agent on this machine. Never read here: arguments of tasks and
variables, where secrets are in clear even with no_log.
"""

DOCUMENTATION = r"""
name: infratrack
type: aggregate
short_description: Reports plays to an Infratrack collector
description:
  - Writes what plays do to a spool folder, from which a program in the background sends it to the collector.
  - It keeps no play waiting and fails none, whatever is the matter with the collector or the disk.
  - Arguments of tasks and variables are never read; messages are stored without what looks like a secret.
author:
  - The Infratrack authors
requirements:
  - enabled in C(callbacks_enabled)
options:
  collector_url:
    description:
      - The collector's address, such as V(https://collector.example). Plain http is taken for this machine only.
      - Without it, runs stay in the spool folder for the agent on this machine.
    type: str
    env: [{name: INFRATRACK_URL}]
    ini: [{section: callback_infratrack, key: collector_url}]
  token_file:
    description:
      - A file with a token of the scope ingest, that only its owner may read. E(INFRATRACK_TOKEN) has the token itself.
    type: path
    env: [{name: INFRATRACK_TOKEN_FILE}]
    ini: [{section: callback_infratrack, key: token_file}]
  ca_file:
    description: Certificates to trust for the collector, in place of the system's.
    type: path
    env: [{name: INFRATRACK_CA_FILE}]
    ini: [{section: callback_infratrack, key: ca_file}]
  spool_dir:
    description:
      - Where runs are kept until they are sent. By default V(/var/spool/infratrack/ansible) where that is and can be written,
        else V(~/.cache/infratrack/ansible).
    type: path
    env: [{name: INFRATRACK_SPOOL_DIR}]
    ini: [{section: callback_infratrack, key: spool_dir}]
  spool_limit:
    description: Bytes that runs may take there. Beyond, the oldest finished runs are left out, but for how they ended.
    type: int
    default: 268435456
    env: [{name: INFRATRACK_SPOOL_LIMIT}]
    ini: [{section: callback_infratrack, key: spool_limit}]
  flush_timeout:
    description:
      - Seconds to wait at the end for what is under way, while the collector answers. Nothing waits for one that does not.
    type: float
    default: 5
    env: [{name: INFRATRACK_FLUSH_TIMEOUT}]
    ini: [{section: callback_infratrack, key: flush_timeout}]
  diff:
    description: Stores differences of files too (C(--diff)), shortened and without what looks like a secret.
    type: bool
    default: false
    env: [{name: INFRATRACK_DIFF}]
    ini: [{section: callback_infratrack, key: diff}]
  environment:
    description: The environment that runs belong to, such as V(production).
    type: str
    env: [{name: INFRATRACK_ENVIRONMENT}]
    ini: [{section: callback_infratrack, key: environment}]
  change_id:
    description: The change that runs belong to. By default the CI job, the commit or the pull request ties them to one.
    type: str
    env: [{name: INFRATRACK_CHANGE_ID}]
    ini: [{section: callback_infratrack, key: change_id}]
"""

import atexit
import functools
import os
import stat
import uuid

from ansible import context
from ansible.plugins.callback import CallbackBase

from ansible_collections.infratrack.infratrack.plugins.module_utils import redact
from ansible_collections.infratrack.infratrack.plugins.module_utils.client import split_url
from ansible_collections.infratrack.infratrack.plugins.module_utils.run import Run
from ansible_collections.infratrack.infratrack.plugins.module_utils.spool import Spool, folder_for

TROUBLES = 3


def guarded(hook):
    """A hook whose errors stay here: a play never learns of them."""

    @functools.wraps(hook)
    def run(self, *args, **kwargs):
        try:
            hook(self, *args, **kwargs)
        except Exception as error:
            self._trouble(hook.__name__, error)

    return run


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "infratrack.infratrack.infratrack"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._troubles = 0
        self._run = None
        self._process = None
        self._playbooks = 0

    def set_options(self, task_keys=None, var_options=None, direct=None):
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        try:
            self._configure()
        except Exception as error:
            self._disable("is off: %s" % error)

    def _configure(self):
        self._url = self.get_option("collector_url") or ""
        self._ca_file = self.get_option("ca_file") or ""
        self._diff = bool(self.get_option("diff"))
        self._wait_s = max(0.0, float(self.get_option("flush_timeout")))
        self._limit = max(65536, int(self.get_option("spool_limit")))
        self._token = self._read_token()
        self._redactor = redact.Redactor((self._token,))
        if self._url:
            split_url(self._url)
            if not self._token:
                raise ValueError("collector_url is set, but neither token_file nor INFRATRACK_TOKEN")
        self._folder = folder_for(self.get_option("spool_dir"), self._url)
        if not self._url and not self.get_option("spool_dir") and self._folder.startswith(os.path.expanduser("~")):
            raise ValueError("neither collector_url is set, nor does an agent ship runs from this machine")

    def _read_token(self):
        path = self.get_option("token_file")
        if not path:
            token = os.environ.get("INFRATRACK_TOKEN", "")
        else:
            with open(os.path.expanduser(path)) as file:
                if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise ValueError("%s can be read by others: chmod 600" % path)
                token = file.read(4096)
        token = token.strip()
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("the token has characters that no token has")
        return token

    def _trouble(self, where, error):
        """Counts what went wrong in a hook, and gives up on the third."""
        try:
            self._troubles += 1
            if self._run is not None:
                self._run.spool.lose(1, "plugin_error")
            if self._troubles >= TROUBLES:
                self._disable("stops: %s in %s: %s" % (type(error).__name__, where, str(error)[:200]))
        except Exception:
            self.disabled = True

    def _disable(self, why):
        self.disabled = True
        self._display.warning("infratrack: reporting of plays %s" % redact.head(why, 512))

    def _leave(self):
        """Closes the spool of a run that ended."""
        run, self._run = self._run, None
        if run is not None:
            run.spool.close()

    def _at_exit(self, pid):
        """What a play leaves that ends in the middle, but not by force."""
        try:
            if self._run is not None and os.getpid() == pid:
                self._run.end("interrupted")
                self._leave()
        except Exception:
            pass

    @guarded
    def v2_playbook_on_start(self, playbook):
        self._leave()
        try:
            spool = Spool(self._folder, str(uuid.uuid4()), self._limit)
        except OSError as error:
            self._disable("is off: %s" % error)
            return
        self._playbooks += 1
        if self._process is None:
            self._process = str(uuid.uuid4())
            atexit.register(self._at_exit, os.getpid())
        run = Run(spool, os.path.abspath(str(playbook._file_name)), self._redactor, self._diff)
        keys = {key: self.get_option(key) for key in ("environment", "change_id") if self.get_option(key)}
        run.started(context.CLIARGS, self._process, self._playbooks, keys)
        self._run = run
        if self._url:
            spool.forward(self._url, self._token, self._ca_file)
        else:
            spool.trim()

    @guarded
    def v2_playbook_on_stats(self, stats):
        if self._run is None:
            return
        self._run.finished(stats)
        refused = self._run.spool.wait(self._wait_s) if self._url else None
        if refused:
            self._display.warning(
                "infratrack: the collector %s; the run waits in %s"
                % (refused.replace("refused", "refuses the token: status"), self._folder)
            )
        self._leave()

    @guarded
    def v2_playbook_on_play_start(self, play):
        if self._run is not None:
            self._run.play_started(play)

    @guarded
    def v2_playbook_on_no_hosts_matched(self):
        if self._run is not None:
            self._run.no_hosts("matched")

    @guarded
    def v2_playbook_on_no_hosts_remaining(self):
        if self._run is not None:
            self._run.no_hosts("remaining")

    @guarded
    def v2_playbook_on_task_start(self, task, is_conditional):
        if self._run is not None:
            self._run.task_started(task, False)

    @guarded
    def v2_playbook_on_handler_task_start(self, task):
        if self._run is not None:
            self._run.task_started(task, True)

    @guarded
    def v2_runner_on_start(self, host, task):
        if self._run is not None:
            self._run.host_started(host, task)

    @guarded
    def v2_runner_on_ok(self, result):
        if self._run is not None:
            self._run.ok(result)

    @guarded
    def v2_runner_on_skipped(self, result):
        if self._run is not None:
            self._run.skipped(result)

    @guarded
    def v2_runner_on_failed(self, result, ignore_errors=False):
        if self._run is not None:
            self._run.failed(result, "failed", bool(ignore_errors))

    @guarded
    def v2_runner_on_unreachable(self, result):
        if self._run is not None:
            self._run.failed(result, "unreachable", result._task.ignore_unreachable is True)
