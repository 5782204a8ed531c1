# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""What a module said of a result, as a record has it: never its arguments, and never all of something large."""

MESSAGE_CHARS = 4096
STDERR_CHARS = 2048
DIFF_CHARS = 8192
DIFFS = 8
ITEMS = 10000
DELEGATES = 20


def raw(result):
    """What the module answered, without the copy that newer versions make of it when it is asked for."""
    data = getattr(result, "_return_data", None)
    if data is None:
        data = result._result
    return data if hasattr(data, "get") else {}


def whole(value):
    """A whole number, or None."""
    try:
        value = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if -(2**63) <= value < 2**63 else None


def has_failed(item):
    """Whether an item of a loop failed. From 2.21 on items don't say so, but have the error."""
    return bool(item.get("failed", item.get("exception")))


class Outcomes:
    def __init__(self, redactor, with_diff):
        self.redactor = redactor
        self.with_diff = with_diff

    def fill(self, record, task, data, status):
        """What the module said of it."""
        items = data.get("results") if task.loop is not None else None
        if isinstance(items, list):
            self._items(record, items)
        else:
            items = None
        record["delegated_to"] = self._delegates(task, data, items)
        attempts = whole(data.get("attempts", 1))
        if attempts != 1:
            record["attempts"] = attempts
        if "ansible_job_id" in data:
            record["async_job_id"] = self.redactor.text(data["ansible_job_id"])
            record["async_finished"] = bool(data.get("finished", 1))
        if "censored" in data:
            record["no_log"] = True
            return
        failed = status in ("failed", "unreachable")
        source = data
        if failed and items:
            source = next(
                (i for i in items[:ITEMS] if hasattr(i, "get") and (has_failed(i) or i.get("unreachable"))), data
            )
            if "censored" in source:
                record["no_log"] = True
                return
        message = source.get("msg")
        if message and (failed or items is None):
            record["message"] = self._message(message)
        if failed:
            record["rc"] = whole(source.get("rc"))
            stderr = source.get("stderr") or source.get("module_stderr")
            if isinstance(stderr, str) and stderr:
                record["stderr_tail"] = self.redactor.tail(stderr, STDERR_CHARS)
        if self.with_diff and status == "changed":
            record["diff"] = self._diffs(data, items) or None

    @staticmethod
    def _items(record, items):
        record["items"] = len(items)
        changed = failed = skipped = 0
        for item in items[:ITEMS]:
            if hasattr(item, "get"):
                changed += bool(item.get("changed"))
                failed += has_failed(item)
                skipped += bool(item.get("skipped") or "skip_reason" in item)
        record["items_changed"] = changed
        record["items_failed"] = failed
        record["items_skipped"] = skipped

    def _delegates(self, task, data, items):
        """Whom the task was done on in place of its host; of a loop with a template that is not known: then nobody."""
        if task.delegate_to is None:
            return None
        found = []
        for part in [data] + (items or [])[:ITEMS]:
            told = part.get("_ansible_delegated_vars") if hasattr(part, "get") else None
            name = told.get("ansible_delegated_host") or told.get("ansible_host") if hasattr(told, "get") else None
            if isinstance(name, str) and "{" not in name and name not in found:
                found.append(name)
            if len(found) == DELEGATES:
                break
        if isinstance(task.delegate_to, str) and "{" not in task.delegate_to:
            found = [task.delegate_to]
        return [self.redactor.text(name) for name in found]

    def _diffs(self, data, items):
        """Differences of files, each with what stands above and below it."""
        told = []
        for part in [data] + (items or [])[:ITEMS]:
            diff = part.get("diff") if hasattr(part, "get") and "censored" not in part else None
            told.extend(diff if isinstance(diff, list) else [diff] if diff else [])
            if len(told) >= DIFFS:
                break
        diffs = []
        for diff in told[:DIFFS]:
            if hasattr(diff, "get"):
                keys = ("before_header", "after_header", "before", "after", "prepared")
                found = {key: diff[key] for key in keys if isinstance(diff.get(key), str)}
                limit = DIFF_CHARS // min(DIFFS, max(1, len(told))) // 2
                diffs.append({key: self.redactor.text(text, limit) for key, text in found.items() if text})
        return [diff for diff in diffs if diff]

    def _message(self, message):
        """A message as text. Of what is no text only a part is looked at."""
        if isinstance(message, (list, tuple)) and len(message) <= 20 and all(isinstance(line, str) for line in message):
            message = "\n".join(line[:MESSAGE_CHARS] for line in message)
        elif not isinstance(message, str):
            message = "(%s)" % type(message).__name__ if hasattr(message, "__len__") else str(message)
        return self.redactor.text(message, MESSAGE_CHARS)
