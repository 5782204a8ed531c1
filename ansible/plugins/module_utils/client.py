# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""The collector's side of the wire, as little of HTTP as it takes: importing the standard library's costs more than a run's requests.

Used by the forwarder; imports nothing of the collection.
"""

import socket
import time
import zlib

ANSWER_BYTES = 64 * 1024
CONNECT_S = 5.0
ANSWER_S = 30.0


def is_loopback(host):
    """Whether plain HTTP to this host stays on this machine."""
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())


def split_url(url):
    """(is it https, host, port, path before /ingest) of the collector's address."""
    scheme, found, rest = url.partition("://")
    authority, _slash, path = rest.partition("/")
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority, ""
    host = host.strip("[]")
    if not found or scheme not in ("http", "https") or not host or "@" in authority or set("?#\r\n ") & set(url):
        raise ValueError("not an address like https://collector.example")
    if scheme == "http" and not is_loopback(host):
        raise ValueError("plain http is for this machine only: use https")
    return (
        scheme == "https",
        host,
        int(port or (443 if scheme == "https" else 80)),
        "/" + path.strip("/") if path.strip("/") else "",
    )


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def acked(self):
        """`acked_seq` of an answer, or None."""
        value = self.document().get("acked_seq")
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    def document(self):
        import json

        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    def record(self):
        """The index in the batch of the record that was refused, or None."""
        places = self.document().get("errors")
        for place in places if isinstance(places, list) else []:
            pointer = place.get("pointer") if isinstance(place, dict) else None
            words = pointer.split("/") if isinstance(pointer, str) else []
            if len(words) > 2 and words[1] == "records" and words[2].isdigit():
                return int(words[2])
        return None

    def retry_after(self):
        text = self.headers.get("retry-after", "")
        return min(float(text), 300.0) if text.isdigit() else 0.0


class Collector:
    """A connection to the collector, opened when it is needed."""

    def __init__(self, url, token, ca_file):
        self.tls, self.host, self.port, prefix = split_url(url)
        host = "[%s]" % self.host if ":" in self.host else self.host
        self.head = (
            "POST %s/ingest/ansible HTTP/1.1\r\nHost: %s:%d\r\nAuthorization: Bearer %s\r\n"
            "Content-Type: application/json\r\nUser-Agent: infratrack-ansible\r\n" % (prefix, host, self.port, token)
        ).encode("latin-1")
        self.ca_file = ca_file
        self.context = None
        self.socket = None
        self.buffer = b""

    def post(self, body):
        """The collector's answer. OSError where there is none."""
        coding = b""
        if len(body) > 1024:
            packer = zlib.compressobj(6, zlib.DEFLATED, 31)
            body = packer.compress(body) + packer.flush()
            coding = b"Content-Encoding: gzip\r\n"
        request = self.head + coding + b"Content-Length: %d\r\n\r\n" % len(body) + body
        while True:
            kept = self.socket is not None
            try:
                if not kept:
                    self._connect()
                self.socket.settimeout(ANSWER_S)
                self.socket.sendall(request)
                return self._answer()
            except OSError:
                self.disconnect()
                if not kept:
                    raise
            except ValueError as error:
                self.disconnect()
                raise OSError(str(error))

    def _connect(self):
        plain = socket.create_connection((self.host, self.port), CONNECT_S)
        self.buffer = b""
        self.socket = plain
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            import ssl

            if self.context is None:
                self.context = ssl.create_default_context(cafile=self.ca_file or None)
            self.socket = self.context.wrap_socket(plain, server_hostname=self.host)

    def disconnect(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _answer(self):
        self.deadline = time.monotonic() + ANSWER_S
        while True:
            lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            version, status = lines[0].split(" ")[:2]
            if status != "100":
                break
        headers = {}
        for line in lines[1:]:
            name, _colon, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while True:
                size = int(self._until(b"\r\n").partition(b";")[0], 16)
                body += self._exactly(size)
                self._exactly(2)
                if not size:
                    break
                if len(body) > ANSWER_BYTES:
                    raise OSError("too long an answer")
        else:
            body = self._exactly(int(headers.get("content-length", "0")))
        if version != "HTTP/1.1" or "close" in headers.get("connection", "").lower():
            self.disconnect()
        return Answer(int(status), headers, body)

    def _more(self):
        left = self.deadline - time.monotonic()
        if left <= 0 or len(self.buffer) > ANSWER_BYTES:
            raise OSError("too slow or too long an answer")
        self.socket.settimeout(left)
        data = self.socket.recv(16384)
        if not data:
            raise OSError("the connection was closed")
        self.buffer += data

    def _until(self, mark):
        while mark not in self.buffer:
            self._more()
        part, _mark, self.buffer = self.buffer.partition(mark)
        return part

    def _exactly(self, size):
        if not 0 <= size <= ANSWER_BYTES:
            raise OSError("too long an answer")
        while len(self.buffer) < size:
            self._more()
        part, self.buffer = self.buffer[:size], self.buffer[size:]
        return part
