# SPDX-License-Identifier: Apache-2.0
"""Suspended executions over every store: what they survive, and what is refused when it was tampered with."""
import base64
import collections
import math
import os
import signal
import threading
import subprocess

import pytest

from conftest import SLOWNESS, Background, in_threads, wait_until
from store_forgery import HEADER, forge, items
from store_support import (KEY, MANY_CALLS, NAP, ONE_CALL, ORDER, OTHER_KEY, RIGHTS, answer, any_store,  # noqa: F401
                             durable_store, file_store, finish_order, look_up, resume, sealed_store, shared_store,
                             suspend)


def is_sealed(settings):
    return settings["SUSPEND_STORE"] == "sealed"


def end(server, how):
    if how == signal.SIGKILL:
        server.signal(how)
        server.wait_end()
    else:
        server.stop()


both_ends = pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])


# ---- Any store --------------------------------------------------------------------------------------------------------


def test_suspend_resume_finish(start, any_store):
    server = start(any_store)
    waits = suspend(server, ORDER, args={"n": 7})
    assert (waits["extensionName"], waits["method"], waits["args"]) == ("pay", "charge", [{"order": 7}])
    assert [call["callId"] for call in waits["calls"]] == [1]
    finish_order(server, waits["suspensionId"], 7)


def test_registered_handler(start, any_store):
    server = start(any_store)
    server.install("order", ORDER, RIGHTS)
    finish_order(server, suspend(server, handler="order", args={"n": 3})["suspensionId"], 3)


def test_failure_of_a_call(start, any_store):
    server = start(any_store)
    waits = suspend(server, "try { await $ext.pay.charge(1) } catch (e) { return String(e.message ?? e) }")
    reply = answer(server, waits["suspensionId"], {"success": False, "error": {"message": "card refused"}})
    assert "card refused" in reply.json()["returnValue"], reply


def test_answers_in_any_order(start, any_store):
    server = start(any_store)
    waits = suspend(server, MANY_CALLS, args=[5, 6, 7])
    calls = [call["callId"] for call in waits["calls"]]
    assert len(calls) == 3
    name = waits["suspensionId"]
    for call, value in ((calls[2], "c"), (calls[0], "a")):
        partial = resume(server, name, value, callId=call)
        assert partial["status"] == "suspended"
        if not is_sealed(any_store):
            assert partial["suspension"]["suspensionId"] == name
            answer(server, name, {"callId": call, "success": True}).problem(409, "CONFLICT")
        name = partial["suspension"]["suspensionId"]
    assert [call["callId"] for call in partial["suspension"]["calls"]] == [calls[1]]
    assert resume(server, name, "b")["returnValue"] == ["a", "b", "c"]


def test_several_answers_at_once(start, any_store):
    server = start(any_store)
    name = suspend(server, MANY_CALLS, args=list(range(100)))["suspensionId"]
    results = [{"callId": i + 1, "success": True, "value": i * i} for i in reversed(range(100))]
    result = answer(server, name, {"results": results}).json()
    assert result["returnValue"] == [i * i for i in range(100)]


def test_finished_cancelled_unknown(start, any_store):
    server = start(any_store)
    name = suspend(server, ONE_CALL)["suspensionId"]
    if is_sealed(any_store):
        answer(server, "ab" * 16, {"success": True}).problem(400, "INVALID_REQUEST")
        return
    resume(server, name, 1)
    answer(server, name, {"success": True, "value": 2}).problem(410, "GONE")
    assert look_up(server, name).json()["returnValue"] == {"got": 1}
    name = suspend(server, ONE_CALL)["suspensionId"]
    assert server.delete(f"/v1/resume/{name}").status == 204
    answer(server, name, {"success": True}).problem(410, "GONE")
    for unknown in ("ab" * 16, "ab" * 15, "zz" * 16, "..%2F" + "a" * 27, "x"):
        look_up(server, unknown).problem(404, "NOT_FOUND")
    answer(server, "ab" * 16, {"success": True}).problem(404, "NOT_FOUND")


def test_expired(start, any_store):
    server = start({**any_store, "SUSPEND_TTL_MS": 300})
    name = suspend(server, ONE_CALL)["suspensionId"]
    if is_sealed(any_store):
        wait_until(lambda: answer(server, name, {"success": True}).status == 410, what="the expiry")
        answer(server, name, {"success": True}).problem(410, "GONE")
    else:
        wait_until(lambda: look_up(server, name).status in (404, 410), what="the expiry")
        assert answer(server, name, {"success": True}).status in (404, 410)


def test_expired_while_it_runs(start, any_store):
    """Who resumes in time gets the result."""
    server = start({**any_store, "SUSPEND_TTL_MS": int(1500 * SLOWNESS)})
    name = suspend(server, "const end = await $ext.pay.charge(Date.now()); while (Date.now() < end); return 'done'")
    began = name["args"][0]
    assert resume(server, name["suspensionId"], began + 2000 * SLOWNESS)["returnValue"] == "done"


# ---- A restart --------------------------------------------------------------------------------------------------------


@both_ends
def test_restart(start, durable_store, how):
    server = start(durable_store)
    registered = ORDER + "// registered"
    server.install("order", registered, RIGHTS)
    inline = suspend(server, ORDER, args={"n": 1})["suspensionId"]
    named = suspend(server, handler="order", args={"n": 2})["suspensionId"]
    between = resume(server, suspend(server, ORDER, args={"n": 3})["suspensionId"], {"id": 30})["suspension"]["suspensionId"]
    end(server, how)
    server = start(durable_store)
    finish_order(server, inline, 1)
    assert resume(server, between, "ok")["returnValue"] == {"seen": [3, 30], "refunded": "ok"}
    if is_sealed(durable_store):  # only inline code travels
        problem = answer(server, named, {"success": True, "value": {"id": 20}}).problem(409, "CONFLICT")
        assert '"order"' in problem["detail"], problem
        server.install("order", registered + " and changed", RIGHTS)
        answer(server, named, {"success": True, "value": {"id": 20}}).problem(409, "CONFLICT")
        server.install("order", registered, RIGHTS)
    finish_order(server, named, 2)


@both_ends
@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_handler_changed_meanwhile(start, shared_store, change, how):
    """An execution ends with the handler that it began with."""
    server = start(shared_store)
    server.install("order", ORDER, RIGHTS)
    name = suspend(server, handler="order", args={"n": 4})["suspensionId"]
    if change == "replaced":
        server.install("order", "return 'another'", RIGHTS)
    else:
        server.delete("/v1/handlers/order")
    end(server, how)
    server = start(shared_store)
    if change == "replaced":
        server.install("order", "return 'another'", RIGHTS)
    finish_order(server, name, 4)


def test_results_survive(start, shared_store):
    server = start(shared_store)
    name = suspend(server, ONE_CALL)["suspensionId"]
    result = resume(server, name, 5)
    end(server, signal.SIGKILL)
    server = start(shared_store)
    assert look_up(server, name).json() == result
    answer(server, name, {"success": True}).problem(410, "GONE")


def test_limits_go_on_after_a_restart(start, shared_store):
    """What was used up stays used up: neither a restart nor a suspension gives an execution more."""
    settings = {**shared_store, "MAX_HOST_CALLS": 3}
    server = start(settings)
    name = suspend(server, "for (let i = 0; ; i++) await $ext.pay.charge(i)")["suspensionId"]
    result = resume(server, name)
    end(server, signal.SIGKILL)
    server = start(settings)
    assert result["status"] == "suspended" and resume(server, name)["status"] == "suspended"
    result = resume(server, name)
    assert result["status"] == "error" and result["error"]["code"] == "RESOURCE_LIMIT", result


def test_handler_that_cannot_be_compiled_now(start, shared_store):
    """What this machine lacks is not the end of the execution."""
    server = start(shared_store)
    name = suspend(server, "const table = new Uint8Array(4 << 20).fill(1);"
                           "export default async () => [await $ext.pay.charge(1), table.length]")["suspensionId"]
    server.stop()
    server = start({**shared_store, "MEMORY_LIMIT_MB": 4})
    problem = answer(server, name, {"success": True, "value": 1}).problem(503, "OVERLOADED")
    assert "4 MiB" in problem["detail"], problem
    server.stop()
    assert resume(start(shared_store), name, 1)["returnValue"] == [1, 4 << 20]


def test_limits_are_those_of_the_server_that_goes_on(start, shared_store):
    server = start(shared_store)
    name = suspend(server, "await $ext.pay.charge(1); for (;;);")["suspensionId"]
    server.stop()
    result = resume(start({**shared_store, "TIMEOUT_MS": 300}), name)
    assert result["error"]["code"] == "TIMEOUT" and "300 ms" in result["error"]["message"], result


def test_rights_stay_what_they_were(start, shared_store):
    server = start(shared_store)
    name = suspend(server, "await $ext.pay.charge(1); return await $ext.net.fetch('http://127.0.0.1:1/')")["suspensionId"]
    end(server, signal.SIGKILL)
    server = start({**shared_store, "NET_ALLOW": "127.0.0.1:1"})
    assert resume(server, name)["error"]["code"] == "PERMISSION_DENIED"


def acknowledged_until_killed(server):
    """Clients that suspend without a pause until the server is killed: the ids they were told."""
    told, killing = [], threading.Event()

    def client(i):
        for j in range(1_000_000):
            n = i * 1_000_000 + j
            try:
                told.append((suspend(server, ONE_CALL, args=n)["suspensionId"], n))
            except Exception:  # an answer may be cut anywhere
                assert killing.is_set()
                return

    with Background(lambda: in_threads(6, client)):
        wait_until(lambda: len(told) > 1000, 60, "suspensions")
        killing.set()
        server.signal(signal.SIGKILL)
        server.wait_end()
    return told


def test_killed_in_a_stream_of_suspensions(start, shared_store):
    """Whatever was acknowledged can be resumed after kill -9."""
    told = acknowledged_until_killed(start(shared_store))
    server = start(shared_store)
    assert len({name for name, _ in told}) == len(told) > 1000

    def client(i):
        for name, n in told[i::4]:
            assert look_up(server, name).json()["suspension"]["args"] == [n]
            assert resume(server, name, n + 1)["returnValue"] == {"got": n + 1}

    in_threads(4, client)


# ---- Keys -------------------------------------------------------------------------------------------------------------


def test_keys_are_changed(start, durable_store):
    server = start(durable_store)
    old, lost = (suspend(server, ORDER, args={"n": n})["suspensionId"] for n in (1, 2))
    server.stop()
    server = start({**durable_store, "SUSPEND_KEY": OTHER_KEY, "SUSPEND_KEY_PREVIOUS": KEY})
    finish_order(server, old, 1)
    new = suspend(server, ORDER, args={"n": 3})["suspensionId"]
    server.stop()
    server = start({**durable_store, "SUSPEND_KEY": OTHER_KEY})
    problem = answer(server, lost, {"success": True}).problem(400, "INVALID_REQUEST")
    assert "SUSPEND_KEY" in problem["detail"]
    if not is_sealed(durable_store):
        look_up(server, lost).problem(400, "INVALID_REQUEST")
    finish_order(server, new, 3)
    server.stop()
    finish_order(start(durable_store), lost, 2)  # nothing was lost: only the key was


# ---- Tampered files ---------------------------------------------------------------------------------------------------


def answers_of(server, name):
    """Statuses of everything that can be asked of an id; none may be a success or a failure of the server's."""
    replies = [look_up(server, name), answer(server, name, {"success": True, "value": 1})]
    return [reply.status for reply in replies]


def test_every_part_of_a_file_is_checked(start, file_store):
    server = start(file_store)
    name = suspend(server, ORDER, args={"n": 1})["suspensionId"]
    path = items(file_store) / name
    whole = path.read_bytes()
    places = sorted({*range(HEADER.size + 49), *range(HEADER.size + 49, len(whole), 17), len(whole) - 1})
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        statuses = answers_of(server, name)
        assert set(statuses) <= {400, 404, 410}, (place, statuses)
    for size in [*range(0, len(whole), 23), len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert set(answers_of(server, name)) <= {400, 404, 410}, size
    path.write_bytes(whole + b"\0")
    assert set(answers_of(server, name)) <= {400, 404, 410}
    path.write_bytes(whole)
    finish_order(server, name, 1)


def test_files_exchanged_between_ids(start, file_store):
    server = start(file_store)
    one, two = (suspend(server, ORDER, args={"n": n})["suspensionId"] for n in (1, 2))
    first, second = items(file_store) / one, items(file_store) / two
    text = first.read_bytes()
    first.write_bytes(second.read_bytes())
    assert set(answers_of(server, one)) <= {400, 404, 410}
    # With a checksum that fits the name the seal still knows whose it is.
    forge(first)
    assert answers_of(server, one) == [400, 400]
    first.write_bytes(text)
    finish_order(server, one, 1)
    finish_order(server, two, 2)


def test_forged_headers(start, file_store):
    """The header is not sealed. Nothing that it can be made to say shows an execution as what it is not."""
    server = start(file_store)
    waiting, finished = (suspend(server, ONE_CALL)["suspensionId"] for _ in range(2))
    resume(server, finished, "result")
    path = items(file_store) / waiting
    whole = path.read_bytes()
    forge(path)
    assert path.read_bytes() == whole, "the test knows the format"
    forge(path, state=1)  # as if it had finished
    look_up(server, waiting).problem(400, "INVALID_REQUEST")
    answer(server, waiting, {"success": True}).problem(410, "GONE")
    forge(path, state=2)
    look_up(server, waiting).problem(410, "GONE")
    path.write_bytes(whole)
    ended = items(file_store) / finished
    forge(ended, state=0)  # as if it still waited
    look_up(server, finished).problem(400, "INVALID_REQUEST")
    answer(server, finished, {"success": True}).problem(400, "INVALID_REQUEST")
    forge(path, wake=1)  # due since 1970
    wait_until(lambda: server.get("/readyz").status == 200)
    assert resume(server, waiting, 1)["status"] == "success"


def test_expiry_cannot_be_forged(start, file_store):
    server = start({**file_store, "SUSPEND_TTL_MS": int(1000 * SLOWNESS)})
    name = suspend(server, ONE_CALL)["suspensionId"]
    forge(items(file_store) / name, expires=1 << 42)
    wait_until(lambda: answer(server, name, {"success": True}).status == 410, what="the expiry that is sealed")


def test_changed_source(start, file_store):
    server = start(file_store)
    name = suspend(server, ONE_CALL)["suspensionId"]
    server.stop()
    source, = (items(file_store).parent / "sources").iterdir()
    whole = source.read_bytes()
    source.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    server = start({**file_store, "CACHE_DIR": source.parent.parent / "empty"})
    answer(server, name, {"success": True, "value": 1}).problem(400, "INVALID_REQUEST")
    forge(source)  # with all checksums right it is still not what was sealed
    answer(server, name, {"success": True, "value": 1}).problem(400, "INVALID_REQUEST")
    source.unlink()
    problem = answer(server, name, {"success": True, "value": 1}).problem(409, "CONFLICT")
    assert "inline" in problem["detail"]
    source.write_bytes(whole)
    assert resume(server, name, 1)["returnValue"] == {"got": 1}


def test_nothing_readable_in_the_store(start, file_store):
    server = start(file_store)
    suspend(server, ONE_CALL, args="a-very-secret-argument")
    everything = b"".join(path.read_bytes() for path in items(file_store).iterdir())
    assert b"secret" not in everything and b"charge" not in everything


# ---- Sealed -----------------------------------------------------------------------------------------------------------


def unbase64(token):
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


def bits_per_byte(data):
    counts = collections.Counter(data)
    return -sum(n / len(data) * math.log2(n / len(data)) for n in counts.values())


def test_sealed_token_says_nothing(start, sealed_store):
    server = start(sealed_store)
    marker = "SECRET" * 40
    token = suspend(server, ONE_CALL + f"// {marker}", args=marker)["suspensionId"]
    other = suspend(server, ONE_CALL + f"// {marker}", args=marker)["suspensionId"]
    sealed = unbase64(token)
    for text in (b"SECRET", b"charge", b"await", b"capabilities", b"\x28\xb5\x2f\xfd"):
        assert text not in sealed and text not in token.encode()
    assert bits_per_byte(sealed[33:]) > 7.8
    assert sealed[33:49] not in unbase64(other), "equal executions are sealed differently"


def test_sealed_token_tampered(start, sealed_store):
    server = start(sealed_store)
    token = suspend(server, ORDER, args={"n": 1})["suspensionId"]
    sealed = unbase64(token)

    def refused(name):
        answer(server, name, {"success": True}).problem(400, "INVALID_REQUEST")

    for place in [*range(49), *range(49, len(sealed), 29), len(sealed) - 1]:
        changed = bytearray(sealed)
        changed[place] ^= 1 << (place % 8)
        refused(base64.urlsafe_b64encode(changed).decode().rstrip("="))
    for size in (1, 2, 3, 10, 60, 66, 67, len(token) // 2, len(token) - 4, len(token) - 1):
        refused(token[:size])
    for name in (token + "A", token + "=", token + "\n", token + " ", "*" + token[1:], token[:100] + "\0" + token[101:],
                 "A" * (64 << 10), "A" * ((64 << 10) + 1), "A" * 900_000, token + token):
        refused(name)
    answer(server, "", {"success": True}).problem(400, "INVALID_REQUEST")
    finish_order(server, token, 1)


def test_sealed_replays_until_it_expires(start, sealed_store):
    server = start(sealed_store)
    token = suspend(server, ONE_CALL)["suspensionId"]
    for value in range(20):
        assert resume(server, token, value)["returnValue"] == {"got": value}
    look_up(server, token[:50]).problem(404, "NOT_FOUND")
    server.delete(f"/v1/resume/{token[:50]}").problem(404, "NOT_FOUND")
    assert server.health()["memory"]["layers"]["suspended"] == 0


def test_too_large_to_seal(start, sealed_store):
    server = start(sealed_store)
    noise = "const kept = Array.from({length: 100000}, () => Math.random());"
    error = server.fails("RESOURCE_LIMIT", noise + "await $ext.pay.charge(1); return kept.length", **RIGHTS)
    assert "sealed" in error["message"] and "65536" in error["message"], error
    name = suspend(server, "await $ext.pay.charge(1);" + noise + "await $ext.pay.charge(2)")["suspensionId"]
    assert resume(server, name)["error"]["code"] == "RESOURCE_LIMIT"


def test_sealed_inline_source_travels(start, sealed_store):
    first = start(sealed_store)
    token = suspend(first, ORDER, args={"n": 9})["suspensionId"]
    first.stop()
    finish_order(start({**sealed_store, "PORT": 0}), token, 9)


# ---- A full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(tiny_disk, start):
    server = start({"SUSPEND_STORE": f"file:{tiny_disk / 'store'}", "SUSPEND_KEY": KEY})
    kept = []
    while True:
        reply = server.post({"code": ONE_CALL, "args": len(kept), **RIGHTS})
        if reply.status != 200:
            break
        kept.append(reply.json()["suspension"]["suspensionId"])
    problem = reply.problem(503, "STORE_UNAVAILABLE")
    assert "free space" in problem["detail"], problem
    assert len(kept) > 50
    assert server.value("return 1") == 1
    assert not [path for path in (tiny_disk / "store" / "v1" / "items").iterdir() if path.name not in kept]
    # A result needs a little room, too: without it the execution waits on.
    (tiny_disk / "ballast").write_bytes(b"")
    with pytest.raises(OSError), open(tiny_disk / "ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 4096)
    answer(server, kept[0], {"success": True, "value": 0}).problem(503, "STORE_UNAVAILABLE")
    assert all(look_up(server, name).json()["status"] == "suspended" for name in kept)
    (tiny_disk / "ballast").unlink()
    (tiny_disk / "store" / "v1" / "items" / kept.pop()).unlink()
    for n, name in enumerate(kept):
        assert resume(server, name, n)["returnValue"] == {"got": n}
    server.stop()
