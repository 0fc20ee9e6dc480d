# SPDX-License-Identifier: Apache-2.0
"""Arguments are what JSON.parse makes of them, results what JSON.stringify writes, whichever code does it (guest/engine.c)."""
import json
import re

import pytest

# Both readings in one execution: `text` is the JSON that `value` is written as.
SAME = """
const same = (a, b) => {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) return false;
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b) || Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Reflect.ownKeys(a);
  if (keys.join() !== Reflect.ownKeys(b).join()) return false;
  return keys.every((key) => {
    const x = Object.getOwnPropertyDescriptor(a, key), y = Object.getOwnPropertyDescriptor(b, key);
    return x.writable === y.writable && x.enumerable === y.enumerable && x.configurable === y.configurable && same(x.value, y.value);
  });
};
const { text, value } = $args, parsed = JSON.parse(text);
if (!same(value, parsed)) return "read differently";
// What the next use of the objects does must not depend on how they were made either.
for (const list of [value, parsed])
  if (Array.isArray(list)) for (const item of list) if (item && typeof item === "object") { item.added = 1; delete item.a; }
return same(value, parsed) ? "same" : "changed differently";
"""

NUMBERS = ["0", "-0", "1", "-1", "0.1", "9.99", "-0.0", "64.00", "4.35", "123456789012345", "1234567890123456", "9007199254740993",
           "0.123456789012345", "0.1234567890123456", "2147483647", "2147483648", "-2147483648", "-2147483649", "1e5", "1E-7", "1e400",
           "-1e-400", "5e-324", "1.7976931348623157e308", "100e-2", "0e10", "1e21", "123456789.123456", "0.000001"]
STRINGS = ['""', '"a"', '"é"', '"日本語"', '"😀"', r'"\ud83d\ude00"', r'"\"\\\/\b\f\n\r\t"', r'"\u0000\u001f\u007f"', '"\u007f\u0080"',
           '"%s"' % ("x" * 9000), '"%s\\n"' % ("é" * 700)]
VALUES = NUMBERS + STRINGS + [
    "true", "false", "null", "{}", "[]", "[[],{}]", " [ 1 ,\r\n\t2 ] ", "[%s]" % ",".join(NUMBERS), '{"a":1,"a":2}', '{"2":0,"b":0,"1":0,"a":0}',
    '{"__proto__":{"x":1},"constructor":1,"toString":2,"length":3,"":4}', '{"4294967294":1,"4294967295":2,"01":3,"-1":4}',
    r'{"a\"b":1,"\u0061":2,"é":3,"Ã©":4,"日本":5}',
    # lists of objects: equal, shorter, longer, other order, other names, duplicates, not an object between
    '[{"a":1,"b":2},{"a":3,"b":4},{"a":5,"b":6}]', '[{"a":1,"b":2},{"a":3},{"a":5,"b":6}]', '[{"a":1},{"a":3,"b":4},{"a":5}]',
    '[{"a":1,"b":2},{"b":3,"a":4}]', '[{"a":1,"b":2},{"a":3,"c":4},{}]', '[{},{"a":1}]', '[{"a":1,"b":2},{"a":3,"a":4}]',
    '[{"a":1,"a":2},{"a":3,"b":4}]', '[{"é":1},{"Ã©":2},{"é":3}]', r'[{"a":1},{"\u0061":2}]', '[{"1":1,"a":2},{"1":3,"a":4}]',
    '[{"a":1},null,{"a":2},[],{"a":3}]', '[{"a": {"b": [{"c":1},{"c":2}]}}, {"a" : {"b": [{"c":1},{"d":2}]}}]',
    "[" * 63 + "1" + "]" * 63, "[" * 90 + "{}" + "]" * 90, '{"a":' * 80 + "1" + "}" * 80,
]


def test_arguments_are_read_as_json_parse_reads_them(server):
    server.install("same", SAME)
    for text in VALUES:
        answer = server.run("same", '{"text":%s,"value":%s}' % (json.dumps(text), text))
        assert answer.json() == "same", text


# Bodies, asked for what they return and for JSON.stringify of it.
RESULTS = [
    "return [0, -0, 1, -1, 2147483648, -2147483648, 0.1, 1e21, 1e-7, NaN, Infinity, 123456789.123, 5e-324]",
    "return ['', 'a', 'é', '日本', '😀', '\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\\u007f\\u0080', '\\ud800', '\\udc00x', 'a\\ud83d']",
    "return {undefined, f() {}, [Symbol()]: 1, n: null, t: true, f2: false, a: [undefined, () => 1, Symbol()]}",
    "return {b: 1, 2: 1, a: 1, 1: 1, 4294967294: 1, 4294967295: 1}",
    "return {'é\"': 1, '日本': 2, '': 3, '\\ud800': 4}",
    "const o = {a: 1, b: 2}; delete o.a; o.c = 3; o.a = 4; return o",
    "return Object.defineProperty({a: 1}, 'hidden', {value: 2})",
    "return {get a() { return 1 }, b: 2}",
    "return Object.create({inherited: 1})", "return Object.assign(Object.create(null), {a: 1})",
    "return new (class A { x = 1; #y = 2; get z() { return 3 } })()", "return new (class A { toJSON() { return 'A' } })()",
    "const a = [1]; a.toJSON = () => 'own'; return a", "const a = [1, 2]; a.extra = 3; return a", "return new Array(3)",
    "const a = [1]; a.length = 4; return a", "const a = []; a[5] = 1; return a", "return Object.freeze([1, {a: Object.freeze({b: 1})}])",
    "return [new Date(0), new Number(1), new String('s'), new Boolean(false), Object(Symbol()), new Map([[1, 2]]), new Error('e'), /x/]",
    "const f = () => 1; f.toJSON = () => 'function'; return {f, list: [f]}",
    "return new Proxy({a: 1}, {})", "return [new Proxy([1], {})]", "return Object.create(new Proxy({}, {}))",
    "return {deep: JSON.parse('['.repeat(100) + ']'.repeat(100))}", "const x = {a: 1}; return [x, x, {x}]",
    "return 'x'.repeat(20000) + 'é'", "let s = ''; for (let i = 0; i < 9000; i++) s += i; return s",
    "return Array.from({length: 3000}, (_, i) => ({i, half: i / 2}))", "return new Uint8Array([1, 2])",
    "Object.prototype.toJSON = () => 'poisoned'; return {a: 1}", "Array.prototype.toJSON = () => 'poisoned'; return {a: [1]}",
    "return typeof JSON.rawJSON === 'function' ? [JSON.rawJSON('1.0')] : []", "return $args", "return globalThis.Math",
]


@pytest.mark.parametrize("body", RESULTS)
def test_results_are_written_as_json_stringify_writes_them(server, body):
    head, value = re.fullmatch("(.*?; |)return (.*)", body).groups()
    server.install("value", body)
    server.install("text", f"{head}return JSON.stringify({value})")
    args = json.dumps({"list": [1, {"a": "é"}], "text": "😀"})
    assert server.run("value", args).body.decode() == server.run("text", args).json()


@pytest.mark.parametrize("body, message", [
    ("const o = {}; o.o = o; return o", "circular reference"),
    ("return {big: 1n}", "BigInt"),
    ("return {get a() { throw new Error('from the accessor') }}", "from the accessor"),
    ("return {toJSON() { throw new Error('from toJSON') }}", "from toJSON"),
])
def test_values_without_json(server, body, message):
    assert message in server.fails("EXECUTION_ERROR", body)["message"]
