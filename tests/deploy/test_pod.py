# SPDX-License-Identifier: Apache-2.0
"""The pod of each overlay, as a process: nexus gets the environment and the files that the manifest gives it, with the values
that new-secret.sh makes, and is probed and called as a cluster would."""
import contextlib
import http.client
import json
import os
import socket
import subprocess
import time

import pytest

import secret
from conftest import NEXUS


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


def lay_out(directory, files):
    """A volume as the kubelet makes it: links through ..data to a directory of this version."""
    (directory / "..version").mkdir(parents=True)
    (directory / "..data").symlink_to("..version")
    for name, text in files.items():
        (directory / "..version" / name).write_text(text)
        (directory / name).symlink_to(f"..data/{name}")


class Pod:
    def __init__(self, manifest, directory):
        values, self.token = secret.values()
        self.manifest = manifest
        self.env = manifest.environment(values)
        self.ports = dict(zip(("http", "admin"), free_ports(2)))
        self.env |= {"HOST": "127.0.0.1", "PORT": str(self.ports["http"]), "ADMIN_PORT": str(self.ports["admin"])}
        self.handlers = self.mount("HANDLERS_DIR", directory / "handlers", manifest.get("ConfigMap", "nexus-handlers")["data"])
        self.mount("CACHE_DIR", directory / "cache", {})
        if self.env["AUTH_TOKENS_FILE"] != "none":
            tokens = self.mount("AUTH_TOKENS_FILE", directory / "auth", {"auth-tokens": values["auth-tokens"]})
            self.env["AUTH_TOKENS_FILE"] = str(tokens / "auth-tokens")
        if manifest.all("StatefulSet"):
            self.env["SUSPEND_STORE"] = f"redis://:x@127.0.0.1:{free_ports(1)[0]}/0"  # which is away
        limit = manifest.container()["resources"]["limits"]["memory"]
        self.log = open(directory / "log", "wb+")
        self.process = subprocess.Popen([NEXUS, "serve"], env=self.env | {"CONTAINER_MEMORY_LIMIT": limit}, stdout=self.log, stderr=self.log)

    def mount(self, setting, directory, files):
        """In the place of a path of the container."""
        lay_out(directory, files)
        self.env[setting] = str(directory)
        return directory

    def call(self, port, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()

    def probe(self, name):
        get = self.manifest.container()[name]["httpGet"]
        with contextlib.suppress(OSError):
            return self.call(get["port"], "GET", get["path"])[0] == 200
        return False

    def output(self):
        self.log.seek(0)
        return self.log.read().decode()

    def wait(self, what):
        deadline = time.monotonic() + 30
        while not what():
            assert time.monotonic() < deadline and self.process.poll() is None, self.output()
            time.sleep(0.01)

    def authorized(self):
        return {} if self.env["AUTH_TOKENS_FILE"] == "none" else {"Authorization": f"Bearer {self.token}"}


@pytest.fixture
def pod(manifest, tmp_path):
    pod = Pod(manifest, tmp_path)
    yield pod
    pod.process.terminate()
    assert pod.process.wait(40) == 0, pod.output()
    pod.log.close()


def test_probes_turn_green_and_the_first_handler_answers(pod):
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        pod.wait(lambda probe=probe: pod.probe(probe))
    assert pod.call("admin", "GET", "/metrics")[0] == 200
    status, body = pod.call("http", "POST", "/run/hello", '{"name": "pod"}', **pod.authorized())
    assert (status, json.loads(body)) == (200, {"hello": "pod"})
    if pod.authorized():
        assert pod.call("http", "POST", "/run/hello", "{}")[0] == 401
        assert pod.call("http", "GET", "/metrics")[0] == 401


def test_a_changed_handler_needs_no_rollout(pod):
    pod.wait(lambda: pod.probe("readinessProbe"))
    next_version = pod.handlers / "..next"
    next_version.mkdir()
    (next_version / "hello.js").write_text("export default () => 'changed'")
    (pod.handlers / "..new").symlink_to("..next")
    os.rename(pod.handlers / "..new", pod.handlers / "..data")
    pod.wait(lambda: pod.call("http", "POST", "/run/hello", **pod.authorized()) == (200, b'"changed"'))
