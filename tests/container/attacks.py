# SPDX-License-Identifier: Apache-2.0
"""The attackers of the siege: requests that are bytes before it begins, and clients that send them. Standard library only.

Two kinds of attack. A *request* attack is one request after the other on each of the hostile clients; it is a function from a
number, different for each call, to the bytes of a request. A *holding* attack is a crowd of connections that take their
time: it runs beside the clients.
"""
import collections
import random
import re
import resource
import selectors
import socket
import threading
import time

MIB = 1 << 20
CAPABILITIES = '["state:read:*","state:write:*","events:emit:*","view:update:*","ext:http"]'
CALLER_SERVES = ',"extensions":{"http":["get"]}'
SLOT = b"#00000000#"  # replaced by a number of the same length


def request(method, path, body=b""):
    return (f"{method} {path} HTTP/1.1\r\nHost: siege\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def execute(code, more=""):
    text = code.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return request("POST", "/v1/execute", f'{{"code":"{text}","capabilities":{CAPABILITIES}{more}}}'.encode())


def always(*requests):
    return lambda number: requests[number % len(requests)]


def distinct(*requests):
    """The same with another number in it each time, so that no cache knows the source."""
    return lambda number: requests[number % len(requests)].replace(SLOT, b"#%08d#" % (number % 10**8))


# ---- Requests -----------------------------------------------------------------------------------------------------------

def many_functions(size):
    lines = [f"const f{i:06} = (a, b) => a * {i} + b.x{i:06};" for i in range(size // 40)]
    return "\n".join(lines[:size // (len(lines[-1]) + 2)]) + "\nreturn 1"  # 2: a newline is two characters in JSON


# What fills 26 MiB: noise, which nothing can compress, and what compresses to almost nothing.
NOISE = "const a = []; for (let i = 0; i < 416; i++) a.push(crypto.getRandomValues(new Uint8Array(65536)));"
MONOTONE = "const a = new Uint8Array(26 << 20).fill(7);"
LARGE_CODE = MIB - 4096  # a body may have 1 MiB, and escapes take some
SLOT_TEXT = SLOT.decode()

REQUESTS = {
    "arrays": always(
        execute("const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))"),
        execute("const a = []; for (;;) a.push(new Uint8Array(4096).fill(1))"),
        execute("return new Uint8Array(30 << 20).fill(7).length"),
        execute("const a = []; for (let n = 1 << 24; n > 64; n >>= 1) { try { for (;;) a.push(new Uint8Array(n).fill(1)) } catch {} } return 1")),
    "objects": always(
        execute("const a = []; for (;;) a.push({a: 1, b: [2]})"),
        execute("let a = null; for (;;) a = {a}"),
        execute("const a = []; try { for (;;) a.push({a: 1, b: [2]}) } catch { return a.length }")),
    "strings": always(
        execute("let s = 'x'.repeat(1024); for (;;) s += s"),
        execute("const a = []; for (let i = 0; ; i++) a.push('k'.repeat(100000) + i)"),
        execute("let s = 'é'.repeat(1 << 20); const a = []; for (let i = 0; ; i++) a.push(s.concat(i).toUpperCase())")),
    "maps": always(
        execute("const m = new Map(); for (let i = 0; ; i++) m.set('k' + i, {i})"),
        execute("const s = new Set(); for (let i = 0; ; i++) s.add(i)")),
    "regexps": always(
        execute("const a = []; for (let i = 0; ; i++) a.push(new RegExp(`(a|b${i})*c{1,${i % 90}}[^x${i}]`, 'u'))"),
        execute("return 'xy'.repeat(1 << 20).match(/x/g).length")),
    "backtracking": always(execute("return /^(a+)+$/.test('a'.repeat(60) + 'b')")),
    "promises": always(
        execute("const a = []; for (;;) a.push(new Promise(() => {}).then(() => 1))"),
        execute("for (;;) queueMicrotask(() => {})"),
        execute("const f = async () => { await null; f(); f() }; await f(); return new Promise(() => {})")),
    "logs": always(
        execute("for (let i = 0; i < 9999; i++) $log('x'.repeat(1000))"),
        execute("for (;;) console.log('y'.repeat(100000))")),
    "outputs": always(
        execute(f"return 'x'.repeat({4 * MIB - 64})"),
        execute("return new Array(1500000).fill(0)"),
        execute(f"return 'x'.repeat({8 * MIB})")),
    "state": always(
        execute("for (let i = 0; i < 1000; i++) $state['k' + i] = 'x'.repeat(4000)"),
        execute("for (let i = 0; ; i++) $state['k' + i] = i"),
        execute("$state.a = 1; return Object.keys($state).length", ',"state":{%s}' % ",".join(f'"k{i}":[1,2,3]' for i in range(40000)))),
    "events": always(
        execute("for (let i = 0; i < 100; i++) $emit('e' + i, 'x'.repeat(40000))"),
        execute("for (;;) $view.focus('c', 'x'.repeat(1000))")),
    "code": distinct(
        execute(f"/*{SLOT_TEXT}*/ return '" + "x" * LARGE_CODE + "'.length"),
        execute(f"/*{SLOT_TEXT}*/" + many_functions(LARGE_CODE)),
        execute(f"/*{SLOT_TEXT}*/ return [" + "1," * (LARGE_CODE // 2) + "1].length"),
        execute(f"/*{SLOT_TEXT}*/ return [" + "{}," * (LARGE_CODE // 3) + "1].length")),
    "inline": distinct(
        execute(f"/*{SLOT_TEXT}*/ return 1"),
        execute(f"const k = '{SLOT_TEXT}'; const t = []; for (let i = 0; i < 2000; i++) t.push({{k, i}}); return t.length"),
        execute(f"const k = '{SLOT_TEXT}'; const t = new Uint8Array(1 << 20).fill(3); export default () => t.length + k.length")),
    "bodies": always(
        request("POST", "/run/cart", b"[" + b"0," * (MIB // 2 - 8) + b"0]"),
        request("POST", "/v1/execute", b'{"handler":"cart","args":[' + b"0," * (MIB // 2 - 64) + b"0]}"),
        request("POST", "/run/cart", b'{"items":[' + b"{}," * (MIB // 3 - 64) + b"{}]}"),
        request("POST", "/v1/execute", b'{"handler":"cart","args":' + b"[" * (MIB // 2 - 64) + b"]" * (MIB // 2 - 64) + b"}"),
        request("POST", "/run/cart", b'"' + b"\\u0001" * (MIB // 6 - 64) + b'"')),
    "recursion": always(
        execute("let a = []; for (let i = 0; i < 100000; i++) a = [a]; return JSON.stringify(a).length"),
        execute("return JSON.parse('['.repeat(100000) + ']'.repeat(100000)).length"),
        execute("let p = {}; for (let i = 0; i < 50000; i++) p = new Proxy(p, {}); return p.x"),
        execute("const f = () => { try { f() } catch { f() } }; f()")),
    "buffers": always(
        execute("const b = new ArrayBuffer(1, {maxByteLength: 1 << 25}); for (let n = 1; ; n *= 2) { b.resize(n); new Uint8Array(b).fill(1) }"),
        execute("let b = new ArrayBuffer(4096); for (;;) { b = b.transfer(b.byteLength * 2); new Uint8Array(b).fill(2) }"),
        execute("const a = []; for (;;) { const b = new ArrayBuffer(1, {maxByteLength: 1 << 22}); b.resize(1 << 22); new Uint8Array(b).fill(1); a.push(b) }")),
    "sparse": always(
        execute("const a = []; for (let i = 0; ; i++) a[i * 1000003 % 4294967291] = i"),
        execute("const a = [1]; a.length = 4294967295; a.reverse(); return 1"),
        execute("return new Array(4294967295).join('xx').length")),
    # Large, and then waiting: for its caller, who never comes, or for two seconds.
    "hoard": always(*(execute(f"{fill} await {wait}; return a.length", CALLER_SERVES)
                      for wait in ("$ext.http.get('x')", "$ext.time.sleep(2000)") for fill in (NOISE, MONOTONE))),
    "spin": always(execute("for (;;);")),
}


def registered(number):
    """New handlers, each of a size that keeps an image; the old ones go."""
    name = f"siege-{number % 400}"
    if number % 8 == 7:
        return request("DELETE", f"/v1/handlers/siege-{(number * 3) % 400}")
    return request("PUT", f"/v1/handlers/{name}",
                   b"const t = new Uint8Array(%d).fill(%d); export default () => t.length" % (number % 40 * 50000, number % 251))


REQUESTS["handlers"] = registered
# Each with a body of 1 MiB for a result of 4 MiB.
LARGE_BOTH_WAYS = always(execute(f"return 'x'.repeat({4 * MIB - 64})", ',"args":"' + "y" * (MIB - 4096) + '"'))

# ---- Crowds -------------------------------------------------------------------------------------------------------------

Crowd = collections.namedtuple("Crowd", "size openings receive_buffer read_bytes read_every_s")
HOLDING = {
    # All of the body but its last byte.
    "half-bodies": Crowd(64, [request("POST", "/run/cart", b"[" + b"0," * (MIB // 2 - 8) + b"0]")[:-1]], 4096, 0, 0),
    # Results of 4 MiB (and of 1, for small limits), read at 1 KiB a second.
    "slow-readers": Crowd(40, [execute(f"return 'x'.repeat({n * MIB - 64})") for n in (4, 1)], 4096, 1024, 1.0),
    # One request each, and then nothing.
    "connections": Crowd(3000, [request("GET", "/livez")], 4096, 4096, 0.1),
}
NAMES = [*REQUESTS, *HOLDING]
SCENARIOS = {"bulk": LARGE_BOTH_WAYS, "hoarders": REQUESTS["hoard"]}
SCENARIO_CLIENTS = {"bulk": 20, "hoarders": 16}
OPENED_PER_TICK = 20  # a tick is 20 ms: a crowd of 3000 stands after three seconds


class Tally:
    """What became of the attacks: name → outcome → count. Written by many threads, and += is not atomic."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = collections.defaultdict(collections.Counter)
        self.seconds = collections.Counter()

    def add(self, name, outcome, seconds=0.0):
        with self.lock:
            self.counts[name][outcome] += 1
            self.seconds[name] += seconds

    def plain(self):
        return {name: {"seconds": round(self.seconds[name], 1), **counts} for name, counts in sorted(self.counts.items())}


def connect(port, timeout, receive_buffer=0):
    connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(timeout)
    try:
        connection.connect(("127.0.0.1", port))
    except BaseException:
        connection.close()
        raise
    return connection


def receive(connection, buffer):
    """One response: (status, its first bytes of body, whether the server closes)."""
    view, have = memoryview(buffer), 0
    while True:
        got = connection.recv_into(view[have:])
        if not got:
            raise ConnectionError("closed before the answer" if not have else "closed within the answer")
        have += got
        end = bytes(view[:have]).find(b"\r\n\r\n")
        if end >= 0:
            break
    head = bytes(view[:end])
    length = re.search(rb"content-length: *(\d+)", head, re.I)
    body, missing = bytes(view[end + 4:have]), (int(length[1]) if length else 0) - (have - end - 4)
    while missing > 0:
        got = connection.recv_into(view[:min(missing, len(buffer))])
        if not got:
            raise ConnectionError("closed within the answer")
        if len(body) < 2048:
            body += bytes(view[:got])
        missing -= got
    return int(head.split(None, 2)[1]), body, b"connection: close" in head.lower()


def outcome(status, body):
    """Status, error code, and the layer that had no room."""
    start = body[:4096]
    if b'"status":"success"' in start[:200]:
        return str(status)
    if b'"status":"suspended"' in start[:200]:
        return f"{status} suspended"
    return " ".join([str(status), *(m[1].decode() for key in (b"code", b"layer") if (m := re.search(rb'"%s":"(\w+)"' % key, start)))])


class Client(threading.Thread):
    """One hostile client: one request after the other."""

    def __init__(self, port, names, tally, stop, seed):
        super().__init__(daemon=True)
        self.port, self.tally, self.stop_event = port, tally, stop
        self.attacks = {name: SCENARIOS.get(name) or REQUESTS[name] for name in names}
        self.random, self.number = random.Random(seed), seed * 1_000_003
        self.buffer, self.connection = bytearray(256 * 1024), None

    def choose(self):
        """At random, but so that each attack gets about the same time: one that spins takes as long as a hundred that fill memory."""
        names = list(self.attacks)
        with self.tally.lock:
            means = [(self.tally.seconds[n] + 0.05) / (sum(self.tally.counts[n].values()) + 1) for n in names]
        return self.random.choices(names, [1 / mean for mean in means])[0]

    def attack(self, name):
        if self.connection is None:
            self.connection = connect(self.port, 90)
        self.number += 1
        self.connection.sendall(self.attacks[name](self.number))
        status, body, closes = receive(self.connection, self.buffer)
        if closes:
            self.drop()
        return outcome(status, body)

    def drop(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def run(self):
        while not self.stop_event.is_set():
            name, began = self.choose(), time.monotonic()
            try:
                what = self.attack(name)
            except OSError as error:
                self.drop()
                what = f"{type(error).__name__}: {error}"
                self.stop_event.wait(0.02)
            if what.startswith("503"):
                self.stop_event.wait(0.01)  # an attacker who is refused comes back at once, but does not starve this machine
            self.tally.add(name, what, time.monotonic() - began)
        self.drop()


class Holder(threading.Thread):
    """A crowd of connections, opened anew when the server closes them."""

    def __init__(self, port, name, tally, stop):
        super().__init__(daemon=True)
        self.port, self.name_of_attack, self.crowd = port, name, HOLDING[name]
        self.tally, self.stop_event = tally, stop
        self.selector, self.open, self.number = selectors.DefaultSelector(), {}, 0

    def add(self):
        try:
            connection = connect(self.port, 5, self.crowd.receive_buffer)
        except OSError as error:
            self.tally.add(self.name_of_attack, f"connect: {type(error).__name__}")
            return
        connection.setblocking(False)
        self.open[connection] = memoryview(self.crowd.openings[self.number % len(self.crowd.openings)])
        self.number += 1
        self.selector.register(connection, selectors.EVENT_WRITE)
        self.tally.add(self.name_of_attack, "opened")

    def drop(self, connection, why):
        self.selector.unregister(connection)
        del self.open[connection]
        connection.close()
        self.tally.add(self.name_of_attack, why)

    def send(self, connection):
        rest = self.open[connection]
        rest = self.open[connection] = rest[connection.send(rest[:65536]):]
        if not rest:  # from now on only what it reads, and that it was closed
            self.selector.modify(connection, selectors.EVENT_READ)

    def read(self, connection):
        data = connection.recv(self.crowd.read_bytes or 4096)
        if not data:
            self.drop(connection, "closed by the server")

    def tick(self, reading):
        for key, events in self.selector.select(0):
            try:
                if events & selectors.EVENT_WRITE:
                    self.send(key.fileobj)
                elif reading:
                    self.read(key.fileobj)
            except BlockingIOError:
                pass
            except OSError as error:
                self.drop(key.fileobj, type(error).__name__)

    def run(self):
        next_read = 0.0
        while not self.stop_event.wait(0.02):
            for _ in range(min(OPENED_PER_TICK, self.crowd.size - len(self.open))):
                self.add()
            reading = time.monotonic() >= next_read
            if reading:
                next_read = time.monotonic() + self.crowd.read_every_s
            self.tick(reading)
        for connection in self.open:
            connection.close()


def assault(port, names, clients, stop, seed=1):
    """Attacks until `stop` is set; a Tally as plain data."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tally = Tally()
    requests = [name for name in names if name not in HOLDING]
    threads = [Holder(port, name, tally, stop) for name in names if name in HOLDING]
    if requests:
        threads += [Client(port, requests, tally, stop, seed + i) for i in range(clients)]
    for thread in threads:
        thread.start()
    stop.wait()
    deadline = time.monotonic() + 8
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))  # one that waits for an answer ends with this process
    clean_up(port, requests)
    return tally.plain()


def clean_up(port, names):
    """Removes the handlers that were registered: what stays would not be leaked, but kept."""
    if "handlers" not in names:
        return
    buffer = bytearray(65536)
    try:
        connection = connect(port, 10)
        for i in range(400):
            connection.sendall(request("DELETE", f"/v1/handlers/siege-{i}"))
            receive(connection, buffer)
        connection.close()
    except OSError:
        pass  # the server is gone; the report says so
