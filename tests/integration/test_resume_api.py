# SPDX-License-Identifier: Apache-2.0
"""/v1/resume: requests, replies, refusals; who wins when several come at once; what the figures say."""
import datetime
import json
import os
import pathlib
import time

import pytest

from conftest import SLOWNESS, Background, in_threads, wait_until
from suspend_support import ALL, EXTENSIONS, TTL_MS, UNKNOWN_ID, Story, module_server, resume, success, suspending  # noqa: F401
from test_health_metrics import get, samples

SETTINGS = {"SUSPEND_TTL_MS": TTL_MS}
TWO_CALLS = "return await Promise.all([$ext.x.a(1), $ext.x.b(2)])"


@pytest.fixture
def story(suspending):
    """One that waits for two calls."""
    made = Story(suspending, TWO_CALLS)
    yield made
    suspending.delete(f"/v1/resume/{made.id}")


# ---- Replies -------------------------------------------------------------------------------------------------------------

def test_suspension(suspending, story):
    suspension = story.result["suspension"]
    assert set(suspension) == {"suspensionId", "extensionName", "method", "args", "calls", "expiresAt"}
    assert len(story.id) == 32 and int(story.id, 16) >= 0
    left = datetime.datetime.fromisoformat(suspension["expiresAt"].replace("Z", "+00:00")).timestamp() - time.time()
    assert 0 < left <= TTL_MS / 1000
    assert "returnValue" not in story.result and "error" not in story.result


def test_look_up_shows_what_is_open(story):
    shown = story.look()
    assert (shown.status, shown.type) == (200, "application/json")
    assert shown.json() == {"executionId": story.result["executionId"], "status": "suspended", "suspension": story.result["suspension"]}
    story.answer("first")
    assert story.look().json()["suspension"] == story.result["suspension"], "what the last part left open, and its new expiry"


def test_look_up_shows_the_result(story):
    story.answer(1).answer(2)
    assert story.look().json() == story.result and story.value == [1, 2]


def test_look_up_shows_the_error(suspending):
    story = Story(suspending, "await $ext.x.a()")
    story.reject("down")
    assert story.look().json() == story.result and story.error("EXECUTION_ERROR")["message"] == "down"


def test_head(suspending, story):
    reply = suspending.request("HEAD", f"/v1/resume/{story.id}")
    assert reply.status == 200 and reply.body == b"" and int(reply.headers["Content-Length"]) == len(story.look().body)
    assert suspending.request("HEAD", f"/v1/resume/{UNKNOWN_ID}").status == 404


@pytest.mark.parametrize("method, path, allowed", [
    ("PUT", "/v1/resume/{id}", {"POST", "GET", "HEAD", "DELETE"}), ("PATCH", "/v1/resume/{id}", {"POST", "GET", "HEAD", "DELETE"}),
    ("OPTIONS", "/v1/resume/{id}", {"POST", "GET", "HEAD", "DELETE"}),
    ("GET", "/v1/resume", {"POST"}), ("DELETE", "/v1/resume", {"POST"}), ("HEAD", "/v1/resume", {"POST"}),
])
def test_other_methods(suspending, story, method, path, allowed):
    reply = suspending.request(method, path.format(id=story.id))
    assert reply.status == 405 and set(reply.headers["Allow"].split(", ")) == allowed
    assert story.look().status == 200, "nothing happened"


# ---- Ways to answer --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("call_id", [2, "2"])
def test_call_id(story, call_id):
    story.go_on(success("b", call_id))
    assert [call["callId"] for call in story.calls] == [1]


def test_id_in_the_body(suspending, story):
    reply = suspending.request("POST", "/v1/resume", {"suspensionId": story.id, "results": [success(1, 1), success(2, "2")]})
    assert reply.status == 200 and reply.json()["returnValue"] == [1, 2]


def test_upper_case_id(suspending, story):
    """Hexadecimal is."""
    assert suspending.get(f"/v1/resume/{story.id.upper()}").status == 200


INVALID = {
    "nothing": ("", "not valid JSON"),
    "no JSON": ("{", "not valid JSON"),
    "no object": ("[]", "expected a JSON object"),
    "no success": ({}, "success: expected true or false"),
    "success is no boolean": ({"success": 1}, "success: expected true or false"),
    "success is null": ({"success": None}, "success: expected true or false"),
    "error of a success": ({"success": True, "error": "x"}, "error: goes with"),
    "value of a failure": ({"success": False, "value": "x"}, "value: goes with"),
    "an unknown field": ({"success": True, "result": 1}, "result: unknown field"),
    "a field twice": ('{"success":true,"success":true}', "success: given twice"),
    "an id in path and body": ({"suspensionId": UNKNOWN_ID, "success": True}, "in the path already"),
    "results and one": ({"results": [{"callId": 1, "success": True}], "success": True}, "either a list of results or one result"),
    "results are no list": ({"results": {"callId": 1}}, "results: expected a list"),
    "results are null": ({"results": None}, "results: expected a list"),
    "a result is no object": ({"results": [1]}, "expected a JSON object"),
    "a result without a call": ({"results": [{"success": True}]}, "results[0]: expected {callId"),
    "a result with an id": ({"results": [{"callId": 1, "suspensionId": UNKNOWN_ID, "success": True}]}, "results[0]: expected {callId"),
    "results in results": ({"results": [{"callId": 1, "success": True, "results": []}]}, "results[0]: expected {callId"),
    "a call answered twice": ({"results": [{"callId": 1, "success": True}, {"callId": "1", "success": False}]}, "call 1 is answered twice"),
    "an unknown field of a result": ({"results": [{"callId": 1, "success": True, "v": 1}]}, "v: unknown field"),
    **{f"callId {json.dumps(value)}": ({"success": True, "callId": value}, "callId: expected the number of a call")
       for value in (0, -1, 1.5, 2**32, 2**64, True, None, [1], {}, "", "0", "x", "1x", "1 ", " 1", "+1", "-1", "1.0", "1\0", "4294967296", "9" * 30)},
    "a call never made": ({"success": True, "callId": 3}, "callId 3: this execution has made no such call"),
    "the last number": ({"success": True, "callId": "4294967295"}, "no such call"),
    "one never made among others": ({"results": [{"callId": 1, "success": True}, {"callId": 9, "success": True}]}, "callId 9"),
}


@pytest.mark.parametrize("body, detail", INVALID.values(), ids=INVALID)
def test_invalid_requests(story, body, detail):
    problem = story.post(body).problem(400, "INVALID_REQUEST")
    assert detail in problem["detail"], problem
    assert story.look().json()["suspension"] == story.result["suspension"], "nothing happened"
    assert story.answer(1).answer(2).value == [1, 2]


def test_no_results(story):
    assert "not an empty one" in story.post({"results": []}).problem(400, "INVALID_REQUEST")["detail"]
    assert story.answer(1).answer(2).value == [1, 2]


@pytest.mark.parametrize("body, detail", [
    ({"success": True}, "suspensionId: expected in the path or in the body"),
    ({"suspensionId": 5, "success": True}, "suspensionId: expected a string"),
    ({"suspensionId": None, "success": True}, "suspensionId: expected a string"),
])
def test_invalid_ids_in_the_body(suspending, body, detail):
    assert detail in suspending.request("POST", "/v1/resume", body).problem(400, "INVALID_REQUEST")["detail"]


@pytest.mark.parametrize("name", [UNKNOWN_ID, "x", UNKNOWN_ID[:-1], UNKNOWN_ID + "0", UNKNOWN_ID[:-1] + "g", "%30" * 32, UNKNOWN_ID[:-2] + "%00",
                                  "..", "a" * 4000])
def test_unknown_ids(suspending, name):
    for method, body in (("POST", {"success": True}), ("GET", None), ("DELETE", None)):
        problem = suspending.request(method, f"/v1/resume/{name}", body).problem(404, "NOT_FOUND")
        assert "no such suspended execution" in problem["detail"]


@pytest.mark.parametrize("name", ["", "x", UNKNOWN_ID, "a" * 200_000, "ä\0"])
def test_unknown_ids_in_the_body(suspending, name):
    assert suspending.request("POST", "/v1/resume", {"suspensionId": name, "success": True}).status == 404


def test_answers_that_are_too_large(suspending, story):
    story.post(success("x" * (1 << 20))).problem(413, "PAYLOAD_TOO_LARGE")
    assert story.answer(1).answer(2).value == [1, 2]


# ---- Too late, or twice -------------------------------------------------------------------------------------------------------

def test_answered_twice(story):
    story.go_on(success("b", 2))
    assert "call 2 has been answered already" in story.post(success("b", 2)).problem(409, "CONFLICT")["detail"]
    assert "call 2" in story.post({"results": [success("a", 1), success("b", 2)]}).problem(409, "CONFLICT")["detail"]
    assert story.answer("a").value == ["a", "b"]


def test_a_call_of_nexus_is_not_the_callers(suspending):
    story = Story(suspending, "await Promise.all([$ext.time.sleep(600000), $ext.x.a()])")
    assert [call["callId"] for call in story.calls] == [2], "what nexus answers itself is not listed"
    assert "nexus answers itself" in story.post(success(0, 1)).problem(409, "CONFLICT")["detail"]
    story.cancel()


def test_finished(suspending, story):
    story.answer(1).answer(2)
    for reply in (story.post(success(1)), story.post(success(1, 1)), suspending.delete(f"/v1/resume/{story.id}")):
        assert "already finished" in reply.problem(410, "GONE")["detail"]
    assert story.look().json() == story.result


def test_cancelled(suspending, story):
    story.cancel()
    for reply in (story.post(success(1)), story.look(), suspending.delete(f"/v1/resume/{story.id}")):
        assert "cancelled" in reply.problem(410, "GONE")["detail"]


def test_expired(start):
    server = start({"SUSPEND_TTL_MS": int(600 * SLOWNESS)})
    waiting, finished = Story(server, TWO_CALLS), Story(server, "return await $ext.x.a()")
    finished.answer(5)
    wait_until(lambda: waiting.look().status != 200 and finished.look().status != 200, what="the expiry")
    for story in (waiting, finished):
        for reply in (story.post(success(1)), story.look(), server.delete(f"/v1/resume/{story.id}")):
            assert reply.status in (404, 410) and "susp" in reply.problem(reply.status, "GONE" if reply.status == 410 else "NOT_FOUND")["detail"]
    wait_until(lambda: server.health()["memory"]["layers"]["suspended"] == 0, what="the end of what expired")
    assert server.health()["instances"]["suspended"] == 0


# ---- /run/{name} ---------------------------------------------------------------------------------------------------------------

def test_run(suspending):
    suspending.install("hook", "$emit('begun'); return [$args, await $ext.x.a()]", {"capabilities": ALL, "extensions": EXTENSIONS})
    reply = suspending.run("hook", {"n": 1})
    result = reply.json()
    assert reply.status == 202 and result["status"] == "suspended" and result["events"] == [{"name": "begun"}]
    assert reply.headers["Location"] == f"/v1/resume/{result['suspension']['suspensionId']}"
    assert reply.headers["X-Execution-Id"] == result["executionId"] and reply.type == "application/json"
    final = suspending.request("POST", reply.headers["Location"], success("answer"))
    assert final.status == 200 and final.json()["returnValue"] == [{"n": 1}, "answer"]
    assert suspending.get(reply.headers["Location"]).json() == final.json()
    assert suspending.delete("/v1/handlers/hook").status == 204


def test_run_that_only_sleeps_answers_like_any_other(suspending):
    suspending.install("sleeper", "await $ext.time.sleep(20); return $args", {"capabilities": ["ext:time"]})
    reply = suspending.run("sleeper", [1])
    assert (reply.status, reply.json()) == (200, [1]) and "Location" not in reply.headers
    assert suspending.delete("/v1/handlers/sleeper").status == 204


# ---- Several at once -------------------------------------------------------------------------------------------------------------

def test_one_of_many_answers_wins(suspending):
    story = Story(suspending, "return await $ext.x.a()")
    replies = in_threads(32, lambda i: resume(suspending, story.id, success(i, 1)))
    winners = [i for i, reply in enumerate(replies) if reply.status == 200]
    assert len(winners) == 1 and replies[winners[0]].json()["returnValue"] == winners[0]
    for i, reply in enumerate(replies):
        if i not in winners:
            reply.problem(410, "GONE")
    assert story.look().json()["returnValue"] == winners[0]


def test_one_of_many_answers_to_one_of_two_calls_wins(story):
    replies = in_threads(32, lambda i: resume(story.server, story.id, success(i, 1)))
    winners = [i for i, reply in enumerate(replies) if reply.status == 200]
    assert len(winners) == 1
    for i, reply in enumerate(replies):
        if i not in winners:
            assert "call 1 has been answered already" in reply.problem(409, "CONFLICT")["detail"]
    assert story.go_on(success("b", 2)).value == [winners[0], "b"]


def test_answers_to_all_calls_count(suspending):
    """One webhook for each of sixteen calls, all at once."""
    for _ in range(5):
        story = Story(suspending, "$emit('once'); return await Promise.all(Array.from({length: 16}, (_, i) => $ext.x.a(i)))")
        replies = in_threads(16, lambda i: resume(suspending, story.id, success(i * 10, i + 1)))
        assert [reply.status for reply in replies] == [200] * 16, replies
        finals = [reply.json() for reply in replies if reply.json()["status"] == "success"]
        assert len(finals) == 1 and finals[0]["returnValue"] == [i * 10 for i in range(16)]
        assert all(reply.json()["events"] == [] for reply in replies), "the first part returned it"


def test_cancel_and_answer_at_once(suspending):
    """Either the one or the other has happened; afterwards both are told the same."""
    for _ in range(20):
        story = Story(suspending, "return await $ext.x.a()")
        answered, cancelled = in_threads(2, lambda i: resume(suspending, story.id, success(1)) if i else suspending.delete(f"/v1/resume/{story.id}"))[::-1]
        after = story.look()
        if answered.status == 200:
            assert cancelled.status in (204, 410)
            assert after.status == (200 if cancelled.status == 410 else 410)
        else:
            answered.problem(410, "GONE")
            assert cancelled.status == 204
            after.problem(410, "GONE")


def asleep(server):
    """Does the watchdog's thread wait for a futex? It does when nothing has run for some time, and then must be woken."""
    watchdog, = (task for task in pathlib.Path(f"/proc/{server.pid}/task").iterdir() if (task / "comm").read_text() == "watchdog\n")
    return "futex" in (watchdog / "wchan").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees where a thread waits")
def test_deadlines_hold_when_the_first_thing_after_a_pause_is_a_resume(suspending):
    durations = []
    for _ in range(4):
        story = Story(suspending, "await $ext.x.a(); for (;;);", timeoutMs=200)
        wait_until(lambda: asleep(suspending), what="the watchdog's sleep")
        story.answer().error("TIMEOUT")
        durations.append(story.result["metrics"]["durationUs"] / 1000)
    assert all(duration < 200 + 150 * SLOWNESS for duration in durations), durations


def test_a_long_resume_holds_the_others_up_no_longer_than_it_takes(suspending):
    """While one request resumes an execution the next one waits for it, and then gets its own answer."""
    story = Story(suspending, "const [a, b] = [$ext.x.a(), $ext.x.b()]; await a; const end = Date.now() + $args; while (Date.now() < end); return await b", args=300 * SLOWNESS)
    with Background(lambda: resume(suspending, story.id, success(1, 1))) as first:
        wait_until(lambda: suspending.health()["instances"]["active"] == 1, what="the first resume")
        assert story.look().status == 200, "looking does not wait"
        second = resume(suspending, story.id, success("b", 2))
        assert first.result().json()["status"] == "suspended"
    assert second.json()["returnValue"] == "b"


# ---- Full, and figures -------------------------------------------------------------------------------------------------------------

# A megabyte that does not compress.
BULKY = ("const a = new Uint8Array(1 << 20); for (let i = 0; i < a.length; i += 65536) crypto.getRandomValues(a.subarray(i, i + 65536));"
         "await $ext.x.a(); return a.length")


def test_full(start):
    """SUSPEND_MAX_MB: what does not fit is refused with the figures; plain executions and resumes go on, and cancelling makes room."""
    server = start({"SUSPEND_MAX_MB": 3, "SUSPEND_TTL_MS": TTL_MS})
    body = {"code": BULKY, "capabilities": ALL, "extensions": EXTENSIONS}
    kept = []
    while (reply := server.post(body)).status == 200:
        kept.append(reply.json()["suspension"]["suspensionId"])
        assert len(kept) <= 3, "each takes a megabyte"
    problem = reply.problem(503, "OVERLOADED")
    assert problem["layer"] == "suspended" and problem["limitBytes"] == 3 << 20
    assert 0 < problem["usedBytes"] <= 3 << 20 and problem["usedBytes"] + problem["requestedBytes"] > 3 << 20
    assert int(reply.headers["Retry-After"]) >= 1
    assert server.value("return 'plain'") == "plain"
    assert server.value("await $ext.time.sleep(1); return 'timed'", capabilities=ALL) == "timed"
    assert server.health()["instances"]["suspended"] == len(kept)
    assert resume(server, kept[0], success()).json()["returnValue"] == 1 << 20
    assert server.delete(f"/v1/resume/{kept[1]}").status == 204
    again = server.post(body)
    assert again.status == 200
    for suspension in [*kept[2:], again.json()["suspension"]["suspensionId"]]:
        assert server.delete(f"/v1/resume/{suspension}").status == 204
    server.wait_trimmed()


def test_metrics_and_health(start):
    server = start({"SUSPEND_TTL_MS": 2000})
    floor = server.health()["memory"]["layers"]["suspended"]

    def outcomes():
        found = samples(server)
        return {name: get(found, "nexus_resumes_total", outcome=name) for name in ("resumed", "not_found", "conflict", "expired", "refused", "failed")}

    assert floor == 0 and set(outcomes().values()) == {0}
    stories = [Story(server, TWO_CALLS) for _ in range(3)]
    found = samples(server)
    assert get(found, "nexus_suspensions_total") == get(found, "nexus_suspended_executions") == 3
    health = server.health()
    assert health["instances"]["suspended"] == 3 and health["instances"]["active"] == 0
    assert get(found, "nexus_suspended_bytes") == health["memory"]["layers"]["suspended"] > 0
    stories[0].answer(1)
    stories[0].post(success(1, 1)).problem(409, "CONFLICT")
    stories[0].answer(2)
    stories[0].post(success(1)).problem(410, "GONE")
    stories[1].cancel()
    stories[1].post(success(1)).problem(410, "GONE")
    resume(server, UNKNOWN_ID, success(1)).problem(404, "NOT_FOUND")
    stories[2].post(success(1, 9)).problem(400, "INVALID_REQUEST")
    found = samples(server)
    assert get(found, "nexus_suspensions_total") == 4 and get(found, "nexus_suspended_executions") == 1
    assert get(found, "nexus_resume_duration_seconds_count") == 2
    assert outcomes() == {"resumed": 2, "not_found": 1, "conflict": 1, "expired": 2, "refused": 0, "failed": 1}
    wait_until(lambda: server.health()["memory"]["layers"]["suspended"] == floor, what="the floor of the ledger")
    assert server.health()["instances"]["suspended"] == 0 and get(samples(server), "nexus_suspended_bytes") == 0


def test_metrics_name_the_handler(suspending):
    """All parts of an execution are its handler's."""
    suspending.install("counted", "return await $ext.x.a()", {"capabilities": ALL, "extensions": EXTENSIONS})
    Story(suspending, handler="counted").answer(1)
    found = samples(suspending)
    assert get(found, "nexus_handler_executions_total", handler="counted", status="suspended") == 1
    assert get(found, "nexus_handler_executions_total", handler="counted", status="success") == 1
    assert suspending.delete("/v1/handlers/counted").status == 204


def test_traceparent_and_request_id(suspending, story):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    reply = suspending.request("POST", f"/v1/resume/{story.id}", success(1), {"X-Request-Id": "r1", "traceparent": trace})
    assert (reply.headers["X-Request-Id"], reply.headers["traceparent"]) == ("r1", trace)
