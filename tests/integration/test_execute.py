# SPDX-License-Identifier: Apache-2.0
"""POST /v1/execute and POST /run/{name}: what goes in, what comes out, how it ends."""
import re

import pytest

ALL = ["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*"]
RESULT_FIELDS = {"executionId", "status", "stateMutations", "events", "viewCommands", "logs", "metrics"}
WITHOUT_MESSAGE = "the handler threw an error without a message"
METRICS_FIELDS = {"durationUs", "memoryUsedBytes", "memoryPeakBytes", "hostCalls", "cacheHit", "compilationTimeUs"}


def effects(server, code, **fields):
    result = server.execute(code, capabilities=ALL, **fields)
    assert result["status"] == "success", result
    return result


# ---- Source forms -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("source, expected", [
    ("return $args.a", 1),
    ("return await Promise.resolve($args.a)", 1),
    ("const f = () => $args; return f().a", 1),
    ("// a comment at the end\nreturn 1 // here", 1),
    ("'use strict'; return (() => this)() === undefined", True),
    ("export default (args) => args.a", 1),
    ("export default async function (args) { return await args.a }", 1),
    ("export default function (args, ctx) { return [args === ctx.args, args === $args] }", [True, True]),
    ("const k = await Promise.resolve(5); export default () => k", 5),
    ("const f = () => 7; export { f as default }", 7),
    ("export const other = 1; export default () => typeof other", "number"),
    ("class A { static run() { return 'static' } } export default A.run", "static"),
    ("export default (a, {state, emit, view, ext, log, scope}) => [state === $state, emit === $emit, view === $view, ext === $ext,"
     " log === $log, scope === $scope]", [True] * 6),
    ("export default () => ({then(resolve) { resolve('thenable') }})", "thenable"),
    ("const s = 'export default 1'; return s", "export default 1"),
    ("#!/usr/bin/env nexus\nexport default () => import.meta !== undefined", True),
])
def test_source_forms(server, source, expected):
    assert server.value(source, args={"a": 1}) == expected


@pytest.mark.parametrize("source, code, message", [
    ("return (", "COMPILATION_ERROR", "SyntaxError"),
    ("let a; let a", "COMPILATION_ERROR", "SyntaxError"),
    ("}); (() => {", "COMPILATION_ERROR", "unbalanced braces"),
    ("import fs from 'fs'; export default () => 1", "COMPILATION_ERROR", "cannot import 'fs'"),
    ("export default () => 1; throw new Error('top')", "COMPILATION_ERROR", "top"),
    ("export default () => 1; await new Promise(() => {})", "COMPILATION_ERROR", "never settles"),
    ("export default () => 1; $emit('x')", "COMPILATION_ERROR", "refused"),
    ("export default () => 1; $state.x", "COMPILATION_ERROR", "$state"),
    ("export const a = 1", "INVALID_HANDLER", "default"),
    ("export default 5", "INVALID_HANDLER", "default"),
    ("export default {}", "INVALID_HANDLER", "default"),
])
def test_sources_that_cannot_run(server, source, code, message):
    error = server.fails(code, source, capabilities=ALL)
    assert message in error["message"]


def test_compilation_error_shows_the_place(server):
    error = server.fails("COMPILATION_ERROR", "const a = 1;\nconst b = a +* 2;\nreturn b")
    assert error["location"]["line"] == 2
    assert error["snippet"].startswith("2 | const b = a +* 2;") and error["snippet"].endswith("^")


def test_error_at_the_end_of_the_source_is_inside_it(server):
    assert server.fails("COMPILATION_ERROR", "return (")["location"]["line"] == 1


# ---- Input ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("args", [None, True, 0, -1.5, 1e300, "", "ä😀\x00\u2028", [], {}, [1, [2, {"a": None}]], {"": 1, "__proto__": 2},
                                  "x" * 100_000, list(range(10_000))], ids=lambda a: repr(a)[:20])
def test_arguments_come_back_unchanged(server, args):
    assert server.value("return $args", args=args) == args


def test_absent_input(server):
    assert server.value("return [$args === undefined, JSON.stringify($scope), JSON.stringify($state)]") == [True, "{}", "{}"]
    assert server.value("export default (...a) => [a.length, a[0] === undefined]") == [2, True]


def test_null_arguments_are_not_absent(server):
    assert server.value("return $args === null", args=None) is True


def test_scope(server):
    assert server.value("return [$scope.user, Object.keys($scope)]", scope={"user": "u1", "n": 2}) == ["u1", ["user", "n"]]


def test_large_inputs_together(server):
    args, state, scope = ["a" * 5000] * 20, {"k": "s" * 100_000}, {"v": "c" * 100_000}
    value = server.value("return [$args.length, $state.k.length, $scope.v.length, $scope.v[99999]]", args=args, state=state, scope=scope,
                         capabilities=ALL)
    assert value == [20, 100_000, 100_000, "c"]


# ---- State --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("source, value, mutations", [
    ("return $state.a", 1, []),
    ("return [$state.nope === undefined, 'a' in $state, 'nope' in $state]", [True, True, False], []),
    ("$state.a = 5; return $state.a", 5, [("set", "a", 5)]),
    ("$state.a++; $state.a += 2; return $state.a", 4, [("set", "a", 2), ("set", "a", 4)]),
    ("delete $state.a; return ['a' in $state, $state.a === undefined]", [False, True], [("delete", "a")]),
    ("delete $state.nope", None, [("delete", "nope")]),
    ("$state.z = 1; $state.b = {x: 1}; delete $state.z; return Object.keys($state)", ["a", "b"], [("set", "z", 1), ("set", "b", {"x": 1}), ("delete", "z")]),
    ("$state.n = null; return $state.n === null", True, [("set", "n", None)]),
    ("$state.u = undefined; return $state.u === undefined", True, [("set", "u", None)]),
    ("$state['k:ä😀'] = 1; return $state['k:ä😀']", 1, [("set", "k:ä😀", 1)]),
    ("$state[''] = 1", None, [("set", "", 1)]),
    ("return {...$state}", {"a": 1, "b": {"x": [1]}}, []),
    ("return JSON.stringify($state)", '{"a":1,"b":{"x":[1]}}', []),
    ("return Object.entries($state)", [["a", 1], ["b", {"x": [1]}]], []),
    ("const o = []; for (const k in $state) o.push(k); return o", ["a", "b"], []),
    ("$state.b.x.push(2); return $state.b", {"x": [1, 2]}, []),
    ("const v = {n: 1}; $state.v = v; v.n = 2; return $state.v.n", 2, [("set", "v", {"n": 1})]),
    ("Object.assign($state, {c: 1, d: 2})", None, [("set", "c", 1), ("set", "d", 2)]),
    ("Object.defineProperty($state, 'p', {value: 3, enumerable: true, configurable: true, writable: true}); return $state.p", 3, [("set", "p", 3)]),
    ("const {a, ...rest} = $state; return [a, Object.keys(rest)]", [1, ["b"]], []),
    ("return Object.hasOwn($state, 'a')", True, []),
    ("$state.d = new Date(0); return typeof $state.d", "object", [("set", "d", "1970-01-01T00:00:00.000Z")]),
    ("return [typeof $state.toString, String($state), $state.constructor === Object]", ["function", "[object Object]", True], []),
    ("$state.toString = 1; return $state.toString", 1, [("set", "toString", 1)]),
    ("$state.__proto__ = 5", None, [("set", "__proto__", 5)]),
])
def test_state(server, source, value, mutations):
    result = effects(server, source, state={"a": 1, "b": {"x": [1]}})
    assert result.get("returnValue") == value
    expected = [{"operation": op, "key": key, **({"value": rest[0]} if rest else {})} for op, key, *rest in mutations]
    assert result["stateMutations"] == expected


@pytest.mark.parametrize("source, message", [
    ("$state.f = () => 1", "no JSON form"),
    ("$state.s = Symbol()", "no JSON form"),
    ("$state.b = 1n", "BigInt"),
    ("const o = {}; o.o = o; $state.c = o", "circular"),
    ("$state[Symbol('s')] = 1", "state keys are strings"),
    ("Object.defineProperty($state, 'x', {get() { return 1 }})", "values, not accessors"),
    ("'use strict'; (() => { 'use strict'; Object.freeze($state) })()", ""),
    ("(() => { 'use strict'; Object.setPrototypeOf($state, null) })()", ""),
])
def test_state_refuses(server, source, message):
    error = server.fails("EXECUTION_ERROR", source, capabilities=ALL)
    assert message in error["message"] and error["message"].startswith("TypeError: ")


# ---- Effects ------------------------------------------------------------------------------------------------------------

def test_events(server):
    result = effects(server, "$emit('a'); $emit('b', {x: 1}); $emit('c', null); $emit(7, [1]); $emit('u', undefined)")
    assert result["events"] == [{"name": "a"}, {"name": "b", "payload": {"x": 1}}, {"name": "c", "payload": None},
                                {"name": "7", "payload": [1]}, {"name": "u"}]


@pytest.mark.parametrize("payload", ["() => 1", "Symbol()", "10n"])
def test_payload_without_json(server, payload):
    server.fails("EXECUTION_ERROR", f"$emit('x', {payload})", capabilities=ALL)


def test_view_commands(server):
    result = effects(server, "$view.setFilter('t', {a: 1}); $view.scrollTo('t', 5); $view.focus('f'); $view.custom('c', 'x', null, undefined)")
    assert result["viewCommands"] == [{"type": "setFilter", "componentId": "t", "args": [{"a": 1}]},
                                      {"type": "scrollTo", "componentId": "t", "args": [5]},
                                      {"type": "focus", "componentId": "f", "args": []},
                                      {"type": "custom", "componentId": "c", "args": ["x", None, None]}]


def test_logs(server):
    logs = server.execute("$log('a', 1, {x: 1}); $log.debug(1); $log.warn('w'); $log.error(new TypeError('t')); console.trace('c');"
                          "console.log(1n, undefined, null, Symbol('s'), [1]); $log()")["logs"]
    assert [line["level"] for line in logs] == ["info", "debug", "warn", "error", "debug", "info", "info"]
    assert [logs[i]["message"] for i in (0, 1, 2, 5, 6)] == ['a 1 {"x":1}', "1", "w", "1n undefined null Symbol(s) [1]", ""]
    assert logs[3]["message"].startswith("TypeError: t\n    at handler (handler.js:1:")


def test_effects_keep_their_order(server):
    result = effects(server, "for (let i = 0; i < 50; i++) { $emit('e', i); $state['k' + i] = i; $log(i) }")
    assert [event["payload"] for event in result["events"]] == list(range(50))
    assert [m["value"] for m in result["stateMutations"]] == list(range(50))
    assert [line["message"] for line in result["logs"]] == [str(i) for i in range(50)]


def test_failure_has_no_effects_but_logs(server):
    result = server.execute("$emit('a'); $state.x = 1; $view.focus('f'); $log('before'); throw new Error('end')", capabilities=ALL)
    assert (result["status"], result["stateMutations"], result["events"], result["viewCommands"]) == ("error", [], [], [])
    assert result["logs"] == [{"level": "info", "message": "before"}]
    assert "returnValue" not in result


def test_effects_after_the_answer_count(server):
    """Jobs that remain when the main promise settles still run."""
    result = effects(server, "Promise.resolve().then(() => null).then(() => $emit('late')); return 1")
    assert result["events"] == [{"name": "late"}]


# ---- Return values --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("source", ["", "return", "return undefined", "return () => 1", "return Symbol()", "export default () => {}"])
def test_no_return_value(server, source):
    result = server.execute(source or ";")
    assert result["status"] == "success" and "returnValue" not in result


@pytest.mark.parametrize("source, value", [
    ("return null", None), ("return [undefined, () => 1, NaN]", [None, None, None]), ("return {a: undefined}", {}),
    ("return new Map([[1, 2]])", {}), ("return new Error('x')", {}), ("return new String('s')", "s"), ("return -0", 0),
    ("return '\\ud800'", "\ud800"),
    ("return Object.create(null, {a: {value: 1, enumerable: true}})", {"a": 1}),
])
def test_return_values(server, source, value):
    result = server.execute(source)
    assert result["status"] == "success" and result["returnValue"] == value


@pytest.mark.parametrize("source, message", [
    ("return 1n", "BigInt"),
    ("const o = {}; o.o = o; return o", "circular"),
    ("return {toJSON() { throw new RangeError('mine') }}", "RangeError: mine"),
    ("return {get a() { throw new Error('getter') }}", "getter"),
])
def test_values_that_cannot_be_returned(server, source, message):
    assert message in server.fails("EXECUTION_ERROR", source)["message"]


# ---- Errors -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("source, message", [
    ("throw new Error('plain')", "plain"),
    ("throw new TypeError('typed')", "TypeError: typed"),
    ("throw Object.assign(new Error('named'), {name: 'MyError'})", "MyError: named"),
    ("class E extends Error { get name() { return 'Sub' } } throw new E('m')", "Sub: m"),
    ("throw new TypeError()", "TypeError"),
    ("throw 'text'", "text"),
    ("throw 5", "5"), ("throw null", "null"), ("throw undefined", "undefined"), ("throw 1n", "1n"), ("throw Symbol('s')", "Symbol(s)"),
    ("throw {code: 1}", '{"code":1}'),
    ("throw [1, 2]", "[1,2]"),
    ("throw () => 1", "() => 1"),
    ("throw new AggregateError([new Error('a')], 'all')", "AggregateError: all"),
    ("throw new DOMException('m', 'AbortError')", "AbortError: m"),
    ("const e = new Error('x'); Object.defineProperty(e, 'message', {get() { throw 1 }}); throw e", None),
    ("const e = new Error('x'); Object.defineProperty(e, 'stack', {get() { throw 1 }}); throw e", "x"),
    ("throw new Proxy({}, {get() { throw 1 }, getPrototypeOf() { throw 2 }})", None),
    ("throw {toJSON() { throw 1 }}", "[object that has no JSON form]"),
    ("await Promise.reject(new Error('rejected'))", "rejected"),
    ("return Promise.reject('r')", "r"),
    ("export default () => { throw new Error('module') }", "module"),
    ("export default () => Promise.reject(new RangeError('async'))", "RangeError: async"),
    ("throw new Error('ä😀\\u0000')", "ä😀\x00"),
    ("throw new Error()", WITHOUT_MESSAGE), ("throw ''", WITHOUT_MESSAGE),
    ("throw new Error('a\\ud800')", "a\ufffd"),
])
def test_thrown_values(server, source, message):
    error = server.fails("EXECUTION_ERROR", source)
    assert error["message"] if message is None else error["message"] == message


def test_place_of_an_error(server):
    error = server.fails("EXECUTION_ERROR", "const u = {};\nfunction inner() {\n  return u.a.b;\n}\nreturn inner();")
    assert error["message"] == "TypeError: cannot read property 'b' of undefined"
    assert error["location"]["line"] == 3
    lines = error["stack"].splitlines()
    assert lines[0] == error["message"]
    assert re.fullmatch(r"    at inner \(handler\.js:3:\d+\)", lines[1])
    assert re.fullmatch(r"    at handler \(handler\.js:5:\d+\)", lines[2])
    shown, caret = error["snippet"].split("\n")
    assert shown == "3 |   return u.a.b;"
    assert caret.endswith("^") and len(caret) - len("3 | ") == error["location"]["column"]


def test_place_in_a_module(server):
    error = server.fails("EXECUTION_ERROR", "export default () => {\n  throw new Error('x');\n}")
    assert error["location"]["line"] == 2 and "handler.js:2:" in error["stack"]


def test_no_frame_of_nexus_in_stacks(server):
    error = server.fails("EXECUTION_ERROR", "const o = {}; o.o = o; [1].map(() => structuredClone({f() {}}))")
    assert "nexus:internal" not in str(error) and error["location"]["line"] == 1


def test_long_messages_are_cut(server):
    error = server.fails("EXECUTION_ERROR", "throw new Error('ä'.repeat(100000))")
    assert 1000 < len(error["message"].encode()) <= 8192 + 8


@pytest.mark.parametrize("source", [
    "await new Promise(() => {})", "return new Promise(() => {})", "export default () => new Promise(() => {})",
    "await {then() {}}", "export default () => ({then() {}})",
])
def test_never_settles(server, source):
    assert "never settles" in server.fails("EXECUTION_ERROR", source)["message"]


def test_a_timer_nobody_waits_for(server):
    assert server.value("const id = setTimeout(() => $log('never'), 1); return typeof id") == "number"


def test_rejection_nobody_handles_is_no_failure(server):
    assert server.value("Promise.reject(new Error('lost')); return 1") == 1


def test_throwing_microtask_is_logged(server):
    result = server.execute("queueMicrotask(() => { throw new Error('in a microtask') }); await null; return 1")
    assert result["returnValue"] == 1
    assert any("in a microtask" in line["message"] for line in result["logs"])


# ---- The result ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("source, status", [("return 1", "success"), ("throw 1", "error"), ("return (", "error")])
def test_fields(server, source, status):
    result = server.execute(source)
    assert set(result) == RESULT_FIELDS | ({"returnValue"} if status == "success" else {"error"})
    assert set(result["metrics"]) == METRICS_FIELDS
    assert re.fullmatch(r"[0-9a-f]{32}", result["executionId"])
    assert result["status"] == status


def test_metrics_of_an_execution(server):
    metrics = server.execute("$log(1); $log(2); let a = []; for (let i = 0; i < 1e5; i++) a.push({i})")["metrics"]
    assert metrics["hostCalls"] == 2
    assert metrics["durationUs"] > 0 and metrics["memoryUsedBytes"] > 0
    assert metrics["memoryPeakBytes"] > 4 << 20


def test_second_use_is_a_cache_hit(server):
    code = "return 'cached once'"
    first, second = server.execute(code)["metrics"], server.execute(code)["metrics"]
    assert (first["cacheHit"], second["cacheHit"]) == (False, True)
    assert first["compilationTimeUs"] > 0 and second["compilationTimeUs"] == 0


def test_execution_ids_are_unique(server):
    assert len({server.execute("return 1")["executionId"] for _ in range(200)}) == 200


# ---- Limits of a request ----------------------------------------------------------------------------------------------------------

def test_timeout_can_be_lowered(server):
    error = server.fails("TIMEOUT", "for (;;);", timeoutMs=60)
    assert "60 ms" in error["message"]


def test_memory_can_be_lowered(server):
    code = "const a = []; for (let i = 0; i < 12; i++) a.push(new Uint8Array(1 << 20).fill(1)); return a.length"
    assert server.value(code) == 12
    assert "8 MiB" in server.fails("MEMORY_LIMIT", code, memoryLimitMb=8)["message"]


def test_limits_cannot_be_raised(start):
    assert "150 ms" in start({"TIMEOUT_MS": 150}).fails("TIMEOUT", "for (;;);", timeoutMs=60000)["message"]
    server = start({"MEMORY_LIMIT_MB": 8})
    error = server.fails("MEMORY_LIMIT", "const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))", memoryLimitMb=512)
    assert "8 MiB" in error["message"]


# ---- Headers ------------------------------------------------------------------------------------------------------------------------

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("path, method", [("/v1/execute", "POST"), ("/health", "GET"), ("/nope", "GET"), ("/v1/handlers", "GET"), ("/livez", "POST")])
def test_ids_come_back(server, path, method):
    body = {"code": "return 1"} if path == "/v1/execute" else None
    reply = server.request(method, path, body, {"X-Request-Id": "order-4711", "traceparent": TRACE})
    assert (reply.headers["X-Request-Id"], reply.headers["traceparent"]) == ("order-4711", TRACE)


@pytest.mark.parametrize("value", ["", "x" * 129, "a b", "tab\there", "\xe9"])
def test_request_ids_that_are_not_well_formed_are_ignored(server, value):
    assert "X-Request-Id" not in server.post({"code": "return 1"}, {"X-Request-Id": value}).headers


@pytest.mark.parametrize("value", ["", "garbage", "00-zz", "x" * 65, TRACE.upper()])
def test_traceparents_that_are_not_well_formed_are_ignored(server, value):
    assert "traceparent" not in server.post({"code": "return 1"}, {"traceparent": value}).headers


def test_execution_id_header(server):
    reply = server.post({"code": "return 1"})
    assert reply.headers["X-Execution-Id"] == reply.json()["executionId"]


# ---- Time and chance ------------------------------------------------------------------------------------------------------------------

CHANCE = "return [Math.random(), crypto.randomUUID(), [...crypto.getRandomValues(new Uint8Array(8))].join()]"


def test_chance_differs_between_executions(server):
    values = [server.value(CHANCE) for _ in range(50)]
    for column in zip(*values):
        assert len(set(column)) == 50
    assert all(0 <= value[0] < 1 for value in values)


def test_time_goes_on_between_executions(server):
    code = "return [Date.now(), performance.now()]"
    first, second = server.value(code), server.value(code)
    assert second[0] >= first[0] and first[1] < 1000 and second[1] < 1000


def test_top_level_is_frozen(server):
    """Clock and chance stand still while the top level runs, so that the same source gives the same image."""
    code = "const top = [Date.now(), Math.random(), crypto.randomUUID(), performance.now()]; export default () => [top, Date.now()]"
    (first, now), (second, _) = server.value(code), server.value(code)
    assert first == second and first[0] == 0 and now > 1.7e12
    (other, _) = server.value(code + " // another source")
    assert other == first


# ---- The webhook form ------------------------------------------------------------------------------------------------------------------

def test_run_answers_with_the_bare_value(server):
    server.install("echo", "return $args === undefined ? 'nothing' : $args")
    for body, value in [("{\"a\": 1}", {"a": 1}), (None, "nothing"), ("", "nothing"), (" \r\n", "nothing"), ("null", None), ("[1]", [1]), ('"t"', "t")]:
        reply = server.run("echo", body)
        assert (reply.status, reply.json(), reply.type) == (200, value, "application/json")
        assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["X-Execution-Id"])


def test_run_without_value(server):
    server.install("quiet", "$log('x')")
    reply = server.run("quiet", "1")
    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (204, b"", None)


@pytest.mark.parametrize("source, status, code", [
    ("throw new Error('mine')", 500, "EXECUTION_ERROR"),
    ("await new Promise(() => {})", 500, "EXECUTION_ERROR"),
    ("$state.x = 1", 403, "PERMISSION_DENIED"),
    ("for (;;);", 504, "TIMEOUT"),
    ("const a = []; for (;;) a.push(new Uint8Array(1 << 20))", 507, "MEMORY_LIMIT"),
    ("for (;;) $log('x')", 507, "RESOURCE_LIMIT"),
])
def test_run_problems(server, source, status, code):
    server.install("bad", source, {"timeoutMs": 300} if code == "TIMEOUT" else {})
    reply = server.run("bad", "{}")
    problem = reply.problem(status, code)
    assert "stack" not in problem and "snippet" not in problem
    assert problem["executionId"] == reply.headers["X-Execution-Id"]


def test_run_without_such_a_handler(server):
    server.run("no-such-handler", "{}").problem(404, "HANDLER_NOT_FOUND")
    server.run("echo.", "{").problem(404, "HANDLER_NOT_FOUND")


def test_run_with_bad_json(server):
    server.install("echo", "return $args")
    assert "body" in server.run("echo", '{"a":').problem(400, "INVALID_REQUEST")["detail"]


# ---- Plain bodies: one that does not await is compiled as a plain function, and must not show it ---------------------------

PLAIN = [
    "return 1", "", "return", "return {a: [1]}", "throw new Error('x')", "throw 7", "null.x", "\n\n  undefinedName",
    "return Promise.resolve(5)", "return Promise.reject(new TypeError('no'))", "return new Promise(() => {})", "return Promise.all([1, Promise.resolve(2)])",
    "return {then(resolve) { resolve(3) }}", "return {then(_, reject) { reject(new Error('r')) }}", "return {then() { throw new Error('t') }}",
    "return {then(resolve) { resolve(1); throw new Error('late') }}", "return {get then() { throw new Error('accessor') }}",
    "let n = 0; return {get then() { n++; return (resolve) => resolve(n) }}", "return {then: 5, a: 1}", "return Object.assign(() => 1, {then: (r) => r('f')})",
    "return {then(resolve) { resolve({then(again) { again('nested') }}) }}", "return {then(resolve) { resolve(Promise.resolve(9)) }}", "return {then() {}}",
    "const p = Promise.resolve(1); p.then = 0; return p", "const p = Promise.resolve(1); p.then = (r) => r('own'); return p",
    "Promise.prototype.then = function (r) { r('patched') }; return Promise.resolve(1)", "Object.prototype.then = (r) => r('inherited'); return {}",
    "const o = {a: 1}; queueMicrotask(() => { o.a = 2 }); return o", "const e = new Error('before'); queueMicrotask(() => { e.message = 'after' }); throw e",
    "queueMicrotask(() => { $log('task') }); $log('body'); return {get a() { $log('json'); return 1 }}",
    "queueMicrotask(() => { $log('task') }); throw new Error('x')", "queueMicrotask(() => { throw new Error('uncaught') }); return 1",
    "Promise.resolve().then(() => $log('1')); const r = {then(f) { $log('then'); f(2) }}; Promise.resolve().then(() => $log('3')); return r",
    "$ext.time.sleep(1); return 1", "return $ext.time.sleep(1)", "setTimeout(() => {}, 1); return 2",
    "return 1n", "return () => 1", "return Symbol()", "const o = {}; o.o = o; return o", "return [this === globalThis, new.target === undefined]",
    "'use strict'; return this === undefined", "const f = () => f(); f()", "return new Error('e').stack", "function g() { throw new RangeError('in g') } g()",
    "throw {get message() { return 'odd' }}", "Error.prepareStackTrace = (e, s) => s.map((x) => [x.getFunctionName(), x.getLineNumber()]); return new Error('e').stack",
    "var yield_ = 1; return yield_", "return [...(function* () { yield 1 })()]", "return\n1", "return (async () => 4)()", "return 1 + ;", "}); (() => {",
]


@pytest.mark.parametrize("body", PLAIN)
def test_plain_bodies_end_as_async_ones(server, body):
    def outcome(code):
        reply = server.post({"code": code, "capabilities": ALL + ["ext:time"]}).json()
        for field in ("executionId", "metrics"):
            reply.pop(field, None)
        return reply

    assert outcome(body + "\n// plain") == outcome(body + "\n// await")


@pytest.mark.parametrize("body, expected", [
    ("return handler.constructor.name", "AsyncFunction"),
    ("return arguments.callee.constructor.name", "AsyncFunction"),
    ("return eval('han' + 'dler').constructor.name", "AsyncFunction"),
    ("return h\\u0061ndler.constructor.name", "AsyncFunction"),
    ("return typeof handler().then", "function"),
])
def test_bodies_that_look_at_their_function_see_an_async_one(server, body, expected):
    assert server.value("if (globalThis.again) return 1; globalThis.again = 1; " + body) == expected
