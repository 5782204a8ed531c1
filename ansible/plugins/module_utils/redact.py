# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""Takes secrets out of texts, and makes texts fit for a record. Costs a bounded time, whatever the text is."""

import functools
import re

MASK = "********"
# What is looked at of a long text: patterns take time that grows with it, and the play waits.
WINDOW = 16 * 1024
MARGIN = 2048
# Most texts of a record; those that are kept in memory.
SHORT_CHARS = 256

_WORD = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secrets?|tokens?|api[_-]?keys?|access[_-]?keys?|secret[_-]?keys?|private[_-]?keys?|"
    r"credentials?|auth[_-]?key|connection[_-]?string|kubeconfig)"
)
_VALUE = (
    r"(?:\\+\"(?:(?!\\+\").){0,4096}\\+\"|\"(?:[^\"\\]|\\.){0,4096}\"|'(?:[^'\\]|\\.){0,4096}'|[^\s,;&}\])]{1,4096})"
)
_PATTERNS = (
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----|\Z)", re.S
        ),
        MASK,
    ),
    (re.compile(r"\A[A-Za-z0-9+/=\s]{0,16384}-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----"), MASK),
    (
        re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}://)(?:[^\s/:'\"<>]{0,256}:[^\s'\"<>]{0,512}|[^\s/'\"<>]{0,512})@"),
        r"\1" + MASK + "@",
    ),
    (re.compile(r"(?i)(authorization\\*[\"']?\s{0,8}[=:]\s{0,8}\\*[\"']?)[^\r\n\"'\\]{1,4096}"), r"\1" + MASK),
    (re.compile(r"(?i)\b(bearer|basic)\s{1,8}[A-Za-z0-9+/=._~-]{8,4096}"), r"\1 " + MASK),
    (
        re.compile(r"(?i)(" + _WORD + r"(?:[_.-][\w.-]{0,40})?\\*[\"']?\s{0,8}(?:=>|[=:])\s{0,8})" + _VALUE),
        r"\1" + MASK,
    ),
    (re.compile(r"(?i)(--?[\w-]{0,40}" + _WORD + r"\s{1,8})" + _VALUE), r"\1" + MASK),
    (re.compile(r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ANVA|AIPA)[A-Z0-9]{12,64}\b"), MASK),
    (
        re.compile(
            r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|sk-|hv[sb]\.|dop_v1_|npm_|pypi-|eyJ)[A-Za-z0-9_./+=-]{16,4096}"
        ),
        MASK,
    ),
    (re.compile(r"\$(?:1|2[abxy]|5|6|7|y|gy|argon2[a-z]{1,2})\$[./A-Za-z0-9$,=+]{8,512}"), MASK),
)


def scrub(text, known=()):
    """The text without what looks like a secret, and without the secrets that are known."""
    for secret in known:
        text = text.replace(secret, MASK)
    for pattern, put in _PATTERNS:
        text = pattern.sub(put, text)
    return text


def plain(text):
    """The text with only what JSON, UTF-8 and a database can hold: no NUL, no control characters, no half surrogates."""
    if text.isprintable():
        return text
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c >= " " and c != "\x7f" or c in "\n\t" else "\ufffd" for c in text)


@functools.lru_cache(maxsize=1024)
def short(text, limit, known=()):
    """As `head`, for texts that come again and again: names, paths, what a module always says."""
    return head(text, limit, known)


def head(text, limit, known=()):
    """The beginning of a text, redacted; `limit` characters at most."""
    cut = len(text) > WINDOW
    text = scrub(plain(text[:WINDOW]), known)
    if cut:
        # A secret that the window cut in two can't be told from the rest.
        text = text[: max(0, min(len(text), WINDOW) - MARGIN)]
    if cut or len(text) > limit:
        text = text[: limit - 1] + "\u2026"
    return text


def tail(text, limit, known=()):
    """The end of a text, redacted; `limit` characters at most."""
    cut = len(text) > WINDOW
    text = scrub(plain(text[-WINDOW:]), known)
    if cut:
        text = text[min(len(text), MARGIN) :]
    if cut or len(text) > limit:
        text = "\u2026" + text[-(limit - 1) :]
    return text


class Redactor:
    """Texts as records have them, without the secrets that this process knows."""

    def __init__(self, known=()):
        self.known = tuple(secret for secret in known if len(secret) > 5)

    def text(self, value, limit=SHORT_CHARS):
        """The beginning of a value as text, or None."""
        if value is None:
            return None
        text = str(value)
        return (short if len(text) <= SHORT_CHARS else head)(text, limit, self.known)

    def texts(self, values, name=str):
        if not isinstance(values, (list, tuple)):
            return []
        return [self.text(name(str(value))) for value in values[:100]]

    def tail(self, text, limit):
        return tail(text, limit, self.known)
