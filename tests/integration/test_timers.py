# SPDX-License-Identifier: Apache-2.0
"""$ext.time.sleep, setTimeout and setInterval: order, waiting without a thread, going on without a caller, and the drain."""
import json
import signal
import socket

import pytest

from conftest import SLOWNESS, Background, in_threads, wait_until
from store_support import file_store  # noqa: F401
from suspend_support import ALL, EXTENSIONS, TTL_MS, Story, module_server, request_in_background, success, suspending  # noqa: F401
from test_health_metrics import get, samples

SETTINGS = {"SUSPEND_TTL_MS": TTL_MS}
LONG_MS = 600_000  # longer than any test


def body(code, **fields):
    return json.dumps({"code": code, "capabilities": ALL, "extensions": EXTENSIONS, **fields})


# ---- Order ----------------------------------------------------------------------------------------------------------------

PAUSE = "const pause = (ms) => new Promise((done) => setTimeout(done, ms)); const seen = [], note = (what) => () => seen.push(what);"
TIMERS = {
    "by time": ("setTimeout(note('c'), 60); setTimeout(note('a'), 20); setTimeout(note('b'), 40); await pause(80); return seen", ["a", "b", "c"]),
    "equal times as they were set": ("for (const n of [1, 2, 3]) setTimeout(note(n), 20); await pause(20); return seen", [1, 2, 3]),
    "arguments": ("setTimeout((...args) => seen.push(...args), 1, 'x', {y: 1}); await pause(2); return seen", ["x", {"y": 1}]),
    "no delay": ("setTimeout(note('timer')); Promise.resolve().then(note('job')); seen.push('now'); await pause(5); return seen", ["now", "job", "timer"]),
    "delays that are none": ("for (const d of [NaN, -5, undefined, null, 'x', {}]) setTimeout(note(1), d); await pause(5); return seen.length", 6),
    "a number in a string": ("setTimeout(note('a'), '1'); await pause(20); return seen", ["a"]),
    "microtasks between timers": ("""for (const n of [1, 2]) setTimeout(() => { seen.push(n); queueMicrotask(note('job ' + n)) }, 10);
        await pause(30); return seen""", [1, "job 1", 2, "job 2"]),
    "nested": ("await new Promise((done) => setTimeout(() => { note(1)(); setTimeout(() => { note(2)(); setTimeout(() => { note(3)(); done() }, 5) }, 5) }, 5));"
               " return seen", [1, 2, 3]),
    "cleared": ("const t = setTimeout(note('never'), 5); clearTimeout(t); clearTimeout(t); clearTimeout(undefined); clearTimeout(99); await pause(20); return seen", []),
    "cleared by another": ("const t = setTimeout(note('never'), 30); setTimeout(() => clearTimeout(t), 5); await pause(60); return seen", []),
    "cleared when both are due": ("let t; setTimeout(() => clearTimeout(t), 10); t = setTimeout(note('never'), 10); const end = Date.now() + 20; while (Date.now() < end); await pause(10); return seen", []),
    "interval": ("let n = 0; return await new Promise((done) => { const t = setInterval((by) => { n += by; if (n === 6) { clearInterval(t); done(n) } }, 5, 2) })", 6),
    "interval cleared from outside": ("const t = setInterval(note('tick'), 10); while (seen.length < 3) await pause(5); clearInterval(t); const n = seen.length; await pause(40); return seen.length === n", True),
    "interval and timeout share ids": ("const t = setInterval(note('never'), 5); clearTimeout(t); await pause(20); return seen", []),
    "thrown in a timer": ("setTimeout(() => { throw new Error('in a timer') }, 1); setTimeout(note('next'), 2); await pause(20); return seen", ["next"]),
    "sleep": ("const begin = Date.now(); seen.push(await $ext.time.sleep(30) === undefined); return [seen[0], Date.now() - begin >= 29]", [True, True]),
    "sleeps together": ("const sleep = (ms, v) => $ext.time.sleep(ms).then(() => v); return [await Promise.race([sleep(600000, 'slow'), sleep(10, 'quick')]),"
                        " await Promise.all([sleep(20, 2), sleep(10, 1)])]", ["quick", [2, 1]]),
    "a timeout around a sleep": ("try { await Promise.race([$ext.time.sleep(600000), new Promise((_, no) => setTimeout(() => no(new Error('too slow')), 10))]) }"
                                 " catch (e) { return e.message }", "too slow"),
    "the clock goes on": ("const t = [Date.now()]; for (let i = 0; i < 5; i++) { await pause(10); t.push(Date.now()) } return t.every((v, i) => !i || v >= t[i - 1] + 9)", True),
    "a hundred in a row": ("let n = 0; while (n < 100) { await pause(0); n++ } return n", 100),
}


@pytest.mark.parametrize("source, expected", TIMERS.values(), ids=TIMERS)
def test_timers(suspending, source, expected):
    assert suspending.value(PAUSE + source, capabilities=ALL) == expected


def test_a_failing_timer_is_logged(suspending):
    result = suspending.execute(PAUSE + "setTimeout(() => { throw new TypeError('in a timer') }, 1); await pause(20); return 1")
    assert result["returnValue"] == 1 and [line["level"] for line in result["logs"]] == ["error"]
    assert "TypeError: in a timer" in result["logs"][0]["message"]


def test_time_needs_no_right(suspending):
    assert suspending.value("await $ext.time.sleep(1); return await new Promise((done) => setTimeout(done, 1, 'v'))", capabilities=[]) == "v"


def test_effects_of_waiting_executions_come_in_the_one_reply(suspending):
    result = suspending.execute("for (let i = 0; i < 5; i++) { $state.k = i; $emit('e', i); $view.focus('c'); $log(i); await $ext.time.sleep(5) }", capabilities=ALL)
    assert [m["value"] for m in result["stateMutations"]] == [e["payload"] for e in result["events"]] == list(range(5))
    assert len(result["viewCommands"]) == len(result["logs"]) == 5 and "suspension" not in result


def test_what_is_left_when_the_handler_returns_is_dropped(suspending):
    """As documented: an execution ends with its promise."""
    result = suspending.execute("setTimeout(() => $log('late'), 10); return 1")
    assert result["returnValue"] == 1 and result["logs"] == []


# ---- Going on without a caller -----------------------------------------------------------------------------------------------

def test_a_timer_wins_against_the_caller(suspending):
    story = Story(suspending, "return await Promise.race([$ext.x.a(), new Promise((done) => setTimeout(done, 50, 'timer'))])")
    assert story.is_suspended and story.wait_final().value == "timer"
    assert "finished" in story.post(success(1, 1)).problem(410, "GONE")["detail"]


def test_the_caller_wins_against_a_timer(suspending):
    story = Story(suspending, f"return await Promise.race([$ext.x.a(), new Promise((done) => setTimeout(done, {LONG_MS}, 'timer'))])")
    assert story.answer("caller").value == "caller"


def test_a_timer_that_was_cleared_does_not_wake(suspending):
    story = Story(suspending, "const t = setTimeout(() => $log('never'), 1000); await $ext.x.a(); clearTimeout(t); await $ext.x.b(); return 'b'")
    story.answer()
    other = Story(suspending, "await Promise.race([$ext.x.a(), $ext.time.sleep(1050)]); return 'woken'")
    assert other.wait_final().value == "woken"  # so the timer's time has passed
    assert story.look().json()["status"] == "suspended"
    assert story.answer().value == "b" and story.effects["logs"] == []


EFFECTS = "$state.k = 'unseen'; $emit('unseen'); $view.focus('unseen'); $log('unseen');"


def test_effects_that_nobody_asked_for_are_in_the_next_reply(suspending):
    story = Story(suspending, f"$emit('first'); const a = $ext.x.a(); await $ext.time.sleep(30); {EFFECTS} const b = $ext.x.b(); return [await a, await b]")
    assert [e["name"] for e in story.effects["events"]] == ["first"] and [call["method"] for call in story.calls] == ["a"]
    wait_until(lambda: len(story.look().json()["suspension"]["calls"]) == 2, what="the second call")
    story.answer(1, "a")
    assert [len(story.result[name]) for name in ("stateMutations", "events", "viewCommands", "logs")] == [1] * 4
    assert story.answer(2).value == [1, 2]
    assert [e["name"] for e in story.effects["events"]] == ["first", "unseen"] and len(story.effects["stateMutations"]) == 1


def test_effects_that_nobody_asked_for_are_in_the_final_result(suspending):
    story = Story(suspending, f"const a = $ext.x.a(); for (let i = 0; i < 3; i++) {{ await $ext.time.sleep(10); {EFFECTS} }} return 'ended'")
    assert story.wait_final().value == "ended"
    assert [len(story.effects[name]) for name in ("stateMutations", "events", "viewCommands", "logs")] == [3] * 4


def test_an_error_while_nobody_asked_is_the_final_result(suspending):
    story = Story(suspending, "$ext.x.a(); await $ext.time.sleep(20); throw new Error('alone')")
    assert story.wait_final().error("EXECUTION_ERROR")["message"] == "alone"


def test_what_ends_by_itself_is_counted(suspending):
    suspending.install("alone", "$ext.x.a(); await $ext.time.sleep(20)", {"capabilities": ALL, "extensions": EXTENSIONS})
    Story(suspending, handler="alone").wait_final()
    found = samples(suspending)
    assert [get(found, "nexus_handler_executions_total", handler="alone", status=status) for status in ("suspended", "success")] == [1, 1]
    assert suspending.delete("/v1/handlers/alone").status == 204


def test_waits_of_both_kinds_alternate(suspending):
    story = Story(suspending, "const out = []; for (let i = 0; i < 5; i++) { await $ext.time.sleep(5); out.push(await $ext.x.a(i)); await $ext.time.sleep(5) } return out")
    for i in range(5):
        assert story.calls[0]["args"] == [i]
        story.answer(i * 10)
    assert story.value == [0, 10, 20, 30, 40]


def test_a_resume_may_wait_for_timers(suspending):
    """With only timers left the request that resumes waits like the first one."""
    story = Story(suspending, "await $ext.x.a(); $log('before'); await $ext.time.sleep(100); return 'slept'")
    assert story.answer().value == "slept" and [line["message"] for line in story.effects["logs"]] == ["before"]


def test_it_ticks_while_it_waits_for_the_caller(suspending):
    story = Story(suspending, "let n = 0; const t = setInterval(() => n++, 10); const v = await $ext.x.a(); clearInterval(t); return [v, n]")
    other = Story(suspending, "await Promise.race([$ext.x.a(), $ext.time.sleep(1500)])")
    other.wait_final()
    value, ticks = story.answer("v").value
    assert value == "v" and ticks >= 3


def test_ticking_does_not_put_the_end_off(start):
    """Who never comes back leaves nothing behind for longer than SUSPEND_TTL_MS."""
    server = start({"SUSPEND_TTL_MS": 400})
    story = Story(server, "setInterval(() => {}, 20); await $ext.x.a()")
    wait_until(lambda: story.look().status != 200, what="the expiry")
    wait_until(server.is_at_rest, what="rest")


def test_many_wake_by_themselves(suspending):
    stories = [Story(suspending, "await Promise.race([$ext.x.a(), $ext.time.sleep(200)]); return $args", args=i) for i in range(50)]
    assert [story.wait_final().value for story in stories] == list(range(50))


# ---- Waiting costs no thread and no instance --------------------------------------------------------------------------------------

def test_two_hundred_sleepers(start):
    """With two instances: all sleep at once, and other executions are served meanwhile."""
    server = start({"MAX_INSTANCES": 2, "SUSPEND_TTL_MS": TTL_MS})
    threads = server.threads()
    results = []
    sleep = "const until = $args; while (Date.now() < until) await $ext.time.sleep(until - Date.now()); return 'slept'"
    until = server.value("return Date.now()") + int(3000 * SLOWNESS)

    def sleepers():
        in_threads(200, lambda i: request_in_background(server, "/v1/execute", body(sleep, args=until), results))

    with Background(sleepers):
        wait_until(lambda: server.health()["instances"]["suspended"] == 200, what="the sleepers")
        assert server.threads() <= threads + 4 and server.health()["instances"]["active"] == 0
        assert [server.value(f"return {i}") for i in range(50)] == list(range(50))
        assert server.value("await $ext.time.sleep(1); return 'short'") == "short"
    assert len(results) == 200 and all(status == 200 and b'"slept"' in reply for status, reply in results), results[:3]
    wait_until(server.is_at_rest, what="rest")


def test_client_that_leaves_while_its_handler_sleeps(suspending):
    clients = [suspending.connect_socket() for _ in range(20)]
    for client in clients:
        text = body(f"await $ext.time.sleep({int(1500 * SLOWNESS)}); return 'unseen'").encode()
        client.sendall(b"POST /v1/execute HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
    wait_until(lambda: suspending.health()["instances"]["suspended"] == 20, what="the sleepers")
    for client in clients[::2]:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # with a reset
    for client in clients:
        client.close()
    assert suspending.value("return 1") == 1  # the fixture waits for the end of the sleepers and of their descriptors


def test_a_wait_ends_with_the_time_to_live(start):
    server = start({"SUSPEND_TTL_MS": 300})
    error = server.fails("TIMEOUT", f"await $ext.time.sleep({LONG_MS})")
    assert "SUSPEND_TTL_MS" in error["message"]


# ---- The drain ------------------------------------------------------------------------------------------------------------------

def sleeping(server, ms, results):
    return Background(lambda: request_in_background(server, "/v1/execute", body(f"await $ext.time.sleep({ms}); return 'slept'"), results))


def test_drain_with_sleepers(start):
    """Short sleeps end; those that cannot end inside the grace are refused, because nothing in this store outlives the process."""
    server = start({"SUSPEND_TTL_MS": LONG_MS, "SHUTDOWN_GRACE_MS": int(5000 * SLOWNESS)})
    short, long = [], []
    with sleeping(server, int(1500 * SLOWNESS), short), sleeping(server, LONG_MS, long):
        wait_until(lambda: server.health()["instances"]["suspended"] == 2, what="the sleepers")
        server.signal(signal.SIGTERM)
    assert server.wait_end() == 0
    assert short[0][0] == 200 and b'"slept"' in short[0][1]
    status, reply = long[0]
    assert status == 503 and "SUSPEND_STORE" in json.loads(reply)["detail"]
    assert json.loads(reply)["code"] == "STORE_UNAVAILABLE"


def test_drain_with_suspended_executions(start):
    """What waits for its caller holds nothing up."""
    server = start({"SUSPEND_TTL_MS": LONG_MS})
    Story(server, f"await Promise.race([$ext.x.a(), $ext.time.sleep({LONG_MS})])")
    server.signal(signal.SIGTERM)
    assert server.wait_end(8) == 0


def test_what_begins_to_sleep_late_in_a_drain_is_kept_too(start, file_store):
    """When three quarters of the grace have passed, what sleeps goes to the store; what computes may sleep after that."""
    server = start({**file_store, "SUSPEND_TTL_MS": LONG_MS, "TIMEOUT_MS": int(20000 * SLOWNESS), "SHUTDOWN_GRACE_MS": int(6000 * SLOWNESS)})
    results = []
    late = f"const end = Date.now() + {int(5200 * SLOWNESS)}; while (Date.now() < end); await $ext.time.sleep({LONG_MS})"
    with Background(lambda: request_in_background(server, "/v1/execute", body(late), results)):
        wait_until(lambda: server.health()["instances"]["active"] == 1, what="the execution")
        server.signal(signal.SIGTERM)
    assert server.wait_end() == 0
    assert results[0][0] == 200 and json.loads(results[0][1])["status"] == "suspended", results


def test_drain_with_a_durable_store(start, file_store):
    """A sleeper that cannot end goes to the store; another process takes it up."""
    settings = {**file_store, "SUSPEND_TTL_MS": LONG_MS, "SHUTDOWN_GRACE_MS": int(5000 * SLOWNESS)}
    server = start(settings)
    results = []
    with sleeping(server, int(6500 * SLOWNESS), results):
        wait_until(lambda: server.health()["instances"]["suspended"] == 1, what="the sleeper")
        server.signal(signal.SIGTERM)
    assert server.wait_end() == 0
    status, reply = results[0]
    assert status == 200 and json.loads(reply)["status"] == "suspended", results
    suspension = json.loads(reply)["suspension"]["suspensionId"]
    second = start(settings)
    final = wait_until(lambda: (found := second.get(f"/v1/resume/{suspension}").json())["status"] != "suspended" and found, 20, "the end of the sleep")
    assert final["returnValue"] == "slept"
