# SPDX-License-Identifier: Apache-2.0
"""Every execution starts clean: whatever one does to its world, the next one sees none of it."""
import random

import pytest

from conftest import in_threads

SETTINGS = {"MAX_INSTANCES": 2}

# Touches much of what a hostile execution may have changed.
CANARY = """
let calls = 0;
const top = new Map([["k", 1]]);
export default async function (args) {
  calls += 1;
  top.set("k", top.get("k") + 1);
  const out = [];
  for (const x of [3, 1, 2].map((v) => v * 2).sort((a, b) => a - b)) out.push(x);
  const {a, ...rest} = JSON.parse('{"a": 1, "b": {"c": [1, 2]}}');
  class A { #n = args.n; get n() { return this.#n } }
  return {
    calls, k: top.get("k"), out, a, rest, n: new A().n,
    text: `${"x".padStart(3, "-")}|${"a-b".replace(/(\\w)-(\\w)/, "$2-$1")}|${RegExp.$1 ?? ""}`,
    json: JSON.stringify({d: new Date(0), m: [...new Map([[1, 2]])], u: [...new Uint8Array([1, 255])]}),
    globals: Reflect.ownKeys(globalThis).length,
    protos: [Object, Array, Function, String, Promise, Map, RegExp, Date, Error].map((c) => Reflect.ownKeys(c.prototype).length),
    statics: [Object, Array, Math, JSON, Reflect, Symbol, Promise, console, crypto].map((c) => Reflect.ownKeys(c).length),
    awaited: await Promise.all([1, Promise.resolve(2), new Promise((r) => queueMicrotask(() => r(3)))]),
    chance: Math.random() < 1 && Math.random() !== Math.random(),
    url: new URL("/p?q=1", "http://h").href,
    hash: new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode("x")))[0],
    clone: structuredClone({x: [1n].length}),
    state: Object.keys($state), frozen: Object.isFrozen(Object.prototype), extensible: Object.isExtensible(globalThis),
    symbol: Symbol.keyFor(Symbol.for("s")), leaked: typeof leaked,
  };
}
"""

POISON = [
    "Object.prototype.poisoned = 1",
    "Object.prototype.toJSON = () => 'poisoned'",
    "Object.defineProperty(Object.prototype, 'then', {get() { return (r) => r('stolen') }})",
    "Object.defineProperty(Object.prototype, 'a', {set(v) { globalThis.stolen = v }})",
    "Array.prototype[Symbol.iterator] = function* () { yield 'poisoned' }",
    "Array.prototype.push = Array.prototype.map = Array.prototype.join = () => 'poisoned'",
    "Array.prototype.sort = function () { return this }",
    "Array.prototype[0] = 'poisoned'; Array.prototype.length = 5",
    "Promise.prototype.then = () => 'poisoned'",
    "Promise.resolve = Promise.all = () => 'poisoned'; Promise.prototype.constructor = null",
    "JSON.stringify = () => '\"poisoned\"'; JSON.parse = () => ({poisoned: 1})",
    "Function.prototype.call = Function.prototype.apply = Function.prototype.bind = () => 'poisoned'",
    "Function.prototype.toString = () => 'poisoned'",
    "Math.random = () => 0.5; Math.max = () => 0",
    "String.prototype.replace = String.prototype.padStart = String.prototype.split = () => 'poisoned'",
    "RegExp.prototype.exec = () => null; RegExp.prototype[Symbol.replace] = () => 'poisoned'",
    "/(stat)ic/.exec('a static'); const r = /x/g; r.lastIndex = 7; globalThis.r = r",
    "Map.prototype.get = Map.prototype.set = () => 'poisoned'; Set.prototype.has = () => true",
    "Date.now = () => 0; Date.prototype.toJSON = () => 'poisoned'; Date = class {}",
    "Error.prototype.name = 'poisoned'; Error.prepareStackTrace = () => 'poisoned'; Error.stackTraceLimit = 0",
    "Symbol.for('s'); Symbol.for('leaked-symbol'); Symbol.iterator",
    "globalThis.leaked = {big: 'x'.repeat(100000)}",
    "var leaked = 1; globalThis['$args'] = 'poisoned'; $args = 2; $state = null; $emit = null",
    "for (const key of Reflect.ownKeys(globalThis)) { try { delete globalThis[key] } catch {} }",
    "for (const key of Reflect.ownKeys(Object.prototype)) { try { delete Object.prototype[key] } catch {} }",
    "for (const key of Reflect.ownKeys(globalThis)) { try { Object.freeze(globalThis[key]); Object.freeze(globalThis[key].prototype) } catch {} }"
    " Object.freeze(globalThis)",
    "Object.setPrototypeOf(Object.prototype.toString, null); Object.setPrototypeOf(Array.prototype, null)",
    "crypto.subtle.digest = () => 'poisoned'; Crypto.prototype.randomUUID = () => 'poisoned'",
    "TextEncoder.prototype.encode = () => new Uint8Array(1); URL.prototype.toString = () => 'poisoned'; URL = class { href = 'poisoned' }",
    "console.log = $log.info = () => { throw 1 }; console = null",
    "setTimeout(() => { globalThis.leaked = 1 }, 0); Promise.resolve().then(() => { globalThis.leaked = 2 })",
    "queueMicrotask(function f() { globalThis.leaked = 3 }); new Promise(() => {})",
    "const f = (n) => n ? f(n - 1) : 0; f(1000); const a = []; for (let i = 0; i < 1e5; i++) a.push({i}); globalThis.leaked = a",
    "(0, eval)('var leaked = 4; function Object() {}'); new Function('leaked = 5')()",
    "const w = new WeakRef({}), r = new FinalizationRegistry(() => { globalThis.leaked = 6 }); r.register({}, 1)",
    "const b = new ArrayBuffer(1 << 20); new Uint8Array(b).fill(0x41); globalThis.leaked = b",
    "Object.defineProperty(globalThis, 'undefined2', {value: 1}); Object.preventExtensions(globalThis)",
    "Reflect.ownKeys = () => []; Reflect.apply = () => 'poisoned'; Reflect.get = () => 'poisoned'",
    "Iterator.prototype.next = () => 1; Object.getPrototypeOf(function* () {}).prototype.next = () => ({done: true})",
    "Number.prototype.toString = () => 'poisoned'; Boolean.prototype.valueOf = () => false; BigInt.prototype.toString = () => '0'",
    "Uint8Array.prototype.__proto__.set = () => 1; ArrayBuffer.prototype.slice = () => null; DataView = null",
    "structuredClone = queueMicrotask = () => 'poisoned'; globalThis.globalThis = null",
]
# Different ends leave different remains.
ENDINGS = ["", "; return 1", "; throw new Error('end')", "; throw {toString: null}", "; for (;;);", "; await new Promise(() => {})",
           "; (function f() { f() })()", "; for (const a = [];;) a.push(new Array(1e5).fill({}))", "; return $state.secret",
           "; for (;;) $log('x')", "; return 10n"]


@pytest.fixture
def canary(server):
    server.install("canary", CANARY)
    expected = server.value(handler="canary", args={"n": 5})
    assert expected["calls"] == 1 and expected["k"] == 2 and expected["leaked"] == "undefined" and expected["state"] == []
    assert expected["awaited"] == [1, 2, 3] and expected["chance"] is True
    return lambda: server.value(handler="canary", args={"n": 5}) == expected


@pytest.mark.parametrize("poison", POISON)
def test_poison_does_not_spread(server, canary, poison):
    inline = "return [Object.keys({a: 1}), [1, 2].map((x) => x + 1).join(), typeof leaked, `${[3]}`, {}.poisoned === undefined]"
    for ending in ("", "; throw new Error('end')"):
        server.install("poisoner", f"{poison}{ending}")
        server.execute(handler="poisoner")  # may fail: it broke its own world
        server.execute(handler="poisoner")
        assert canary()
        server.execute(f"{poison}{ending}")
        assert canary()
        assert server.value(inline) == [["a"], "2,3", "undefined", "3", True]


def test_same_handler_starts_over(server):
    source = """
    let count = 0; const cache = []; let saved;
    globalThis.seen ??= 0;
    export default () => {
      const before = [count, cache.length, globalThis.seen, typeof saved, RegExp.$1 ?? null, Object.keys(globalThis).length];
      count++; cache.push(1); globalThis.seen++; saved = () => count; /(a)/.exec("a"); globalThis.more = 1;
      return before;
    }"""
    first = server.value(source)
    assert first[:4] == [0, 0, 0, "undefined"]
    for _ in range(20):
        assert server.value(source) == first


def test_top_level_values_are_there_and_private(server):
    one = "const box = {v: 1}; export default (n) => { const was = box.v; box.v = n; return was }"
    other = "const box = {v: 2}; export default (n) => { const was = box.v; box.v = n; return was }"
    for n in range(30):
        assert server.value(one, args=n) == 1
        assert server.value(other, args=n) == 2


def test_symbol_registry_is_fresh(server):
    # A symbol that was registered once would have been found by its insertion order or description; compare by effect.
    server.value("globalThis[Symbol.for('mark')] = 1; return 1")
    assert server.value("return [Symbol.for('mark') in globalThis, Reflect.ownKeys(globalThis).filter((k) => typeof k === 'symbol').length]")[0] is False


def test_jobs_and_timers_do_not_survive(server):
    server.execute("for (let i = 0; i < 100; i++) { setTimeout(() => $log('timer'), 0); new Promise(() => {}) } return 1")
    server.execute("Promise.resolve().then(() => { for (;;); })", timeoutMs=50)
    for _ in range(10):
        result = server.execute("await null; return 1")
        assert (result["returnValue"], result["logs"]) == (1, [])


def test_inputs_do_not_stay(server):
    server.execute("return 1", args={"secret": "s" * 50000}, scope={"x": 1}, state={"y": 2}, capabilities=["state:read:*"])
    assert server.value("return [typeof $args, Object.keys($scope), Object.keys($state)]") == ["undefined", [], []]


def test_rights_do_not_stay(server):
    server.execute("$state.x = 1; $emit('e')", capabilities=["state:write:*", "events:emit:*"])
    server.fails("PERMISSION_DENIED", "$state.x = 1")
    server.fails("PERMISSION_DENIED", "$emit('e')")


def test_300_hostile_executions_between_canaries(server, canary):
    chance = random.Random(2026)
    for i in range(300):
        parts = chance.sample(POISON, chance.randint(1, 4))
        source = "; ".join(f"try {{ {part} }} catch {{}}" for part in parts if not part.startswith("var ")) + chance.choice(ENDINGS)
        server.execute(source, timeoutMs=40, memoryLimitMb=8)
        if i % 3 == 0:
            assert canary(), source


def test_eight_threads_among_hostile_ones(server, canary):
    def work(i):
        chance = random.Random(i)
        for _ in range(25):
            if i % 2:
                assert canary()
            else:
                source = f"try {{ {chance.choice(POISON)} }} catch {{}}{chance.choice(ENDINGS)}"
                server.execute(source, timeoutMs=30, memoryLimitMb=8)

    in_threads(8, work)


def test_arguments_of_concurrent_requests_do_not_mix(server):
    server.install("echo", "await null; $log($args.id); return {id: $args.id, twin: $scope.id, big: $args.pad.length}")

    def work(i):
        for j in range(60):
            key = f"{i}-{j}"
            result = server.execute(handler="echo", args={"id": key, "pad": "p" * (i * 997)}, scope={"id": key})
            assert result["returnValue"] == {"id": key, "twin": key, "big": i * 997}
            assert result["logs"] == [{"level": "info", "message": key}]

    in_threads(8, work)
