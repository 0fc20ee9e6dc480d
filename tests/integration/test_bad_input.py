# SPDX-License-Identifier: Apache-2.0
"""Requests that are wrong: refused before anything runs, by a problem that names the place."""
import json
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SETTINGS = {"MAX_BODY_KB": 64, "TIMEOUT_MS": 500}

# body of POST /v1/execute, what the detail must name
BODIES = [
    ("", "body"), (" ", "body"), ("nope", "body"), ("{", "body"), ('{"code": "return 1"', "body"), ('{"code": "return 1"} x', "body"),
    ("{'code': 'return 1'}", "body"), ('{"code": "return 1",}', "body"), ('{"code": 1e999}', "code"), ("[]", "body"), ('"x"', "body"),
    ("null", "body"), ("1", "body"), ('[{"code": "return 1"}]', "body"), ('{"code": "a\nb"}', "body"), ('{"code": "\\x"}', "body"),
    ('{"code": "return 1"}\0', "body"), ("\ufeff{}", "body"), ('{"a": NaN}', "body"), ("{" * 2000, "body"), ("[" * 60000, "body"),
    ("{}", "handler"), ('{"args": 1}', "handler"), ('{"code": "return 1", "handler": "x"}', "handler"),
    ('{"code": null}', "code"), ('{"code": 1}', "code"), ('{"code": ""}', "code"), ('{"code": ["return 1"]}', "code"), ('{"code": {}}', "code"),
    ('{"handler": null}', "handler"), ('{"handler": 1}', "handler"), ('{"handler": ""}', "handler"), ('{"handler": ".x"}', "handler"),
    ('{"handler": "a/b"}', "handler"), ('{"handler": "a b"}', "handler"), ('{"handler": "ä"}', "handler"), ('{"handler": "-a"}', "handler"),
    ('{"handler": "%s"}' % ("x" * 129), "handler"), ('{"handler": "a\\u0000b"}', "handler"), ('{"handler": "../etc"}', "handler"),
    ('{"code": "return 1", "state": null}', "state"), ('{"code": "return 1", "state": []}', "state"), ('{"code": "return 1", "state": "x"}', "state"),
    ('{"code": "return 1", "state": 1}', "state"), ('{"code": "return 1", "state": true}', "state"),
    ('{"code": "return 1", "scope": null}', "scope"), ('{"code": "return 1", "scope": [1]}', "scope"), ('{"code": "return 1", "scope": "x"}', "scope"),
    ('{"code": "return 1", "capabilities": null}', "capabilities"), ('{"code": "return 1", "capabilities": "ext:a"}', "capabilities"),
    ('{"code": "return 1", "capabilities": [["ext:a"]]}', "capabilities[0]"), ('{"code": "return 1", "capabilities": ["ext:a", "x:y"]}', "capabilities[1]"),
    ('{"code": "return 1", "extensions": null}', "extensions"), ('{"code": "return 1", "extensions": {"a": null}}', "extensions.a"),
    ('{"code": "return 1", "timeoutMs": 0}', "timeoutMs"), ('{"code": "return 1", "timeoutMs": -1}', "timeoutMs"),
    ('{"code": "return 1", "timeoutMs": 1.5}', "timeoutMs"), ('{"code": "return 1", "timeoutMs": "100"}', "timeoutMs"),
    ('{"code": "return 1", "timeoutMs": null}', "timeoutMs"), ('{"code": "return 1", "timeoutMs": true}', "timeoutMs"),
    ('{"code": "return 1", "timeoutMs": 1e30}', "timeoutMs"), ('{"code": "return 1", "timeoutMs": 99999999999999999999999}', "timeoutMs"),
    ('{"code": "return 1", "memoryLimitMb": 0}', "memoryLimitMb"), ('{"code": "return 1", "memoryLimitMb": -4}', "memoryLimitMb"),
    ('{"code": "return 1", "memoryLimitMb": 0.5}', "memoryLimitMb"), ('{"code": "return 1", "memoryLimitMb": [8]}', "memoryLimitMb"),
    ('{"code": "return 1", "capabilites": []}', "capabilites"), ('{"code": "return 1", "Args": 1}', "Args"), ('{"code": "return 1", "": 1}', ""),
    ('{"code": "return 1", "%s": 1}' % ("k" * 5000), "k"), ('{"code": "return 1", "\\u0000": 1}', ""), ('{"code": "return 1", "__proto__": 1}', "__proto__"),
    ('{"code": "return 1", "code": "return 2"}', "code"), ('{"code": "return 1", "args": 1, "args": 1}', "args"),
    ('{"code": "return 1", "state": {}, "state": {}}', "state"),
]


@pytest.mark.parametrize("body, place", BODIES, ids=lambda text: text[:50].encode("ascii", "backslashreplace").decode())
def test_execute_body(server, body, place):
    problem = server.post(body).problem(400, "INVALID_REQUEST")
    assert problem["detail"].startswith(place), problem["detail"]
    assert len(problem["detail"]) < 400


@pytest.mark.parametrize("body", [b'{"code": "\xff"}', b'{"code": "return 1", "args": "\xc3"}', b'{"code": "return \'\xed\xa0\x80\'"}', b"\xff\xfe{}",
                                  b'{"code": "return 1", "args": "\xf8\x88\x80\x80\x80"}', b'{"code": "return 1", "\xc0\x80": 1}'])
def test_invalid_utf8(server, body):
    assert server.post(body).problem(400, "INVALID_REQUEST")["detail"].startswith("body")


def test_invalid_utf8_for_a_webhook(server):
    server.install("echo", "return $args")
    for body in (b'"\xff"', b'{"a": "\xed\xa0\x80"}', b"\xfe"):
        assert server.run("echo", body).problem(400, "INVALID_REQUEST")["detail"].startswith("body")


def test_nothing_ran(server):
    before = server.health()["executions"]["total"]
    for body, _ in BODIES[:20]:
        server.post(body)
    assert server.health()["executions"]["total"] == before


@pytest.mark.parametrize("name", ["nobody", "cart", "a.b-c_d", "x" * 128])
def test_unknown_handler(server, name):
    assert name in server.post({"handler": name}).problem(404, "HANDLER_NOT_FOUND")["detail"]
    server.run(name).problem(404, "HANDLER_NOT_FOUND")
    server.get(f"/v1/handlers/{name}").problem(404, "HANDLER_NOT_FOUND")
    server.delete(f"/v1/handlers/{name}").problem(404, "HANDLER_NOT_FOUND")


@pytest.mark.parametrize("value", [5000.0, 1e4, 10000, 1000000000])
def test_numbers_that_are_whole(server, value):
    assert server.value("return 1", timeoutMs=value) == 1


def test_any_content_type(server):
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain", "", "nonsense"):
        assert server.post({"code": "return 1"}, {"Content-Type": kind}).status == 200


def test_body_at_the_limit(server):
    empty = len(json.dumps({"code": "return $args.length", "args": ""}))
    limit = 64 * 1024
    assert server.value("return $args.length", args="x" * (limit - empty)) == limit - empty
    body = json.dumps({"code": "return $args.length", "args": "x" * (limit - empty + 1)})
    server.post(body).problem(413, "PAYLOAD_TOO_LARGE")
    server.put("big", "return 1;" + " " * limit).problem(413, "PAYLOAD_TOO_LARGE")
    server.get("/v1/handlers/big").problem(404, "HANDLER_NOT_FOUND")


METHODS = {
    "/v1/execute": {"POST"}, "/run/x": {"POST"}, "/v1/handlers": {"GET", "HEAD"}, "/v1/handlers/x": {"GET", "HEAD", "PUT", "DELETE"},
    "/v1/handlers/x/grants": {"GET", "HEAD", "PUT"}, "/health": {"GET", "HEAD"}, "/livez": {"GET", "HEAD"}, "/readyz": {"GET", "HEAD"},
    "/metrics": {"GET", "HEAD"},
}


@pytest.mark.parametrize("path", METHODS)
def test_methods(server, path):
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        if method in METHODS[path]:
            assert server.request(method, path, "{" if method in ("PUT", "POST") else None).status != 405
            continue
        reply = server.request(method, path)
        reply.problem(405, "METHOD_NOT_ALLOWED")
        assert {allowed.strip() for allowed in reply.headers["Allow"].split(",")} == METHODS[path]


def test_head_is_get_without_body(server):
    server.install("h", "return 1")
    for path in ("/livez", "/v1/handlers", "/v1/handlers/h"):
        got, head = server.get(path), server.request("HEAD", path)
        assert (head.status, head.type, head.headers["Content-Length"], head.body) == (200, got.type, got.headers["Content-Length"], b"")


@pytest.mark.parametrize("path", ["/", "/nope", "/v1", "/v1/", "/v1/execute/", "/V1/execute", "/v1/handlers/", "/v1/handlers/a/b", "/run/", "/run",
                                  "/run/a/b", "/health/", "//health", "/v1/resume/", "/metrics.txt", "/..%2fhealth", "/v1/handlers/a/grants/x"])
def test_unknown_paths(server, path):
    for method in ("GET", "POST"):
        reply = server.request(method, path)
        reply.problem(404, "NOT_FOUND")


def test_query_strings_are_ignored(server):
    assert server.get("/livez?x=1&y").status == 200
    assert server.request("POST", "/v1/execute?pretty", {"code": "return 1"}).status == 200


def test_body_where_none_is_expected(server):
    assert server.request("GET", "/livez", "some body").status == 200
    assert server.get("/livez").status == 200


# ---- Whatever comes -----------------------------------------------------------------------------------------------------

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), lambda inner:
                    st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12)
FIELDS = ["handler", "code", "args", "state", "scope", "capabilities", "extensions", "timeoutMs", "memoryLimitMb", "unknown"]
SOURCES = st.sampled_from(["return 1", "return $args", "throw 1", "return (", "$state.a = $args", "export default (a) => a"]) | st.text(
    alphabet=string.printable, max_size=40)
LIKELY = st.fixed_dictionaries({}, optional={
    "code": SOURCES, "handler": st.sampled_from(["echo", "nobody", ""]), "args": JSON, "state": st.dictionaries(st.text(max_size=5), JSON, max_size=3) | JSON,
    "scope": st.dictionaries(st.text(max_size=5), JSON, max_size=3) | JSON, "timeoutMs": st.integers(-5, 10**12) | JSON,
    "memoryLimitMb": st.integers(-1, 5000) | JSON,
    "capabilities": st.lists(st.sampled_from(["state:read:*", "state:write:a", "ext:x", "events:emit:"]) | st.text(max_size=8), max_size=4) | JSON,
    "extensions": st.dictionaries(st.text(max_size=4), st.lists(st.text(max_size=4), max_size=3), max_size=3) | JSON})
FEW = settings(max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def check_reply(reply):
    assert reply.status < 500 or reply.status == 503, reply
    body = reply.json()
    if reply.status == 200:
        assert reply.type == "application/json" and body["status"] in ("success", "error")
        assert body["status"] == "success" or body["error"]["code"] != "INTERNAL_ERROR", body
    else:
        reply.problem(reply.status, body["code"])


@FEW
@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5) | JSON)
def test_random_json(server, body):
    check_reply(server.post(json.dumps(body)))


@FEW
@given(body=LIKELY)
def test_random_requests(server, body):
    check_reply(server.post(json.dumps(body)))


@FEW
@given(body=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_random_bytes(server, body):
    check_reply(server.post(body))


@FEW
@given(path=st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7e, exclude_characters="#"), max_size=40), method=st.sampled_from(["GET", "PUT", "POST", "DELETE"]))
def test_random_paths(server, path, method):
    reply = server.request(method, f"/v1/handlers/{path}")
    assert reply.status < 500, reply
    if reply.status >= 400:
        reply.problem(reply.status, reply.json()["code"])


@FEW
@given(value=JSON)
def test_random_arguments_come_back(server, value):
    text = json.dumps(value)
    if "NaN" in text or "Infinity" in text or "\\ud" in text:
        return
    reply = server.post('{"code": "return [$args]", "args": %s}' % text)
    assert json.loads(reply.body, parse_int=float)["returnValue"] == [json.loads(text, parse_int=float)]
