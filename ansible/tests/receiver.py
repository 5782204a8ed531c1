"""A collector for tests: takes /ingest/ansible by the letter of docs/formats/ansible-ingest.md, and breaks when it is told to."""

import gzip
import http.server
import json
import socket
import ssl
import threading
import time
import uuid

TOKEN = "itk_0123456789abcdef"
COUNT, TEXT, FLAG, TEXTS, OBJECT, OBJECTS = int, str, bool, "texts", dict, "objects"

KEYS = (
    "change_id repository commit merge_commit branch pull_request ci_provider run_id run_attempt run_url job actor "
    "environment workspace traceparent"
).split()

# kind: fields that must be there, fields that may
FIELDS = {
    "start": (
        {
            "at": TEXT,
            "format": COUNT,
            "process": TEXT,
            "playbook_number": COUNT,
            "ansible_version": TEXT,
            "python_version": TEXT,
            "controller": TEXT,
            "user": TEXT,
            "playbook": TEXT,
            "playbook_path": TEXT,
            "check": FLAG,
            "diff": FLAG,
        },
        dict(
            {"limit": TEXT, "tags": TEXTS, "skip_tags": TEXTS, "forks": COUNT, "inventory": TEXTS, "git": OBJECT},
            **{key: TEXT for key in KEYS},
        ),
    ),
    "host": (
        {"number": COUNT, "name": TEXT},
        {
            "ansible_host": TEXT,
            "machine_id": TEXT,
            "product_uuid": TEXT,
            "distribution": TEXT,
            "distribution_version": TEXT,
            "fqdn": TEXT,
        },
    ),
    "play": (
        {
            "at": TEXT,
            "play": TEXT,
            "name": TEXT,
            "batch": COUNT,
            "pattern": TEXT,
            "strategy": TEXT,
            "hosts": TEXT,
            "host_count": COUNT,
        },
        {},
    ),
    "no_hosts": ({"at": TEXT, "play": TEXT, "reason": TEXT}, {}),
    "task": (
        {"task": TEXT, "play": TEXT, "batch": COUNT},
        {
            "at": TEXT,
            "name": TEXT,
            "action": TEXT,
            "role": TEXT,
            "path": TEXT,
            "line": COUNT,
            "tags": TEXTS,
            "is_handler": FLAG,
            "check_mode": FLAG,
            "ended_at": TEXT,
            "ok": COUNT,
            "ok_hosts": TEXT,
            "skipped": COUNT,
            "skipped_hosts": TEXT,
        },
    ),
    "result": (
        {"task": TEXT, "batch": COUNT, "host": TEXT, "status": TEXT, "ended_at": TEXT},
        {
            "started_at": TEXT,
            "ignored": FLAG,
            "items": COUNT,
            "items_changed": COUNT,
            "items_failed": COUNT,
            "items_skipped": COUNT,
            "delegated_to": TEXTS,
            "attempts": COUNT,
            "async_job_id": TEXT,
            "async_finished": FLAG,
            "no_log": FLAG,
            "message": TEXT,
            "rc": COUNT,
            "stderr_tail": TEXT,
            "diff": OBJECTS,
            "truncated": FLAG,
        },
    ),
    "stats": ({"hosts": OBJECT}, {"truncated": FLAG}),
    "end": ({"at": TEXT, "outcome": TEXT}, {}),
    "gap": ({"at": TEXT, "count": COUNT, "reason": TEXT}, {}),
}


def depth(value):
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def is_a(value, kind):
    if kind == TEXTS:
        return isinstance(value, list) and all(isinstance(text, str) for text in value)
    if kind == OBJECTS:
        return isinstance(value, list) and all(isinstance(part, dict) for part in value)
    return isinstance(value, kind) and isinstance(value, bool) == (kind is bool)


def wrong(record):
    """What is wrong with a record, or None."""
    if not isinstance(record, dict) or record.get("kind") not in FIELDS:
        return "unknown kind"
    needed, possible = FIELDS[record["kind"]]
    for key in needed:
        if key not in record:
            return "%s lacks %s" % (record["kind"], key)
    for key, value in record.items():
        kind = needed.get(key, possible.get(key))
        if key != "kind" and (kind is None or not is_a(value, kind)):
            return "%s: %s is %r" % (record["kind"], key, value)
    text = json.dumps(record, ensure_ascii=False)
    if "\\u0000" in json.dumps(record) or len(text.encode("utf-8")) > 64 * 1024 or depth(record) > 16:
        return "NUL, too long or too deep"
    return None


class Receiver:
    """Records by run, as a collector would have them; and how it is to behave."""

    def __init__(self, tls=None):
        self.runs = {}
        self.requests = 0
        self.wrong = []
        self.answers = []
        # Taken by each request: a function of (receiver, batch) that answers (status, document), "hang", "cut" or None.
        self.fault = None
        self.faults = 0
        self.hold = threading.Event()
        self.lock = threading.Lock()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                receiver.post(self)

            def log_message(self, *_args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if tls:
            tls_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls_context.load_cert_chain(tls)
            self.server.socket = tls_context.wrap_socket(self.server.socket, server_side=True)
        self.url = "%s://127.0.0.1:%d" % ("https" if tls else "http", self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()

    def post(self, handler):
        with self.lock:
            self.requests += 1
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        answer = self.answer(handler, body)
        if answer == "hang":
            self.hold.wait(60)
            answer = "cut"
        if answer == "cut":
            handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"acked')
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        status, document, headers = (answer + ({},))[:3]
        text = json.dumps(document).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Type", "application/json" if status == 200 else "application/problem+json")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    def answer(self, handler, body):
        if handler.path != "/ingest/ansible" or handler.headers["Content-Type"] != "application/json":
            self.wrong.append("%s %s" % (handler.path, handler.headers["Content-Type"]))
            return 404, {}
        if handler.headers["Authorization"] != "Bearer " + TOKEN:
            return 401, {"type": "unauthorized"}
        if handler.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        if len(body) > 256 * 1024 + 64 * 1024:
            self.wrong.append("a body of %d bytes" % len(body))
        batch = json.loads(body)
        fault = self.fault(self, batch) if self.fault else None
        if fault is not None:
            self.faults += 1
            if fault != "cut":
                return fault
        accepted = self.accept(batch)
        self.answers.append((time.monotonic(), accepted[0]))
        return fault or accepted

    def accept(self, batch):
        run, first, records = batch["run"], batch["first_seq"], batch["records"]
        if (
            str(uuid.UUID(run)) != run
            or sorted(batch) != ["first_seq", "records", "run"]
            or not 0 < len(records) <= 500
        ):
            self.wrong.append("batch of %d" % len(records))
        with self.lock:
            stored = self.runs.setdefault(run, [])
            if first > len(stored) + 1 or first < 1:
                return 409, {"type": "ansible_gap", "acked_seq": len(stored)}
            for index, record in enumerate(records):
                trouble = wrong(record)
                if trouble:
                    self.wrong.append(trouble)
                    return 422, {"errors": [{"pointer": "/records/%d" % index, "detail": trouble}]}
            for index, record in enumerate(records):
                seq = first + index
                if seq <= len(stored):
                    if stored[seq - 1] != record and record["kind"] != "gap":
                        self.wrong.append("record %d changed" % seq)
                else:
                    stored.append(record)
            return 200, {"change_id": "c", "run_id": "r", "acked_seq": len(stored)}
