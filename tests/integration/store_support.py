# SPDX-License-Identifier: Apache-2.0
"""What tests of suspended executions share: stores, handlers that wait, and the requests that go with them."""
import pytest

KEY, OTHER_KEY = "a1" * 32, "b2" * 32
RIGHTS = {"capabilities": ["ext:pay", "state:write:*", "events:emit:*"], "extensions": {"pay": ["charge", "refund"]}}

# Two calls, one after the other; what was before, between and after them must be there at the end, once.
ORDER = """
const seen = [$args.n];
$state.step = 'begun';
const charged = await $ext.pay.charge({order: $args.n});
seen.push(charged.id);
$emit('charged', charged.id);
const refunded = await $ext.pay.refund(charged.id);
return {seen, refunded};
"""
ONE_CALL = "return {got: await $ext.pay.charge($args)}"
MANY_CALLS = "return await Promise.all($args.map(n => $ext.pay.charge(n)))"
NAP = "await $ext.time.sleep($args); return 'woken'"


def suspend(server, code=None, **fields):
    """The suspension of an execution that must wait."""
    result = server.execute(code, **{**RIGHTS, **fields})
    assert result["status"] == "suspended", result
    return result["suspension"]


def answer(server, suspension_id, body):
    return server.request("POST", "/v1/resume", {"suspensionId": suspension_id, **body})


def resume(server, suspension_id, value=None, **fields):
    """The result after the first open call has succeeded with `value`."""
    reply = answer(server, suspension_id, {"success": True, "value": value, **fields})
    assert reply.status == 200, reply
    return reply.json()


def finish_order(server, suspension_id, n):
    """Takes an ORDER that waits for its first call to its end."""
    result = resume(server, suspension_id, {"id": n * 10})
    assert result["status"] == "suspended" and result["events"] == [{"name": "charged", "payload": n * 10}], result
    assert result["stateMutations"] == [], "told with the first suspension"
    assert result["suspension"]["args"] == [n * 10]
    result = resume(server, result["suspension"]["suspensionId"], "ok")
    assert result["status"] == "success", result
    assert result["returnValue"] == {"seen": [n, n * 10], "refunded": "ok"} and result["events"] == []


def look_up(server, suspension_id):
    return server.get(f"/v1/resume/{suspension_id}")


def settings_of(kind, request, tmp_path):
    """The settings of a server with such a store; all servers of one test share it."""
    if kind == "memory":
        return {"SUSPEND_STORE": "memory"}
    if kind == "redis":
        kind = request.getfixturevalue("redis").store
    return {"SUSPEND_STORE": f"file:{tmp_path / 'store'}" if kind == "file" else kind, "SUSPEND_KEY": KEY}


@pytest.fixture(params=["memory", "file", "redis", "sealed"])
def any_store(request, tmp_path):
    return settings_of(request.param, request, tmp_path)


@pytest.fixture(params=["file", "redis"])
def shared_store(request, tmp_path):
    return settings_of(request.param, request, tmp_path)


@pytest.fixture(params=["file", "redis", "sealed"])
def durable_store(request, tmp_path):
    return settings_of(request.param, request, tmp_path)


@pytest.fixture
def file_store(request, tmp_path):
    return settings_of("file", request, tmp_path)


@pytest.fixture
def sealed_store(request, tmp_path):
    return settings_of("sealed", request, tmp_path)
