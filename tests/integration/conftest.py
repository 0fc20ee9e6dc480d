# SPDX-License-Identifier: Apache-2.0
"""A running `nexus serve` per test module, and what must hold after every test.

A module says with SETTINGS = {"MAX_INSTANCES": 2, ...} how its shared server is started (fixture `server`); tests that
need a server of their own start one with the fixture `start`. Environment: NEXUS is the binary (build/nexus);
NEXUS_TEST_SLOWNESS multiplies all deadlines, for sanitizer builds and machines that are busy.
"""
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEXUS = os.environ.get("NEXUS", str(ROOT / "build" / "nexus"))
EXAMPLES = ROOT / "examples" / "handlers"
SANITIZED = b"__asan_init" in pathlib.Path(NEXUS).read_bytes()  # memory is not what it would be
SLOWNESS = float(os.environ.get("NEXUS_TEST_SLOWNESS", "1"))

# Nothing of the machine that runs the tests is in them.
DEFAULTS = {
    "HOST": "127.0.0.1",
    "PORT": 0,
    "CONTAINER_MEMORY_LIMIT": "1Gi",
    "MAX_INSTANCES": 8,
    "TIMEOUT_MS": int(5000 * SLOWNESS),
    "QUEUE_TIMEOUT_MS": int(20000 * SLOWNESS),
    "SHUTDOWN_GRACE_MS": int(10000 * SLOWNESS),
    "IDLE_TRIM_MS": 300,
}
# What the layer http has at rest: the connection that asks, with its buffers, and two spare sets of buffers for each worker
# that waits at the sockets (there are about as many as cores, and two).
HTTP_FLOOR_BYTES = (8 << 10) + (64 << 10) + (32 << 10) * (1 + 2 * (len(os.sched_getaffinity(0)) + 2))
# Results of executions that were suspended are kept until they expire, and sources as long.
KEPT_RESULTS_BYTES = 1 << 20
CRASH = re.compile(r"sanitizer|runtime error:|assert|fatal|stack smashing|core dumped|corrupted|double free", re.I)


def environment(settings=None):
    """What a nexus process gets: no variable of the caller's but those of sanitizers."""
    env = {k: v for k, v in os.environ.items() if k == "PATH" or k.endswith("SAN_OPTIONS")}
    env.update({k: str(v) for k, v in (settings or {}).items() if v is not None})
    return env


def nexus(*args, settings=None, **more):
    """Runs a command to its end."""
    return subprocess.run([NEXUS, *args], env=environment(settings), capture_output=True, text=True,
                          timeout=60 * SLOWNESS, **more)


def wait_until(condition, seconds=10, what="it"):
    """Polls until `condition()` is true, and returns its value."""
    deadline = time.monotonic() + seconds * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.005)


def publish_volume(mount, files):
    """The next version of a ConfigMap's or Secret's volume, as the kubelet makes it: files are links to ..data/NAME, and ..data is a
    link that is swapped as a whole."""
    data = mount / f"..{sum(path.name.startswith('..') for path in mount.iterdir())}"
    data.mkdir()
    for name, text in files.items():
        (data / name).write_text(text)
    os.symlink(data.name, mount / "..data_tmp")
    os.rename(mount / "..data_tmp", mount / "..data")
    for name in files:
        if not (mount / name).is_symlink():
            os.symlink(f"..data/{name}", mount / name)
    for link in mount.iterdir():
        if not link.name.startswith("..") and link.name not in files:
            link.unlink()


class Reply:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def type(self):
        return self.headers.get("Content-Type", "")

    def json(self):
        return json.loads(self.body)

    def problem(self, status, code):
        """Checks that this is such a problem and returns it."""
        assert self.status == status, (self.status, self.body[:500])
        assert self.type == "application/problem+json"
        body = self.json()
        assert body["type"] == "about:blank" and body["title"] and body["detail"], body
        assert (body["status"], body["code"]) == (status, code), body
        return body

    def __repr__(self):
        return f"<{self.status} {self.body[:500]!r}>"


class Server:
    """One `nexus serve`, started by the command `prefix` if there is one. Requests go over one keep-alive connection per
    thread."""

    def __init__(self, directory, settings=None, args=(), wait=True, prefix=()):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.settings = {**DEFAULTS, "CACHE_DIR": self.directory / "cache", **(settings or {})}
        self.log_path = self.directory / "log"
        self._local = threading.local()
        self._connections = []
        self._opened = []
        self._log = open(self.log_path, "ab")
        self._log_begin = self._log.tell()
        self.process = subprocess.Popen([*prefix, NEXUS, "serve", *args], env=environment(self.settings), stdin=subprocess.DEVNULL,
                                        stdout=self._log, stderr=subprocess.STDOUT, cwd=self.directory)
        self.pid = self.process.pid
        self.port = None
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.process.kill()
                self.process.wait()
                raise

    # ---- Life -------------------------------------------------------------------------------------------------------

    def log(self):
        with open(self.log_path, "rb") as file:
            file.seek(self._log_begin)
            return file.read().decode("utf-8", "replace")

    def find_port(self):
        assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log()}"
        found = re.search(r"listening.* port=(\d+)", self.log())
        if found:
            self.port = int(found[1])
        return found

    def wait_ready(self):
        wait_until(self.find_port, 20, "the port")
        wait_until(lambda: self.get("/readyz").status == 200, 20, "readiness")

    def wait_trimmed(self):
        """Idle instances give all they hold back, and the ledger knows."""
        try:
            wait_until(lambda: self.health()["memory"]["layers"]["instances"] == 0, 20, "the end of idle instances")
        except AssertionError:
            pytest.fail(f"memory is still charged: {self.health()}")

    def depart(self):
        """Stops it when it has given back what its tests left to expire."""
        try:
            wait_until(lambda: self.health()["memory"]["layers"]["suspended"] == 0,
                       self.settings["SUSPEND_TTL_MS"] / 1000 / SLOWNESS + 15, f"the end of what {self.directory} keeps")
            self.wait_trimmed()
        finally:
            self.stop()

    def signal(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait_end(self, seconds=20):
        self.disconnect()
        status = self.process.wait(seconds * SLOWNESS)
        self._log.close()
        return status

    def stop(self):
        """SIGTERM; the end must come within the grace, with status 0, and the log must be free of crashes."""
        try:
            self.disconnect()
            self.signal(signal.SIGTERM)
            status = self.wait_end()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        assert status == 0, f"exit status {status}: {self.log()[-3000:]}"
        self.check_log()

    def check_log(self):
        for line in self.log().splitlines():
            assert "handler log" in line or not CRASH.search(line), line

    # ---- What the kernel knows of it ----------------------------------------------------------------------------------

    def fds(self):
        """Descriptor → what it is; sockets and pipes without their number. Without those of handler images: the server
        keeps these for as long as the handler is in its memory."""
        out = {}
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                out[fd] = re.sub(r"\[\d+\]", "", os.readlink(f"/proc/{self.pid}/fd/{fd}"))
            except FileNotFoundError:
                pass
        return {fd: what for fd, what in out.items() if "nexus-handler-image" not in what}

    def _status(self, field):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+)", text, re.M)[1])

    def rss(self):
        """Anonymous resident bytes."""
        return self._status("RssAnon") * 1024

    def threads(self):
        return self._status("Threads")

    # ---- Requests -----------------------------------------------------------------------------------------------------

    def _connection(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOWNESS)

    def connect(self, timeout=60):
        self._opened.append(self._connection(timeout))
        return self._opened[-1]

    def connect_socket(self, timeout=60):
        self._opened.append(socket.create_connection(("127.0.0.1", self.port), timeout * SLOWNESS))
        return self._opened[-1]

    def close_opened(self):
        """What tests opened by themselves: a failed one has not closed it, and its connections would fail the check of descriptors."""
        while self._opened:
            self._opened.pop().close()

    def disconnect(self):
        while self._connections:
            self._connections.pop().close()

    def request(self, method, path, body=None, headers=None):
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connection()
        self._connections.append(connection)
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        try:
            connection.request(method, path, body, headers or {})
            return Reply(connection.getresponse())
        except BaseException:
            connection.close()
            raise

    def get(self, path, **headers):
        return self.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def put(self, name, source, **headers):
        return self.request("PUT", f"/v1/handlers/{name}", source,
                            {"Content-Type": "text/javascript", **{k.replace("_", "-"): v for k, v in headers.items()}})

    def install(self, name, source, grants=None):
        reply = self.put(name, source)
        assert reply.status in (200, 201), reply
        if grants is not None:
            reply = self.request("PUT", f"/v1/handlers/{name}/grants", grants)
            assert reply.status in (200, 201), reply

    def delete(self, path, **headers):
        return self.request("DELETE", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, body, headers=None):
        return self.request("POST", "/v1/execute", body, headers)

    def run(self, name, body=None, headers=None):
        return self.request("POST", f"/run/{name}", body, headers)

    def execute(self, code=None, **fields):
        """The result of an execution, as far as it was run."""
        if code is not None:
            fields["code"] = code
        reply = self.post(fields)
        assert reply.status == 200, reply
        return reply.json()

    def value(self, code=None, **fields):
        """The return value of an execution that must succeed; None for undefined."""
        result = self.execute(code, **fields)
        assert result["status"] == "success", result
        return result.get("returnValue")

    def fails(self, error_code, code=None, **fields):
        """The error of an execution that must fail with this code."""
        result = self.execute(code, **fields)
        assert result["status"] == "error", str(result)[:1000]
        assert result["error"]["code"] == error_code, str(result)[:1000]
        return result["error"]

    def suspends(self, **fields):
        """An execution that asks its caller for something, and is cancelled again."""
        result = self.execute(**fields)
        assert result["status"] == "suspended", str(result)[:1000]
        assert self.delete("/v1/resume/" + result["suspension"]["suspensionId"]).status == 204
        return result["suspension"]

    def health(self):
        return self.get("/health").json()

    # ---- After a test -------------------------------------------------------------------------------------------------

    def is_at_rest(self):
        """Nothing runs or waits, and of the ledger no request has anything left."""
        health = self.health()
        layers = health["memory"]["layers"]
        return (health["instances"]["active"] == health["instances"]["suspended"] == 0
                and layers["suspended"] <= KEPT_RESULTS_BYTES
                and layers["http"] <= HTTP_FLOOR_BYTES)

    def settle(self, before):
        """At rest, no descriptor more than before."""
        self.close_opened()
        assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log()[-3000:]}"
        try:
            wait_until(self.is_at_rest, 15, "an idle server")
        except AssertionError:
            pytest.fail(f"not at rest: {self.health()}")
        self.disconnect()
        try:
            wait_until(lambda: len(self.fds()) <= len(before), 15, "the close of descriptors")
        except AssertionError:
            pytest.fail(f"descriptors before: {before}, after: {self.fds()}")
        self.check_log()


def in_threads(count, work):
    """Runs work(i) on that many threads; the first failure is the caller's."""
    results, failures = [None] * count, []

    def guarded(i):
        try:
            results[i] = work(i)
        except BaseException as failure:  # noqa: BLE001: all of them must reach the test
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


class Background:
    """Work on a thread of its own: `with Background(f) as b: …`, then b.result()."""

    def __init__(self, work):
        self._result = self._failure = None

        def guarded():
            try:
                self._result = work()
            except BaseException as failure:  # noqa: BLE001
                self._failure = failure

        self._thread = threading.Thread(target=guarded)

    def __enter__(self):
        self._thread.start()
        return self

    def result(self):
        self._thread.join()
        if self._failure:
            raise self._failure
        return self._result

    def done(self):
        return not self._thread.is_alive()

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.result()
        else:
            self._thread.join()


@pytest.fixture(scope="module")
def module_server(request, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"), getattr(request.module, "SETTINGS", None))
    yield server
    try:
        server.wait_trimmed()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def departing():
    """Servers that depart after the last test of all: what their own tests left expires while others run."""
    servers = []
    yield servers
    with contextlib.ExitStack() as ends:  # all of them, also when one fails
        for server in servers:
            ends.callback(server.depart)


@pytest.fixture
def server(module_server):
    """The module's server, in the state that each test leaves behind."""
    module_server.disconnect()
    wait_until(lambda: "socket:" in module_server.fds().values(), what="the listener")
    before = module_server.fds()
    yield module_server
    module_server.settle(before)


@pytest.fixture
def start(tmp_path):
    """start(settings, args=(), handlers={file: text}, prefix=()) → a server of this test's own, stopped after it."""
    servers = []

    def begin(settings=None, args=(), handlers=None, wait=True, name=None, prefix=()):
        directory = tmp_path / (name or f"server{len(servers)}")
        settings = dict(settings or {})
        if handlers is not None:
            folder = directory / "handlers"
            folder.mkdir(parents=True, exist_ok=True)
            for file, text in handlers.items():
                (folder / file).write_text(text if isinstance(text, str) else json.dumps(text))
            settings["HANDLERS_DIR"] = folder
        server = Server(directory, settings, args, wait, prefix)
        servers.append(server)
        return server

    yield begin
    with contextlib.ExitStack() as ends:  # all of them, also when one fails
        for server in servers:
            ends.callback(server.stop if server.process.poll() is None else server.check_log)


@pytest.fixture
def redis(tmp_path):
    """A redis-server of this test's own (redis_server.py)."""
    import redis_server  # needs this module
    if not redis_server.PROGRAM:
        pytest.skip("redis-server is not installed")
    server = redis_server.Redis(tmp_path / "redis")
    yield server
    server.kill()
