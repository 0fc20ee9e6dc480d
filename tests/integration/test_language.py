# SPDX-License-Identifier: Apache-2.0
"""What the language and the globals inside the sandbox do: one row per feature, a function body and its value."""
import pytest

# name, source, expected JSON of what it returns
ROWS = [
    # ---- Functions, scopes, control flow
    ("let in loops", "const f = []; for (let i = 0; i < 3; i++) f.push(() => i); return f.map((g) => g())", [0, 1, 2]),
    ("temporal dead zone", "try { x; let x = 1 } catch (e) { return e.name }", "ReferenceError"),
    ("const assignment", "const x = 1; try { x = 2 } catch (e) { return e.name }", "TypeError"),
    ("default parameters", "const f = (a, b = a + 1, c = b * 2) => [a, b, c]; return f(1)", [1, 2, 4]),
    ("rest and spread", "const f = (a, ...r) => [a, r.length]; return f(...[1, 2, 3])", [1, 2]),
    ("spread of strings and maps", "return [...'añ😀', ...new Map([[1, 2]])]", ["a", "ñ", "😀", [1, 2]]),
    ("object spread", "return {a: 1, ...{a: 2, b: 3}, ...null}", {"a": 2, "b": 3}),
    ("arguments", "return (function () { return arguments.length })(1, 2, 3)", 3),
    ("closures", "const c = () => { let n = 0; return () => ++n }; const a = c(), b = c(); a(); return [a(), b()]", [2, 1]),
    ("arrow this", "return ({n: 4, f() { return [1].map(() => this.n)[0] }}).f()", 4),
    ("new.target", "function F() { return {t: new.target === F} } return new F().t", True),
    ("labelled loops", "let n = 0; a: for (;;) { for (;;) { if (++n > 2) break a; continue a } } return n", 3),
    ("labelled block", "let s = ''; b: { s += 1; break b; s += 2 } return s", "1"),
    ("switch falls through", "let s = ''; switch (2) { case 1: s += 1; case 2: s += 2; case 3: s += 3; break; default: s += 4 } return s",
     "23"),
    ("do while", "let n = 0; do n++; while (n < 5); return n", 5),
    ("for in order", "return (() => { const k = []; for (const x in {b: 1, 2: 1, a: 1, 1: 1}) k.push(x); return k })()",
     ["1", "2", "b", "a"]),
    ("for of with break calls return",
     "let closed = false; const it = {[Symbol.iterator]: () => ({next: () => ({value: 1, done: false}), return() { closed = true; return {} }})};"
     " for (const x of it) break; return closed", True),
    ("finally overrides", "return (() => { try { return 1 } finally { return 2 } })()", 2),
    ("catch without binding", "try { null.x } catch { return 'caught' }", "caught"),
    ("nested functions are hoisted", "return f(); function f() { return 'hoisted' }", "hoisted"),
    ("strict functions", "return (function () { 'use strict'; return this === undefined })()", True),
    ("comma and void", "return [(1, 2), void 0 === undefined]", [2, True]),
    ("exponent", "return [2 ** 10, (-2) ** 3, 2 ** 3 ** 2]", [1024, -8, 512]),
    ("bit operators", "return [~5, 5 & 3, 5 | 3, 5 ^ 3, 1 << 31, -1 >>> 28, -8 >> 1]", [-6, 1, 7, 6, -2147483648, 15, -4]),
    ("numeric separators and bases", "return [1_000_000, 0b101, 0o17, 0xff, .5e1]", [1000000, 5, 15, 255, 5]),
    # ---- Destructuring, optional chaining, assignment
    ("destructuring", "const {a, b: {c = 5, ...r} = {}, ...rest} = {a: 1, b: {d: 2}, e: 3}; return [a, c, r, rest]",
     [1, 5, {"d": 2}, {"e": 3}]),
    ("array destructuring", "const [a, , b = 9, ...c] = [1, 2, undefined, 4, 5]; return [a, b, c]", [1, 9, [4, 5]]),
    ("swap", "let a = 1, b = 2; [a, b] = [b, a]; return [a, b]", [2, 1]),
    ("computed keys", "const k = 'x'; const {[k]: v} = {x: 7}; return {[k + 1]: v}", {"x1": 7}),
    ("optional chaining", "const o = {f: () => 1, a: [3]}; return [o?.x?.y.z ?? 'none', o.f?.(), o.g?.() ?? 0, o.a?.[0]]",
     ["none", 1, 0, 3]),
    ("optional delete", "const o = null; return delete o?.x", True),
    ("nullish coalescing", "return [0 ?? 1, null ?? 1, undefined ?? 2, '' ?? 3]", [0, 1, 2, ""]),
    ("logical assignment", "let a = null, b = 1, c = 0; a ??= 5; b &&= 6; c ||= 7; return [a, b, c]", [5, 6, 7]),
    # ---- Classes
    ("classes", "class A { constructor(x) { this.x = x } get d() { return this.x * 2 } set d(v) { this.x = v / 2 } static s = 3 }"
     " const a = new A(2); a.d = 10; return [a.x, a.d, A.s]", [5, 10, 3]),
    ("inheritance", "class A { f() { return 'A' } static g() { return 'sA' } } class B extends A { f() { return super.f() + 'B' } }"
     " return [new B().f(), B.g(), new B() instanceof A]", ["AB", "sA", True]),
    ("private members", "class C { #n = 1; #inc() { return ++this.#n } static #k = 5; get v() { return this.#inc() + C.#k }"
     " static has(o) { return #n in o } } return [new C().v, C.has(new C()), C.has({})]", [7, True, False]),
    ("private names are private", "class C { #n = 1 } try { return eval('new C().#n') } catch (e) { return e.name }", "SyntaxError"),
    ("wrong private receiver", "class C { #n = 1; f() { return this.#n } } try { C.prototype.f.call({}) } catch (e) { return e.name }",
     "TypeError"),
    ("static blocks", "class C { static x; static { this.x = 4 } } return C.x", 4),
    ("fields keep order", "class A { a = 1; b = this.a + 1; ['c'] = 3 } return Object.entries(new A())", [["a", 1], ["b", 2], ["c", 3]]),
    ("accessors on objects", "const o = {_v: 1, get v() { return this._v }, set v(x) { this._v = x * 2 }}; o.v = 4; return o.v", 8),
    ("subclass of Array", "class S extends Array { sum() { return this.reduce((a, b) => a + b, 0) } }"
     " const s = S.from([1, 2]).map((x) => x * 2); return [s instanceof S, s.sum()]", [True, 6]),
    ("subclass of Error", "class E extends RangeError { name = 'E' } const e = new E('m'); return [`${e}`, e instanceof RangeError]",
     ["E: m", True]),
    ("class without new", "class A {} try { A() } catch (e) { return e.name }", "TypeError"),
    ("instanceof hook", "return 3 instanceof {[Symbol.hasInstance]: (x) => x === 3}", True),
    ("mixins", "const M = (B) => class extends B { m() { return 'm' } }; return new (M(Object))().m()", "m"),
    # ---- Iterators, generators, async
    ("generators", "function* g() { const x = yield 1; yield x * 2; return 9 } const i = g();"
     " return [i.next().value, i.next(5).value, i.next()]", [1, 10, {"value": 9, "done": True}]),
    ("yield*", "function* a() { yield 1; return 2 } function* b() { const r = yield* a(); yield r } return [...b()]", [1, 2]),
    ("generator return and throw", "const log = []; function* g() { try { yield 1 } catch (e) { log.push(e) } finally { log.push('f') } }"
     " const i = g(); i.next(); i.throw('t'); const j = g(); j.next(); j.return(); return log", ["t", "f", "f"]),
    ("infinite generator", "function* n() { let i = 0; for (;;) yield i++ } const [a, b, c] = n(); return [a, b, c]", [0, 1, 2]),
    ("async functions", "const f = async (x) => { await null; return x }; return await f(3) + await 4", 7),
    ("async generators", "async function* g() { yield 1; yield Promise.resolve(2) } const o = []; for await (const x of g()) o.push(x);"
     " return o", [1, 2]),
    ("for await over promises", "let s = 0; for await (const x of [Promise.resolve(1), 2]) s += x; return s", 3),
    ("async iteration protocol", "const o = {async *[Symbol.asyncIterator]() { yield 'a' }}; for await (const x of o) return x", "a"),
    ("await rejects", "try { await Promise.reject(new Error('no')) } catch (e) { return e.message }", "no"),
    ("thenables are awaited", "return await {then(r) { r('t') }}", "t"),
    ("microtask order", "const o = []; Promise.resolve().then(() => o.push(2)); queueMicrotask(() => o.push(3)); o.push(1);"
     " await null; await null; return o", [1, 2, 3]),
    ("await order", "const o = []; const f = async (n) => { o.push(n); await 0; o.push(n + 'x') }; await Promise.all([f('a'), f('b')]);"
     " return o", ["a", "b", "ax", "bx"]),
    ("iterator helpers", "function* n() { let i = 0; for (;;) yield i++ }"
     " return n().filter((x) => x % 2).map((x) => x * x).drop(1).take(3).toArray()", [9, 25, 49]),
    ("iterator reduce, some, every, find", "const v = () => [1, 2, 3].values();"
     " return [v().reduce((a, b) => a + b), v().some((x) => x > 2), v().every((x) => x > 2), v().find((x) => x > 1)]", [6, True, False, 2]),
    ("iterator flatMap", "return [1, 2].values().flatMap((x) => [x, x]).toArray()", [1, 1, 2, 2]),
    ("Iterator.from", "return Iterator.from({next() { return {done: this.n > 2, value: this.n++} }, n: 1}).toArray()", [1, 2]),
    # ---- Promises
    ("Promise.all", "return await Promise.all([1, Promise.resolve(2)])", [1, 2]),
    ("Promise.allSettled", "return (await Promise.allSettled([1, Promise.reject(2)])).map((r) => r.status)", ["fulfilled", "rejected"]),
    ("Promise.race", "return await Promise.race([new Promise(() => {}), Promise.resolve('w')])", "w"),
    ("Promise.any", "return await Promise.any([Promise.reject(1), Promise.resolve(2)])", 2),
    ("AggregateError", "try { await Promise.any([Promise.reject(1)]) } catch (e) { return [e.name, e.errors] }", ["AggregateError", [1]]),
    ("Promise.withResolvers", "const {promise, resolve} = Promise.withResolvers(); resolve(5); return await promise", 5),
    ("Promise.try", "return await Promise.try((x) => x + 1, 2)", 3),
    ("finally passes through", "return await Promise.resolve(1).finally(() => 2)", 1),
    # ---- Strings and templates
    ("template literals", "const n = 3; return `a${n}b${`c${n * 2}`}`", "a3bc6"),
    ("tagged templates", "const t = (s, ...v) => [s.raw[0], s.length, v]; return t`a\\n${1}b${2}`", ["a\\n", 3, [1, 2]]),
    ("String.raw", "return String.raw`\\u00e9${1}`", "\\u00e91"),
    ("padStart and padEnd", "return ['5'.padStart(3, '0'), 'a'.padEnd(3, '-')]", ["005", "a--"]),
    ("trim", "return [' a '.trim(), ' a '.trimStart(), ' a '.trimEnd()]", ["a", "a ", " a"]),
    ("replaceAll", "return 'a.b.c'.replaceAll('.', '-')", "a-b-c"),
    ("matchAll", "return [...'a1b2'.matchAll(/([a-z])(\\d)/g)].map((m) => m[1] + m[2] + m.index)", ["a10", "b22"]),
    ("at", "return ['abc'.at(-1), [1, 2].at(-2), 'a'.at(3) === undefined]", ["c", 1, True]),
    ("code points", "return [[...'😀é'].length, '😀'.codePointAt(0), String.fromCodePoint(128512), '😀'.length]", [2, 128512, "😀", 2]),
    ("normalize", "return ['e\\u0301'.normalize('NFC') === 'é', 'é'.normalize('NFD').length]", [True, 2]),
    ("well-formed", "return ['a\\ud800'.isWellFormed(), 'a\\ud800'.toWellFormed()]", [False, "a\ufffd"]),
    ("case of other scripts", "return ['ß'.toUpperCase(), 'İ'.toLowerCase().length, 'ΑΣ'.toLowerCase()]", ["SS", 2, "ας"]),
    ("split", "return ['a,b,,c'.split(','), 'abc'.split(''), 'a1b'.split(/(\\d)/)]", [["a", "b", "", "c"], ["a", "b", "c"], ["a", "1", "b"]]),
    ("localeCompare", "return ['a'.localeCompare('b') < 0, ['c', 'a'].sort((x, y) => x.localeCompare(y))]", [True, ["a", "c"]]),
    ("replace with function", "return 'a-b'.replace(/(\\w)-(\\w)/, (_, x, y) => y + x)", "ba"),
    ("startsWith and includes", "return ['abc'.startsWith('b', 1), 'abc'.endsWith('b', 2), 'abc'.includes('c')]", [True, True, True]),
    # ---- Regular expressions
    ("named groups", "return 'on 2026-07-04'.match(/(?<y>\\d+)-(?<m>\\d+)/).groups", {"y": "2026", "m": "07"}),
    ("named groups in replace", "return '1-2'.replace(/(?<a>\\d)-(?<b>\\d)/, '$<b>-$<a>')", "2-1"),
    ("lookbehind", "return ['$42 €7'.match(/(?<=\\$)\\d+/)[0], '$42 €7'.match(/(?<!\\$|\\d)\\d+/)[0]]", ["42", "7"]),
    ("lookahead", "return 'a1a2'.replace(/a(?=2)/, 'b')", "a1b2"),
    ("sticky", "const r = /a/y; r.lastIndex = 1; return [r.test('ba'), r.lastIndex, r.test('ba')]", [True, 2, False]),
    ("dotAll", "return [/a.b/.test('a\\nb'), /a.b/s.test('a\\nb')]", [False, True]),
    ("unicode properties", "return 'aΩ1я'.match(/\\p{L}/gu)", ["a", "Ω", "я"]),
    ("unicode sets", "return ['abc'.match(/[[a-z]--[b]]/gv), /^\\p{Emoji_Keycap_Sequence}$/v.test('4️⃣')]", [["a", "c"], True]),
    ("match indices", "return 'xab'.match(/a(b)/d).indices", [[1, 3], [2, 3]]),
    ("case-insensitive unicode", "return /\\u{212a}/iu.test('k')", True),
    ("backreference", "return /(a)\\1/.test('aa')", True),
    ("modifiers", "return [/(?i:a)b/.test('Ab'), /(?i:a)b/.test('AB')]", [True, False]),
    ("duplicate named groups", "return '2026'.match(/(?<y>\\d{4})|(?<y>\\d{2})/).groups.y", "2026"),
    ("RegExp.escape", "return new RegExp('^' + RegExp.escape('a.b*') + '$').test('a.b*')", True),
    ("split with limit", "return 'a b c'.split(/ /, 2)", ["a", "b"]),
    # ---- Arrays
    ("flat and flatMap", "return [[1, [2, [3]]].flat(Infinity), [1, 2].flatMap((x) => [x, x * 10])]", [[1, 2, 3], [1, 10, 2, 20]]),
    ("findLast", "return [[1, 2, 3].findLast((x) => x < 3), [1, 2, 3].findLastIndex((x) => x < 3)]", [2, 1]),
    ("copying methods", "const a = [3, 1, 2]; return [a.toSorted(), a.toReversed(), a.with(0, 9), a.toSpliced(1, 1), a]",
     [[1, 2, 3], [2, 1, 3], [9, 1, 2], [3, 2], [3, 1, 2]]),
    ("stable sort", "return [[1, 'a'], [0, 'b'], [1, 'c'], [0, 'd']].sort((x, y) => x[0] - y[0]).map((x) => x[1]).join('')", "bdac"),
    ("default sort", "return [10, 9, 1, undefined, 'b'].sort()", [1, 10, 9, "b", None]),
    ("reduceRight", "return ['a', 'b', 'c'].reduceRight((x, y) => x + y)", "cba"),
    ("splice", "const a = [1, 2, 3, 4]; const r = a.splice(1, 2, 'x'); return [a, r]", [[1, "x", 4], [2, 3]]),
    ("copyWithin and fill", "return [[1, 2, 3, 4].copyWithin(0, 2), new Array(3).fill(0)]", [[3, 4, 3, 4], [0, 0, 0]]),
    ("Array.from", "return [Array.from({length: 3}, (_, i) => i * i), Array.of(7, 8)]", [[0, 1, 4], [7, 8]]),
    ("Array.fromAsync", "return await Array.fromAsync([1, Promise.resolve(2)])", [1, 2]),
    ("includes finds NaN", "return [[NaN].includes(NaN), [NaN].indexOf(NaN)]", [True, -1]),
    ("holes", "const a = [1, , 3]; return [1 in a, a.length, a.map((x) => x * 2)]", [False, 3, [2, None, 6]]),
    ("entries and keys", "return [[...['a'].entries()], [...['a', 'b'].keys()]]", [[[0, "a"]], [0, 1]]),
    ("length truncates", "const a = [1, 2, 3]; a.length = 1; return a", [1]),
    ("every and some", "return [[].every(() => false), [].some(() => true)]", [True, False]),
    # ---- Objects
    ("Object.groupBy", "return Object.groupBy([1, 2, 3], (x) => x % 2 ? 'odd' : 'even')", {"odd": [1, 3], "even": [2]}),
    ("Map.groupBy", "return [...Map.groupBy([1, 2, 3], (x) => x > 1)]", [[False, [1]], [True, [2, 3]]]),
    ("Object.fromEntries", "return Object.fromEntries(Object.entries({a: 1}).map(([k, v]) => [k, v + 1]))", {"a": 2}),
    ("Object.hasOwn", "return [Object.hasOwn({a: 1}, 'a'), Object.hasOwn({}, 'toString')]", [True, False]),
    ("freeze", "'use strict'; const o = Object.freeze({a: 1}); try { (() => { 'use strict'; o.a = 2 })() } catch (e) { return [e.name, o.a] }",
     ["TypeError", 1]),
    ("property descriptors", "return Object.getOwnPropertyDescriptor({get a() { return 1 }}, 'a').set === undefined", True),
    ("defineProperty", "const o = {}; Object.defineProperty(o, 'h', {value: 1}); return [Object.keys(o), o.h]", [[], 1]),
    ("prototype chain", "const p = {x: 1}, o = Object.create(p); return [o.x, 'x' in o, Object.getPrototypeOf(o) === p]", [1, True, True]),
    ("symbols", "const s = Symbol('d'); const o = {[s]: 1}; return [s.description, Object.keys(o), o[s], Symbol.for('a') === Symbol.for('a')]",
     ["d", [], 1, True]),
    ("toPrimitive", "return `${{[Symbol.toPrimitive]: (h) => h}}`", "string"),
    ("toStringTag", "return Object.prototype.toString.call({[Symbol.toStringTag]: 'T'})", "[object T]"),
    ("Object.is", "return [Object.is(-0, 0), Object.is(NaN, NaN)]", [False, True]),
    ("Object.assign and getters", "return Object.assign({}, {get a() { return 2 }})", {"a": 2}),
    # ---- Numbers, Math, BigInt
    ("BigInt", "return [(2n ** 100n).toString(), (-7n / 2n).toString(), (7n % 3n).toString(), typeof 1n]",
     ["1267650600228229401496703205376", "-3", "1", "bigint"]),
    ("BigInt.asIntN", "return [BigInt.asUintN(8, 257n).toString(), BigInt.asIntN(8, 255n).toString()]", ["1", "-1"]),
    ("BigInt parsing and comparison", "return [BigInt('0xff') === 255n, 2n > 1, 1n == 1, BigInt(Number.MAX_SAFE_INTEGER).toString()]",
     [True, True, True, "9007199254740991"]),
    ("BigInt has no JSON", "try { JSON.stringify(1n) } catch (e) { return e.name }", "TypeError"),
    ("number formatting", "return [(0.1 + 0.2).toFixed(2), (1234.5678).toPrecision(6), (255).toString(16), (0.000001234).toExponential(2)]",
     ["0.30", "1234.57", "ff", "1.23e-6"]),
    ("floats", "return [0.1 + 0.2, 1e21, 5e-324, -0, 1 / 3]", [0.1 + 0.2, 1e21, 5e-324, 0, 1 / 3]),
    ("number parsing", "return [parseInt('12px'), parseFloat('1.5e3x'), Number(''), Number('0b11'), parseInt('z', 36)]", [12, 1500, 0, 3, 35]),
    ("safe integers", "return [Number.isSafeInteger(2 ** 53), Number.MAX_SAFE_INTEGER, Number.EPSILON > 0]", [False, 9007199254740991, True]),
    ("Math", "return [Math.trunc(-1.5), Math.sign(-3), Math.hypot(3, 4), Math.cbrt(27), Math.clz32(1), Math.fround(5.5), Math.log2(8)]",
     [-1, -1, 5, 3, 31, 5.5, 3]),
    ("Math.imul and rounding", "return [Math.imul(0xffffffff, 5), Math.round(-0.5), Math.round(2.5), Math.max(), Math.min(1, '0')]",
     [-5, 0, 3, None, 0]),
    ("exact sum of integers", "let s = 0; for (let i = 1; i <= 1000; i++) s += i; return s", 500500),
    # ---- Collections, weak references
    ("Map keeps order", "const m = new Map([['b', 1]]); m.set('a', 2).set('b', 3); return [[...m], m.size]", [[["b", 3], ["a", 2]], 2]),
    ("Map keys", "const m = new Map([[NaN, 1], [0, 2]]); return [m.get(NaN), m.get(-0)]", [1, 2]),
    ("Set methods", "const a = new Set([1, 2, 3]), b = new Set([2, 3, 4]);"
     " return [[...a.union(b)], [...a.intersection(b)], [...a.difference(b)], [...a.symmetricDifference(b)], a.isSubsetOf(b)]",
     [[1, 2, 3, 4], [2, 3], [1], [1, 4], False]),
    ("WeakMap and WeakSet", "const k = {}; const w = new WeakMap([[k, 1]]); return [w.get(k), w.has({}), new WeakSet([k]).has(k)]",
     [1, False, True]),
    ("WeakRef", "const o = {a: 1}; return new WeakRef(o).deref().a", 1),
    ("FinalizationRegistry", "return typeof new FinalizationRegistry(() => {}).register", "function"),
    # ---- Binary data
    ("typed arrays", "return [[...new Uint8Array([1, 256, -1])], [...new Uint8ClampedArray([300, -5])], [...Float32Array.of(1.5)]]",
     [[1, 0, 255], [255, 0], [1.5]]),
    ("views share a buffer", "const b = new ArrayBuffer(4); new Uint32Array(b)[0] = 0x01020304; return [...new Uint8Array(b)]", [4, 3, 2, 1]),
    ("DataView", "const d = new DataView(new ArrayBuffer(8)); d.setInt16(0, -2); d.setFloat32(4, 1.5, true);"
     " return [d.getUint16(0), d.getInt16(0, true), d.getFloat32(4, true)]", [65534, -257, 1.5]),
    ("BigInt64Array", "return new BigInt64Array([-1n])[0].toString()", "-1"),
    ("Float16Array", "return [Math.f16round(1.337), new Float16Array([1.5])[0]]", [1.3369140625, 1.5]),
    ("subarray and slice", "const a = new Uint8Array([1, 2, 3, 4]); const s = a.subarray(1, 3); s[0] = 9; return [[...a], [...a.slice(2)]]",
     [[1, 9, 3, 4], [3, 4]]),
    ("typed array methods", "const a = Uint8Array.from([3, 1, 2]); return [[...a.toSorted()], a.at(-1), a.indexOf(1), [...a.with(0, 7)]]",
     [[1, 2, 3], 2, 1, [7, 1, 2]]),
    ("resizable buffers", "const b = new ArrayBuffer(2, {maxByteLength: 8}); const a = new Uint8Array(b); b.resize(6); return a.length", 6),
    ("transfer detaches", "const b = new ArrayBuffer(4); const c = b.transfer(8); return [b.detached, c.byteLength]", [True, 8]),
    ("out of bounds", "const a = new Uint8Array(2); a[5] = 1; return [a[5] === undefined, a[-1] === undefined]", [True, True]),
    ("JSON of typed arrays", "return new Uint8Array([1, 2])", {"0": 1, "1": 2}),
    # ---- Proxy, Reflect
    ("Proxy get and has", "const p = new Proxy({}, {get: (_, k) => k + '!', has: () => true}); return [p.x, 'y' in p]", ["x!", True]),
    ("Proxy traps", "const log = []; const p = new Proxy({}, {set(t, k, v) { log.push(k); t[k] = v; return true },"
     " deleteProperty(t, k) { log.push('-' + k); return delete t[k] }, ownKeys: () => ['z'],"
     " getOwnPropertyDescriptor: () => ({value: 1, enumerable: true, configurable: true})});"
     " p.a = 1; delete p.a; return [log, Object.keys(p)]", [["a", "-a"], ["z"]]),
    ("Proxy apply and construct", "const P = new Proxy(function () {}, {apply: () => 'called', construct: () => ({made: 1})}); return [P(), new P()]",
     ["called", {"made": 1}]),
    ("revocable", "const {proxy, revoke} = Proxy.revocable({}, {}); revoke(); try { proxy.x } catch (e) { return e.name }", "TypeError"),
    ("Reflect", "const o = {a: 1}; return [Reflect.ownKeys(o), Reflect.has(o, 'a'), Reflect.get(o, 'a'), Reflect.set(o, 'b', 2),"
     " Reflect.apply(Math.max, null, [1, 3]), Reflect.construct(Date, [0]).getTime()]", [["a"], True, 1, True, 3, 0]),
    # ---- Errors
    ("Error.cause", "const e = new Error('a', {cause: new TypeError('b')}); return [e.cause.name, e.cause.message]", ["TypeError", "b"]),
    ("error classes", "return [EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError].map((E) => new E('x').toString())",
     ["EvalError: x", "RangeError: x", "ReferenceError: x", "SyntaxError: x", "TypeError: x", "URIError: x"]),
    ("stack is a string", "return typeof new Error('x').stack", "string"),
    ("Error.isError", "return [Error.isError(new TypeError()), Error.isError({})]", [True, False]),
    ("SuppressedError", "return typeof SuppressedError", "function"),
    ("rethrow", "try { try { throw 1 } catch (e) { throw e + 1 } } catch (e) { return e }", 2),
    # ---- Date
    ("Date.UTC", "return new Date(Date.UTC(2024, 1, 29, 12)).toISOString()", "2024-02-29T12:00:00.000Z"),
    ("date arithmetic", "const d = new Date('2024-01-31T00:00:00Z'); d.setUTCMonth(1); return d.toISOString()", "2024-03-02T00:00:00.000Z"),
    ("date parsing", "return [Date.parse('1970-01-01'), Date.parse('2000-01-01T00:00:00+01:00'), Date.parse('x')]", [0, 946681200000, None]),
    ("dates in JSON", "return {d: new Date(0), bad: new Date(NaN)}", {"d": "1970-01-01T00:00:00.000Z", "bad": None}),
    ("local time is UTC", "return [new Date(0).getHours(), new Date(0).getTimezoneOffset()]", [0, 0]),
    ("Date.now is now", "return Date.now() > 1.7e12 && Math.abs(Date.now() - new Date()) < 1000", True),
    ("clock does not go back", "let a = performance.now(); for (let i = 0; i < 1000; i++) { const b = performance.now(); if (b < a) return 'back'; a = b } return 'ok'",
     "ok"),
    # ---- JSON
    ("JSON.stringify", "return JSON.stringify({a: [1, undefined, () => 1], u: undefined, n: NaN, i: Infinity, d: new Date(0)})",
     '{"a":[1,null,null],"n":null,"i":null,"d":"1970-01-01T00:00:00.000Z"}'),
    ("indent and replacer", "return [JSON.stringify({a: 1, b: 2}, ['b']), JSON.stringify({a: 1}, null, 2), JSON.stringify([3], (k, v) => v === 3 ? 'x' : v)]",
     ['{"b":2}', '{\n  "a": 1\n}', '["x"]']),
    ("toJSON", "return {toJSON() { return {t: 1} }}", {"t": 1}),
    ("reviver", "return JSON.parse('{\"a\":{\"b\":1}}', (k, v) => k === 'b' ? v + 1 : v)", {"a": {"b": 2}}),
    ("parse errors", "try { JSON.parse('{bad') } catch (e) { return e.name }", "SyntaxError"),
    ("cycles", "const o = {}; o.o = o; try { JSON.stringify(o) } catch (e) { return e.name }", "TypeError"),
    ("__proto__ in JSON", "const o = JSON.parse('{\"__proto__\": {\"x\": 1}}'); return [o.x === undefined, Object.keys(o)]", [True, ["__proto__"]]),
    ("lone surrogates", "return JSON.stringify('\\ud800')", '"\\ud800"'),
    ("escapes", "return ['\\u0000', '\\u2028', '\"\\\\', '\\u001f']", ["\x00", "\u2028", '"\\', "\x1f"]),
    ("duplicate keys", "return JSON.parse('{\"a\":1,\"a\":2}')", {"a": 2}),
    ("large numbers in arguments", "return [1e308, 123456789012345680000]", [1e308, 123456789012345680000]),
    # ---- structuredClone
    ("clone", "const o = {d: new Date(0), m: new Map([[1, new Set([2])]]), a: [1, , 3]}; o.self = o; const c = structuredClone(o);"
     " return [c !== o, c.self === c, c.d.getTime(), c.m.get(1).has(2), 1 in c.a]", [True, True, 0, True, False]),
    ("clone of binary data", "const c = structuredClone({u: new Uint8Array([1, 2]), r: /a/gi, b: 5n}); return [[...c.u], c.r.flags, c.b.toString()]",
     [[1, 2], "gi", "5"]),
    ("clone of errors", "const c = structuredClone(new RangeError('m')); return [c.name, c.message, c instanceof RangeError]", ["RangeError", "m", True]),
    ("functions cannot be cloned", "try { structuredClone(() => 1) } catch (e) { return [e.name, e.code] }", ["DataCloneError", 25]),
    ("clone with transfer", "const b = new ArrayBuffer(3); const c = structuredClone(b, {transfer: [b]}); return [b.byteLength, c.byteLength]", [0, 3]),
    # ---- Web globals
    ("URL", "const u = new URL('../c?q=1#h', 'https://user:pw@EXAMPLE.com:8443/a/b/'); return [u.href, u.host, u.pathname, u.search, u.origin]",
     ["https://user:pw@example.com:8443/a/c?q=1#h", "example.com:8443", "/a/c", "?q=1", "https://example.com:8443"]),
    ("URL setters", "const u = new URL('http://a/'); u.port = '8080'; u.pathname = '/ü x'; u.searchParams.set('k', 'v w'); return u.href",
     "http://a:8080/%C3%BC%20x?k=v+w"),
    ("URL.canParse", "return [URL.canParse('nope'), URL.canParse('x:y'), URL.parse('nope')]", [False, True, None]),
    ("invalid URL", "try { new URL('/relative') } catch (e) { return e.name }", "TypeError"),
    ("URLSearchParams", "const p = new URLSearchParams('a=1&b=2&a=3'); p.append('c', 'ä&'); p.delete('b'); return [p.getAll('a'), p.toString(), p.size]",
     [["1", "3"], "a=1&a=3&c=%C3%A4%26", 3]),
    ("URLSearchParams sort and iteration", "const p = new URLSearchParams({b: 1, a: 2}); p.sort(); return [...p]", [["a", "2"], ["b", "1"]]),
    ("TextEncoder", "return [[...new TextEncoder().encode('aé😀')], new TextEncoder().encodeInto('éé', new Uint8Array(3))]",
     [[97, 195, 169, 240, 159, 152, 128], {"read": 1, "written": 2}]),
    ("TextDecoder", "return [new TextDecoder().decode(new Uint8Array([0xc3, 0xa9, 0xff])), new TextDecoder('latin1').decode(new Uint8Array([0xe9]))]",
     ["é\ufffd", "é"]),
    ("fatal TextDecoder", "try { new TextDecoder('utf-8', {fatal: true}).decode(new Uint8Array([0xff])) } catch (e) { return e.name }", "TypeError"),
    ("streaming TextDecoder", "const d = new TextDecoder(); return d.decode(new Uint8Array([0xe2, 0x82]), {stream: true}) + d.decode(new Uint8Array([0xac]))", "€"),
    ("btoa and atob", "return [btoa('nexus\\xff'), atob('bmV4dXM=')]", ["bmV4dXP/", "nexus"]),
    ("atob refuses", "try { atob('*') } catch (e) { return e.name }", "InvalidCharacterError"),
    ("SHA-1", "const h = await crypto.subtle.digest('SHA-1', new TextEncoder().encode('abc'));"
     " return [...new Uint8Array(h)].map((b) => b.toString(16).padStart(2, '0')).join('')", "a9993e364706816aba3e25717850c26c9cd0d89d"),
    ("SHA-256", "const h = await crypto.subtle.digest('SHA-256', new TextEncoder().encode('abc'));"
     " return [...new Uint8Array(h)].map((b) => b.toString(16).padStart(2, '0')).join('')",
     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ("SHA-384", "const h = await crypto.subtle.digest({name: 'sha-384'}, new Uint8Array(0));"
     " return [...new Uint8Array(h)].map((b) => b.toString(16).padStart(2, '0')).join('').slice(0, 32)", "38b060a751ac96384cd9327eb1b1e36a"),
    ("SHA-512", "const h = await crypto.subtle.digest('SHA-512', new TextEncoder().encode('abc'));"
     " return [...new Uint8Array(h)].map((b) => b.toString(16).padStart(2, '0')).join('').slice(0, 32)", "ddaf35a193617abacc417349ae204131"),
    ("HMAC (RFC 4231, case 2)", "const e = new TextEncoder(); const k = await crypto.subtle.importKey('raw', e.encode('Jefe'),"
     " {name: 'HMAC', hash: 'SHA-256'}, false, ['sign', 'verify']); const m = e.encode('what do ya want for nothing?');"
     " const s = await crypto.subtle.sign('HMAC', k, m);"
     " return [[...new Uint8Array(s)].map((b) => b.toString(16).padStart(2, '0')).join(''), await crypto.subtle.verify('HMAC', k, s, m),"
     " await crypto.subtle.verify('HMAC', k, s, e.encode('other'))]",
     ["5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", True, False]),
    ("unknown digest", "try { await crypto.subtle.digest('MD5', new Uint8Array(1)) } catch (e) { return e.name }", "NotSupportedError"),
    ("randomUUID", "return /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID())", True),
    ("getRandomValues", "const a = crypto.getRandomValues(new Uint8Array(64)); return [a.length, new Set(a).size > 20]", [64, True]),
    ("getRandomValues quota", "try { crypto.getRandomValues(new Uint8Array(65537)) } catch (e) { return e.name }", "QuotaExceededError"),
    ("DOMException", "const e = new DOMException('m', 'AbortError'); return [e.name, e.code, e instanceof Error]", ["AbortError", 20, True]),
    ("URI functions", "return [encodeURIComponent('ä/ '), decodeURIComponent('%C3%A4'), encodeURI('a b?')]", ["%C3%A4%2F%20", "ä", "a%20b?"]),
    ("console is complete", "return ['log', 'debug', 'info', 'warn', 'error', 'trace'].map((n) => typeof console[n])", ["function"] * 6),
    # ---- Code from text
    ("eval", "return [eval('1 + 1'), (0, eval)('typeof $args')]", [2, "undefined"]),
    ("direct eval sees locals", "const x = 4; return eval('x + 1')", 5),
    ("Function", "return new Function('a', 'b', 'return a + b')(1, 2)", 3),
    ("eval has no way out", "return [typeof eval('this').process, typeof Function('return this')().require]", ["undefined", "undefined"]),
    # ---- The shape of the world
    ("no host objects", "return ['process', 'require', 'module', 'WebAssembly', 'std', 'os', 'bjson', 'scriptArgs', 'print', 'Buffer',"
     " 'Deno', 'Bun', 'window', 'self', 'document', 'XMLHttpRequest', 'Worker', 'gc', 'load', 'navigator', 'Intl', 'host']"
     ".filter((n) => n in globalThis)", []),
    ("globals are not enumerable", "return Object.keys(globalThis)", []),
    ("globalThis is this", "return [globalThis === (0, eval)('this'), globalThis.globalThis === globalThis]", [True, True]),
    ("dynamic import", "try { await import('fs') } catch (e) { return e.name }", "ReferenceError"),
    ("no import of files", "try { await import('/etc/passwd') } catch (e) { return e.message.includes('cannot import') }", True),
    ("no engine internals", "return Object.getOwnPropertyNames(globalThis).filter((n) => /^(js_|__|std|os|bjson|Quick)/i.test(n))", []),
    ("Atomics cannot block", "try { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10); return 'waited' } catch (e) { return e.name }",
     lambda value: value in ("TypeError", "ReferenceError")),
    ("explicit resource management", "const log = []; { using r = {[Symbol.dispose]() { log.push('disposed') }}; log.push('used') } return log",
     ["used", "disposed"]),
    ("$ globals exist", "return [typeof $args, typeof $state, typeof $scope, typeof $emit, typeof $view, typeof $ext, typeof $log]",
     ["undefined", "object", "object", "function", "object", "object", "function"]),
    ("setTimeout exists", "return [typeof setTimeout, typeof clearTimeout]", ["function", "function"]),
    ("intervals exist", "return [typeof setInterval, typeof clearInterval]", ["function", "function"]),
    ("fetch exists", "return [typeof fetch, typeof Headers, typeof Response, typeof Request, typeof AbortController]",
     ["function", "function", "function", "undefined", "undefined"]),
]

@pytest.mark.parametrize("source, expected", [pytest.param(source, expected, id=name) for name, source, expected in ROWS])
def test_feature(server, source, expected):
    value = server.value(source)
    assert expected(value) if callable(expected) else value == expected, value


def test_the_table_is_long_and_without_twins():
    assert len(ROWS) >= 150
    assert len({name for name, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error"])
def test_console_levels(server, level):
    assert server.execute(f"console.{level}('x', 1)")["logs"] == [{"level": level, "message": "x 1"}]
