# SPDX-License-Identifier: Apache-2.0
"""Admission, the queue, deadlines, and that busy handlers delay nothing else."""
import json
import os
import pathlib
import shutil
import time

import pytest

from conftest import SLOWNESS, Background, in_threads, wait_until

SETTINGS = {"MAX_INSTANCES": 2, "QUEUE_MAX": 2, "QUEUE_TIMEOUT_MS": int(400 * SLOWNESS)}
SPIN = "const end = Date.now() + $args; while (Date.now() < end); return 'done'"


def spin(server, ms):
    return server.post({"code": SPIN, "args": ms * SLOWNESS})


def active(server, count):
    wait_until(lambda: server.health()["instances"]["active"] == count, what=f"{count} active instances")


def queued(server, count):
    text = f"nexus_queue_depth {count}\n".encode()
    wait_until(lambda: text in server.get("/metrics").body, what=f"a queue of {count}")


def test_probes_are_not_delayed_by_busy_instances(server):
    with Background(lambda: in_threads(2, lambda i: spin(server, 2000))) as busy:
        active(server, 2)
        times = []
        while not busy.done() and len(times) < 300:
            for path in ("/health", "/livez", "/readyz", "/metrics"):
                begin = time.monotonic()
                assert server.get(path).status == 200
                times.append(time.monotonic() - begin)
        assert [reply.json()["returnValue"] for reply in busy.result()] == ["done", "done"]
    times.sort()
    assert len(times) > 40 and times[len(times) * 99 // 100] < 0.5 * SLOWNESS


def test_queue_then_refusal(server):
    with Background(lambda: in_threads(2, lambda i: spin(server, 1500))) as running:
        active(server, 2)
        with Background(lambda: in_threads(2, lambda i: server.post({"code": "return 'queued'"}))) as waiting:
            queued(server, 2)
            refused = server.post({"code": "return 1"})
            problem = refused.problem(503, "OVERLOADED")
            assert problem["layer"] == "pool" and "queue is full" in problem["detail"]
            assert problem["limitBytes"] == 2 * (32 << 20) and problem["usedBytes"] <= problem["limitBytes"] and problem["requestedBytes"] > 0
            assert int(refused.headers["Retry-After"]) >= 1
            health = server.health()
            assert health["status"] == "degraded" and health["reasons"] == ["the queue is full"]
            for reply in waiting.result():
                assert "waited too long" in reply.problem(503, "OVERLOADED")["detail"]
                assert int(reply.headers["Retry-After"]) >= 1
        assert all(reply.json()["returnValue"] == "done" for reply in running.result())
    assert server.value("return 'after'") == "after"
    assert server.health()["status"] == "healthy"


def test_queued_requests_run_in_order_of_arrival(start):
    server = start({"MAX_INSTANCES": 1, "QUEUE_MAX": 10})
    with Background(lambda: spin(server, 600)) as first:
        active(server, 1)
        waiting = []
        for i in range(5):
            # Each takes some milliseconds of the only permit, so that their times differ.
            waiting.append(Background(lambda: server.value("const t = Date.now(); while (Date.now() < t + 5); return t")))
            waiting[-1].__enter__()
            queued(server, i + 1)
        begins = [background.result() for background in waiting]
        assert first.result().status == 200
    assert begins == sorted(begins)


def test_the_queue_leaves_connections_for_probes(start):
    """Whoever waits holds a connection: half of them at most, whatever QUEUE_MAX says."""
    server = start({"MAX_INSTANCES": 1, "QUEUE_MAX": 100, "MAX_CONNECTIONS": 16})
    with Background(lambda: in_threads(12, lambda i: spin(server, 600).status)) as busy:
        wait_until(lambda: server.health()["reasons"] == ["the queue is full"], what="a full queue")
        assert server.get("/livez").status == 200
        assert set(busy.result()) <= {200, 503} and busy.result().count(503) >= 3


def test_queue_of_none(start):
    server = start({"MAX_INSTANCES": 1, "QUEUE_MAX": 0})
    with Background(lambda: spin(server, 700)) as running:
        active(server, 1)
        server.post({"code": "return 1"}).problem(503, "OVERLOADED")
        server.run("nobody").problem(404, "HANDLER_NOT_FOUND")
        server.put("h", "return 1").problem(503, "OVERLOADED")
        assert running.result().status == 200


def test_fast_requests_beside_slow_ones(start):
    server = start({"MAX_INSTANCES": 6})
    server.install("fast", "return $args * 2")
    server.value(handler="fast", args=1)
    with Background(lambda: in_threads(3, lambda i: spin(server, 1500))) as slow:
        active(server, 3)
        times = []
        while not slow.done() and len(times) < 400:
            begin = time.monotonic()
            assert server.value(handler="fast", args=len(times)) == 2 * len(times)
            times.append(time.monotonic() - begin)
        assert all(reply.status == 200 for reply in slow.result())
    times.sort()
    assert len(times) > 20 and times[len(times) // 2] < 0.25 * SLOWNESS


def test_more_instances_than_cores(start):
    server = start({"MAX_INSTANCES": 16})
    begin = time.monotonic()
    in_threads(16, lambda i: server.execute("for (;;);", timeoutMs=400))
    assert time.monotonic() - begin < 5 * SLOWNESS
    assert server.value("return 1") == 1


@pytest.mark.parametrize("ms", [20, 100, 400])
def test_deadline(server, ms):
    durations = [server.execute("for (;;);", timeoutMs=ms)["metrics"]["durationUs"] / 1000 for _ in range(4)]
    assert all(ms - 1 <= duration < ms + 250 * SLOWNESS for duration in durations), durations
    assert min(durations) < ms + 60 * SLOWNESS


def test_time_in_the_queue_does_not_count(start):
    server = start({"MAX_INSTANCES": 1, "QUEUE_MAX": 5})
    with Background(lambda: spin(server, 500)) as first:
        active(server, 1)
        assert server.value("const e = Date.now() + 50; while (Date.now() < e); return 1", timeoutMs=int(400 * SLOWNESS)) == 1
        assert first.result().status == 200


def test_clients_that_go_away_free_their_instance(server):
    connections = [server.connect() for _ in range(2)]
    for connection in connections:
        connection.request("POST", "/v1/execute", json.dumps({"code": "for (;;);", "timeoutMs": int(1000 * SLOWNESS)}))
    active(server, 2)
    for connection in connections:
        connection.close()
    assert wait_until(lambda: server.post({"code": "return 'next'"}).status == 200, what="an instance")


def test_queued_clients_that_go_away(server):
    with Background(lambda: in_threads(2, lambda i: spin(server, 500))):
        active(server, 2)
        gone = server.connect()
        gone.request("POST", "/v1/execute", '{"code": "return 1"}')
        queued(server, 1)
        gone.close()
    assert server.value("return 'after'") == "after"


def test_load_of_many_clients(start):
    server = start({"MAX_INSTANCES": 4, "QUEUE_MAX": 1000})
    server.install("h", "let s = 0; for (let i = 0; i < $args; i++) s += i; return s")

    def client(i):
        for j in range(40):
            assert server.value(handler="h", args=100 + i) == (100 + i) * (99 + i) // 2

    in_threads(32, client)
    assert server.threads() < 40


def worker_nices(server):
    """By how much every worker thread is nicer than these tests are."""
    nices, own = [], os.nice(0)
    for task in pathlib.Path(f"/proc/{server.pid}/task").iterdir():
        try:
            name, fields = (task / "stat").read_text().rsplit(")", 1)
        except FileNotFoundError:
            continue
        if name.endswith("(nexus-worker"):
            nices.append(int(fields.split()[16]) - own)
    return sorted(nices)


@pytest.mark.parametrize("privileged", [True, False])
def test_threads_that_compute_for_long_yield_to_others(start, privileged):
    """And are back, or replaced, afterwards: without CAP_SYS_NICE a thread cannot have its priority again."""
    if not privileged and not shutil.which("setpriv"):
        pytest.skip("no setpriv")
    prefix = () if privileged else ("setpriv", "--bounding-set", "-sys_nice")
    server = start({"MAX_INSTANCES": 4}, prefix=prefix)
    assert set(worker_nices(server)) == {0}
    with Background(lambda: in_threads(3, lambda i: spin(server, 1000))) as busy:
        wait_until(lambda: worker_nices(server).count(5) == 3, what="three workers of low priority")
        assert server.value("return 1") == 1
        assert [reply.json()["returnValue"] for reply in busy.result()] == ["done"] * 3
    wait_until(lambda: set(worker_nices(server)) == {0}, what="normal priority")
    assert in_threads(4, lambda i: server.value(f"return {i}")) == [0, 1, 2, 3]
    for _ in range(8):
        spin(server, 60)
    wait_until(lambda: set(worker_nices(server)) == {0}, what="normal priority")
    with Background(lambda: in_threads(4, lambda i: spin(server, 500))):
        active(server, 4)
