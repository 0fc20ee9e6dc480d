# SPDX-License-Identifier: Apache-2.0
"""AUTH_TOKENS_FILE: who may do what, tokens that change, and executions that belong to a tenant."""
import hashlib
import http.client
import os
import re
import socket

import pytest

from conftest import ROOT, nexus, publish_volume, wait_until
from redis_server import free_port
from store_support import RIGHTS, any_store, settings_of, shared_store  # noqa: F401: fixtures

SCOPES = ["execute", "handlers", "resume", "read"]
UNKNOWN_ID = "0123456789abcdef" * 2
ASK = {"code": "return await $ext.pay.charge($args)", **RIGHTS}
WARNING = "there are no access tokens"


def line(token, tenant="acme", scopes=",".join(SCOPES)):
    return f"{tenant} {scopes} sha256:{hashlib.sha256(token.encode()).hexdigest()}\n"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def tokens(tmp_path):
    """A file with a token of each scope, `token-SCOPE`, and one with all, `token-all`."""
    path = tmp_path / "tokens" / "auth-tokens"
    path.parent.mkdir()
    path.write_text(line("token-all") + "".join(line(f"token-{scope}", scopes=scope) for scope in SCOPES))
    return path


def put_file(path, text):
    """As a whole, in one step."""
    temp = path.with_suffix(".new")
    temp.write_text(text)
    os.rename(temp, path)


def refused(reply, status, challenge):
    reply.problem(status, {401: "UNAUTHORIZED", 403: "FORBIDDEN"}[status])
    assert reply.headers.get_all("WWW-Authenticate") == [challenge]


def unauthorized(reply, error=True):
    refused(reply, 401, 'Bearer realm="nexus"' + (', error="invalid_token"' if error else ""))


def forbidden(reply, scope):
    refused(reply, 403, f'Bearer realm="nexus", error="insufficient_scope", scope="{scope}"')


# ---- Who may do what --------------------------------------------------------------------------------------------------

# Every route: the scopes of which one is needed (none: everyone may), the one that a refusal names, and what a request
# without a body gets from who may.
ROUTES = {
    ("POST", "/run/{name}"): ({"execute"}, "execute", 404),
    ("POST", "/v1/execute"): ({"execute"}, "execute", 400),
    ("POST", "/v1/resume"): ({"resume"}, "resume", 400),
    ("POST", "/v1/resume/{id}"): ({"resume"}, "resume", 400),
    ("GET", "/v1/resume/{id}"): ({"resume"}, "resume", 404),
    ("DELETE", "/v1/resume/{id}"): ({"resume"}, "resume", 404),
    ("GET", "/v1/handlers"): ({"read", "handlers"}, "read", 200),
    ("GET", "/v1/handlers/{name}"): ({"read", "handlers"}, "read", 404),
    ("PUT", "/v1/handlers/{name}"): ({"handlers"}, "handlers", 400),
    ("DELETE", "/v1/handlers/{name}"): ({"handlers"}, "handlers", 404),
    ("GET", "/v1/handlers/{name}/grants"): ({"read", "handlers"}, "read", 404),
    ("PUT", "/v1/handlers/{name}/grants"): ({"handlers"}, "handlers", 404),
    ("GET", "/health"): (set(), None, 200),
    ("GET", "/livez"): (set(), None, 200),
    ("GET", "/readyz"): (set(), None, 200),
    ("GET", "/metrics"): ({"read"}, "read", 200),
}


def path_of(route, name):
    return route.replace("{name}", name).replace("{id}", UNKNOWN_ID)


def test_the_table_has_every_route():
    source = (ROOT / "src" / "http" / "app.c").read_text()
    assert set(re.findall(r'^  \{"(/\S+)", NX_HTTP_(\w+), ', source, re.M)) == {(path, method) for method, path in ROUTES}


def test_each_route_with_each_scope(start, tokens):
    server = start({"AUTH_TOKENS_FILE": tokens})
    for (method, route), (scopes, named, status) in ROUTES.items():
        for i, scope in enumerate([None, "wrong", "all", *SCOPES]):
            path = path_of(route, f"none-{i}")
            for sent in [method] + ["HEAD"] * (method == "GET"):
                headers = {} if scope is None else bearer(f"token-{scope}")
                reply = server.request(sent, path, headers=headers)
                what = (sent, path, scope, reply)
                if not scopes or scope == "all" or scope in scopes:
                    assert reply.status == status, what
                    assert "WWW-Authenticate" not in reply.headers, what
                elif sent == "HEAD":
                    assert reply.status == (401 if scope in (None, "wrong") else 403), what
                    assert reply.headers["WWW-Authenticate"].startswith("Bearer "), what
                elif scope in (None, "wrong"):
                    unauthorized(reply, error=scope == "wrong")
                else:
                    forbidden(reply, named)


def test_what_is_not_there_needs_no_token(start, tokens):
    server = start({"AUTH_TOKENS_FILE": tokens})
    server.get("/nowhere").problem(404, "NOT_FOUND")
    for method in ("OPTIONS", "PATCH", "GET"):
        reply = server.request(method, "/v1/execute")
        reply.problem(405, "METHOD_NOT_ALLOWED")
        assert reply.headers["Allow"] == "POST"
    unauthorized(server.request("PUT", "/v1/handlers/..bad", b"x"), error=False)
    server.request("PUT", "/v1/handlers/..bad", b"x", bearer("token-all")).problem(400, "INVALID_REQUEST")


def test_forms_of_the_header(start, tokens):
    server = start({"AUTH_TOKENS_FILE": tokens})
    for header in ["Bearer token-all", "bearer token-all", "BEARER token-all", "bEaReR    token-all  "]:
        assert server.get("/v1/handlers", Authorization=header).status == 200, header
    for token in ["token-al", "token-all2", "TOKEN-ALL", "token-all x", "token all", "x" * 15000, "\xff\xfe", "token-all,",
                  hashlib.sha256(b"token-all").hexdigest()]:
        unauthorized(server.get("/v1/handlers", Authorization="Bearer " + token))
    for header in ["", "Bearer", "Bearer ", "token-all", "Basic dG9rZW4tYWxs", "Bearertoken-all", "Bearer\ttoken-all",
                   'Digest username="token-all"']:
        unauthorized(server.get("/v1/handlers", Authorization=header), error=False)
    server.get("/v1/handlers", Authorization="Bearer " + "x" * 17000).problem(431, "HEADERS_TOO_LARGE")


def test_two_headers(start, tokens):
    server = start({"AUTH_TOKENS_FILE": tokens})
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"GET /v1/handlers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nAuthorization: Bearer token-all\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_refusals_are_counted_by_route_and_carry_the_ids(start, tokens):
    server = start({"AUTH_TOKENS_FILE": tokens})
    for _ in range(2):
        reply = server.request("POST", "/v1/execute", b"{}", {"X-Request-Id": "mine"})
        assert reply.status == 401 and reply.headers["X-Request-Id"] == "mine"
    assert server.request("POST", "/v1/execute", b"{}", bearer("token-read")).status == 403
    assert early_answer(server, b"POST", b"/run/cart", b"Content-Length: 900000\r\n")[:12] == b"HTTP/1.1 401"
    metrics = server.request("GET", "/metrics", headers=bearer("token-read")).body.decode()
    assert [row for row in metrics.splitlines() if 'route="/v1/execute"' in row and 'code="401"' in row and row.endswith(" 2")]
    assert [row for row in metrics.splitlines() if 'route="/v1/execute"' in row and 'code="403"' in row and row.endswith(" 1")]
    assert [row for row in metrics.splitlines() if 'route="/run/{name}"' in row and 'code="401"' in row and row.endswith(" 1")]


def test_nothing_secret_is_told(start, tokens):
    secret = "a-very-secret-token"
    server = start({"AUTH_TOKENS_FILE": tokens, "LOG_LEVEL": "debug"})
    put_file(tokens, tokens.read_text() + line(secret))
    wait_until(lambda: server.request("GET", "/v1/handlers", headers=bearer(secret)).status == 200, what="the new token")
    replies = [server.request("POST", "/v1/execute", b'{"code": "return $args"}', bearer(token)) for token in (secret, "wrong-" + secret)]
    put_file(tokens, line(secret) + f"acme {secret} {secret}\n")
    wait_until(lambda: "cannot be used" in server.log(), what="the complaint")
    metrics = server.request("GET", "/metrics", headers=bearer(secret)).body.decode()
    said = server.log() + metrics + str(server.health()) + "".join(str(reply.headers) + reply.body.decode() for reply in replies)
    assert secret not in said and hashlib.sha256(secret.encode()).hexdigest() not in said


def test_admin_port_is_open(start, tokens):
    admin = free_port()
    server = start({"AUTH_TOKENS_FILE": tokens, "ADMIN_PORT": admin})
    for path in ("/metrics", "/health", "/livez", "/readyz"):
        connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=20)
        connection.request("GET", path)
        assert connection.getresponse().status == 200
        connection.close()
    unauthorized(server.get("/metrics"), error=False)


# ---- Bodies -----------------------------------------------------------------------------------------------------------


def early_answer(server, method, path, framing, token=None):
    """All that comes after a head whose body is not sent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        shown = b"Authorization: Bearer %s\r\n" % token if token else b""
        client.sendall(b"%s %s HTTP/1.1\r\nHost: x\r\n%s%s\r\n" % (method, path, shown, framing))
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer


@pytest.mark.parametrize("framing", [b"Content-Length: 900000\r\n", b"Transfer-Encoding: chunked\r\n",
                                     b"Content-Length: 900000\r\nExpect: 100-continue\r\n",
                                     b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"])
def test_nobody_else_gets_to_send_a_body(start, tokens, framing):
    server = start({"AUTH_TOKENS_FILE": tokens})
    for method, path, token, status in [
            (b"POST", b"/v1/execute", None, 401), (b"POST", b"/v1/execute", b"wrong", 401), (b"POST", b"/v1/execute", b"token-read", 403),
            (b"PUT", b"/v1/handlers/x", b"token-execute", 403), (b"POST", b"/nowhere", None, 404), (b"PATCH", b"/v1/execute", None, 405),
            (b"GET", b"/health", None, 200), (b"GET", b"/livez", b"wrong", 200)]:
        answer = early_answer(server, method, path, framing, token)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert b"\r\nConnection: close\r\n" in answer and answer.count(b"HTTP/1.1 ") == 1, answer
    assert server.get("/v1/handlers/x", **bearer("token-all")).status == 404


def test_who_may_is_told_to_go_on(start, tokens):
    server = start({"AUTH_TOKENS_FILE": tokens})
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"POST /v1/execute HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-execute\r\n"
                       b"Content-Length: 20\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b'{"code": "return 7"}')
        assert b'"returnValue":7' in client.recv(4000)


# ---- Tokens that change -----------------------------------------------------------------------------------------------


def status_of(server, token):
    return server.request("GET", "/v1/handlers", headers=bearer(token)).status


def test_rotation(start, tokens):
    """Both for a while, then the new one only; the connection is the same all the time."""
    put_file(tokens, line("old"))
    server = start({"AUTH_TOKENS_FILE": tokens})
    port = server.request("GET", "/v1/handlers", headers=bearer("old")) and server._local.connection.sock.getsockname()
    put_file(tokens, line("old") + line("new"))
    wait_until(lambda: status_of(server, "new") == 200, what="the new token")
    assert status_of(server, "old") == 200
    put_file(tokens, line("new"))
    wait_until(lambda: status_of(server, "old") == 401, what="the end of the old token")
    assert status_of(server, "new") == 200
    assert server._local.connection.sock.getsockname() == port, "the connection was lost"
    assert server.log().count("access tokens loaded") == 3
    assert re.findall(r"access tokens loaded count=(\d+)", server.log()) == ["1", "2", "1"]


def test_change_in_place(start, tokens):
    server = start({"AUTH_TOKENS_FILE": tokens})
    tokens.write_text(line("new", scopes="read"))
    wait_until(lambda: status_of(server, "new") == 200, what="the new token")
    assert status_of(server, "token-all") == 401


def test_secret_volume(start, tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    publish_volume(mount, {"auth-tokens": line("one")})
    server = start({"AUTH_TOKENS_FILE": mount / "auth-tokens"})
    for token in ["two", "three", "four"]:
        publish_volume(mount, {"auth-tokens": line(token)})
        wait_until(lambda: status_of(server, token) == 200, what="the new token")
    assert status_of(server, "one") == status_of(server, "three") == 401
    assert "cannot be used" not in server.log()


@pytest.mark.parametrize("spoil, reason", [
    (lambda path: put_file(path, "nonsense\n"), "line 1: SCOPES: expected"),
    (lambda path: put_file(path, line("new") + "acme read sha256:12\n"), "line 2: HASH: expected sha256: and 64 hexadecimal digits"),
    (lambda path: put_file(path, ""), "no token in it"),
    (lambda path: path.write_text("x" * 300000), "larger than"),
    (lambda path: path.unlink(), "No such file"),
    (lambda path: os.rename(path.parent, path.parent.with_name("away")), "No such file"),
], ids=["nonsense", "second line", "empty", "large", "gone", "directory gone"])
def test_a_bad_file_then_a_good_one(start, tokens, spoil, reason):
    put_file(tokens, line("old"))
    server = start({"AUTH_TOKENS_FILE": tokens})
    assert server.health()["status"] == "healthy"
    spoil(tokens)
    wait_until(lambda: "cannot be used" in server.log(), what="the complaint")
    complaints = [row for row in server.log().splitlines() if "cannot be used" in row]
    assert len(complaints) == 1 and " error " in complaints[0] and reason in complaints[0] and str(tokens) in complaints[0]
    health = wait_until(lambda: (now := server.health())["status"] == "degraded" and now, what="the degradation")
    assert [it for it in health["reasons"] if "AUTH_TOKENS_FILE" in it]
    assert status_of(server, "old") == 200 and status_of(server, "new") == 401
    assert server.get("/readyz").status == 200
    tokens.parent.mkdir(exist_ok=True)
    put_file(tokens, line("new"))
    wait_until(lambda: status_of(server, "new") == 200, what="the new token")
    assert status_of(server, "old") == 401
    wait_until(lambda: server.health()["status"] == "healthy", what="health")


@pytest.mark.parametrize("text, reason", [
    (None, "No such file"), ("", "no token in it"), ("acme execute\n", "line 1: HASH: expected sha256: and 64 hexadecimal digits"),
    (line("a") + line("a", tenant="other"), "line 2: HASH is that of line 1"), (line("a", scopes="admin"), "line 1: SCOPES: expected"),
])
def test_a_bad_file_at_the_start_stops_it(tmp_path, text, reason):
    path = tmp_path / "tokens"
    if text is not None:
        path.write_text(text)
    run = nexus("serve", settings={"PORT": 0, "AUTH_TOKENS_FILE": path, "CACHE_DIR": tmp_path / "cache"})
    assert run.returncode == 2, run
    assert "AUTH_TOKENS_FILE" in run.stderr and str(path) in run.stderr and reason in run.stderr
    assert not re.search("[0-9a-f]{16}", run.stderr)


# ---- Without tokens ---------------------------------------------------------------------------------------------------


def test_the_warning_is_printed_once(start):
    server = start()
    server.request("GET", "/v1/handlers", headers=bearer("whatever"))
    assert server.value("return 1") == 1
    rows = [row for row in server.log().splitlines() if WARNING in row]
    assert len(rows) == 1 and " warn " in rows[0] and "change=AUTH_TOKENS_FILE" in rows[0] and "everyone" in rows[0]


def test_no_warning_with_tokens(start, tokens):
    server = start({"AUTH_TOKENS_FILE": tokens})
    assert WARNING not in server.log()


# ---- Tenants ----------------------------------------------------------------------------------------------------------

ACME, OTHER = bearer("acme"), bearer("other")
TWO_TENANTS = line("acme") + line("acme2") + line("other", tenant="other")


def start_two(start, store, tmp_path, name=None, text=TWO_TENANTS):
    path = tmp_path / "two-tenants"
    path.write_text(text)
    return start({**store, "AUTH_TOKENS_FILE": path}, name=name)


def suspend(server, headers=ACME, **fields):
    reply = server.post({**ASK, **fields}, headers)
    assert reply.status == 200 and reply.json()["status"] == "suspended", reply
    return reply.json()["suspension"]["suspensionId"]


def answer(server, suspension, headers=ACME, **fields):
    return server.request("POST", "/v1/resume", {"suspensionId": suspension, "success": True, "value": 5, **fields}, headers)


def attempts(server, suspension, headers):
    """Every way to touch one; the last is the least harmless."""
    requests = [("POST", "/v1/resume", {"suspensionId": suspension, "success": True}),
                ("POST", "/v1/resume", {"suspensionId": suspension, "results": []}),
                ("POST", "/v1/resume", {"suspensionId": suspension, "callId": 99, "success": True})]
    if len(suspension) < 64:  # sealed ones are too long for a path
        requests += [("POST", f"/v1/resume/{suspension}", {"success": True}), ("GET", f"/v1/resume/{suspension}", None),
                     ("DELETE", f"/v1/resume/{suspension}", None)]
    replies = [server.request(method, path, body, headers) for method, path, body in requests]
    return [(reply.status, reply.body, sorted(name for name in reply.headers)) for reply in replies]


def is_unknown(server, suspension, headers=OTHER):
    """The same in every byte as for an id that there is not."""
    unknown = UNKNOWN_ID if len(suspension) < 64 else "A" * len(suspension)
    got = attempts(server, suspension, headers)
    assert got == attempts(server, unknown, headers)
    assert {status for status, _, _ in got} == {404}, got


def test_a_suspension_is_its_tenants(start, tmp_path, any_store):
    server = start_two(start, any_store, tmp_path)
    suspension = suspend(server)
    is_unknown(server, suspension)
    reply = answer(server, suspension, bearer("acme2"))  # another token of the same tenant
    assert reply.status == 200 and reply.json()["returnValue"] == 5
    is_unknown(server, suspension)  # its result, too
    if len(suspension) < 64:
        assert server.get(f"/v1/resume/{suspension}", **ACME).json()["returnValue"] == 5
        assert answer(server, suspension).status == 410


def test_a_suspension_keeps_its_tenant(start, tmp_path, any_store):
    """Over a second suspension, and whoever resumes."""
    server = start_two(start, any_store, tmp_path)
    suspension = suspend(server, code="return [await $ext.pay.charge(1), await $ext.pay.charge(2)]")
    reply = answer(server, suspension, value=1)
    assert reply.json()["status"] == "suspended"
    suspension = reply.json()["suspension"]["suspensionId"]
    is_unknown(server, suspension)
    assert answer(server, suspension, value=2).json()["returnValue"] == [1, 2]


@pytest.mark.parametrize("kind", ["memory", "file", "redis"])
def test_a_cancelled_one_is_not_there(start, request, tmp_path, kind):
    server = start_two(start, settings_of(kind, request, tmp_path), tmp_path)
    suspension = suspend(server)
    assert server.request("DELETE", f"/v1/resume/{suspension}", headers=ACME).status == 204
    is_unknown(server, suspension)
    is_unknown(server, suspension, ACME)


def test_over_replicas_and_restarts(start, tmp_path, shared_store):
    first = start_two(start, shared_store, tmp_path)
    suspension = suspend(first)
    first.process.kill()
    first.process.wait()
    second = start_two(start, shared_store, tmp_path)
    is_unknown(second, suspension)
    assert answer(second, suspension).json()["returnValue"] == 5


def test_what_goes_on_by_itself_keeps_its_tenant(start, tmp_path, shared_store):
    first = start_two(start, shared_store, tmp_path)
    rights = {"capabilities": ["ext:pay", "ext:time"], "extensions": {"pay": ["charge"], "time": ["sleep"]}}
    suspension = suspend(first, code="return await Promise.race([$ext.pay.charge(1), $ext.time.sleep(1500)])", **rights)
    first.process.kill()
    first.process.wait()
    second = start_two(start, shared_store, tmp_path)
    is_unknown(second, suspension)
    look = lambda: second.request("GET", f"/v1/resume/{suspension}", headers=ACME).json()  # noqa: E731
    wait_until(lambda: look()["status"] == "success", 30, "the timer")
    is_unknown(second, suspension)


def test_nobodys_may_be_resumed_by_every_token(start, tmp_path, shared_store):
    """Suspended before there were tokens."""
    server = start(shared_store)
    suspension, another = suspend(server, {}), suspend(server, {})
    server.stop()
    server = start_two(start, shared_store, tmp_path)
    assert server.request("GET", f"/v1/resume/{suspension}", headers=OTHER).status == 200
    assert answer(server, suspension, OTHER).json()["returnValue"] == 5
    assert answer(server, another, ACME).json()["returnValue"] == 5


def test_without_tokens_everyone_may_resume(start, tmp_path, shared_store):
    server = start_two(start, shared_store, tmp_path)
    suspension = suspend(server, code="return [await $ext.pay.charge(1), await $ext.pay.charge(2)]")
    server.stop()
    server = start(shared_store)
    assert answer(server, suspension, {}).json()["status"] == "suspended"
    server.stop()
    server = start_two(start, shared_store, tmp_path)
    is_unknown(server, suspension)  # it is still its tenant's
    assert answer(server, suspension).json()["returnValue"] == [5, 5]


def test_handlers_are_everyones(start, tmp_path):
    server = start_two(start, {"SUSPEND_STORE": "memory"}, tmp_path)
    assert server.put("shared", "return 1", **ACME).status == 201
    assert server.run("shared", headers=OTHER).json() == 1


def test_an_attempt_leaves_no_trace(start, tmp_path):
    server = start_two(start, {"SUSPEND_STORE": "memory", "QUEUE_TIMEOUT_MS": 1000}, tmp_path)
    suspension = suspend(server)
    before = server.request("GET", f"/v1/resume/{suspension}", headers=ACME).body
    is_unknown(server, suspension)
    assert server.request("GET", f"/v1/resume/{suspension}", headers=ACME).body == before
    assert answer(server, suspension).status == 200


# ---- Commands ---------------------------------------------------------------------------------------------------------


def top(server, token=None):
    return nexus("top", "--once", f"--url=http://127.0.0.1:{server.port}", settings={"NEXUS_TOKEN": token})


def test_top_shows_its_token(start, tokens):
    server = start({"AUTH_TOKENS_FILE": tokens})
    assert top(server, "token-read").returncode == 0
    for token, words in [(None, "the server wants an access token"), ("", "the server wants an access token"),
                         ("wrong", "does not know the token"), ("token-execute", "lacks that scope")]:
        run = top(server, token)
        assert run.returncode == 1 and run.stdout == "" and words in run.stderr, run
        assert "NEXUS_TOKEN" in run.stderr and "ADMIN_PORT" in run.stderr and "wrong" not in run.stderr
    for token in ["two words", "line\r\nX: y", "t" * 513, "\x7f"]:
        run = top(server, token)
        assert run.returncode == 2 and "NEXUS_TOKEN: expected" in run.stderr and token not in run.stderr


def test_health_needs_none(start, tokens):
    server = start({"AUTH_TOKENS_FILE": tokens})
    run = nexus("health", settings={"PORT": server.port})
    assert run.returncode == 0, run
