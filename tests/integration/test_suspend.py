# SPDX-License-Identifier: Apache-2.0
"""JavaScript over suspensions: what a handler holds when it waits for $ext, it has again when it goes on."""
import json

import pytest

from suspend_support import ABSENT, ALL, TTL_MS, Story, module_server, suspending  # noqa: F401

SETTINGS = {"SUSPEND_TTL_MS": TTL_MS}


class Rejected:
    """A step that fails its call."""

    def __init__(self, error=ABSENT):
        self.error = error


def play(server, source, steps, **fields):
    """Answers one call after the other: (method, value or Rejected)."""
    story = Story(server, source, **fields)
    for method, value in steps:
        assert story.is_suspended, str(story.result)[:2000]
        if isinstance(value, Rejected):
            story.reject(value.error, method)
        else:
            story.answer(value, method)
    return story


# ---- What lives in memory ----------------------------------------------------------------------------------------------

HELD = {
    "closures": ("""
        const makeCounter = (n) => ({up: () => ++n, read: () => n});
        const counter = makeCounter(10), alias = counter.up;
        counter.up(); await $ext.x.a(); alias(); await $ext.x.b();
        return [counter.up(), counter.read()]""", [("a", 1), ("b", 1)], [13, 13]),
    "maps, sets and their order": ("""
        const key = {k: 1}, map = new Map([['z', 1], [key, 2]]), set = new Set([3, 1, 2]), weak = new WeakMap([[key, 'w']]);
        await $ext.x.a(); map.set('y', 3); set.delete(1);
        await $ext.x.b(); return [map.get(key), [...map.values()], [...set], weak.get(key)]""",
        [("a", 0), ("b", 0)], [2, [1, 2, 3], [3, 2], "w"]),
    "class instances": ("""
        class Base { #secret = 1; static made = 0; constructor() { Base.made++ } get secret() { return this.#secret }
          async add() { this.#secret += await $ext.x.a(); return this } }
        class Derived extends Base { async add() { await super.add(); await super.add(); return this } }
        const one = new Derived(); await one.add();
        return [one.secret, one instanceof Derived, one instanceof Base, Base.made]""",
        [("a", 10), ("a", 100)], [111, True, True, 1]),
    "generators": ("""
        function* numbers() { let n = 0; try { for (;;) n += (yield n) ?? 1 } finally { $log('closed ' + n) } }
        const it = numbers(); it.next(); it.next();
        await $ext.x.a(); const third = it.next(5).value;
        await $ext.x.b(); return [third, it.next().value, it.return('end')]""",
        [("a", 0), ("b", 0)], [6, 7, {"value": "end", "done": True}]),
    "async generators": ("""
        async function* pages() { let cursor = 'start'; while (cursor) { const page = await $ext.x.page(cursor);
          yield* page.items; cursor = page.next } }
        const all = []; for await (const item of pages()) all.push(item);
        return all""",
        [("page", {"items": [1, 2], "next": "p2"}), ("page", {"items": [], "next": "p3"}), ("page", {"items": [3]})], [1, 2, 3]),
    "an async generator left early": ("""
        const seen = [];
        async function* source() { try { for (let i = 0; ; i++) yield await $ext.x.next(i) } finally { seen.push(await $ext.x.close()) } }
        for await (const v of source()) { seen.push(v); if (v === 'b') break }
        return seen""", [("next", "a"), ("next", "b"), ("close", "closed")], ["a", "b", "closed"]),
    "async iterators": ("""
        const it = {i: 0, [Symbol.asyncIterator]() { return this },
          async next() { return this.i === 2 ? {done: true} : {value: await $ext.x.a(this.i++), done: false} }};
        const all = []; for await (const v of it) all.push(v); return all""", [("a", "p"), ("a", "q")], ["p", "q"]),
    "nested async functions": ("""
        const leaf = async (n) => n ? (await leaf(n - 1)) + 1 : await $ext.x.a();
        const middle = async () => { const r = await leaf(50); return r + await leaf(3) };
        return await (async () => await middle())()""", [("a", 1), ("a", 1000)], 1054),
    "arguments, scope and state": ("""
        const before = $args.n; await $ext.x.a();
        return [before, $args, $scope, $state.k, {...$state}, Object.keys($state)]""", [("a", 0)],
        [7, {"n": 7}, {"user": "u"}, [1], {"k": [1], "m": 2}, ["k", "m"]]),
    "writes to the state": ("""
        $state.k = 'new'; delete $state.m; await $ext.x.a();
        const seen = [$state.k, 'm' in $state]; $state.n = 1; await $ext.x.b();
        return [...seen, $state.n, Object.keys($state)]""", [("a", 0), ("b", 0)], ["new", False, 1, ["k", "n"]]),
    "binary data": ("""
        const bytes = new Uint8Array(70000).map((_, i) => i), view = new DataView(bytes.buffer, 10);
        await $ext.x.a(); view.setUint8(0, 99);
        return [bytes[10], bytes[69999], bytes.reduce((a, b) => a + b)]""", [("a", 0)],
        [99, 69999 % 256, sum(i % 256 for i in range(70000)) + 89]),
    "symbols, bigints, regular expressions, dates": ("""
        const s = Symbol('s'), o = {[s]: 1}, re = /a/g, big = 2n ** 70n, d = new Date(5); re.test('aa');
        await $ext.x.a(); return [o[s], String(big + 1n), re.lastIndex, re.test('aa'), re.test('aa'), d.getTime(), s.description]""",
        [("a", 0)], [1, str(2**70 + 1), 1, True, False, 5, "s"]),
    "proxies and accessors": ("""
        const seen = [], p = new Proxy({}, {get(_, k) { seen.push(k); return k }});
        p.one; await $ext.x.a(); p.two; return seen""", [("a", 0)], ["one", "two"]),
    "cycles and shared objects": ("""
        const a = {}, b = {a}; a.b = b; const list = [a, a]; await $ext.x.a();
        return [list[0] === list[1], a.b.a === a]""", [("a", 0)], [True, True]),
    "labelled loops and switch": ("""
        const out = []; outer: for (let i = 0; i < 3; i++) for (const j of [0, 1, 2]) { switch (await $ext.x.a(i, j)) {
          case 'skip': continue outer; case 'stop': break outer; default: out.push([i, j]) } }
        return out""", [("a", "go"), ("a", "skip"), ("a", "go"), ("a", "stop")], [[0, 0], [1, 0]]),
    "loop variables of closures": ("""
        const reads = []; for (let i = 0; i < 3; i++) { reads.push(() => i); await $ext.x.a() }
        return reads.map((f) => f())""", [("a", 0)] * 3, [0, 1, 2]),
    "changed globals": ("""
        globalThis.mine = 1; Array.prototype.last = function () { return this[this.length - 1] };
        await $ext.x.a(); return [mine, [1, 2].last()]""", [("a", 0)], [1, 2]),
    "thenables": ("""
        const thenable = {then(resolve) { $ext.x.a().then((v) => resolve(v * 2)) }}; return await thenable""", [("a", 21)], 42),
    "values that are not awaited": ("const p = $ext.x.a(); return [await 1, await p, await p]", [("a", 5)], [1, 5, 5]),
    "a returned promise": ("return $ext.x.a()", [("a", {"v": 1})], {"v": 1}),
    "then without await": ("return $ext.x.a().then((v) => $ext.x.b(v)).then((v) => v + 1)", [("a", 1), ("b", 2)], 3),
    "nothing as the answer": ("return [(await $ext.x.a()) === undefined, (await $ext.x.b()) === null]", [("a", ABSENT), ("b", None)], [True, True]),
}


@pytest.mark.parametrize("source, steps, expected", HELD.values(), ids=HELD)
def test_held(suspending, source, steps, expected):
    story = play(suspending, source, steps, args={"n": 7}, scope={"user": "u"}, state={"k": [1], "m": 2})
    assert story.value == expected


def test_module_form(suspending):
    source = """
      const cache = new Map([['top', {n: 1}]]);
      let calls = 0;
      const helper = async (ext, n) => { calls++; return await ext.x.a(n) };
      export default async (args, ctx) => {
        const first = await helper(ctx.ext, args.n);
        cache.get('top').n += first;
        ctx.state.k = first; ctx.emit('e', first); ctx.log('l');
        const second = await helper(ctx.ext, args.n + 1);
        return [first, second, calls, cache.get('top').n, ctx.args === args, ctx.state.k, ctx.scope, args === $args];
      }"""
    for _ in range(2):  # the second one begins with what the top level made, not with what the first one left
        story = play(suspending, source, [("a", 10), ("a", 20)], args={"n": 1}, scope={"s": 1})
        assert story.value == [10, 20, 2, 11, True, 10, {"s": 1}, True]
        assert [event["payload"] for event in story.effects["events"]] == [10]


def test_microtask_order(suspending):
    story = play(suspending, """
      const order = [];
      $ext.x.a().then(() => { order.push('a1'); queueMicrotask(() => order.push('a micro')); Promise.resolve().then(() => order.push('a then')) });
      $ext.x.a2().then(() => order.push('a2'));
      queueMicrotask(() => order.push('before'));
      await $ext.x.b(); order.push('b'); await null; order.push('end'); return order""", [("b", 0)])
    assert story.value == ["before", "b", "end"]
    story = Story(suspending, "const order = []; const f = (n) => $ext.x[n]().then(() => { order.push(n); Promise.resolve().then(() => order.push(n + ' then')) });"
                  "await Promise.all([f('a'), f('b'), f('c')]); return order")
    story.go_on({"results": [{"callId": story.call(m), "success": True} for m in ("c", "a", "b")]})
    assert story.value == ["c", "c then", "a", "a then", "b", "b then"], "each answer comes like an event of its own"


def test_time_and_randomness_after_a_resume(suspending):
    source = ("const first = [Date.now(), Math.random(), crypto.randomUUID(), performance.now()]; await $ext.x.a();"
              "return [first, [Date.now(), Math.random(), crypto.randomUUID(), performance.now()]]")
    stories = [play(suspending, source, [("a", 0)]).value for _ in range(3)]
    for (first, second) in stories:
        assert first[0] <= second[0] < first[0] + 600_000 and first[3] <= second[3]
    assert len({part[i] for story in stories for part in story for i in (1,)}) == 6
    assert len({part[2] for story in stories for part in story}) == 6


# ---- Several calls at once ---------------------------------------------------------------------------------------------

TOGETHER = {
    "all, in order": ("return await Promise.all([$ext.x.a(), $ext.x.b(), $ext.x.c()])", [("a", 1), ("b", 2), ("c", 3)], [1, 2, 3]),
    "all, backwards": ("return await Promise.all([$ext.x.a(), $ext.x.b(), $ext.x.c()])", [("c", 3), ("b", 2), ("a", 1)], [1, 2, 3]),
    "all, mixed with values": ("return await Promise.all([0, $ext.x.a(), Promise.resolve(2), $ext.y.b()])", [("b", 3), ("a", 1)], [0, 1, 2, 3]),
    "all, one fails and is caught": ("try { await Promise.all([$ext.x.a(), $ext.x.b()]) } catch (e) { return 'caught ' + e.message }",
                                     [("b", Rejected("down"))], "caught down"),
    "race": ("return await Promise.race([$ext.x.a(), $ext.x.b()])", [("b", "second")], "second"),
    "race lost by an error": ("try { return await Promise.race([$ext.x.a(), $ext.x.b()]) } catch (e) { return e.message }",
                              [("a", Rejected("first"))], "first"),
    "any": ("return await Promise.any([$ext.x.a(), $ext.x.b(), $ext.x.c()])", [("a", Rejected("no")), ("c", "yes")], "yes"),
    "any, none": ("try { await Promise.any([$ext.x.a(), $ext.x.b()]) } catch (e) { return [e.constructor.name, e.errors.map((x) => x.message)] }",
                  [("b", Rejected("2")), ("a", Rejected("1"))], ["AggregateError", ["1", "2"]]),
    "allSettled": ("return (await Promise.allSettled([$ext.x.a(), $ext.x.b()])).map((r) => [r.status, r.value ?? r.reason.message])",
                   [("b", Rejected("bad")), ("a", "good")], [["fulfilled", "good"], ["rejected", "bad"]]),
    "nested": ("return await Promise.all([Promise.race([$ext.x.a(), $ext.x.b()]), Promise.all([$ext.x.c(), $ext.x.d()])])",
               [("d", 4), ("b", 2), ("c", 3)], [2, [3, 4]]),
    "the loser is used later": ("const slow = $ext.x.slow(), quick = $ext.x.quick(); const first = await Promise.race([slow, quick]);"
                                "return [first, await slow]", [("quick", "q"), ("slow", "s")], ["q", "s"]),
    "an answer that nobody awaits yet": ("const a = $ext.x.a(), b = $ext.x.b(); const vb = await b; return [await a, vb]",
                                         [("a", 1), ("b", 2)], [1, 2]),
    "new calls while others are open": ("const slow = $ext.x.slow(); const out = []; for (let i = 0; i < 3; i++) out.push(await $ext.x.a(i)); "
                                        "out.push(await slow); return out", [("a", 0), ("a", 1), ("a", 2), ("slow", "s")], [0, 1, 2, "s"]),
}


@pytest.mark.parametrize("source, steps, expected", TOGETHER.values(), ids=TOGETHER)
def test_together(suspending, source, steps, expected):
    assert play(suspending, source, steps).value == expected


def test_the_open_calls_are_listed(suspending):
    story = Story(suspending, "return await Promise.all([$ext.x.a(1, 'two'), $ext.y.b({k: [null]}), $ext.x.c()])")
    suspension = story.result["suspension"]
    assert suspension["calls"] == [{"callId": 1, "extensionName": "x", "method": "a", "args": [1, "two"]},
                                   {"callId": 2, "extensionName": "y", "method": "b", "args": [{"k": [None]}]},
                                   {"callId": 3, "extensionName": "x", "method": "c", "args": []}]
    assert [suspension[name] for name in ("extensionName", "method", "args")] == ["x", "a", [1, "two"]]
    story.answer("one", "a")
    assert [call["callId"] for call in story.calls] == [2, 3] and story.result["suspension"]["method"] == "b"
    assert story.answer("two").answer("three").value == ["one", "two", "three"], "without a callId: the first open one"


def test_all_answered_in_one_request(suspending):
    story = Story(suspending, "return (await Promise.allSettled([$ext.x.a(), $ext.x.b(), $ext.x.c()])).map((r) => r.value ?? r.reason.message)")
    a, b, c = (story.call(m) for m in "abc")
    story.go_on({"results": [{"callId": c, "success": True, "value": "C"}, {"callId": a, "success": False, "error": "A"},
                             {"callId": b, "success": True, "value": "B"}]})
    assert story.value == ["A", "B", "C"] and story.parts == 2


def test_ten_thousand_calls(suspending):
    """As many as an execution may make; half answered in one request, the others in a second one."""
    story = Story(suspending, "const all = []; for (let i = 0; i < 10000; i++) all.push($ext.x.get(i));"
                  "return (await Promise.all(all)).reduce((sum, v) => sum + v)")
    calls = story.calls
    assert [call["callId"] for call in calls] == list(range(1, 10001))
    results = [{"callId": call["callId"], "success": True, "value": call["args"][0]} for call in calls]
    story.go_on({"results": results[::2]})
    assert len(story.calls) == 5000
    assert story.go_on({"results": results[:0:-2]}).value == sum(range(10000))


# ---- Rejections --------------------------------------------------------------------------------------------------------

ERRORS = {
    "a string": ("down", "down"),
    "a number": (42, "42"),
    "null": (None, "null"),
    "a list": ([1, 2], "[1,2]"),
    "an object": ({"code": 7}, '{"code":7}'),
    "a message": ({"message": "no such order"}, "no such order"),
    "a message and a name": ({"name": "OrderError", "message": "gone"}, "OrderError: gone"),
    "a strange name": ({"name": 5, "message": "gone"}, "gone"),
    "nothing": (ABSENT, "undefined"),
}


@pytest.mark.parametrize("error, text", ERRORS.values(), ids=ERRORS)
def test_rejections(suspending, error, text):
    source = "try { await $ext.x.a() } catch (e) { return [e instanceof Error, (e.name === 'Error' ? '' : e.name + ': ') + e.message] }"
    assert play(suspending, source, [("a", Rejected(error))]).value == [True, text]
    assert play(suspending, "await $ext.x.a()", [("a", Rejected(error))]).error("EXECUTION_ERROR")["message"] == text


def test_rejections_pass_finally(suspending):
    source = """
      const seen = [];
      const inner = async () => { try { await $ext.x.a() } finally { seen.push('inner'); await $ext.x.cleanup(); seen.push('cleaned') } };
      try { await inner() } catch (e) { return [...seen, e.message] } finally { $log(seen.length) }"""
    story = play(suspending, source, [("a", Rejected("broken")), ("cleanup", 0)])
    assert story.value == ["inner", "cleaned", "broken"] and story.effects["logs"] == [{"level": "info", "message": "2"}]


def test_finally_replaces_the_result(suspending):
    assert play(suspending, "try { await $ext.x.a() } finally { return 'mine' }", [("a", Rejected("x"))]).value == "mine"


def test_errors_thrown_after_a_resume_have_a_place(suspending):
    error = play(suspending, "const v = await $ext.x.a();\nconst o = null;\nreturn o.field", [("a", 0)]).error("EXECUTION_ERROR")
    assert error["location"]["line"] == 3 and error["snippet"].startswith("3 | return o.field"), error


def test_a_rejection_that_nobody_awaits(suspending):
    """As without suspensions: it is not the main promise's."""
    assert play(suspending, "$ext.x.lost(); return await $ext.x.a()", [("lost", Rejected("unseen")), ("a", 1)]).value == 1


@pytest.mark.parametrize("source, fields, code, message", [
    ("await $ext.x.a()", {"capabilities": []}, "PERMISSION_DENIED", "ext:x"),
    ("await $ext.y.a()", {"capabilities": ["ext:x"]}, "PERMISSION_DENIED", "ext:y"),
    ("await $ext.nobody.a()", {}, "EXECUTION_ERROR", "there is no $ext.nobody.a"),
    ("await $ext.x.b()", {"extensions": {"x": ["a"]}}, "EXECUTION_ERROR", "there is no $ext.x.b"),
    ("await $ext.x.a()", {"extensions": {}}, "EXECUTION_ERROR", "there is no $ext.x.a"),
    ("await $ext.time.wake()", {}, "EXECUTION_ERROR", "there is no $ext.time.wake"),
    ("await $ext.x.a(1n)", {}, "EXECUTION_ERROR", "BigInt"),
])
def test_calls_that_are_not_there(suspending, source, fields, code, message):
    assert message in Story(suspending, source, **fields).error(code)["message"]


def test_denied_after_a_resume(suspending):
    """The rights are the host's, and stay."""
    source = "await $ext.x.a(); try { await $ext.y.a() } catch (e) { $log(e.name) } $state.allowed = 1; $state.other = 1"
    story = play(suspending, source, [("a", 0)], capabilities=["ext:x", "state:write:allowed"])
    assert "state:write:other" in story.error("PERMISSION_DENIED")["message"]
    assert story.effects["logs"] == [{"level": "info", "message": "PermissionError"}]
    assert story.effects["stateMutations"] == [], "a failed part has no effects"


def test_denied_before_a_suspension_and_thrown_after_it(suspending):
    source = "let denied; try { $state.other = 1 } catch (e) { denied = e } await $ext.x.a(); throw denied"
    play(suspending, source, [("a", 0)], capabilities=["ext:x"]).error("PERMISSION_DENIED")


def test_promise_that_never_settles(suspending):
    assert "never settles" in Story(suspending, "await new Promise(() => {})").error("EXECUTION_ERROR")["message"]
    story = play(suspending, "await $ext.x.a(); await new Promise(() => {})", [("a", 0)])
    assert "never settles" in story.error("EXECUTION_ERROR")["message"]


# ---- Effects -------------------------------------------------------------------------------------------------------------

def test_effects_are_returned_exactly_once(suspending):
    parts = 25
    story = Story(suspending, f"""
      for (let i = 0; i < {parts}; i++) {{
        $state['k' + i] = i; $emit('e', i); $view.focus('c' + i); $log(i);
        await $ext.x.a(i);
      }}
      $emit('end'); return 'done'""")
    for i in range(parts):
        assert [len(story.result[name]) for name in ("stateMutations", "events", "viewCommands", "logs")] == [1] * 4
        assert story.result["metrics"]["hostCalls"] == 5 * (i + 1)
        story.answer()
    assert story.value == "done" and story.parts == parts + 1
    effects = story.effects
    assert effects["stateMutations"] == [{"operation": "set", "key": f"k{i}", "value": i} for i in range(parts)]
    assert effects["events"] == [{"name": "e", "payload": i} for i in range(parts)] + [{"name": "end"}]
    assert [command["componentId"] for command in effects["viewCommands"]] == [f"c{i}" for i in range(parts)]
    assert [line["message"] for line in effects["logs"]] == [str(i) for i in range(parts)]
    assert story.look().json() == story.result


def test_one_id_for_all_parts(suspending):
    story = Story(suspending, "await $ext.x.a(); await $ext.x.b()")
    execution = story.result["executionId"]
    reply = story.post({"success": True})
    assert reply.json()["executionId"] == execution == reply.headers["X-Execution-Id"]
    story.cancel()


# ---- Handlers that change meanwhile ----------------------------------------------------------------------------------------

TOP_LEVEL = """
  const table = new Map(Array.from({length: 1000}, (_, i) => [i, {square: i * i}]));
  class Order { constructor(id) { this.id = id } describe() { return VERSION + this.id } }
  const VERSION = 'v1-';
  export default async (args, {ext}) => { const order = new Order(args); const n = await ext.x.a(); return [order.describe(), table.get(n).square] }"""


@pytest.mark.parametrize("change", ["nothing", "replaced", "deleted"])
def test_handler_changed_meanwhile(suspending, change):
    """An execution ends with the handler that it began with."""
    suspending.install("orders", TOP_LEVEL)
    story = Story(suspending, handler="orders", args=7)
    if change == "replaced":
        suspending.install("orders", TOP_LEVEL.replace("'v1-'", "'v2-'"))
    if change != "nothing":
        other = Story(suspending, handler="orders", args=8) if change == "replaced" else None
        if other:
            assert other.answer(3).value == ["v2-8", 9]
    if change == "deleted":
        assert suspending.delete("/v1/handlers/orders").status == 204
    assert story.answer(30).value == ["v1-7", 900]
    if change != "deleted":
        assert suspending.delete("/v1/handlers/orders").status == 204


def test_image_is_made_again(start):
    """The handler's image is gone from memory and disk when its execution goes on: its source was kept, and compiles to the same."""
    server = start({"CONTAINER_MEMORY_LIMIT": "256Mi", "CACHE_MAX_MB": 1})
    story = Story(server, TOP_LEVEL, args=7)
    for i in range(60):
        server.value(f"const a = 'x'.repeat(1e6) + {i}; export default () => a.length")
    assert story.answer(30).value == ["v1-7", 900]


# ---- Limits over all parts --------------------------------------------------------------------------------------------------

def test_waiting_is_not_running(suspending):
    """timeoutMs is about the time inside, timers and calls of the caller's alike."""
    wait = "await $ext.time.sleep(400);"
    story = Story(suspending, f"const begin = performance.now(); {wait} await $ext.x.a(); {wait} return performance.now() - begin", timeoutMs=300)
    assert story.answer().value > 790


def test_loop_after_a_resume_is_stopped(suspending):
    story = Story(suspending, "await $ext.x.a(); for (;;);", timeoutMs=200)
    assert "200 ms" in story.answer().error("TIMEOUT")["message"]
    assert story.look().json()["error"]["code"] == "TIMEOUT"


def test_running_time_adds_up(suspending):
    """No part takes as long as the limit; all of them do."""
    spin = "const spin = (ms) => { const end = Date.now() + ms; while (Date.now() < end); };"
    story = Story(suspending, spin + "for (;;) { spin(150); await $ext.x.a() }", timeoutMs=1000)
    while story.is_suspended:
        assert story.parts <= 8, "each part runs for 150 ms"
        story.answer()
    story.error("TIMEOUT")


@pytest.mark.parametrize("body, limit, settings_of_message", [
    ("$log(1)", 10000, "too many host calls"),
    ("$state.k = 1", 1000, "too many state mutations"),
    ("$emit('e')", 100, "too many events"),
])
def test_counts_add_up(suspending, body, limit, settings_of_message):
    half = limit // 2
    story = Story(suspending, f"for (let i = 0; i < {half}; i++) {{ {body} }} await $ext.x.a(); for (let i = 0; i <= {half}; i++) {{ {body} }}")
    error = story.answer().error("RESOURCE_LIMIT")
    assert settings_of_message in error["message"] and str(limit) in error["message"]


def test_endless_sleeps_end(suspending):
    error = Story(suspending, "for (;;) await $ext.time.sleep(0)").error("RESOURCE_LIMIT")
    assert "too many host calls" in error["message"]


def test_memory_limit_after_a_resume(suspending):
    story = Story(suspending, "const keep = [new Uint8Array(3 << 20).fill(1)]; await $ext.x.a(); for (;;) keep.push(new Uint8Array(1 << 20).fill(1))",
                  memoryLimitMb=8)
    assert "8 MiB" in story.answer().error("MEMORY_LIMIT")["message"]


def test_stack_limit_after_a_resume(suspending):
    story = Story(suspending, "const deep = (n) => deep(n + 1) + 1; await $ext.x.a(); try { deep(0) } catch (e) { return e.name }")
    assert story.answer().value in ("RangeError", "InternalError")


# ---- Values of size ---------------------------------------------------------------------------------------------------------

def test_large_answers(suspending):
    """A megabyte less the rest of the request, as text and as numbers."""
    text = "x" * 1_048_000
    assert play(suspending, "const v = await $ext.x.a(); return [v.length, v === 'x'.repeat(v.length)]", [("a", text)]).value == [1_048_000, True]
    numbers = list(range(100_000))
    story = play(suspending, "const v = await $ext.x.a(); return v.reduce((s, n) => s + n)", [("a", numbers)])
    assert story.value == sum(numbers)


def test_large_memory_and_arguments(suspending):
    """Four megabytes that do not compress travel through the suspension; a megabyte goes out as an argument."""
    source = """
      const noise = new Uint8Array(4 << 20), sum = (a) => { let s = 0; for (let i = 0; i < a.length; i += 61) s = (s * 31 + a[i]) | 0; return s };
      for (let i = 0; i < noise.length; i += 65536) crypto.getRandomValues(noise.subarray(i, i + 65536));
      const before = sum(noise), text = 'x'.repeat(1e6);
      const answer = await $ext.x.a(text); return [sum(noise) === before, answer, text.length]"""
    story = Story(suspending, source)
    assert len(story.calls[0]["args"][0]) == 1_000_000
    assert story.answer("ok").value == [True, "ok", 1_000_000]


@pytest.mark.parametrize("depth", [10, 500])
def test_deep_answers(suspending, depth):
    value = json.loads("[" * depth + "1" + "]" * depth)
    assert play(suspending, "let v = await $ext.x.a(), n = 0; while (Array.isArray(v)) { v = v[0]; n++ } return [n, v]", [("a", value)]).value == [depth, 1]


@pytest.mark.parametrize("value", [None, True, False, 0, -0.5, 1e300, 2**53, "", "ä😀\x00\u2028\"\\", [], {}, {"": [{"__proto__": 1}]}, {"then": 1}, {"callId": 5, "success": False}],
                         ids=lambda v: repr(v)[:20])
def test_answers_come_unchanged(suspending, value):
    assert play(suspending, "const v = await $ext.x.a(); return {v}", [("a", value)]).value == {"v": value}


def test_answers_cannot_pollute(suspending):
    story = play(suspending, "const v = await $ext.x.a(); return [Object.keys(v), ({}).polluted === undefined, Object.getPrototypeOf(v) === Object.prototype]",
                 [("a", json.loads('{"__proto__": {"polluted": 1}}'))])
    assert story.value == [["__proto__"], True, True]


def test_named_handler_with_grants(suspending):
    """Its grants go with the execution, as they were when it began."""
    suspending.install("granted", "await $ext.x.a(); $state.mine = 1; try { $state.other = 1 } catch (e) { return e.name }",
                       {"capabilities": ["ext:x", "state:write:mine"], "extensions": {"x": ["a"]}})
    story = Story(suspending, handler="granted", capabilities=ALL)
    suspending.install("granted", "return 1", {"capabilities": []})
    assert story.answer().value == "PermissionError"
    assert story.effects["stateMutations"] == [{"operation": "set", "key": "mine", "value": 1}]
    assert suspending.delete("/v1/handlers/granted").status == 204
