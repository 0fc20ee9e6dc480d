# SPDX-License-Identifier: Apache-2.0
"""Handlers that are set by PUT at one server and used at another, over one store."""
import http.client
import json
import os
import random
import threading

import pytest

from conftest import Background, in_threads, wait_until
from store_support import KEY, resume, shared_store, suspend  # noqa: F401: a fixture


@pytest.fixture
def pair(start, shared_store):
    """Two servers on one store."""
    return start(shared_store, name="a"), start(shared_store, name="b")


def tag(server, name):
    return server.get(f"/v1/handlers/{name}").headers["ETag"]


def listed(server):
    return {handler["name"]: handler for handler in server.get("/v1/handlers").json()["handlers"]}


def grant(server, name, grants):
    return server.request("PUT", f"/v1/handlers/{name}/grants", grants)


def test_each_change_is_seen_at_once(pair):
    for i in range(200):
        at, other = pair if i % 2 else reversed(pair)
        reply = at.put("h", f"export default () => {i}")
        assert reply.status == (201 if i == 0 else 200), reply
        assert other.run("h").json() == i
        assert at.run("h").json() == i


def test_what_the_replies_say(start, pair):
    a, b = pair
    reply = a.put("h", "return 1")
    assert reply.status == 201 and reply.headers["Location"] == "/v1/handlers/h"
    assert (reply.json()["origin"], reply.json()["scope"]) == ("api", "shared")
    assert a.put("h", "return 2").status == 200
    seen = listed(b)["h"]
    assert (seen["origin"], seen["scope"], seen["hash"]) == ("api", "shared", json.loads(tag(b, "h")))
    assert "sizeBytes" not in seen and "imageBytes" not in seen, "nobody has executed it there yet"
    assert b.get("/v1/handlers/h").body == b"return 2", "the source, although it is not compiled there"
    assert b.value(handler="h") == 2
    assert listed(b)["h"]["imageBytes"] == listed(a)["h"]["imageBytes"] and listed(b)["h"]["executions"] == 1
    alone = start({"SUSPEND_STORE": "memory"}, name="alone")
    assert alone.put("h", "return 1").json()["scope"] == "process"


def test_grants(pair):
    a, b = pair
    read = "return Object.keys($state)"
    a.install("h", read)
    assert b.value(handler="h", state={"x": 1}) == []
    assert grant(a, "h", {"capabilities": ["state:read:x"]}).status == 201
    assert b.value(handler="h", state={"x": 1, "y": 2}) == ["x"]
    assert grant(b, "h", {"capabilities": ["state:read:y"]}).status == 200
    assert a.value(handler="h", state={"x": 1, "y": 2}) == ["y"]
    a.install("h", read + ".length")
    assert b.value(handler="h", state={"x": 1, "y": 2}) == 1, "a new source keeps the grants"
    assert b.get("/v1/handlers/h/grants").json() == {"capabilities": ["state:read:y"]}
    assert a.delete("/v1/handlers/h").status == 204
    a.install("h", read)
    b.get("/v1/handlers/h/grants").problem(404, "GRANTS_NOT_FOUND")
    grant(b, "none", {}).problem(404, "HANDLER_NOT_FOUND")


def test_source_and_grants_do_not_overwrite_each_other(pair):
    a, b = pair
    a.install("h", "return 0", {"timeoutMs": 1000})

    def change(i):
        for j in range(20):
            if i % 2:
                assert pair[i // 2].put("h", f"return {i * 100 + j}").status == 200
            else:
                assert grant(pair[i // 2], "h", {"timeoutMs": 1000 + i * 100 + j}).status == 200

    in_threads(4, change)
    assert a.value(handler="h") in (119, 319) and b.value(handler="h") == a.value(handler="h")
    assert b.get("/v1/handlers/h/grants").json()["timeoutMs"] in (1019, 1219)
    assert a.get("/v1/handlers/h/grants").body == b.get("/v1/handlers/h/grants").body


def test_tight_grants_do_not_keep_a_slow_source_from_compiling(pair):
    a, b = pair
    a.install("h", "let n = 0; for (let i = 0; i < 1e7; i++) n += i; export default () => n")
    grant(a, "h", {"timeoutMs": 50})
    assert b.run("h").json() == a.run("h").json()


def test_delete_and_list(pair):
    a, b = pair
    for name in "xyz":
        a.install(name, f"return '{name}'")
    assert sorted(listed(b)) == ["x", "y", "z"]
    assert b.delete("/v1/handlers/y").status == 204
    assert sorted(listed(a)) == ["x", "z"]
    a.run("y").problem(404, "HANDLER_NOT_FOUND")
    a.get("/v1/handlers/y").problem(404, "HANDLER_NOT_FOUND")
    a.delete("/v1/handlers/y").problem(404, "HANDLER_NOT_FOUND")
    a.install("y", "return 'again'")
    assert b.run("y").json() == "again"


def test_restart_of_both(start, shared_store):
    first = start(shared_store, name="a")
    first.install("h", "return Object.keys($state)", {"capabilities": ["state:read:k"]})
    first.install("gone", "return 1")
    first.delete("/v1/handlers/gone")
    first.stop()
    for name in "a", "c":
        server = start(shared_store, name=name)
        assert list(listed(server)) == ["h"]
        assert server.value(handler="h", state={"k": 1, "l": 2}) == ["k"]
        server.stop()


def test_conditions_are_judged_over_all(pair):
    statuses = in_threads(8, lambda i: pair[i % 2].put("new", f"return {i}", If_None_Match="*").status)
    assert sorted(statuses) == [201] + [412] * 7
    assert pair[0].value(handler="new") == pair[1].value(handler="new") == statuses.index(201)
    etag = tag(pair[1], "new")
    statuses = in_threads(8, lambda i: pair[i % 2].put("new", f"return 'v{i}'", If_Match=etag).status)
    assert sorted(statuses) == [200] + [412] * 7
    assert pair[1].value(handler="new") == f"v{statuses.index(200)}"
    pair[0].delete("/v1/handlers/new", If_Match=etag).problem(412, "PRECONDITION_FAILED")
    etag = tag(pair[0], "new")
    statuses = in_threads(4, lambda i: pair[i % 2].delete("/v1/handlers/new", If_Match=etag).status)
    assert statuses.count(204) == 1 and set(statuses) <= {204, 404, 412}


def test_many_names_from_both(pair):
    def install(i):
        for j in range(25):
            pair[i % 2].install(f"n{i}-{j}", f"return {i * 100 + j}")

    in_threads(4, install)
    assert len(listed(pair[0])) == len(listed(pair[1])) == 100
    for i in range(4):
        assert pair[(i + 1) % 2].value(handler=f"n{i}-7") == i * 100 + 7


def test_no_answer_is_older_than_one_before(pair):
    a, b = pair
    a.install("h", "export default () => 0")
    newest, stop = 0, threading.Event()

    def client(i):
        seen = 0
        while not stop.is_set():
            lowest = newest
            value = pair[i % 2].value(handler="h")
            assert value >= max(lowest, seen)
            seen = value

    with Background(lambda: in_threads(4, client)):
        try:
            for i in range(1, 60):
                pair[i % 2].install("h", f"export default () => {i}")
                newest = i
        finally:
            stop.set()


def test_a_kill_of_the_publisher_leaves_the_old_or_the_new(start, shared_store):
    watcher = start(shared_store, name="watcher")
    watcher.install("h", "return 0")
    acknowledged = 0
    for life in range(6):
        publisher = start(shared_store, name=f"publisher{life}")
        killer = threading.Timer(random.uniform(0.02, 0.15), publisher.process.kill)
        killer.start()
        tried = acknowledged
        try:
            while True:
                tried += 1
                assert publisher.put("h", f"return {tried}").status == 200
                acknowledged = tried
        except (OSError, http.client.HTTPException):
            pass
        killer.join()
        publisher.wait_end()
        acknowledged = watcher.run("h").json()
        assert acknowledged in (tried - 1, tried)


def test_suspended_there_resumed_here(pair):
    a, b = pair
    a.install("h", "const got = await $ext.pay.charge(1); return [got, 'done']")
    suspension = suspend(b, handler="h")
    assert a.put("h", "return 'another'").status == 200
    assert resume(a, suspension["suspensionId"], 5)["returnValue"] == [5, "done"]


def test_sources_that_do_not_compile_change_nothing(pair):
    a, b = pair
    a.install("h", "return 'good'")
    b.put("h", "return (").problem(422, "COMPILATION_ERROR")
    assert a.value(handler="h") == b.value(handler="h") == "good"


def test_a_handler_that_compiles_elsewhere_only(start, shared_store):
    """As from a version of nexus whose guest can do more, or has more memory for it."""
    source = "const a = []; for (let i = 0; i < 6; i++) a.push(new Uint8Array(1e6).fill(1)); export default () => a.length"
    a = start({**shared_store, "MEMORY_LIMIT_MB": 32}, name="a")
    b = start({**shared_store, "MEMORY_LIMIT_MB": 4}, name="b")
    a.install("big", source)
    a.install("small", "return 1")
    assert a.run("big").json() == 6
    b.run("big").problem(422, "COMPILATION_ERROR")
    assert b.run("small").json() == 1
    assert "does not compile here" in b.log() and "handler=big" in b.log()


def test_files_hide_handlers_of_the_store(start, shared_store, tmp_path):
    plain = start(shared_store, name="plain")
    plain.install("h", "return 'store'", {"timeoutMs": 1234})
    filed = start(shared_store, name="filed", handlers={"h.js": "return 'file'"})
    assert filed.run("h").json() == "file"
    assert (listed(filed)["h"]["origin"], listed(filed)["h"]["scope"]) == ("file", "process")
    assert "hidden by files" in filed.log()
    filed.put("h", "return 'api'").problem(409, "CONFLICT")
    filed.delete("/v1/handlers/h").problem(409, "CONFLICT")
    grant(filed, "h", {}).problem(409, "CONFLICT")
    plain.install("h", "return 'newer'")
    assert filed.run("h").json() == "file"
    filed.install("other", "return 'other'")
    assert plain.run("other").json() == "other"
    os.unlink(filed.settings["HANDLERS_DIR"] / "h.js")
    wait_until(lambda: listed(filed)["h"]["scope"] == "shared", what="the handler of the store")
    assert filed.run("h").json() == "newer"
    assert filed.get("/v1/handlers/h/grants").json() == {"timeoutMs": 1234}


# ---- A Redis that is away --------------------------------------------------------------------------------------------


def test_dead_redis(start, redis):
    settings = {"SUSPEND_STORE": redis.store, "SUSPEND_KEY": KEY}
    a, b = start(settings, name="a"), start(settings, name="b")
    a.install("h", "return 'old'")
    assert b.run("h").json() == "old"
    redis.kill()
    a.put("h", "return 'new'").problem(503, "STORE_UNAVAILABLE")
    a.delete("/v1/handlers/h").problem(503, "STORE_UNAVAILABLE")
    grant(a, "h", {}).problem(503, "STORE_UNAVAILABLE")
    for server in a, b:
        for _ in range(20):
            assert server.run("h").json() == "old"
        server.run("none").problem(404, "HANDLER_NOT_FOUND")
        assert server.get("/readyz").status == 200
    redis.start()
    wait_until(lambda: a.put("h", "return 'new'").status == 200, what="the store")
    wait_until(lambda: b.run("h").json() == "new", what="the change")


def test_start_before_redis(start, redis):
    settings = {"SUSPEND_STORE": redis.store, "SUSPEND_KEY": KEY}
    a = start(settings, name="a")
    a.install("h", "return 1")
    redis.kill()
    b = start(settings, name="b")
    b.run("h").problem(503, "STORE_UNAVAILABLE")
    assert b.value("return 2") == 2
    redis.start()
    wait_until(lambda: b.run("h").status == 200, what="the handlers of the store")
    b.run("none").problem(404, "HANDLER_NOT_FOUND")
