# SPDX-License-Identifier: Apache-2.0
"""The ledger from outside: layers appear, move and return, the budget holds, refusals name what refused, and who is small is
served beside who is large. The last part runs in a memory group of its own, where that is allowed."""
import json
import os
import socket
import sys
import threading

import pytest

from conftest import HTTP_FLOOR_BYTES, ROOT, SANITIZED, SLOWNESS, Background, in_threads, nexus, wait_until
from test_health_metrics import LAYERS, get, samples

sys.path.insert(0, str(ROOT / "tests" / "container"))
from memory_group import Group, Unavailable  # noqa: E402

MIB = 1 << 20
SETTINGS = {"MAX_INSTANCES": 4, "CONTAINER_MEMORY_LIMIT": "256Mi", "CACHE_MAX_MB": 1, "IDLE_TRIM_MS": 200}
SPIN = "for (;;);"
SPIN_FOR = "const end = Date.now() + $args; while (Date.now() < end); return 'done'"
# Grows to 24 MiB and a little more, and holds them for $args milliseconds.
HOG = """const a = []; for (let i = 0; i < 24; i++) a.push(new Uint8Array(1 << 20).fill(i + 1));
         const end = Date.now() + $args; while (Date.now() < end); return a.length"""


def budget_of(limit):
    """The most that may be charged."""
    return limit * 9 // 10 + 1


def memory(server):
    return server.health()["memory"]


def layers(server):
    return memory(server)["layers"]


def becomes(server, layer, condition, what):
    wait_until(lambda: condition(layers(server)[layer]), 20, f"{what} in the layer {layer}")


def connect(server, receive_bytes=0):
    """A socket of our own."""
    client = socket.socket()
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(60 * SLOWNESS)
    client.connect(("127.0.0.1", server.port))
    return client


def check_refusal(problem, layer):
    """The layer that refused, with its figures."""
    assert problem["layer"] == layer and layer in problem["detail"], problem
    assert problem["limitBytes"] > 0 and 0 <= problem["usedBytes"], problem
    assert problem["requestedBytes"] > 0, problem


def check_overloaded(reply, layer):
    problem = reply.problem(503, "OVERLOADED")
    check_refusal(problem, layer)
    assert int(reply.headers["Retry-After"]) >= 1
    return problem


class Watch:
    """Looks at /health while something goes on: `with Watch(server) as seen:`, then seen.samples."""

    def __init__(self, server):
        self.server, self.samples, self._over = server, [], threading.Event()
        self._background = Background(self._watch)

    def _watch(self):
        while not self._over.is_set():
            self.samples.append(memory(self.server))
            self._over.wait(0.02)

    def __enter__(self):
        self._background.__enter__()
        return self

    def __exit__(self, *failure):
        self._over.set()
        self._background.__exit__(*failure)

    def never_above_budget(self):
        assert self.samples
        for seen in self.samples:
            assert seen["accountedBytes"] <= seen["budgetBytes"], seen


# ---- Figures ------------------------------------------------------------------------------------------------------------

def test_health_and_metrics_say_the_same(server):
    server.value("return 1")
    server.wait_trimmed()
    seen, found = memory(server), samples(server)
    assert set(seen["layers"]) == set(seen["layerPeaks"]) == LAYERS
    for layer in ("instances", "handlers", "suspended", "cache"):
        assert get(found, "nexus_memory_used_bytes", layer=layer) == seen["layers"][layer]
    for layer in LAYERS:
        used, peak = get(found, "nexus_memory_used_bytes", layer=layer), get(found, "nexus_memory_layer_peak_bytes", layer=layer)
        assert 0 <= used <= peak and peak >= seen["layerPeaks"][layer]
    assert get(found, "nexus_memory_peak_bytes") >= get(found, "nexus_memory_accounted_bytes") >= seen["layers"]["process"]
    assert get(found, "nexus_memory_peak_bytes") >= max(seen["layerPeaks"].values())
    assert get(found, "nexus_memory_limit_bytes") == seen["limitBytes"] == 256 * MIB
    assert get(found, "nexus_memory_budget_bytes") == seen["budgetBytes"] <= budget_of(256 * MIB)
    assert seen["layers"]["suspended"] == seen["layers"]["cache"] == 0 < seen["layers"]["process"]


def test_the_state_of_the_governor(server):
    states = {dict(labels)["state"]: value for (name, labels), value in samples(server).items() if name == "nexus_governor_state"}
    assert states == {"normal": 1, "reclaiming": 0, "shedding": 0}
    assert memory(server)["governor"] == "normal"


def has_own_limit():
    return json.loads(nexus("plan", "--json").stdout)["container"]["limit"] == "limited"


def test_what_others_take_is_not_ours(server):
    """Without a limit of its own the memory group is shared: its figures say nothing of this process."""
    if has_own_limit():
        pytest.skip("these tests run in a memory group with a limit")
    seen = memory(server)
    assert seen["unaccountedBytes"] == 0 and get(samples(server), "nexus_memory_unaccounted_bytes") == 0
    own = (server._status("VmPTE") << 10) + server.threads() * (16 << 10)
    assert seen["layers"]["kernel"] <= 2 * own + MIB


# ---- Layers move and return ---------------------------------------------------------------------------------------------------

def test_half_sent_bodies(server):
    before = layers(server)["http"]
    clients = [connect(server) for _ in range(20)]
    for client in clients:
        client.sendall(b"POST /v1/execute HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b" " * 300_000)
    becomes(server, "http", lambda now: now >= before + 20 * 300_000, "half-sent bodies")
    assert layers(server)["http"] < before + 20 * (300_000 * 3 // 2 + (128 << 10))
    assert memory(server)["layerPeaks"]["http"] >= before + 20 * 300_000
    for client in clients:
        client.close()
    becomes(server, "http", lambda now: now <= HTTP_FLOOR_BYTES, "the floor")


def test_unread_results(server):
    body = b'{"code": "return \'x\'.repeat(3000000)"}'
    clients = [connect(server, 4096) for _ in range(8)]
    for client in clients:
        client.sendall(b"POST /v1/execute HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    becomes(server, "http", lambda now: now >= 8 * 2_500_000, "unread results")
    for client in clients[:4]:
        while client.recv(1 << 20)[-1:] != b"}":
            pass
    becomes(server, "http", lambda now: now < 5 * 3_200_000, "half of them")
    for client in clients:
        client.close()
    becomes(server, "http", lambda now: now <= HTTP_FLOOR_BYTES, "the floor")


def test_handlers(server):
    before = layers(server)["handlers"]
    for i in range(4):
        server.install(f"large{i}", f"const a = new Uint8Array(2 << 20).fill({i + 1}); export default () => a.length")
    assert before + 4 * 2 * MIB <= layers(server)["handlers"] <= before + 4 * 3 * MIB
    assert server.value(handler="large3") == 2 * MIB
    for i in range(4):
        assert server.delete(f"/v1/handlers/large{i}").status == 204
    becomes(server, "handlers", lambda now: now <= before, "the end of what was deleted")


def test_code_without_a_name_goes_while_others_are_executed(start):
    server = start({**SETTINGS, "IDLE_TRIM_MS": 1000})
    server.install("named", "return 'named'")
    before = layers(server)["handlers"]
    for i in range(20):
        assert server.value(f"return {i}") == i
    burst = layers(server)["handlers"] - before
    assert burst > 0

    def gone():
        assert server.value(handler="named") == "named"
        return layers(server)["handlers"] < before + burst / 4  # an idle instance keeps the handler that it shows
    wait_until(gone, 20, "the end of what nobody asks for")


def test_idle_instances(server):
    server.install("grown", "return new Uint8Array(4 << 20).fill(1).length")
    with Background(lambda: server.post({"code": HOG, "args": 700 * SLOWNESS})) as running:
        becomes(server, "instances", lambda now: now >= 24 * MIB, "an execution")
        assert running.result().json()["returnValue"] == 24
    assert in_threads(4, lambda i: server.value(handler="grown")) == [4 * MIB] * 4
    server.wait_trimmed()
    assert memory(server)["layerPeaks"]["instances"] >= 24 * MIB
    assert memory(server)["peakBytes"] == memory(server)["layerPeaks"]["instances"]
    reclaimed = "nexus_memory_reclaimed_bytes_total"
    assert sum(value for (name, _), value in samples(server).items() if name == reclaimed) > 0


# ---- The budget holds ---------------------------------------------------------------------------------------------------------

def test_large_bodies_and_results_of_many_clients(start):
    """20 clients with 1 MiB each, each of which gets 4 MiB: more than 256 MiB hold together with the executions."""
    server = start(SETTINGS)
    server.install("four", "return $args + $args + $args + $args")
    args, counts = "x" * (MIB - 200), {200: 0, 503: 0}

    def client(i):
        for _ in range(4):
            reply = server.post({"handler": "four", "args": args})
            if reply.status == 503:
                check_overloaded(reply, reply.json()["layer"])
            else:
                result = reply.json()
                assert reply.status == 200, reply
                assert result["status"] == "success" or result["error"]["code"] == "RESOURCE_LIMIT", str(result)[:500]
            counts[reply.status] += 1

    with Watch(server) as seen:
        in_threads(20, client)
    seen.never_above_budget()
    assert counts[200] >= 20 and sum(counts.values()) == 80, counts
    assert server.value("return 'alive'") == "alive"
    becomes(server, "http", lambda now: now <= HTTP_FLOOR_BYTES, "the floor")
    server.wait_trimmed()


# A sanitizer's own memory comes to the rest of it.
SMALL = (80 if SANITIZED else 64) * MIB


@pytest.fixture
def small(start):
    """A server in which one execution of 24 MiB fits, and no second one. QUEUE_TIMEOUT_MS is short."""
    server = start({"CONTAINER_MEMORY_LIMIT": SMALL, "MAX_INSTANCES": 4, "CACHE_MAX_MB": 1, "IDLE_TRIM_MS": 200,
                    "QUEUE_TIMEOUT_MS": int(300 * SLOWNESS)})
    server.install("hog", HOG)
    assert server.value(handler="hog", args=1) == 24  # from now on it is known to be large
    return server


def hold(server, ms):
    """In the background: the one that has the memory."""
    return Background(lambda: server.post({"handler": "hog", "args": ms * SLOWNESS}))


def holding(server):
    becomes(server, "instances", lambda now: now >= 24 * MIB, "an execution")


def test_refused_for_memory(small):
    before = get(samples(small), "nexus_memory_refusals_total", layer="instances")
    with Watch(small) as seen, hold(small, 1500) as running:
        holding(small)
        for reply in (small.post({"handler": "hog", "args": 1}), small.run("hog", 1)):
            problem = check_overloaded(reply, "container")
            assert "waited too long for memory" in problem["detail"]
            assert problem["usedBytes"] <= problem["limitBytes"] <= budget_of(SMALL)
            assert problem["usedBytes"] >= 24 * MIB and problem["requestedBytes"] >= 24 * MIB
        assert running.result().json()["returnValue"] == 24
    seen.never_above_budget()
    assert get(samples(small), "nexus_memory_refusals_total", layer="instances") - before >= 2
    assert small.value(handler="hog", args=1) == 24


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's memory leaves the light ones no room")
def test_light_ones_beside_one_that_has_the_memory(small):
    small.install("light", "return $args + 1")
    with hold(small, 1000) as running:
        holding(small)
        for i in range(20):
            assert small.value(handler="light", args=i) == i + 1
        assert running.result().status == 200


def test_growth_that_is_refused(small):
    """Its own limit, or the container's."""
    small.install("grows", "const a = []; for (let i = 0; i < $args; i++) a.push(new Uint8Array(1 << 20).fill(i + 1)); return a.length")
    problem = small.run("grows", 100).problem(507, "MEMORY_LIMIT")
    assert problem["layer"] == "instance" and problem["limitBytes"] == 32 * MIB and 0 < problem["requestedBytes"]
    assert 24 * MIB < problem["usedBytes"] <= 32 * MIB and problem["executionId"]
    assert small.put("fresh", "const a = []; for (let i = 0; i < $args; i++) a.push(new Uint8Array(1 << 20).fill(i + 7)); return a.length").status == 201
    with Watch(small) as seen, hold(small, 1500) as running:
        holding(small)
        problem = small.run("fresh", 24).problem(507, "RESOURCE_LIMIT")
        check_refusal(problem, "container")
        assert problem["usedBytes"] >= 24 * MIB and problem["limitBytes"] <= budget_of(SMALL)
        assert running.result().json()["returnValue"] == 24
    seen.never_above_budget()


def test_bodies_beyond_half_of_the_budget(small):
    """Those that do not fit are refused, with figures; small requests are served beside them."""
    clients, refused = [], []
    for _ in range(60):
        client = connect(small)
        clients.append(client)
        try:
            client.sendall(b"POST /v1/execute HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b" " * 900_000)
        except OSError:
            pass  # refused while it was sending
    for client in clients:
        client.setblocking(False)

    def look():
        for client in clients:
            try:
                answer = client.recv(65536)
            except OSError:
                continue
            if answer:
                refused.append(answer)
        return refused

    wait_until(look, what="a refusal")
    head, body = refused[0].split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 503 ") and b"\r\nConnection: close" in head and b"\r\nRetry-After: " in head
    problem = json.loads(body)
    assert (problem["code"], problem["layer"]) == ("OVERLOADED", "container")
    assert problem["usedBytes"] <= problem["limitBytes"] <= budget_of(SMALL) and "requestedBytes" in problem
    assert small.get("/livez").status == 200
    seen = memory(small)
    assert seen["accountedBytes"] <= seen["budgetBytes"]
    for client in clients:
        client.close()
    becomes(small, "http", lambda now: now <= HTTP_FLOOR_BYTES, "the floor")
    assert small.value("return 'after'") == "after"


# ---- Small beside large ---------------------------------------------------------------------------------------------------------

def active(server, count):
    wait_until(lambda: server.health()["instances"]["active"] == count, what=f"{count} active instances")


def test_light_ones_beside_spinners(start):
    """Spinners hold every permit, and more of them wait."""
    server = start({"MAX_INSTANCES": 2, "QUEUE_TIMEOUT_MS": int(2000 * SLOWNESS)})
    server.install("light", "return $args * 2")
    for i in range(10):
        assert server.run("light", i).json() == 2 * i
    with Background(lambda: in_threads(6, lambda i: server.post({"code": SPIN}))) as spinners:
        active(server, 2)
        for i in range(50):
            assert server.run("light", i).json() == 2 * i
            assert server.health()["instances"] == {"max": 2, "active": 2, "available": 0, "suspended": 0}
        assert not spinners.done()
        for reply in spinners.result():
            if reply.status == 503:
                check_overloaded(reply, "pool")
            else:
                assert reply.json()["error"]["code"] == "TIMEOUT"
    assert server.run("light", 1).json() == 2


def test_large_ones_beside_a_stream_of_small_ones(start):
    server = start({"MAX_INSTANCES": 2, "CONTAINER_MEMORY_LIMIT": "128Mi", "CACHE_MAX_MB": 1, "IDLE_TRIM_MS": 200})
    server.install("light", "return $args * 2")
    server.install("hog", HOG)
    server.value(handler="hog", args=1)
    over = threading.Event()

    def stream(i):
        count = 0
        while not over.is_set():
            assert server.value(handler="light", args=count) == 2 * count
            count += 1
        return count

    with Background(lambda: in_threads(8, stream)) as small_ones:
        try:
            assert in_threads(2, lambda i: [server.value(handler="hog", args=50) for _ in range(4)]) == [[24] * 4] * 2
        finally:
            over.set()
        assert min(small_ones.result()) > 0


# ---- In a memory group of its own -----------------------------------------------------------------------------------------------

@pytest.fixture
def group():
    try:
        group = Group.make(f"nexus-test-{os.getpid()}", 256 * MIB)
    except Unavailable as reason:
        pytest.skip(str(reason))
    yield group
    assert group.oom_kills() == 0
    group.remove()


def in_group(start, group, **settings):
    return start({"CONTAINER_MEMORY_LIMIT": None, "MAX_INSTANCES": 4, "CACHE_MAX_MB": 1, **settings}, prefix=group.command([]))


def metric(server, name):
    return get(samples(server), name)


def test_a_limit_that_is_lowered_while_executions_run(group, start):
    server = in_group(start, group)
    assert memory(server)["limitBytes"] == 256 * MIB
    with Background(lambda: server.post({"code": SPIN_FOR, "args": 2000 * SLOWNESS})) as running:
        active(server, 1)
        group.limit(128 * MIB)
        wait_until(lambda: metric(server, "nexus_memory_limit_bytes") == 128 * MIB, 2, "the lower limit")
        assert metric(server, "nexus_memory_budget_bytes") <= budget_of(128 * MIB)
        assert running.result().json()["returnValue"] == "done"
    group.limit(192 * MIB)
    wait_until(lambda: metric(server, "nexus_memory_limit_bytes") == 192 * MIB, 5, "the higher limit")
    wait_until(lambda: metric(server, "nexus_memory_budget_bytes") > 128 * MIB, 10, "the higher budget")
    assert "memory limit has changed" in server.log()


def test_a_limit_that_is_set_only_gets_lower(group, start):
    server = in_group(start, group, CONTAINER_MEMORY_LIMIT="128Mi")
    assert memory(server)["limitBytes"] == 128 * MIB
    group.limit(96 * MIB)
    wait_until(lambda: memory(server)["limitBytes"] == 96 * MIB, 5, "the lower limit")
    group.limit(256 * MIB)
    wait_until(lambda: memory(server)["limitBytes"] == 128 * MIB, 5, "the limit that was set")


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's memory is not the server's")
def test_working_set_and_nothing_unaccounted(group, start):
    server = in_group(start, group)
    server.install("light", "return $args * 2")

    def work(i):
        for j in range(15):
            server.value(handler="light", args=j)
            server.execute(HOG, args=30)
            server.execute(f"return 'x'.repeat({100_000 * (i + 1)})")
            server.execute(f"/* {i} {j} */ const a = new Uint8Array(1 << 20).fill({j + 1}); return a.length")

    with Watch(server) as seen:
        in_threads(6, work)
    seen.never_above_budget()
    assert max(s["unaccountedBytes"] for s in seen.samples) < 16 * MIB
    assert max(s["workingSetBytes"] for s in seen.samples) <= 256 * MIB
    assert min(s["workingSetBytes"] for s in seen.samples) > 0
    server.wait_trimmed()

    def near():
        kernel = group.usage() - group.inactive_file()
        found = samples(server)
        working_set = get(found, "nexus_memory_working_set_bytes")
        return abs(working_set - kernel) < 2 * MIB and get(found, "nexus_memory_unaccounted_bytes") < 16 * MIB

    wait_until(near, 10, "the kernel's figure of the working set")
    assert server.health()["status"] == "healthy" and memory(server)["governor"] == "normal"


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's memory is not the server's")
def test_the_governor_under_load(group, start):
    """More is asked for than there is: executions wait or are refused, the kernel never has to kill, and all returns."""
    group.limit(96 * MIB)
    server = in_group(start, group, IDLE_TRIM_MS=200, QUEUE_TIMEOUT_MS=int(2000 * SLOWNESS))
    assert memory(server)["limitBytes"] == 96 * MIB
    with Watch(server) as seen:
        replies = in_threads(8, lambda i: [server.post({"code": HOG, "args": 60}) for _ in range(4)])
    for reply in sum(replies, []):
        if reply.status == 503:
            check_overloaded(reply, reply.json()["layer"])
        else:
            result = reply.json()
            assert result["status"] == "success" or result["error"]["code"] == "RESOURCE_LIMIT", str(result)[:500]
    seen.never_above_budget()
    assert {s["governor"] for s in seen.samples} <= {"normal", "reclaiming", "shedding"}
    assert server.value("return 1") == 1
    server.wait_trimmed()
    wait_until(lambda: memory(server)["governor"] == "normal", 20, "the end of it")
