# SPDX-License-Identifier: Apache-2.0
"""Handlers that want to stop the server: each ends as its own typed error, in time, and the next request is answered."""
import time

import pytest

from conftest import SANITIZED, SLOWNESS, Background, in_threads, wait_until

SETTINGS = {"MAX_INSTANCES": 4}

TIMEOUT_MS = 300
SLACK_S = 3  # for a machine with two slow cores
AMPLE_MS = int(5000 * SLOWNESS)  # for what must come to another end first
RSS_MAX = 4 * (32 << 20) + (160 << 20)  # all instances grown, and everything else
ALL = ["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*"]

LOOPS = {
    "while": "while (true);",
    "for with work": "let x = 0; for (;;) x = Math.sqrt(x + 1);",
    "regexp": "return /^(a+)+$/.test('a'.repeat(60) + 'b')",
    "regexp alternatives": "return /^(a|aa)+$/.test('a'.repeat(60) + 'b')",
    "regexp in replace": "return 'x'.repeat(60).replace(/(x+x+)+y/g, '')",
    "sort comparator": "[3, 1, 2].sort(() => { for (;;); })",
    "inconsistent comparator": "for (;;) Array.from({length: 1000}, (_, i) => i).sort(() => Math.random() - 0.5)",
    "promise jobs": "for (;;) await null",
    "microtasks after the answer": "const f = () => queueMicrotask(f); f(); return 1",
    "async generator": "async function* g() { for (;;) yield 1 } for await (const x of g());",
    "generator": "function* g() { for (;;) yield 1 } for (const x of g());",
    "getter": "return {get a() { for (;;); }}",
    "proxy trap": "const p = new Proxy({}, {get() { for (;;); }}); return p.x",
    "proxy ownKeys": "return Object.keys(new Proxy({}, {ownKeys() { for (;;); }}))",
    "toJSON of the value": "return {toJSON() { for (;;); }}",
    "toString in a template": "return `${{toString() { for (;;); }}}`",
    "valueOf": "return +{valueOf() { for (;;); }}",
    "then": "return {then() { for (;;); }}",
    "finally": "try { for (;;); } finally { for (;;); }",
    "catch in a loop": "for (;;) { try { null.x } catch {} }",
    "iterator": "for (const x of {[Symbol.iterator]: () => ({next: () => ({done: false})})});",
    "error getters": "throw Object.defineProperty(new Error('x'), 'message', {get() { for (;;); }})",
    "Error.prepareStackTrace": "Error.prepareStackTrace = () => { for (;;); }; return new Error('x').stack",
    "long array": "return new Array(2 ** 32 - 1).indexOf(1)",
    "huge typed array search": "const a = new Uint8Array(1 << 22); for (;;) a.indexOf(1)",
    "eval": "eval('for (;;);')",
    "BigInt power": "let x = 3n; for (;;) { x = x * x; if (x > 2n ** 100000n) x = 3n }",
    "string comparison": "const a = 'x'.repeat(1 << 20), b = 'x'.repeat(1 << 20) + 'y'; for (;;) a < b",
    "digest": "for (;;) await crypto.subtle.digest('SHA-512', new Uint8Array(1 << 20))",
    "structuredClone": "const a = Array.from({length: 5e4}, (_, i) => ({i})); for (;;) structuredClone(a)",
    "denied calls": "for (;;) { try { setTimeout(1) } catch {} }",
}

TOP_LEVEL = {
    "loop at the top level": ("for (;;); export default () => 1", "the top level ran longer"),
    "promise jobs at the top level": ("const f = () => queueMicrotask(f); f(); export default () => 1", "the top level ran longer"),
    "memory at the top level": ("const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1)); export default () => 1", "MiB of memory"),
    "log flood at the top level": ("for (;;) console.log('x'); export default () => 1", "too many host calls"),
    "recursion at the top level": ("const f = () => f(); f(); export default () => 1", "Maximum call stack"),
}

DEEP = 100_000
RECURSION = {
    "plain": ("const f = () => f(); f()", "EXECUTION_ERROR"),
    "mutual": ("const a = () => b(), b = () => a(); a()", "EXECUTION_ERROR"),
    "with frames": ("const f = (n) => { const x = [n, n + 1]; return f(n + 1) + x.length }; f(0)", "EXECUTION_ERROR"),
    "method and getter": ("const o = {get a() { return this.a }}; o.a", "EXECUTION_ERROR"),
    "constructor": ("class A { constructor() { new A() } } new A()", "EXECUTION_ERROR"),
    "caught and again": ("const f = () => { try { f() } catch { f() } }; f()", None),
    "toString": ("const o = {toString() { return `${o}` }}; `${o}`", "EXECUTION_ERROR"),
    "sort in sort": ("const f = () => [2, 1].sort(f); f()", None),
    "map in map": ("const f = () => [1].map(f); f()", None),
    "apply in apply": ("const f = () => Reflect.apply(f, null, []); f()", None),
    "bound functions": (f"let f = () => 1; for (let i = 0; i < {DEEP}; i++) f = f.bind(null); return f()", None),
    "stringify deep array": (f"let a = []; for (let i = 0; i < {DEEP}; i++) a = [a]; return JSON.stringify(a).length", None),
    "return deep array": (f"let a = []; for (let i = 0; i < {DEEP}; i++) a = [a]; return a", None),
    "return deep object": (f"let a = {{}}; for (let i = 0; i < {DEEP}; i++) a = {{a}}; return a", None),
    "log deep array": (f"let a = []; for (let i = 0; i < {DEEP}; i++) a = [a]; $log(a); return 1", None),
    "emit deep array": (f"let a = []; for (let i = 0; i < {DEEP}; i++) a = [a]; $emit('e', a); return 1", None),
    "state deep array": (f"let a = []; for (let i = 0; i < {DEEP}; i++) a = [a]; $state.a = a; return 1", None),
    "throw deep array": (f"let a = []; for (let i = 0; i < {DEEP}; i++) a = [a]; throw a", None),
    "parse deep array": (f"return JSON.parse('['.repeat({DEEP}) + ']'.repeat({DEEP})).length", None),
    "parse deep object": (f"return typeof JSON.parse('{{\"a\":'.repeat({DEEP}) + '1' + '}}'.repeat({DEEP}))", None),
    "reviver deep": ("return JSON.parse('['.repeat(20000) + ']'.repeat(20000), (k, v) => v)", None),
    "proxy chain": (f"let p = {{}}; for (let i = 0; i < {DEEP}; i++) p = new Proxy(p, {{}}); return p.x", None),
    "proxy of itself as prototype": ("const p = new Proxy({}, {}); Object.setPrototypeOf(p, p); return p.x", None),
    "prototype chain": (f"let o = {{}}; for (let i = 0; i < {DEEP}; i++) o = Object.create(o); return o.x === undefined", None),
    "instanceof of bound": (f"let f = class {{}}; for (let i = 0; i < {DEEP}; i++) f = f.bind(); return ({{}}) instanceof f", None),
    "nested functions": ("return eval('(() => '.repeat(20000) + '1' + ')'.repeat(20000))", None),
    "nested arrays in source": ("return eval('['.repeat(20000) + ']'.repeat(20000)).length", None),
    "nested parentheses": ("return eval('('.repeat(20000) + '1' + ')'.repeat(20000))", None),
    "nested templates": ("return eval('`${'.repeat(20000) + '1' + '}`'.repeat(20000)).length", None),
    "nested blocks": ("return eval('{'.repeat(20000) + '}'.repeat(20000))", None),
    "nested classes": ("return typeof eval('(class { static a = '.repeat(5000) + '1' + '})'.repeat(5000))", None),
    "unary operators": ("return eval('-~'.repeat(20000) + '1')", None),
    "long sum": ("return eval('1' + '+1'.repeat(50000))", None),
    "deep groups in a regexp": ("return new RegExp('('.repeat(20000) + 'a' + ')'.repeat(20000)).test('a')", None),
    "deep classes in a regexp": ("return new RegExp('['.repeat(20000) + 'a' + ']'.repeat(20000), 'v').test('a')", None),
    "regexp that backtracks deep": ("return /^(?:a|b|c)*$/.test('abc'.repeat(300000) + 'd')", None),
    "flat of a cycle": ("const a = []; a.push(a, 1); return a.flat(Infinity).length", None),
    "flat of a deep array": (f"let a = [1]; for (let i = 0; i < {DEEP}; i++) a = [a]; return a.flat(Infinity).length", None),
    "join of a deep array": (f"let a = [1]; for (let i = 0; i < {DEEP}; i++) a = [a]; return String(a)", None),
    "structuredClone deep": (f"let a = []; for (let i = 0; i < {DEEP}; i++) a = [a]; return typeof structuredClone(a)", None),
    "linked list freed": ("let l = null; for (let i = 0; i < 3e5; i++) l = {l}; l = null; return 1", None),
    "promise chain": (f"let p = Promise.resolve(); for (let i = 0; i < {DEEP}; i++) p = p.then((x) => x); await p; return 1", None),
    "nested promises": ("let p = Promise.resolve(1); for (let i = 0; i < 20000; i++) { const q = p; p = new Promise((r) => r(q)) } return await p", None),
    "yield* chain": ("function* g(n) { if (n) yield* g(n - 1); yield n } return [...g(20000)].length", None),
    "await chain": ("const f = async (n) => n ? 1 + await f(n - 1) : 0; return await f(20000)", None),
    "ropes": ("let s = 'a'; for (let i = 0; i < 3e5; i++) s = 'x' + s + 'y'; return s.charCodeAt(5)", None),
    "URL": ("return new URL('http://h/' + 'a/../'.repeat(50000)).pathname", None),
    "errors that cause each other": (f"let e = new Error('0'); for (let i = 0; i < {DEEP}; i++) e = new Error('n', {{cause: e}}); throw e", "EXECUTION_ERROR"),
}
# What a deep structure may end in: the engine's RangeError, its own limits, or success.
DEEP_ENDS = {"EXECUTION_ERROR", "RESOURCE_LIMIT", "MEMORY_LIMIT", "TIMEOUT", "COMPILATION_ERROR"}

ALLOCATION = {
    "arrays": "const a = []; for (;;) a.push([1, 2, 3])",
    "objects": "const a = []; for (;;) a.push({a: 1, b: {c: 2}})",
    "typed arrays": "const a = []; for (;;) a.push(new Uint8Array(1e5))",
    "buffers": "const a = []; for (;;) a.push(new ArrayBuffer(1 << 20))",
    "strings": "const a = []; for (let i = 0;; i++) a.push(('s' + i).repeat(100).toUpperCase())",
    "flat strings": "let s = 'x'; for (;;) { s += s; s.charCodeAt(s.length >> 1) }",
    "maps": "const m = new Map(); for (let i = 0;; i++) m.set(i, {})",
    "sets": "const s = new Set(); for (let i = 0;; i++) s.add('k' + i)",
    "regexps": "const a = []; for (let i = 0;; i++) a.push(new RegExp('a{1,100}' + i))",
    "closures": "const a = []; for (let i = 0;; i++) a.push(() => i)",
    "functions": "const a = []; for (let i = 0;; i++) a.push(new Function('return ' + i))",
    "symbols": "const a = []; for (let i = 0;; i++) a.push(Symbol('s' + i))",
    "properties": "const o = {}; for (let i = 0;; i++) o['p' + i] = i",
    "promises": "const a = []; for (;;) a.push(new Promise(() => {}))",
    "generators": "function* g() { yield 1 } const a = []; for (;;) { const i = g(); i.next(); a.push(i) }",
    "queued jobs": "for (;;) Promise.resolve().then(() => 1)",
    "errors": "const a = []; for (;;) a.push(new Error('e'))",
    "weak references": "const a = []; for (;;) a.push(new WeakRef({}))",
    "cycles": "const a = []; for (;;) { const o = {}; o.o = o; a.push(o) }",
    "BigInts": "const a = []; let x = 1n; for (;;) { x = (x << 64n) + 1n; a.push(x) }",
    "array growth": "let a = [1]; for (;;) a = a.concat(a)",
    "split": "return 'x'.repeat(2e7).split('')",
    "spread of a string": "return [...'x'.repeat(2e7)]",
    "fill": "return new Array(2e7).fill({}).map(() => ({}))",
    "JSON text": "return JSON.parse('[' + '[],'.repeat(3e6) + '1]')",
    "padded": "const a = []; for (;;) a.push('a'.padEnd(1 << 20).toUpperCase())",
    "URLs": "const a = []; for (;;) a.push(new URL('http://example.com/?a=1'))",
    "proxies": "const a = []; for (;;) a.push(new Proxy({}, {}))",
}

# Sizes that cannot be had are refused by the language, and the handler may go on.
IMPOSSIBLE = {
    "ArrayBuffer": "new ArrayBuffer(2 ** 40)",
    "ArrayBuffer of 4 GiB": "new ArrayBuffer(2 ** 32 - 1)",
    "ArrayBuffer of 2 GiB": "new ArrayBuffer(2 ** 31 - 1)",
    "Float64Array": "new Float64Array(2 ** 30)",
    "resizable": "new ArrayBuffer(8, {maxByteLength: 2 ** 40})",
    "array length": "new Array(-1)",
    "repeat": "'x'.repeat(2 ** 30)",
    "repeat beyond": "'x'.repeat(2 ** 40)",
    "padStart": "'x'.padStart(2 ** 30)",
    "BigInt": "2n ** (2n ** 40n)",
    "BigInt shift": "1n << (2n ** 62n)",
    "BigInt from text": "BigInt('9'.repeat(5e6)) ** 1000n",
    "Array.from": "Array.from({length: 2 ** 53})",
    "spread of arguments": "Math.max(...new Array(5e6))",
    "apply": "Math.max.apply(null, {length: 2 ** 31})",
    "concat": "new Array(2 ** 32 - 1).concat([1, 2])",
    "regexp quantifier": "new RegExp('(a{60000}){60000}').test('a'.repeat(10))",
    "String.fromCharCode": "String.fromCharCode.apply(null, new Array(1e7))",
}

FLOODS = {
    "logs": ("for (;;) $log('x')", "RESOURCE_LIMIT", "too many host calls"),
    "long logs": ("for (;;) $log('x'.repeat(1e5))", "RESOURCE_LIMIT", "too many bytes"),
    "console": ("for (;;) console.error('x')", "RESOURCE_LIMIT", "too many host calls"),
    "events": ("for (;;) $emit('e', 1)", "RESOURCE_LIMIT", "too many events: the limit is 100"),
    "mutations": ("for (let i = 0;; i++) $state['k' + i] = i", "RESOURCE_LIMIT", "too many state mutations: the limit is 1000"),
    "deletes": ("for (;;) delete $state.x", "RESOURCE_LIMIT", "too many state mutations"),
    "view commands": ("for (;;) $view.focus('f')", "RESOURCE_LIMIT", "too many host calls"),
    "large view commands": ("for (;;) $view.custom('f', 'x'.repeat(1e5))", "RESOURCE_LIMIT", "too many bytes"),
    "extension calls": ("for (;;) $ext.time.sleep(1).catch(() => 1)", "RESOURCE_LIMIT", "too many host calls"),
    "large value": ("return 'x'.repeat(10e6)", "RESOURCE_LIMIT", "too many bytes"),
    "large value of escapes": ("return '\\u0001'.repeat(1e6)", "RESOURCE_LIMIT", "too many bytes"),
    "large event": ("$emit('e', 'x'.repeat(5e6))", "RESOURCE_LIMIT", "too many bytes"),
    "large mutation": ("$state.x = 'x'.repeat(5e6)", "RESOURCE_LIMIT", "too many bytes"),
    "large key": ("$state['x'.repeat(5e6)] = 1", "RESOURCE_LIMIT", "too many bytes"),
    "large sum": ("for (let i = 0; i < 50; i++) $emit('e', 'x'.repeat(1e5))", "RESOURCE_LIMIT", "too many bytes"),
    "caught floods": ("for (;;) { try { $emit('e') } catch {} }", "RESOURCE_LIMIT", "too many events"),
}


@pytest.fixture
def attack(server):
    """Runs a hostile source; then time, a good answer and memory must be right."""
    good = "return [6 * 7, JSON.stringify({a: [1, 2]}), $args]"
    server.value(good, args="warm")

    def run(source, **fields):
        begin = time.monotonic()
        result = server.execute(source, **{"timeoutMs": TIMEOUT_MS, "capabilities": ALL, **fields})
        seconds = time.monotonic() - begin
        assert seconds < (TIMEOUT_MS / 1000 * 2 + SLACK_S) * SLOWNESS, f"{seconds:.1f} s"
        assert server.value(good, args="after") == [42, '{"a":[1,2]}', "after"]
        assert server.rss() < RSS_MAX
        return result

    return run


def ends(result, code):
    assert result["status"] == "error" and result["error"]["code"] == code, str(result)[:600]
    assert result["error"]["message"]
    return result["error"]["message"]


@pytest.mark.parametrize("name", LOOPS)
def test_loop(attack, name):
    assert f"{TIMEOUT_MS} ms" in ends(attack(LOOPS[name]), "TIMEOUT")


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_top_level(attack, name):
    source, message = TOP_LEVEL[name]
    assert message in ends(attack(source), "COMPILATION_ERROR")


@pytest.mark.parametrize("name", RECURSION)
def test_recursion(attack, name):
    source, code = RECURSION[name]
    result = attack(source, timeoutMs=int(1500 * SLOWNESS))
    if code:
        ends(result, code)
    elif result["status"] == "error":
        assert result["error"]["code"] in DEEP_ENDS, str(result)[:600]


def test_source_that_nests_deep(attack):
    for source in ("(() => " * 20000 + "1" + ")" * 20000, "[" * 20000, "{" * 20000 + "}" * 20000, "export default " + "(" * 20000,
                   "if (1) " * 20000 + ";", "a?" * 20000, "`${" * 20000, "/" + "(" * 20000 + "/"):
        ends(attack(source, timeoutMs=AMPLE_MS), "COMPILATION_ERROR")


@pytest.mark.parametrize("name", ALLOCATION)
def test_allocation(attack, name):
    ends(attack(ALLOCATION[name], timeoutMs=AMPLE_MS, memoryLimitMb=16), "MEMORY_LIMIT")


# It depends on the limit which allocation is the first to be refused.
@pytest.mark.parametrize("limit_mb", [8, 12, 15, 16, 17, 24, 32])
def test_jobs_that_cannot_be_queued(attack, limit_mb):
    ends(attack(ALLOCATION["queued jobs"], timeoutMs=AMPLE_MS, memoryLimitMb=limit_mb), "MEMORY_LIMIT")


@pytest.mark.parametrize("name", ALLOCATION)
def test_allocation_that_catches(attack, name):
    """Whoever catches the failure and lives on has succeeded, or is out of memory again while it answers."""
    body = ALLOCATION[name].replace("return ", "")
    result = attack(f"const f = () => {{ {body.replace('yield 1', 'yield 2')} }}; try {{ f() }} catch (e) {{ return 'caught' }}",
                    timeoutMs=AMPLE_MS, memoryLimitMb=16)
    if result["status"] == "success":
        assert result.get("returnValue") in ("caught", None)
    else:
        ends(result, "MEMORY_LIMIT")


def test_out_of_memory_that_is_caught_is_success(attack):
    source = "let a = []; try { for (;;) a.push(new Uint8Array(1 << 20)) } catch (e) { a = null; return [e.name, 'went on'] }"
    result = attack(source, timeoutMs=AMPLE_MS)
    assert result["status"] == "success" and result["returnValue"][1] == "went on"


def test_out_of_memory_cannot_be_faked(attack):
    ends(attack("throw new InternalError('out of memory')"), "EXECUTION_ERROR")


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_sizes(attack, name):
    result = attack(f"try {{ {IMPOSSIBLE[name]}; return 'had' }} catch (e) {{ return e.name }}", timeoutMs=1000)
    if result["status"] == "success":
        assert result["returnValue"] in ("RangeError", "InternalError", "TypeError", "SyntaxError", None, "had")
    else:
        assert result["error"]["code"] in ("MEMORY_LIMIT", "TIMEOUT", "RESOURCE_LIMIT"), result["error"]


@pytest.mark.parametrize("name", FLOODS)
def test_flood(attack, name):
    source, code, message = FLOODS[name]
    result = attack(source, timeoutMs=AMPLE_MS)
    assert message in ends(result, code)
    assert (result["events"], result["stateMutations"], result["viewCommands"]) == ([], [], [])


def test_flood_of_logs_is_bounded_in_the_servers_log(server):
    before = len(server.log())
    for _ in range(3):
        server.execute("for (;;) $log('flood'.repeat(10))")
    assert len(server.log()) - before < 1 << 20


def test_good_requests_beside_attacks(server):
    """Attackers on most instances all the time; none of the good requests fails or is wrong."""
    server.install("good", "let s = 0; for (const i of $args.items) s += i.price * i.qty; return s")
    attackers = [LOOPS["while"], LOOPS["regexp"], ALLOCATION["typed arrays"], ALLOCATION["maps"], RECURSION["plain"][0],
                 RECURSION["stringify deep array"][0], FLOODS["logs"][0], FLOODS["large value"][0], RECURSION["proxy chain"][0]]
    stop = []

    def attack_on():
        i = 0
        while not stop:
            assert server.post({"code": attackers[i % len(attackers)], "timeoutMs": 100}).status == 200
            i += 1

    def good():
        try:
            in_threads(3, lambda i: [check(i, j) for j in range(120)])
        finally:
            stop.append(True)

    def check(i, j):
        value = server.value(handler="good", args={"items": [{"price": i, "qty": j}, {"price": 1.5, "qty": 2}]})
        assert value == i * j + 3

    with Background(lambda: in_threads(5, lambda i: attack_on())):
        good()
    assert server.rss() < RSS_MAX


@pytest.mark.skipif(SANITIZED, reason="sanitizers keep freed memory")
def test_memory_is_given_back(start):
    server = start({"MAX_INSTANCES": 4, "IDLE_TRIM_MS": 100})
    server.value("return 1")
    idle = server.rss()
    in_threads(4, lambda i: [server.execute(ALLOCATION["typed arrays"]) for _ in range(5)])
    wait_until(lambda: server.rss() < idle + (16 << 20), 15, "the idle floor")
    wait_until(lambda: server.health()["memory"]["totalMemoryBytes"] < 16 << 20, 15, "the ledger's idle floor")


@pytest.mark.skipif(SANITIZED, reason="sanitizers keep freed memory")
def test_thousands_of_executions_leave_no_memory_behind(server):
    server.install("small", "const a = []; for (let i = 0; i < 100; i++) a.push({i}); return a.length")
    in_threads(4, lambda i: [server.value(handler="small") for _ in range(100)])
    before = server.rss()
    in_threads(4, lambda i: [server.value(handler="small") for _ in range(1000)])
    assert server.rss() < before + (8 << 20)


def test_more_promised_than_there_is(start):
    """Eight instances of 16 MiB in 64 MiB: whoever comes too late is refused by the container's layer, and nothing breaks."""
    server = start({"CONTAINER_MEMORY_LIMIT": "64Mi", "MEMORY_LIMIT_MB": 16, "MAX_INSTANCES": 8, "CACHE_MAX_MB": 1})
    hold = "const a = []; for (let i = 0; i < 11; i++) a.push(new Uint8Array(1 << 20).fill(i + 1)); const e = Date.now() + 100;" \
           " while (Date.now() < e); return a.length"
    codes = set()

    def work(i):
        for _ in range(8):
            reply = server.post({"code": hold})
            if reply.status == 503:
                problem = reply.problem(503, "OVERLOADED")
                assert problem["layer"] == "container" and problem["requestedBytes"] > 0, problem
                codes.add("OVERLOADED")
            else:
                result = reply.json()
                codes.add("success" if result["status"] == "success" else result["error"]["code"])

    in_threads(8, work)
    assert "success" in codes and codes & {"RESOURCE_LIMIT", "OVERLOADED"} and codes <= {"success", "RESOURCE_LIMIT", "OVERLOADED"}, codes
    assert SANITIZED or server.rss() < 64 << 20
    assert server.value("return 1") == 1
    wait_until(lambda: server.health()["status"] == "healthy", what="health")
