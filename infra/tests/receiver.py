# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""A collector over loopback that takes nothing it would not take, keeps what came, and answers as it is told."""

import gzip
import http.server
import json
import threading
import time

TOKEN = "itk_0123456789abcdef"
CHANGE = "0193f7a0-0000-7000-8000-000000000001"
TAKEN = {"change_id": CHANGE, "run_id": CHANGE, "kind": "plan", "summary": {}, "redactions": 0, "warnings": []}


def problem(status, title, detail):
    return status, {}, {"type": "x", "title": title, "status": status, "detail": detail, "request_id": "r"}


class Receiver(http.server.ThreadingHTTPServer):
    """Answers in turn: (status, headers, JSON), a number of seconds to be silent, or `None` to hang up."""

    daemon_threads = True

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        # (headers, the bytes as they came, the document)
        self.requests = []
        self.wrong = []

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.server_address[1]

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self.thread.join()

    def handle_error(self, *_):
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = self.headers.get("Content-Length")
        data = self.rfile.read(int(length or 0))
        wrong = self.server.wrong
        if self.path != "/ingest/terraform" or length is None:
            wrong.append(self.path)
        if self.headers.get_all("Authorization") != ["Bearer " + TOKEN]:
            wrong.append("authorization")
        document = data
        if data:
            if self.headers.get("Content-Encoding") != "gzip":
                wrong.append("encoding")
            document = gzip.decompress(data)
            for line in document.splitlines() if document.startswith(b'{"@') else [document]:
                json.loads(line.decode("utf-8"))
        for name, value in self.headers.items():
            if not all(" " <= character <= "~" for character in value) or len(value) > 512:
                wrong.append(name)
        self.server.requests.append((dict(self.headers.items()), data, document.decode("utf-8")))
        answer = self.server.answers.pop(0) if self.server.answers else (201, {}, TAKEN)
        if answer is None:
            self.close_connection = True
            return
        if isinstance(answer, (int, float)):
            time.sleep(answer)
            self.close_connection = True
            return
        status, headers, told = answer
        text = told if isinstance(told, bytes) else json.dumps(told).encode("utf-8")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST

    def log_message(self, *_):
        pass
