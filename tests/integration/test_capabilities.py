# SPDX-License-Identifier: Apache-2.0
"""What a handler may do, and that it sees nothing of what it may not read."""
import json

import pytest

SECRET = "tresor-8c1f"
DENIED = "PERMISSION_DENIED"

# capability kind: a token for it, what needs it, one that names another, the name in the message
KINDS = [
    ("state:read:key", "return $state.key", "state:read:keys", "state:read:key"),
    ("state:write:key", "$state.key = 1", "state:read:key", "state:write:key"),
    ("state:write:key", "delete $state.key", "state:write:ke", "state:write:key"),
    ("events:emit:done", "$emit('done', 1)", "events:emit:don", "events:emit:done"),
    ("view:update:form", "$view.focus('form')", "view:update:Form", "view:update:form"),
    ("view:update:form", "$view.setFilter('form', 1)", "view:update:f", "view:update:form"),
    ("view:update:form", "$view.scrollTo('form')", "events:emit:form", "view:update:form"),
    ("view:update:form", "$view.custom('form')", "view:update:x*", "view:update:form"),
]


@pytest.mark.parametrize("token, source, other, named", KINDS)
def test_each_kind(server, token, source, other, named):
    kind, _, name = token.rpartition(":")
    for allowed in ([token], [f"{kind}:*"], [f"{kind}:{name[:2]}*"], [f"{kind}:{name}*"], [other, token], [token, token]):
        assert server.execute(source, state={"key": 5}, capabilities=allowed)["status"] == "success", allowed
    for denied in ([], [other], None):
        fields = {} if denied is None else {"capabilities": denied}
        error = server.fails(DENIED, source, state={"key": 5}, **fields)
        assert error["message"] == f"PermissionError: missing capability {named}"
        assert error["location"]["line"] == 1


def test_extensions_need_token_and_method(server):
    call = "try { $ext.crm.find(1).catch((e) => $log(e.name + ': ' + e.message)); await null; await null } catch (e) { $log('threw') }"
    for capabilities, extensions, message in [
        ([], {"crm": ["find"]}, "PermissionError: missing capability ext:crm"),
        (["ext:cr"], {"crm": ["find"]}, "PermissionError: missing capability ext:crm"),
        (["ext:crm"], {}, "Error: there is no $ext.crm.find for this execution"),
        (["ext:crm"], {"crm": ["update"]}, "Error: there is no $ext.crm.find for this execution"),
        (["ext:*"], {"other": ["find"]}, "Error: there is no $ext.crm.find for this execution"),
    ]:
        logs = server.execute(call, capabilities=capabilities, extensions=extensions)["logs"]
        assert [line["message"] for line in logs] == [message]
    for capabilities, extensions in [(["ext:crm"], {"crm": ["find"]}), (["ext:*"], {"crm": ["f*"]}), (["ext:c*"], {"crm": ["*"]})]:
        waits = server.suspends(code="await $ext.crm.find(1)", capabilities=capabilities, extensions=extensions)
        assert waits["method"] == "find"


def test_denied_extension_call_rejects(server):
    server.fails(DENIED, "await $ext.crm.find(1)", extensions={"crm": ["find"]})


def test_the_time_extension_is_always_allowed(server):
    assert server.value("await $ext.time.sleep(1); return 'slept'") == "slept"


def test_denial_can_be_caught(server):
    source = "try { $state.x = 1 } catch (e) { return [e.name, e instanceof Error, e.message] }"
    assert server.value(source) == ["PermissionError", True, "missing capability state:write:x"]


def test_denied_effects_leave_no_trace(server):
    source = "for (const f of [() => $state.a = 1, () => $emit('b'), () => $view.focus('c'), () => delete $state.d]) { try { f() } catch {} }" \
             " $state.ok = 1; return [$state.ok, Object.keys($state)]"
    result = server.execute(source, capabilities=["state:write:ok", "state:read:ok"])
    assert result["returnValue"] == [1, ["ok"]]
    assert result["stateMutations"] == [{"operation": "set", "key": "ok", "value": 1}]
    assert (result["events"], result["viewCommands"]) == ([], [])


@pytest.mark.parametrize("source", [
    "throw Object.assign(new Error('missing capability state:write:x'), {name: 'PermissionError'})",
    "class PermissionError extends Error {} throw new PermissionError('forged')",
    "throw {name: 'PermissionError', message: 'forged'}",
    "const e = new Error('x'); e.code = 'PERMISSION_DENIED'; throw e",
])
def test_forged_denial_is_an_ordinary_error(server, source):
    server.fails("EXECUTION_ERROR", source)


def test_writing_does_not_allow_reading(server):
    error = server.fails(DENIED, "$state.k = 1; return $state.other", state={"k": 0, "other": 1}, capabilities=["state:write:*"])
    assert "state:read:other" in error["message"]


def test_own_writes_can_be_read(server):
    assert server.value("$state.k = 7; return $state.k", state={"k": 0}, capabilities=["state:write:k"]) == 7


def test_unreadable_keys_are_absent(server):
    source = "return [Object.keys($state), JSON.stringify($state), Object.entries({...$state}).length, (() => { const k = []; for (const x in $state) k.push(x); return k })()]"
    value = server.value(source, state={"a": 1, "secret": SECRET, "b": 2}, capabilities=["state:read:a"])
    assert value == [["a"], '{"a":1}', 1, ["a"]]


@pytest.mark.parametrize("probe", ["$state.secret", "'secret' in $state", "Object.hasOwn($state, 'secret')",
                                   "Object.getOwnPropertyDescriptor($state, 'secret')", "Reflect.get($state, 'secret')",
                                   "Reflect.has($state, 'secret')"])
def test_asking_for_an_unreadable_key_is_denied(server, probe):
    server.fails(DENIED, f"return {probe}", state={"secret": SECRET}, capabilities=["state:read:a", "state:write:*"])


SEARCH = """
const seen = new Set(), queue = [globalThis], found = [];
const look = (text) => { if (text.includes('tres' + 'or-')) found.push(text) };
while (queue.length) {
  const object = queue.pop();
  if ((typeof object !== 'object' && typeof object !== 'function') || object === null || seen.has(object)) continue;
  seen.add(object);
  try { queue.push(Object.getPrototypeOf(object)) } catch {}
  let keys = [];
  try { keys = Reflect.ownKeys(object) } catch {}
  for (const key of keys) {
    look(String(key));
    let descriptor;
    try { descriptor = Reflect.getOwnPropertyDescriptor(object, key) } catch {}
    if (!descriptor) continue;
    for (const value of [descriptor.value, descriptor.get, descriptor.set]) {
      if (typeof value === 'string') look(value);
      queue.push(value);
    }
    try { const value = object[key]; if (typeof value === 'string') look(value); queue.push(value) } catch {}
  }
}
try { look(JSON.stringify($state)) } catch (e) { look(e.message) }
// Fresh memory of every size the allocator may hand out again: it must be empty.
for (let size = 16; size < 1 << 22; size *= 2) {
  for (let i = 0; i < 8; i++) {
    const bytes = new Uint8Array(size);
    let text = '';
    for (let j = 0; j < size; j += 4097) if (bytes[j]) text += String.fromCharCode(bytes[j]);
    if (text) look('tresor-' + text);
  }
}
try { new Function('throw new Error($state.secret)')() } catch (e) { look(e.message + e.stack) }
return {searched: seen.size, found};
"""


def test_what_may_not_be_read_never_enters(server):
    # An execution that had it before, so that it may lie in the instance's memory.
    assert server.value("return $state.secret", state={"secret": SECRET}, capabilities=["state:read:*"]) == SECRET
    for _ in range(3):
        value = server.value(SEARCH, state={"a": 1, "secret": SECRET, SECRET: 1}, capabilities=["state:read:a"])
        assert value["found"] == [] and value["searched"] > 500


# ---- Tokens ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tokens, place", [
    (["state:read:a", "nope"], "capabilities[1]"), (["state"], "capabilities[0]"), (["state:read:"], "capabilities[0]"),
    (["state:read:a*b"], "capabilities[0]"), (["state:read:**"], "capabilities[0]"), (["State:read:a"], "capabilities[0]"),
    (["events:emit"], "capabilities[0]"), (["*"], "capabilities[0]"), ([" ext:a"], "capabilities[0]"), ([""], "capabilities[0]"),
    (["state:exec:a"], "capabilities[0]"), (["ext:" + "x" * 300], "capabilities[0]"), ([1], "capabilities[0]"), ([None], "capabilities[0]"),
    ("ext:a", "capabilities"), ({}, "capabilities"), (["ext:a"] * 257, "capabilities"),
])
def test_unknown_tokens(server, tokens, place):
    problem = server.post({"code": "return 1", "capabilities": tokens}).problem(400, "INVALID_REQUEST")
    assert problem["detail"].startswith(place)


@pytest.mark.parametrize("extensions, place", [
    ([], "extensions"), ({"crm": "find"}, "extensions.crm"), ({"crm": [1]}, "extensions.crm[0]"), ({"": []}, "extensions"),
    ({"crm": ["a*b"]}, "extensions.crm[0]"), ({"crm": [""]}, "extensions.crm[0]"), ({"a*": []}, "extensions.a"),
])
def test_wrong_extensions(server, extensions, place):
    problem = server.post({"code": "return 1", "extensions": extensions}).problem(400, "INVALID_REQUEST")
    assert problem["detail"].startswith(place)


def test_many_tokens(server):
    tokens = [f"state:read:key{i}" for i in range(256)]
    value = server.value("return Object.keys($state).length", state={f"key{i}": i for i in range(300)}, capabilities=tokens)
    assert value == 256


# ---- Grants ------------------------------------------------------------------------------------------------------------

STATE = {"a": 1, "b": 2}
READ_ALL = "return Object.keys($state)"


@pytest.mark.parametrize("grants, request_capabilities, keys", [
    (None, None, []), (None, ["state:read:*"], ["a", "b"]), (None, [], []),
    ({"capabilities": ["state:read:a"]}, None, ["a"]),
    ({"capabilities": ["state:read:a"]}, ["state:read:*"], ["a"]),
    ({"capabilities": ["state:read:*"]}, ["state:read:b"], ["b"]),
    ({"capabilities": ["state:read:a"]}, ["state:read:b"], []),
    ({"capabilities": ["state:read:*"]}, [], []),
    ({"capabilities": []}, ["state:read:*"], []),
    ({}, ["state:read:*"], []),
    ({}, None, []),
])
def test_intersection(server, grants, request_capabilities, keys):
    server.delete("/v1/handlers/reader")
    server.install("reader", READ_ALL, grants)
    fields = {} if request_capabilities is None else {"capabilities": request_capabilities}
    assert server.value(handler="reader", state=STATE, **fields) == keys


def test_grants_hold_for_every_kind(server):
    source = "$state.w = 1; $emit('e'); $view.focus('v'); return 'done'"
    full = ["state:write:w", "events:emit:e", "view:update:v"]
    server.install("doer", source, {"capabilities": full})
    assert server.value(handler="doer") == "done"
    assert server.run("doer").json() == "done"
    for left_out in full:
        rest = [token for token in full if token != left_out]
        error = server.fails(DENIED, handler="doer", capabilities=rest)
        assert left_out in error["message"]
        server.install("doer", source, {"capabilities": rest})
        server.fails(DENIED, handler="doer", capabilities=full)
        assert left_out in server.run("doer").problem(403, DENIED)["detail"]
        server.install("doer", source, {"capabilities": full})


def test_extensions_of_grants(server):
    server.install("caller", "await $ext.crm.find(1)", {"capabilities": ["ext:crm"], "extensions": {"crm": ["find"]}})
    server.suspends(handler="caller")
    assert "no $ext" in server.fails("EXECUTION_ERROR", handler="caller", extensions={"crm": ["other"]})["message"]
    server.suspends(handler="caller", extensions={"crm": ["find", "other"]})


def test_run_has_no_rights_without_grants(server):
    server.delete("/v1/handlers/writer")
    server.install("writer", "$emit('x'); return 1")
    server.run("writer").problem(403, DENIED)


def test_limits_of_grants(server):
    server.install("loop", "for (;;);", {"timeoutMs": 80})
    assert "80 ms" in server.fails("TIMEOUT", handler="loop")["message"]
    assert "40 ms" in server.fails("TIMEOUT", handler="loop", timeoutMs=40)["message"]
    assert "80 ms" in server.fails("TIMEOUT", handler="loop", timeoutMs=4000)["message"]
    server.install("eat", "const a = []; for (;;) a.push(new Uint8Array(1 << 18).fill(1))", {"memoryLimitMb": 6})
    assert "6 MiB" in server.fails("MEMORY_LIMIT", handler="eat")["message"]


def test_replacing_the_source_keeps_the_grants(server):
    server.install("reader", READ_ALL, {"capabilities": ["state:read:a"]})
    server.install("reader", "return ['new', ...Object.keys($state)]")
    assert server.value(handler="reader", state=STATE) == ["new", "a"]


def test_deleting_the_handler_deletes_its_grants(server):
    server.install("reader", READ_ALL, {"capabilities": ["state:read:a"]})
    assert server.delete("/v1/handlers/reader").status == 204
    server.install("reader", READ_ALL)
    server.get("/v1/handlers/reader/grants").problem(404, "GRANTS_NOT_FOUND")
    assert server.value(handler="reader", state=STATE) == []


def test_grants_from_files(start):
    server = start(handlers={"r.js": READ_ALL, "r.grants.json": {"capabilities": ["state:read:b"]}, "n.js": READ_ALL})
    assert server.value(handler="r", state=STATE) == ["b"]
    assert server.value(handler="n", state=STATE) == []
    grants = server.get("/v1/handlers/r/grants").json()
    assert grants["capabilities"] == ["state:read:b"]


@pytest.mark.parametrize("body, detail", [
    ("", "grants"), ("[]", "grants"), ("{", "grants"), ('{"capabilities": ["x"]}', "capabilities[0]"), ('{"capabilites": []}', "capabilites"),
    ('{"timeoutMs": 0}', "timeoutMs"), ('{"timeoutMs": "5"}', "timeoutMs"), ('{"memoryLimitMb": 1.5}', "memoryLimitMb"),
    ('{"extensions": []}', "extensions"), ('{"capabilities": [], "capabilities": []}', "capabilities"),
])
def test_wrong_grants(server, body, detail):
    server.install("reader", READ_ALL)
    problem = server.request("PUT", "/v1/handlers/reader/grants", body).problem(400, "INVALID_REQUEST")
    assert detail in problem["detail"]


def test_grants_come_back(server):
    server.delete("/v1/handlers/g")
    server.install("g", "return 1")
    grants = {"capabilities": ["state:read:a", "ext:crm"], "extensions": {"crm": ["find", "upd*"], "none": []}, "timeoutMs": 100, "memoryLimitMb": 8}
    for status in (201, 200):
        reply = server.request("PUT", "/v1/handlers/g/grants", json.dumps(grants))
        assert (reply.status, reply.json()) == (status, grants)
    assert server.get("/v1/handlers/g/grants").json() == grants
    assert server.request("PUT", "/v1/handlers/g/grants", "{}").json() == {}


def test_grants_of_no_handler(server):
    server.get("/v1/handlers/nobody/grants").problem(404, "HANDLER_NOT_FOUND")
    server.request("PUT", "/v1/handlers/nobody/grants", "{}").problem(404, "HANDLER_NOT_FOUND")
