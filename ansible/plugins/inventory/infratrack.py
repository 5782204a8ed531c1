# Copyright the Infratrack authors. SPDX-License-Identifier: Apache-2.0
"""Hosts of an Infratrack collector as an inventory. What hosts say of themselves is never a template."""

DOCUMENTATION = r"""
name: infratrack
short_description: Hosts of an Infratrack collector
description:
  - Reads hosts from a collector's API, with groups by tag, status, operating system, environment, and by what is pending.
  - The file's name ends in V(infratrack.yml) or V(infratrack.yaml).
  - Retired hosts are left out, and so are those of C(sample load).
author:
  - The Infratrack authors
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: The plugin's name.
    required: true
    choices: [infratrack.infratrack.infratrack]
  url:
    description: The collector's address, such as V(https://collector.example). Plain http is taken for this machine only.
    type: str
    required: true
    env: [{name: INFRATRACK_URL}]
  token:
    description: A token of the role viewer. Better in the environment, or in O(token_file).
    type: str
    env: [{name: INFRATRACK_API_TOKEN}]
  token_file:
    description: A file with the token, that only its owner may read.
    type: path
    env: [{name: INFRATRACK_API_TOKEN_FILE}]
  ca_file:
    description: Certificates to trust for the collector, in place of the system's.
    type: path
    env: [{name: INFRATRACK_CA_FILE}]
  filters:
    description: Parameters of C(GET /api/v1/hosts), such as C(tag), C(environment), C(status), C(q). A list is any or all, as there.
    type: dict
    default: {}
  group_by:
    description:
      - What groups are made of - V(tag) makes V(tag_NAME), V(status) V(status_healthy) and so on, V(os) V(os_debian),
        V(environment) V(environment_NAME), V(liveness) V(liveness_online) and so on.
    type: list
    elements: str
    choices: [tag, status, os, environment, liveness]
    default: [tag, status, os, environment]
  updates:
    description:
      - Asks which hosts have security updates pending, for the group C(security_updates_pending) and the variable
        C(infratrack_security_updates).
    type: bool
    default: true
  facts:
    description:
      - Facts to have as C(infratrack_facts), by their names such as V(os) or V(network); V(all) for all. Takes a request a host.
    type: list
    elements: str
    default: []
  networks:
    description: Networks in whose order C(ansible_host) is chosen of a host's addresses. Else it is the first IPv4, then IPv6.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
plugin: infratrack.infratrack.infratrack
url: https://collector.example
token_file: ~/.config/infratrack/token
filters:
  environment: production
networks: [10.0.0.0/8]
facts: [os]
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/infratrack/inventory
cache_timeout: 300
keyed_groups:
  - key: infratrack_owner
    prefix: owner
groups:
  full: infratrack_disk_used_ratio is not none and infratrack_disk_used_ratio > 0.9
"""

import ipaddress
import json
import os
import re
import stat
import time
from urllib.error import HTTPError
from urllib.parse import quote, urlencode

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.module_utils.urls import open_url
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var

from ansible_collections.infratrack.infratrack.plugins.module_utils.client import split_url

PAGE = 500
SAMPLE_TAG = "sample"
TRIES = 5
# Of a host, with the prefix infratrack_.
FIELDS = (
    "id name status reasons reason_codes liveness last_seen_at created_at tags addresses owner environment origin os_id os_name "
    "agent_version machine_id instance_id reboot_required disk_used_ratio memory_used_ratio cpu_ratio failed_unit_count missing_since"
).split()
GROUPS = {
    "tag": lambda host: host.get("tags") or [],
    "status": lambda host: [host.get("status")],
    "os": lambda host: [host.get("os_id")],
    "environment": lambda host: [host.get("environment")],
    "liveness": lambda host: [host.get("liveness")],
}


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "infratrack.infratrack.infratrack"

    def verify_file(self, path):
        return super().verify_file(path) and path.endswith(("infratrack.yml", "infratrack.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self.load_cache_plugin()
        key = self.get_cache_key(path)
        use_cache = cache and self.get_option("cache")
        found = None
        if use_cache:
            try:
                found = self._cache[key]
            except KeyError:
                pass
        if found is None:
            found = self._fetch()
            if self.get_option("cache"):
                self._cache[key] = found
        self._populate(found)

    # The API

    def _fetch(self):
        """What the collector says of its hosts, as plain data for the cache."""
        self._url = self.get_option("url").rstrip("/")
        try:
            split_url(self._url)
        except ValueError as error:
            raise AnsibleParserError("url: %s" % error)
        self._headers = {"Authorization": "Bearer %s" % self._token(), "Accept": "application/json"}
        filters = {key: value for key, value in (self.get_option("filters") or {}).items() if value is not None}
        filters.setdefault("not_tag", SAMPLE_TAG)
        hosts = list(self._list("/api/v1/hosts", filters))
        if self.get_option("updates"):
            pending = {row["host_id"]: row.get("security_count") for row in self._list("/api/v1/updates/hosts", {})}
            for host in hosts:
                host["security_updates"] = pending.get(host["id"])
        wanted = self.get_option("facts")
        if wanted:
            for host in hosts:
                host["facts"] = self._facts(host["id"], wanted)
        return hosts

    def _token(self):
        path = self.get_option("token_file")
        token = self.get_option("token") or ""
        if path and not token:
            try:
                with open(os.path.expanduser(path)) as file:
                    if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                        raise AnsibleParserError("%s can be read by others: chmod 600" % path)
                    token = file.read(4096)
            except OSError as error:
                raise AnsibleParserError("token_file: %s" % error)
        if not token.strip():
            raise AnsibleParserError("a token is needed: token_file, or INFRATRACK_API_TOKEN in the environment")
        return token.strip()

    def _list(self, path, parameters):
        """All items of a list, page by page."""
        cursor = None
        while True:
            query = dict(parameters, limit=PAGE)
            if cursor:
                query["cursor"] = cursor
            page = self._get("%s?%s" % (path, urlencode(query, doseq=True)))
            for item in page["items"]:
                yield item
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def _facts(self, host_id, wanted):
        found = {}
        for row in self._list("/api/v1/hosts/%s/facts" % quote(host_id, safe=""), {}):
            name = row["key"]
            name = name[6:] if name.startswith("facts.") else name
            if "all" in wanted or name in wanted or row["key"] in wanted:
                found[name] = row["body"]
        return found

    def _get(self, path):
        for tried in range(1, TRIES + 1):
            try:
                answer = open_url(
                    self._url + path,
                    headers=self._headers,
                    ca_path=self.get_option("ca_file"),
                    timeout=30,
                    follow_redirects="none",
                    http_agent="infratrack-ansible",
                )
                return json.loads(answer.read())
            except HTTPError as error:
                if error.code in (429, 503) and tried < TRIES:
                    wait = error.headers.get("Retry-After", "")
                    time.sleep(min(float(wait), 30.0) if wait.isdigit() else float(tried))
                    continue
                raise AnsibleError(
                    "the collector answered %s to %s: %s" % (error.code, path.partition("?")[0], _detail(error))
                )
            except (OSError, ValueError, KeyError) as error:
                raise AnsibleError("the collector at %s can't be asked: %s" % (self._url, error))

    # The inventory

    def _populate(self, hosts):
        strict = self.get_option("strict")
        networks = [ipaddress.ip_network(text, strict=False) for text in self.get_option("networks")]
        names = set()
        for host in hosts:
            # The name is the host's claim, and patterns have characters of their own.
            name = re.sub(r"[^A-Za-z0-9._-]", "_", host["name"])
            if name in names or not name.strip("._-"):
                name = "%s-%s" % (name, host["id"])
            names.add(name)
            self.inventory.add_host(name)
            variables = {"infratrack_" + key: host.get(key) for key in FIELDS}
            if "security_updates" in host:
                variables["infratrack_security_updates"] = host["security_updates"]
            if "facts" in host:
                variables["infratrack_facts"] = host["facts"]
            address = choose(host.get("addresses") or [], networks)
            if address:
                variables["ansible_host"] = address
            for key, value in variables.items():
                self.inventory.set_variable(name, key, untrusted(value))
            self._groups(name, host)
            known = self.inventory.get_host(name).get_vars()
            self._set_composite_vars(self.get_option("compose"), known, name, strict=strict)
            known = self.inventory.get_host(name).get_vars()
            self._add_host_to_composed_groups(self.get_option("groups"), known, name, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), known, name, strict=strict)

    def _groups(self, name, host):
        for kind in self.get_option("group_by"):
            for value in GROUPS[kind](host):
                if value:
                    self._add("%s_%s" % (kind, value), name)
        if host.get("security_updates"):
            self._add("security_updates_pending", name)
        if host.get("reboot_required"):
            self._add("reboot_required", name)

    def _add(self, group, name):
        group = re.sub(r"\W", "_", group, flags=re.ASCII)
        self.inventory.add_group(group)
        self.inventory.add_child(group, name)


def untrusted(value):
    """The value, of which no text is taken for a template. Texts that can't be one stay as they are."""
    if isinstance(value, dict):
        return {untrusted(key): untrusted(part) for key, part in value.items()}
    if isinstance(value, list):
        return [untrusted(part) for part in value]
    if isinstance(value, str) and ("{" in value or "}" in value):
        return wrap_var(value)
    return value


def _detail(error):
    """What the collector says is wrong."""
    try:
        return json.loads(error.read()).get("detail") or error.reason
    except (OSError, ValueError, AttributeError):
        return error.reason


def choose(addresses, networks):
    """The address to reach a host by, or None."""
    usable = []
    for text in addresses:
        try:
            address = ipaddress.ip_address(text.partition("/")[0])
        except ValueError:
            continue
        if not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast):
            usable.append(address)
    for network in networks:
        for address in usable:
            if address.version == network.version and address in network:
                return str(address)
    usable.sort(key=lambda address: address.version)
    return str(usable[0]) if usable else None
