#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many handlers that sleep at once: what each takes, which threads the server has, and what others notice.

    python3 bench/sleepers.py [--nexus build/nexus] [--count 1000] [--limit 512Mi] [--seconds 10]

Each of so many connections asks for a handler that sleeps one to two seconds, again and again; beside them one client asks for the
cart. The exit status is 0 when nobody was refused; 77 when this machine allows no memory groups. Standard library only.
"""
import argparse
import collections
import json
import random
import resource
import selectors
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench")]
from density import KIB, MIB, Unavailable, server, size  # noqa: E402
from run import CART_ARGS, Bench, connect, percentile, receive, request_bytes  # noqa: E402

HANDLERS = {"sleeper": "await $ext.time.sleep($args.ms);\nreturn $args.ms;\n", "cart": (ROOT / "examples/handlers/cart.js").read_text()}


class Sleepers:
    """All of them, in one thread: one request after the other on each connection."""

    def __init__(self, port, count):
        self.selector, self.answers, self.slept = selectors.DefaultSelector(), collections.Counter(), {}
        for _ in range(count):
            connection = connect(port, 60)
            self.selector.register(connection, selectors.EVENT_READ)
            self.ask(connection)

    def ask(self, connection):
        self.slept[connection] = random.randrange(1000, 2001)
        connection.sendall(request_bytes("POST", "/run/sleeper", b'{"ms":%d}' % self.slept[connection]))

    def take(self, connection):
        status, body = receive(connection)
        right = (status, body) == (200, b"%d" % self.slept.pop(connection))
        self.answers["200" if right else f"{status} {body[:200]!r}"] += 1

    def run(self, seconds):
        """Sleeps on until then, and waits for the last."""
        end = time.monotonic() + seconds
        while self.slept:
            for key, _ in self.selector.select():
                self.take(key.fileobj)
                if time.monotonic() < end:
                    self.ask(key.fileobj)

    def close(self):
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()


class Shopper(threading.Thread):
    """Asks for the cart every few milliseconds."""

    def __init__(self, port):
        super().__init__()
        self.port, self.latencies_ms, self.failures, self.stop = port, [], 0, threading.Event()

    def run(self):
        with connect(self.port, 60) as connection:
            while not self.stop.wait(0.005):
                began = time.perf_counter()
                connection.sendall(request_bytes("POST", "/run/cart", CART_ARGS))
                self.failures += receive(connection)[0] != 200
                self.latencies_ms.append((time.perf_counter() - began) * 1000)


def thread_names(pid):
    return dict(collections.Counter((task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()))


def measure(nexus, count, limit, seconds):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 200)), hard))
    with server(nexus, limit, HANDLERS) as (process, port, group):
        shopper = Shopper(port)
        shopper.start()
        try:
            time.sleep(2)
            before_mib, usage, sockets = Bench.pss_mib(process.pid), group.usage(), group.sockets()
            sleepers = Sleepers(port, count)
            figures = {}

            def look():
                figures.update({
                    "pss_kib_each": round((Bench.pss_mib(process.pid) - before_mib) * KIB / count, 2),
                    "group_kib_each": round((group.usage() - usage) / KIB / count, 2),
                    "sockets_kib_each": round((group.sockets() - sockets) / KIB / count, 2),
                    "threads": thread_names(process.pid)})
            looking = threading.Timer(seconds / 2, look)
            looking.start()
            shopper.latencies_ms.clear()
            sleepers.run(seconds)
            looking.join()
        finally:
            shopper.stop.set()
            shopper.join()
        sleepers.close()
        return {"sleepers": count, "limit_mib": limit // MIB, **figures, "answers": dict(sleepers.answers), "oom_kills": group.oom_kills(),
                "cart_failures": shopper.failures, "cart_p50_ms": percentile(shopper.latencies_ms, 0.5), "cart_p99_ms": percentile(shopper.latencies_ms, 0.99)}


def main():
    parser = argparse.ArgumentParser(description="Handlers that sleep, beside others that do not.")
    parser.add_argument("--nexus", default=str(ROOT / "build/nexus"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--limit", type=size, default=512 * MIB, help="of the memory group (512Mi)")
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    try:
        figures = measure(str(Path(options.nexus).resolve()), options.count, options.limit, options.seconds)
    except Unavailable as reason:
        print(f"sleepers: skipped: {reason}")
        sys.exit(77)
    print(json.dumps(figures, indent=2))
    sys.exit(set(figures["answers"]) != {"200"} or figures["oom_kills"] or figures["cart_failures"])


if __name__ == "__main__":
    main()
