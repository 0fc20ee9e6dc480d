# SPDX-License-Identifier: Apache-2.0
"""/v1/handlers: installing, replacing, reading, listing and removing, also while clients execute."""
import hashlib
import re
import threading

import pytest

from conftest import SLOWNESS, Background, in_threads, wait_until

SETTINGS = {"MAX_INSTANCES": 4}


def tag(reply):
    assert re.fullmatch(r'"[0-9a-f]{64}"', reply.headers["ETag"])
    return reply.headers["ETag"]


@pytest.fixture(autouse=True)
def clean(server):
    yield
    for handler in server.get("/v1/handlers").json()["handlers"]:
        server.delete(f"/v1/handlers/{handler['name']}")


def test_install_and_replace(server):
    source = "return 'ä' + $args\n"
    first = server.put("h", source)
    info = first.json()
    assert (first.status, first.headers["Location"]) == (201, "/v1/handlers/h")
    assert info["name"] == "h" and info["sizeBytes"] == len(source.encode()) and info["executions"] == 0 and info["imageBytes"] > 0
    assert info["hash"] == hashlib.blake2b(source.encode(), digest_size=32).hexdigest() and tag(first) == f'"{info["hash"]}"'
    again = server.put("h", source)
    assert (again.status, tag(again)) == (200, tag(first))
    second = server.put("h", "return 2")
    assert second.status == 200 and tag(second) != tag(first) and second.headers["Location"] is None
    assert server.value(handler="h") == 2


def test_read(server):
    source = "// ünïcode, \ttabs\r\nreturn 1\n"
    etag = tag(server.put("h", source))
    reply = server.get("/v1/handlers/h")
    assert (reply.status, reply.body.decode(), tag(reply)) == (200, source, etag)
    assert reply.type.startswith("text/javascript") and reply.headers["X-Content-Type-Options"] == "nosniff"
    for value, status in [(etag, 304), ("*", 304), (f'"x", {etag}', 304), (f"W/{etag}", None), ('"other"', 200), (etag.strip('"'), 200)]:
        reply = server.get("/v1/handlers/h", If_None_Match=value)
        assert status is None or reply.status == status, value
        assert tag(reply) == etag
        if reply.status == 304:
            assert reply.body == b""


def test_list(server):
    assert server.get("/v1/handlers").json() == {"handlers": []}
    for name in ("b", "a.x", "B", "_z", "a-1", "10"):
        server.install(name, f"return '{name}'")
    listed = server.get("/v1/handlers").json()["handlers"]
    assert [handler["name"] for handler in listed] == ["10", "B", "_z", "a-1", "a.x", "b"]
    server.value(handler="b")
    server.run("b")
    server.install("b", "return 3")
    counted = {handler["name"]: handler["executions"] for handler in server.get("/v1/handlers").json()["handlers"]}
    assert counted["b"] == 2 and counted["B"] == 0


def test_delete(server):
    server.install("h", "return 1")
    reply = server.delete("/v1/handlers/h")
    assert (reply.status, reply.body) == (204, b"")
    server.delete("/v1/handlers/h").problem(404, "HANDLER_NOT_FOUND")
    server.run("h").problem(404, "HANDLER_NOT_FOUND")
    assert server.put("h", "return 1").status == 201


def test_if_match(server):
    server.put("h", "return 0", If_Match="*").problem(412, "PRECONDITION_FAILED")
    server.put("h", "return 0", If_Match='"%s"' % ("0" * 64)).problem(412, "PRECONDITION_FAILED")
    server.get("/v1/handlers/h").problem(404, "HANDLER_NOT_FOUND")
    etag = tag(server.put("h", "return 1"))
    for wrong in ('"%s"' % ("0" * 64), f"W/{etag}", etag.strip('"'), '""'):
        server.put("h", "return 9", If_Match=wrong).problem(412, "PRECONDITION_FAILED")
        server.delete("/v1/handlers/h", If_Match=wrong).problem(412, "PRECONDITION_FAILED")
    assert server.value(handler="h") == 1
    newer = server.put("h", "return 2", If_Match=f'"x" , {etag}')
    assert newer.status == 200
    server.put("h", "return 3", If_Match=etag).problem(412, "PRECONDITION_FAILED")
    assert server.put("h", "return 4", If_Match="*").status == 200
    server.delete("/v1/handlers/h", If_Match=etag).problem(412, "PRECONDITION_FAILED")
    assert server.delete("/v1/handlers/h", If_Match=tag(server.get("/v1/handlers/h"))).status == 204


def test_if_none_match(server):
    assert server.put("h", "return 1", If_None_Match="*").status == 201
    server.put("h", "return 2", If_None_Match="*").problem(412, "PRECONDITION_FAILED")
    assert server.value(handler="h") == 1


def test_only_one_of_many_creates(server):
    statuses = in_threads(8, lambda i: server.put("h", f"return {i}", If_None_Match="*").status)
    assert sorted(statuses) == [201] + [412] * 7


def test_only_one_of_many_changes_a_version(server):
    etag = tag(server.put("h", "return 'old'"))
    statuses = in_threads(8, lambda i: server.put("h", f"return {i}", If_Match=etag).status)
    assert sorted(statuses) == [200] + [412] * 7
    assert server.value(handler="h") == statuses.index(200)


@pytest.mark.parametrize("source, code, line", [
    ("return (", "COMPILATION_ERROR", None), ("const a = 1;\nconst b = ;\n", "COMPILATION_ERROR", 2), ("export const a = 1", "INVALID_HANDLER", None),
    ("export default () => 1;\nthrow new Error('top')", "COMPILATION_ERROR", 2), ("import 'x'; export default () => 1", "COMPILATION_ERROR", None),
])
def test_sources_that_do_not_compile(server, source, code, line):
    server.install("h", "return 'old'")
    problem = server.put("h", source).problem(422, code)
    if line:
        assert problem["location"]["line"] == line
    assert server.value(handler="h") == "old"
    server.put("new", source).problem(422, code)
    server.get("/v1/handlers/new").problem(404, "HANDLER_NOT_FOUND")


def test_top_level_that_never_ends(start):
    server = start({"TIMEOUT_MS": 200})
    server.put("h", "for (;;); export default () => 1").problem(422, "COMPILATION_ERROR")
    server.put("h", "const a = []; for (;;) a.push(new Uint8Array(1e6)); export default 1").problem(422, "COMPILATION_ERROR")


def test_empty_source(server):
    server.put("h", "").problem(400, "INVALID_REQUEST")


def test_source_that_is_not_text(server):
    for body in (b"return '\xff'", b"\xff\xfe", b"return '\xed\xa0\x80'", b"return 1\x00; return 2"):
        reply = server.put("h", body)
        assert reply.status in (201, 200, 400, 422)
        assert server.get("/livez").status == 200


NAMES = ["a", "A", "0", "_", "a.b", "a-b", "x" * 128, "con", "__proto__", "constructor", "a..b"]
BAD_NAMES = [".a", "-a", "x" * 129, "a%2Fb", "a%00", "%C3%A4", "a%20b", "a%", "a%4", "a%zz", "a+b", "a:b", "a@b", "%2e%2e", "~a", "a%0a"]


@pytest.mark.parametrize("name", NAMES)
def test_names(server, name):
    assert server.put(name, f"return {len(name)}").status == 201
    assert server.value(handler=name) == len(name)
    assert server.run(name).json() == len(name)
    assert server.get(f"/v1/handlers/{name}").status == 200
    assert server.delete(f"/v1/handlers/{name}").status == 204


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(server, name):
    for reply in (server.put(name, "return 1"), server.get(f"/v1/handlers/{name}"), server.delete(f"/v1/handlers/{name}"),
                  server.run(name), server.get(f"/v1/handlers/{name}/grants")):
        assert reply.problem(400, "INVALID_REQUEST")["detail"].startswith("name")


def test_percent_encoding_names_the_same_handler(server):
    server.install("a.b-c", "return 1")
    assert server.get("/v1/handlers/%61%2Eb%2dc").body == b"return 1"
    assert server.run("a%2eb-%63").json() == 1


def test_replacement_is_atomic(server):
    """Four clients execute while versions change: each answer is of one version, whole."""
    def source(n):
        return f"const top = {n}; export default () => ({{top, args: $args, body: {n}, text: '{'v' * (n % 50)}{n}'}})"

    server.install("h", source(0))
    newest = 0
    stop = threading.Event()

    def client(i):
        seen = 0
        while not stop.is_set():
            lowest = newest
            value = server.value(handler="h", args=i)
            assert value["top"] == value["body"] and value["args"] == i
            assert value["text"] == "v" * (value["top"] % 50) + str(value["top"])
            assert value["top"] >= max(lowest, seen)
            seen = value["top"]

    with Background(lambda: in_threads(4, client)):
        try:
            for newest_now in range(1, 80):
                server.install("h", source(newest_now))
                newest = newest_now
        finally:
            stop.set()


def test_delete_while_it_runs(server):
    server.install("slow", "const end = Date.now() + $args; while (Date.now() < end); return 'finished'")
    with Background(lambda: server.run("slow", 300 * SLOWNESS)) as running:
        wait_until(lambda: server.health()["instances"]["active"] == 1, what="the execution")
        assert server.delete("/v1/handlers/slow").status == 204
        server.run("slow").problem(404, "HANDLER_NOT_FOUND")
        reply = running.result()
    assert (reply.status, reply.json()) == (200, "finished")


def test_many_handlers(server):
    def install(i):
        for j in range(75):
            server.install(f"many-{i}-{j}", f"export default (n) => n + {i * 1000 + j}")

    in_threads(4, install)
    assert len(server.get("/v1/handlers").json()["handlers"]) == 300

    def call(i):
        for j in range(0, 75, 5):
            assert server.value(handler=f"many-{i}-{j}", args=1) == i * 1000 + j + 1

    in_threads(4, call)
    in_threads(4, lambda i: [server.delete(f"/v1/handlers/many-{i}-{j}") for j in range(75)])
    assert server.get("/v1/handlers").json() == {"handlers": []}
