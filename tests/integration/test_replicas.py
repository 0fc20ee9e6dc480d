# SPDX-License-Identifier: Apache-2.0
"""Several servers over one store: executions that wander, timers of the dead, and a Redis that comes and goes."""
import collections
import json
import shutil
import signal

import pytest
from prometheus_client.parser import text_string_to_metric_families

import handover
from conftest import SLOWNESS, Background, in_threads, wait_until
from store_support import (KEY, MANY_CALLS, NAP, ONE_CALL, ORDER, RIGHTS, answer, any_store, finish_order,  # noqa: F401
                             look_up, resume, sealed_store, shared_store, suspend)

SPIN = "const end = Date.now() + $args; while (Date.now() < end);"
# It is over when its timer fires: nobody answers the call.
PATIENCE = "const paid = $ext.pay.charge(1); await $ext.time.sleep($args); return 'gave up'"

# One that a killed server was just going on with is free in Redis when its lease ends: after these two and ten seconds.
SHORT_LEASES = {"QUEUE_TIMEOUT_MS": 100, "TIMEOUT_MS": int(500 * SLOWNESS)}


def pair(start, settings):
    return start(settings), start(settings)


def kill(server):
    server.signal(signal.SIGKILL)
    server.wait_end()


def result_at(server, name):
    """The final result, once there is one."""
    reply = look_up(server, name)
    assert reply.status == 200, reply
    return reply.json() if reply.json()["status"] != "suspended" else None


# ---- Handing over -----------------------------------------------------------------------------------------------------


def test_handed_back_and_forth(start, shared_store):
    fleet = handover.Fleet(lambda: start(shared_store))

    def client(i):
        for execution in fleet.run(range(i * 60, i * 60 + 60)):
            execution.check_end()
            assert not execution.is_unsure

    in_threads(4, client)


def test_handed_on_by_the_dying(start, shared_store):
    """Servers are killed meanwhile: every answer still counts once."""
    settings = {**shared_store, **SHORT_LEASES}
    fleet = handover.Fleet(lambda: start(settings))
    finished = []

    def client(i):
        for execution in fleet.run(range(i * 50, i * 50 + 50)):
            finished.append(execution)

    with Background(lambda: in_threads(4, client)) as clients:
        for count in (40, 80, 120):
            wait_until(lambda: len(finished) >= count or clients.done(), 120, "executions")
            fleet.kill_one()
    assert fleet.kills == 3 and len(finished) == 200
    for execution in finished:
        execution.check_end()


def test_handlers_that_only_one_knows(start, shared_store):
    first, second = pair(start, shared_store)
    first.install("order", ORDER, RIGHTS)
    name = suspend(first, handler="order", args={"n": 6})["suspensionId"]
    finish_order(second, name, 6)


def test_one_of_many_resumes_wins(start, shared_store):
    servers = pair(start, {**shared_store, "MAX_INSTANCES": 16})
    for code, losers in ((ONE_CALL, {410}), (ONE_CALL.replace("return", "await $ext.pay.charge(0); return"), {409})):
        name = suspend(servers[0], code)["suspensionId"]
        replies = in_threads(32, lambda i: answer(servers[i % 2], name, {"callId": 1, "success": True, "value": i}))
        counts = collections.Counter(reply.status for reply in replies)
        assert counts[200] == 1 and counts[200] + sum(counts[status] for status in losers) == 32, counts
    winner, = (i for i, reply in enumerate(replies) if reply.status == 200)
    result = resume(servers[winner % 2], name, "end", callId=2)
    assert result["returnValue"] == {"got": "end"}


def test_answers_of_all_calls_at_once(start, shared_store):
    """Webhooks that answer the calls of one Promise.all at the same time, at both servers: all count."""
    servers = pair(start, {**shared_store, "MAX_INSTANCES": 16})
    name = suspend(servers[0], MANY_CALLS, args=list(range(16)))["suspensionId"]
    replies = in_threads(16, lambda i: answer(servers[i % 2], name, {"callId": i + 1, "success": True, "value": i}))
    assert [reply.status for reply in replies] == [200] * 16, replies
    ends = [reply.json() for reply in replies if reply.json()["status"] == "success"]
    assert [end["returnValue"] for end in ends] == [list(range(16))]


def test_cancelled_while_it_runs_elsewhere(start, shared_store):
    first, second = pair(start, shared_store)
    name = suspend(first, "const time = await $ext.pay.charge(1); " + SPIN.replace("$args", "time"))["suspensionId"]
    with Background(lambda: answer(first, name, {"success": True, "value": 1000})) as running:
        wait_until(lambda: second.delete(f"/v1/resume/{name}").status == 204 and
                   look_up(second, name).status == 410, what="the cancellation")
        running.result().problem(410, "GONE")
    look_up(first, name).problem(410, "GONE")


def test_lease_of_a_stopped_server_passes_on(start, shared_store):
    """A server that stands still in the middle loses its lease; when it goes on its result is nobody's."""
    first, second = pair(start, {**shared_store, "QUEUE_TIMEOUT_MS": 200, "TIMEOUT_MS": 2000})
    name = suspend(first, "const who = await $ext.pay.charge(1); " + SPIN.replace("$args", "who.ms") + "return who.name",
                   )["suspensionId"]
    with Background(lambda: answer(first, name, {"success": True, "value": {"ms": 1500, "name": "first"}})) as stopped:
        wait_until(lambda: first.health()["instances"]["active"] == 1, what="the execution")
        first.signal(signal.SIGSTOP)
        try:
            busy = answer(second, name, {"success": True, "value": {"ms": 0, "name": "second"}})
            assert busy.status == 503, busy
            reply = wait_until(lambda: passed_on(second, name), 60, "the lease")
        finally:
            first.signal(signal.SIGCONT)
        assert reply.json()["returnValue"] == "second"
        stopped.result().problem(410, "GONE")
    assert look_up(first, name).json()["returnValue"] == "second"


def passed_on(server, name):
    reply = answer(server, name, {"success": True, "value": {"ms": 0, "name": "second"}})
    return reply if reply.status != 503 else None


# ---- Timers -----------------------------------------------------------------------------------------------------------


def test_timers_of_a_killed_server(start, shared_store):
    first, second = pair(start, {**shared_store, **SHORT_LEASES})
    names = [suspend(first, PATIENCE, args=700 + i)["suspensionId"] for i in range(30)]
    kill(first)
    for name in names:
        result = wait_until(lambda: result_at(second, name), 30, "the timer")
        assert result["returnValue"] == "gave up"


def test_timers_of_the_time_between(start, shared_store):
    """They were due while no server ran."""
    settings = {**shared_store, **SHORT_LEASES}
    server = start(settings)
    names = [suspend(server, PATIENCE, args=50)["suspensionId"] for _ in range(100)]
    kill(server)
    server = start(settings)
    for name in names:
        assert wait_until(lambda: result_at(server, name), 60, "the timer")["returnValue"] == "gave up"


def test_timers_fire_once(start, shared_store):
    """Three servers look for what is due; each execution goes on at one of them."""
    servers = [start(shared_store) for _ in range(3)]
    code = "$ext.pay.charge(1); for (let i = 0; i < 5; i++) { await $ext.time.sleep(30); $emit('tick', i) }"
    names = [suspend(servers[i % 3], code)["suspensionId"] for i in range(30)]
    for name in names:
        result = wait_until(lambda: result_at(servers[0], name), 30, "the timers")
        assert result["events"] == [{"name": "tick", "payload": i} for i in range(5)]


# ---- SIGTERM ----------------------------------------------------------------------------------------------------------


# Naps are longer than three quarters of the grace, for which they would be waited for.
GRACE = {"SHUTDOWN_GRACE_MS": int(5000 * SLOWNESS)}
NAP_MS = int(6000 * SLOWNESS)


def sleepers(server, count, nap_ms):
    """Background requests that wait for their results."""
    def client(i):
        connection = server.connect()
        connection.request("POST", "/v1/execute", '{"code": "%s", "args": %d}' % (NAP, nap_ms))
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, body
    return Background(lambda: in_threads(count, client))


def waiting(server, count):
    wait_until(lambda: server.health()["instances"]["suspended"] == count, what="sleepers")


def drained(server, count, nap_ms):
    """What that many sleepers are told when their server ends."""
    with sleepers(server, count, nap_ms) as clients:
        waiting(server, count)
        server.signal(signal.SIGTERM)
        answers = clients.result()
    assert server.wait_end() == 0
    return answers


def test_sleepers_go_to_another_server(start, shared_store):
    first, second = pair(start, {**shared_store, **GRACE})
    for status, body in drained(first, 8, NAP_MS):
        result = json.loads(body)
        assert status == 200 and result["status"] == "suspended", body
        name = result["suspension"]["suspensionId"]
        assert result["suspension"]["calls"] == []
        assert wait_until(lambda: result_at(second, name), 30, "the nap's end")["returnValue"] == "woken"


def test_sleepers_of_a_store_that_ends_too(start):
    server = start({"SHUTDOWN_GRACE_MS": 2000})
    assert [status for status, _ in drained(server, 4, 60000)] == [503] * 4


def test_sleepers_that_travel_sealed(start, sealed_store):
    """Their callers get them to wait on elsewhere."""
    first, second = pair(start, {**sealed_store, **GRACE})
    for status, body in drained(first, 2, NAP_MS):
        assert status == 200, body
        token = json.loads(body)["suspension"]["suspensionId"]
        # Whoever has it asks again when it may go on.
        reply = wait_until(lambda: went_on(second, token), 30, "the nap's end")
        assert reply.json()["returnValue"] == "woken", reply


def went_on(server, token):
    reply = answer(server, token, {"results": []})
    if reply.status == 200:
        return reply
    assert "it can go on in" in reply.problem(409, "CONFLICT")["detail"]
    return None


def test_no_answers_for_what_waits_for_one(start, shared_store):
    server = start(shared_store)
    name = suspend(server, ORDER, args={"n": 1})["suspensionId"]
    assert "not an empty one" in answer(server, name, {"results": []}).problem(400, "INVALID_REQUEST")["detail"]
    finish_order(server, name, 1)


# ---- Redis comes and goes -----------------------------------------------------------------------------------------------


@pytest.fixture
def over_redis(start, redis):
    return start({"SUSPEND_STORE": redis.store, "SUSPEND_KEY": KEY, "MAX_INSTANCES": 2})


def test_redis_is_dead(over_redis, redis):
    """Suspensions are refused at once, other executions go on as if nothing was; it comes back with what it had."""
    before = suspend(over_redis, ORDER, args={"n": 1})["suspensionId"]
    redis.kill()
    refused = over_redis.post({"code": ONE_CALL, **RIGHTS}).problem(503, "STORE_UNAVAILABLE")
    assert "127.0.0.1" in refused["detail"], refused
    answer(over_redis, before, {"success": True}).problem(503, "STORE_UNAVAILABLE")
    look_up(over_redis, before).problem(503, "STORE_UNAVAILABLE")
    done = []

    def suspender(i):
        count = 0
        while not done:
            over_redis.post({"code": ONE_CALL, **RIGHTS}).problem(503, "STORE_UNAVAILABLE")
            count += 1
        return count

    with Background(lambda: in_threads(8, suspender)) as suspenders:
        try:
            for i in range(500):
                assert over_redis.value("return $args + 1", args=i) == i + 1
        finally:
            done.append(True)
        assert all(suspenders.result())
    assert over_redis.get("/readyz").status == 200
    redis.start()
    wait_until(lambda: look_up(over_redis, before).status == 200, what="the connection")
    finish_order(over_redis, before, 1)
    finish_order(over_redis, suspend(over_redis, ORDER, args={"n": 2})["suspensionId"], 2)


def test_redis_hangs(over_redis, redis):
    """It takes connections and never answers: requests wait for it for a bounded time, and only those that need it."""
    before = suspend(over_redis, ORDER, args={"n": 1})["suspensionId"]
    redis.process.send_signal(signal.SIGSTOP)
    try:
        with Background(lambda: over_redis.post({"code": ONE_CALL, **RIGHTS})) as refused:
            assert over_redis.value("return 1") == 1
            refused.result().problem(503, "STORE_UNAVAILABLE")
        look_up(over_redis, before).problem(503, "STORE_UNAVAILABLE")
        assert over_redis.value("return 2") == 2
    finally:
        redis.process.send_signal(signal.SIGCONT)
    wait_until(lambda: look_up(over_redis, before).status == 200, what="the connection")
    finish_order(over_redis, before, 1)


def test_redis_comes_back_empty(over_redis, redis):
    name = suspend(over_redis, ORDER, args={"n": 1})["suspensionId"]
    redis.kill()
    redis.forget()
    redis.start()
    wait_until(lambda: look_up(over_redis, name).status != 503, what="the connection")
    look_up(over_redis, name).problem(404, "NOT_FOUND")
    answer(over_redis, name, {"success": True}).problem(404, "NOT_FOUND")
    finish_order(over_redis, suspend(over_redis, ORDER, args={"n": 2})["suspensionId"], 2)


def test_redis_is_not_there_at_the_start(start, redis):
    redis.kill()
    server = start({"SUSPEND_STORE": redis.store, "SUSPEND_KEY": KEY})
    server.post({"code": ONE_CALL, **RIGHTS}).problem(503, "STORE_UNAVAILABLE")
    assert server.value("return 1") == 1
    redis.start()
    wait_until(lambda: server.post({"code": ONE_CALL, **RIGHTS}).status == 200, what="the connection")


def failures_of_store(server):
    return {sample.labels["reason"]: sample.value
            for family in text_string_to_metric_families(server.get("/metrics").body.decode())
            for sample in family.samples if sample.name == "nexus_suspension_store_failures_total"}


def test_failures_of_redis_are_counted(over_redis, redis):
    """Also those that nobody waits for: the sweep finds a dead Redis when there are no requests."""
    over_redis.suspends(code=ONE_CALL, **RIGHTS)
    assert failures_of_store(over_redis) == {"unavailable": 0, "full": 0}
    redis.kill()
    wait_until(lambda: failures_of_store(over_redis)["unavailable"] > 0, what="a failure of the sweep")
    before = failures_of_store(over_redis)
    over_redis.post({"code": ONE_CALL, **RIGHTS}).problem(503, "STORE_UNAVAILABLE")
    assert failures_of_store(over_redis)["unavailable"] > before["unavailable"] and before["full"] == 0
    redis.start()
    wait_until(lambda: over_redis.post({"code": ONE_CALL, **RIGHTS}).status == 200, what="the connection")
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    over_redis.post({"code": ONE_CALL, **RIGHTS}).problem(503, "OVERLOADED")
    assert failures_of_store(over_redis)["full"] > 0
    redis.ask("CONFIG", "SET", "maxmemory", "0")


def test_failures_of_a_directory_are_counted(start, tmp_path):
    server = start({"SUSPEND_STORE": f"file:{tmp_path}/kept", "SUSPEND_KEY": KEY})
    server.suspends(code=ONE_CALL, **RIGHTS)
    assert failures_of_store(server) == {"unavailable": 0, "full": 0}
    shutil.rmtree(tmp_path / "kept")
    server.post({"code": ONE_CALL, **RIGHTS}).problem(503, "STORE_UNAVAILABLE")
    assert failures_of_store(server)["unavailable"] > 0


def test_tampered_items_in_redis(over_redis, redis):
    one, two = (suspend(over_redis, ORDER, args={"n": n})["suspensionId"] for n in (1, 2))
    key = f"nexus:{{store}}:item:{one}"
    whole = redis.ask("HGET", key, "bytes")
    others = redis.ask("HGET", f"nexus:{{store}}:item:{two}", "bytes")
    assert b"order" not in whole
    for damaged in (b"", b"\0", whole[:-1], whole[:48], whole + b"\0", b"\2" + whole[1:], whole[:60] + b"?" + whole[61:],
                    others):
        redis.ask("HSET", key, "bytes", damaged)
        assert look_up(over_redis, one).status in (400, 404, 410), damaged
        assert answer(over_redis, one, {"success": True, "value": {"id": 10}}).status in (400, 404, 410), damaged
    redis.ask("HSET", key, "bytes", whole)
    redis.ask("HSET", key, "state", "finished")
    look_up(over_redis, one).problem(400, "INVALID_REQUEST")
    redis.ask("HSET", key, "state", "nonsense")
    assert look_up(over_redis, one).status in (400, 404, 410)
    redis.ask("HSET", key, "state", "waiting")
    finish_order(over_redis, one, 1)
    finish_order(over_redis, two, 2)
