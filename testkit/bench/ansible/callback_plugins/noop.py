"""A callback that does nothing: what it costs to be called at all."""

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: noop
type: aggregate
short_description: Does nothing
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "noop"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook):
        pass

    def v2_playbook_on_play_start(self, play):
        pass

    def v2_playbook_on_task_start(self, task, is_conditional):
        pass

    def v2_playbook_on_handler_task_start(self, task):
        pass

    def v2_runner_on_start(self, host, task):
        pass

    def v2_runner_on_ok(self, result):
        pass

    def v2_runner_on_failed(self, result, ignore_errors=False):
        pass

    def v2_runner_on_skipped(self, result):
        pass

    def v2_runner_on_unreachable(self, result):
        pass

    def v2_playbook_on_stats(self, stats):
        pass
