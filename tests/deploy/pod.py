# SPDX-License-Identifier: Apache-2.0
"""The pod of a manifest, as a process."""
import contextlib
import http.client
import os
import socket
import subprocess
import time

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


def change(directory, files):
    """The next version of a volume."""
    version = directory / f"..{time.monotonic_ns()}"
    version.mkdir()
    for name, text in files.items():
        (version / name).write_text(text)
    (directory / "..new").symlink_to(version.name)
    os.rename(directory / "..new", directory / "..data")


class Pod:
    """nexus as the container of the manifest, with these values of the Secret. Paths of the container are in `directory`."""

    def __init__(self, manifest, directory, values):
        self.manifest = manifest
        self.env = manifest.environment(values)
        self.ports = dict(zip(("http", "admin"), free_ports(2)))
        self.env |= {"HOST": "127.0.0.1", "PORT": str(self.ports["http"]), "ADMIN_PORT": str(self.ports["admin"])}
        self.handlers = self.mount("HANDLERS_DIR", directory / "handlers", manifest.get("ConfigMap", "nexus-handlers")["data"])
        self.mount("CACHE_DIR", directory / "cache", {})
        if self.env["AUTH_TOKENS_FILE"] != "none":
            self.auth = self.mount("AUTH_TOKENS_FILE", directory / "auth", {"auth-tokens": values["auth-tokens"]})
            self.env["AUTH_TOKENS_FILE"] = str(self.auth / "auth-tokens")
        if self.env.get("SUSPEND_STORE", "").startswith("redis:"):
            self.env["SUSPEND_STORE"] = f"redis://:x@127.0.0.1:{free_ports(1)[0]}/0"  # which is away
        self.env["CONTAINER_MEMORY_LIMIT"] = manifest.container()["resources"]["limits"]["memory"]
        self.log = open(directory / "log", "wb+")
        self.process = subprocess.Popen([NEXUS, "serve"], env=self.env, stdout=self.log, stderr=self.log)

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

    def end(self):
        self.process.terminate()
        assert self.process.wait(40) == 0, self.output()
        self.log.close()
