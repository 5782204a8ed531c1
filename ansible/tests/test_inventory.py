"""The inventory plugin, by ansible-inventory, against a collector of a few hosts."""

import http.server
import json
import os
import subprocess
import threading
import unittest
from urllib.parse import parse_qs, urlsplit

from rig import VENV, Rig, full

TOKEN = "itk_viewer"


def host(number, name=None, **more):
    return dict(
        {
            "id": "00000000-0000-4000-8000-%012d" % number,
            "name": name or "web%d" % number,
            "status": "healthy",
            "liveness": "online",
            "reasons": [],
            "tags": ["role:web", "é"],
            "addresses": ["127.0.0.1", "fe80::1", "2001:db8::%d" % number, "192.0.2.%d" % number, "10.0.0.%d" % number],
            "os_id": "debian",
            "environment": "production",
            "owner": "team-web",
            "reboot_required": number == 2,
        },
        **more,
    )


HOSTS = [host(number) for number in range(1, 602)]
HOSTS[2].update(name="{{ lookup('pipe', 'touch PWNED') }}", owner="{{ lookup('pipe', 'touch PWNED') }}")
HOSTS[3].update(name="web1")
HOSTS[4].update(addresses=[])


class Api:
    def __init__(self):
        self.requests = []
        self.busy = 0
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status, document = api.answer(self)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler):
        parts = urlsplit(handler.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        self.requests.append((parts.path, query))
        if handler.headers["Authorization"] != "Bearer " + TOKEN:
            return 401, {"type": "unauthorized", "detail": "no such token"}
        if self.busy:
            self.busy -= 1
            return 429, {}
        if parts.path == "/api/v1/hosts":
            items = HOSTS
        elif parts.path == "/api/v1/updates/hosts":
            items = [
                {"host_id": HOSTS[0]["id"], "host_name": "web1", "security_count": 3},
                {"host_id": HOSTS[1]["id"], "security_count": 0},
            ]
        elif parts.path.endswith("/facts"):
            items = [{"key": "facts.os", "body": {"id": "debian"}}, {"key": "facts.cpu", "body": {}}]
        else:
            return 404, {}
        first, limit = int(query.get("cursor", "0")), int(query["limit"])
        following = first + limit
        return 200, {
            "items": items[first:following],
            "total": len(items),
            "next_cursor": str(following) if following < len(items) else None,
        }


class Lists(Rig):
    def setUp(self):
        super().setUp()
        self.api = Api()
        self.addCleanup(self.api.close)
        self.scratch = self.folder

    def listed(self, rc=0, token=TOKEN, **options):
        path = os.path.join(self.folder, "infratrack.yml")
        with open(path, "w") as file:
            json.dump(dict({"plugin": "infratrack.infratrack.infratrack", "url": self.api.url}, **options), file)
        done = subprocess.run(
            [os.path.join(VENV, "bin", "ansible-inventory"), "-i", path, "--list"],
            env=self.environment(False, INFRATRACK_API_TOKEN=token, ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="true"),
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        self.assertEqual(rc, done.returncode, done.stderr)
        if rc:
            return done.stdout + done.stderr
        # Newer versions mark every text that is no template.
        return json.loads(done.stdout, object_hook=lambda found: found.get("__ansible_unsafe", found))

    def test_hosts_have_groups_and_variables_and_are_cached(self):
        self.api.busy = 2
        options = {
            "cache": True,
            "cache_plugin": "ansible.builtin.jsonfile",
            "cache_connection": os.path.join(self.folder, "cache"),
            "networks": ["10.0.0.0/8"],
            "filters": {"tag": ["a", "b"]},
            "keyed_groups": [{"key": "infratrack_owner", "prefix": "owner"}],
            "compose": {"short": "infratrack_os_id ~ '-x'"},
            "groups": {"second": "infratrack_name == 'web2'"},
        }
        found = self.listed(**options)
        variables = found["_meta"]["hostvars"]
        self.assertEqual(601, len(variables))
        self.assertEqual(
            ("10.0.0.1", 3, "debian-x"),
            tuple(variables["web1"][key] for key in ("ansible_host", "infratrack_security_updates", "short")),
        )
        self.assertEqual(["web1"], found["security_updates_pending"]["hosts"])
        self.assertEqual(["web2"], found["reboot_required"]["hosts"])
        self.assertEqual(["web2"], found["second"]["hosts"])
        for group in ("tag_role_web", "tag__", "status_healthy", "os_debian", "environment_production"):
            self.assertEqual(601, len(found[group]["hosts"]), group)
        self.assertIn("web1-" + HOSTS[3]["id"], variables)
        self.assertNotIn("ansible_host", variables["web5"])
        self.assertEqual([], [name for name in os.listdir(self.folder) if name == "PWNED"])
        path, query = self.api.requests[2]
        self.assertEqual(("/api/v1/hosts", "500", "sample"), (path, query["limit"], query["not_tag"]))
        count = len(self.api.requests)
        self.assertEqual(2 + 2 + 1, count)
        self.assertEqual(found, self.listed(**options))
        self.assertEqual(count, len(self.api.requests))

    def test_facts_are_asked_for_by_name(self):
        global HOSTS
        every, HOSTS = HOSTS, HOSTS[:2]
        try:
            found = self.listed(facts=["os"], updates=False)
        finally:
            HOSTS = every
        self.assertEqual({"os": {"id": "debian"}}, found["_meta"]["hostvars"]["web1"]["infratrack_facts"])
        self.assertNotIn("security_updates_pending", found)
        self.assertEqual("192.0.2.1", found["_meta"]["hostvars"]["web1"]["ansible_host"])

    @full
    def test_what_is_wrong_is_said(self):
        self.assertIn("no such token", self.listed(rc=1, token="itk_other"))
        self.assertIn("a token is needed", self.listed(rc=1, token=None))
        self.assertIn("use https", self.listed(rc=1, url="http://collector.example"))


if __name__ == "__main__":
    unittest.main()
