# SPDX-License-Identifier: Apache-2.0
"""SIGTERM: what runs is finished, new work is refused, the process ends inside its grace."""
import http.client
import signal
import socket
import subprocess
import time

import pytest

from conftest import SANITIZED, SLOWNESS, Background, in_threads, wait_until

SPIN = "const end = Date.now() + $args; while (Date.now() < end); return 'done'"


def working(server, count=1):
    wait_until(lambda: server.health()["instances"]["active"] == count, what="the execution")


def slow(server, seconds=1.0):
    """Background request of about that time, on a connection of its own."""
    def request():
        connection = server.connect()
        connection.request("POST", "/v1/execute", f'{{"code": "{SPIN}", "args": {int(seconds * 1000 * SLOWNESS)}}}')
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body
    return Background(request)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_server_ends_at_once(start, number):
    server = start()
    server.value("return 1")
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    begin = time.monotonic()
    server.signal(number)
    assert server.wait_end(5) == 0
    assert time.monotonic() - begin < 2 * SLOWNESS
    assert "stopped" in server.log()
    for client in idle:
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass  # it was still in the backlog when the listener closed
        client.close()


def test_running_work_is_finished_and_new_work_refused(start):
    server = start({"MAX_INSTANCES": 2})
    other = server.connect()
    other.request("GET", "/livez")
    other.getresponse().read()
    with slow(server, 1.5) as running:
        working(server)
        server.signal(signal.SIGTERM)
        wait_until(lambda: server.get("/readyz").status == 503, what="the end of readiness")
        server.get("/readyz").problem(503, "SHUTTING_DOWN")
        reply = server.post({"code": "return 1"})
        reply.problem(503, "SHUTTING_DOWN")
        assert reply.headers["Connection"] == "close" and int(reply.headers["Retry-After"]) >= 1
        server.run("nobody").problem(404, "HANDLER_NOT_FOUND")
        server.put("h", "return 1").problem(503, "SHUTTING_DOWN")
        assert server.get("/livez").status == 200
        health = server.get("/health")
        assert health.status == 503 and health.json()["status"] == "unhealthy" and health.json()["reasons"] == ["shutting down"]
        # On a connection from before the signal, too.
        other.request("POST", "/v1/execute", '{"code": "return 1"}')
        assert other.getresponse().status == 503
        response, body = running.result()
    assert response.status == 200 and b'"done"' in body and response.headers["Connection"] == "close"
    assert server.wait_end() == 0


def test_queued_work_is_finished(start):
    server = start({"MAX_INSTANCES": 1})
    with slow(server, 0.6) as first:
        working(server)
        with slow(server, 0.1) as second:
            wait_until(lambda: b"nexus_queue_depth 1\n" in server.get("/metrics").body, what="the queue")
            server.signal(signal.SIGTERM)
            assert first.result()[0].status == second.result()[0].status == 200
    assert server.wait_end() == 0


def test_large_answers_are_flushed(start):
    server = start()
    client = socket.create_connection(("127.0.0.1", server.port))
    body = b'{"code": "return \'x\'.repeat(3e6)"}'
    client.sendall(b"POST /v1/execute HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    head = client.recv(100)
    assert head.startswith(b"HTTP/1.1 200")
    server.signal(signal.SIGTERM)
    wait_until(lambda: "shutting down" in server.log(), what="the drain")
    received = len(head)
    while chunk := client.recv(65536):
        received += len(chunk)
    client.close()
    assert received > 3_000_000
    assert server.wait_end() == 0


def test_grace_exceeded(start):
    server = start({"SHUTDOWN_GRACE_MS": 300, "TIMEOUT_MS": 60000})

    def request():
        connection = server.connect()
        connection.request("POST", "/v1/execute", '{"code": "for (;;);"}')
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            connection.getresponse()
        connection.close()

    with Background(request):
        working(server)
        begin = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait_end(10) == 0
        assert 0.25 < time.monotonic() - begin < 3 * SLOWNESS
    assert "stopped with executions cut" in server.log()


def test_grace_exceeded_while_a_file_waits(start):
    """A handler's file that waits for a permit does not hold the end up."""
    server = start({"SHUTDOWN_GRACE_MS": 300, "TIMEOUT_MS": 60000, "MAX_INSTANCES": 1}, handlers={"one.js": "return 1"})
    spinner = server.connect()
    spinner.request("POST", "/v1/execute", '{"code": "for (;;);"}')
    working(server)
    (server.directory / "handlers" / "two.js").write_text("return 2")
    wait_until(lambda: b"nexus_queue_depth 1\n" in server.get("/metrics").body, what="the file's turn")
    begin = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait_end(30) == 0
    assert time.monotonic() - begin < 10 * SLOWNESS
    assert "with executions cut" in server.log()
    spinner.close()


def test_second_signal_cuts_it_short(start):
    server = start({"SHUTDOWN_GRACE_MS": 60000, "TIMEOUT_MS": 60000})
    connection = server.connect()
    connection.request("POST", "/v1/execute", '{"code": "for (;;);"}')
    working(server)
    server.signal(signal.SIGTERM)
    wait_until(lambda: server.get("/readyz").status == 503, what="the drain")
    begin = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait_end(10) == 0
    assert time.monotonic() - begin < 3 * SLOWNESS
    connection.close()


def test_no_grace(start):
    server = start({"SHUTDOWN_GRACE_MS": 0})
    server.signal(signal.SIGTERM)
    assert server.wait_end(5) == 0


SLOW_DISK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
int fsync(int fd) {
  sleep(1);
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"""


@pytest.mark.skipif(SANITIZED, reason="sanitizers want to be the first library that is loaded")
def test_a_slow_disk_under_the_cache_does_not_hold_it_up(start, tmp_path):
    """Nor does it lose anything but time at the next start."""
    library, cache = tmp_path / "slow_disk.so", tmp_path / "cache"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", library, "-"], input=SLOW_DISK, text=True, check=True)
    server = start({"SHUTDOWN_GRACE_MS": 3000, "CACHE_DIR": cache}, prefix=("env", f"LD_PRELOAD={library}"))
    for i in range(50):
        assert server.value(f"return {i}") == i
    begin = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait_end(30) == 0
    assert time.monotonic() - begin < 10 * SLOWNESS
    assert 0 < len(list(cache.glob("*.nxi"))) < 50
    again = start({"CACHE_DIR": cache})
    assert [again.value(f"return {i}") for i in range(50)] == list(range(50))


def test_half_sent_requests_do_not_hold_it_up(start):
    server = start({"SHUTDOWN_GRACE_MS": 800})
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
    for client in clients:
        client.sendall(b"POST /v1/execute HTTP/1.1\r\nHost: x\r\nContent-Le")
    server.get("/livez")
    server.signal(signal.SIGTERM)
    assert server.wait_end(8) == 0
    for client in clients:
        client.close()


def test_under_load(start):
    """Every request that a client gets an answer for is a whole, right answer or a refusal."""
    server = start({"MAX_INSTANCES": 4})
    server.install("h", "return $args * 2")
    seen = {"done": 0, "refused": 0}

    def client(i):
        for j in range(100000):
            try:
                reply = server.run("h", str(i * j))
            except (OSError, http.client.HTTPException):
                return
            if reply.status == 200:
                assert reply.json() == i * j * 2
                seen["done"] += 1
            else:
                reply.problem(503, "SHUTTING_DOWN")
                seen["refused"] += 1

    with Background(lambda: in_threads(6, client)):
        wait_until(lambda: seen["done"] > 200, what="load")
        server.signal(signal.SIGTERM)
        assert server.process.wait(10 * SLOWNESS) == 0
    assert seen["done"] > 200


def test_start_again_on_the_same_port(start):
    first = start()
    first.value("return 1")
    first.stop()
    second = start({"PORT": first.port})
    assert second.port == first.port and second.value("return 2") == 2
