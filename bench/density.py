#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How many suspended executions fit: so many of a small async handler alive at once in a real memory group, the growth of
PSS by execution, and a random part of them resumed with the right results.

    python3 bench/density.py [--nexus build/nexus] [--count 250000] [--limit 1Gi] [--resume 1000] [--json FILE]

The exit status is 0 when all were kept, each within --max-kib, and resumed rightly; 1 when not; 77 when this machine allows
no memory groups. Standard library only.
"""
import argparse
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests/container")]
from memory_group import Group, Unavailable  # noqa: E402
from run import Bench, connect, free_port, receive, request_bytes, wait_for_answer  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20
HANDLERS = {"waiting": "const order = await $ext.http.get('https://example.com/orders', {id: $args.id});\n"
                       "return {id: $args.id, total: order.total};\n"}
CLIENTS = 4
# Buffers, instances and heaps are what they will be: only suspended executions are added from then on.
WARM_UP = 1000
LIFETIME_MS = 3_600_000
SUSPENSION_ID = re.compile(rb'"suspensionId":"([0-9a-f]{32})"')


class Failed(Exception):
    """What does not hold, as a sentence."""


@contextlib.contextmanager
def server(nexus, limit, handlers):
    """(process, port, group): nexus alone in a memory group, its settings the default but for how long suspensions live."""
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-density-"))
        port = free_port()
        group = Group.make(f"nexus-density-{port}", limit)
        stack.callback(group.remove)
        env = {"HOST": "127.0.0.1", "PORT": str(port), "LOG_LEVEL": "warn", "CACHE_DIR": f"{work}/cache",
               "SUSPEND_TTL_MS": str(LIFETIME_MS)}
        log = stack.enter_context(open(f"{work}/log", "wb"))
        process = subprocess.Popen(group.command([nexus, "serve"]), env=env, stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        wait_for_answer(port, request_bytes("GET", "/readyz"))
        with connect(port) as connection:
            for name, source in handlers.items():
                connection.sendall(request_bytes("PUT", f"/v1/handlers/{name}", source.encode()))
                receive(connection)
        yield process, port, group


def suspend(connection, number):
    connection.sendall(request_bytes("POST", "/v1/execute", b'{"handler":"waiting","capabilities":["ext:http"],'
                                     b'"extensions":{"http":["get"]},"args":{"id":%d}}' % number))
    status, body = receive(connection)
    found = SUSPENSION_ID.search(body)
    if status != 200 or not found:
        raise Failed(f"execution {number} was not suspended: {status} {body[:300]!r}")
    return found[1].decode()


def suspend_all(port, numbers):
    """number → suspensionId, by several clients."""
    ids, failures = {}, []

    def client(share):
        try:
            with connect(port, 60) as connection:
                for number in share:
                    ids[number] = suspend(connection, number)
        except (Failed, OSError) as failure:
            failures.append(str(failure))

    threads = [threading.Thread(target=client, args=(numbers[i::CLIENTS],)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise Failed(f"{failures[0]} ({len(ids)} are)")
    return ids


def resume(connection, number, suspension_id):
    connection.sendall(request_bytes("POST", f"/v1/resume/{suspension_id}", b'{"success":true,"value":{"total":%d}}' % (number * 2)))
    status, body = receive(connection)
    answer = json.loads(body)
    if status != 200 or answer.get("returnValue") != {"id": number, "total": number * 2}:
        raise Failed(f"execution {number} was not resumed rightly: {status} {body[:300]!r}")


def layer_bytes(port, layer):
    with connect(port) as connection:
        connection.sendall(request_bytes("GET", "/health"))
        health = json.loads(receive(connection)[1])
    return health["memory"]["layers"][layer], health["instances"]["suspended"]


def measure(nexus, count, limit, resumed):
    """The figures, or Failed."""
    with server(nexus, limit, HANDLERS) as (process, port, group):
        suspend_all(port, range(WARM_UP))
        before_mib, usage_before, charged_before = Bench.pss_mib(process.pid), group.usage(), layer_bytes(port, "suspended")[0]
        began = time.monotonic()
        ids = suspend_all(port, range(WARM_UP, count))
        seconds = time.monotonic() - began
        pss_mib, usage, (charged, waiting) = Bench.pss_mib(process.pid), group.usage(), layer_bytes(port, "suspended")
        if waiting != count:
            raise Failed(f"{waiting} of {count} executions are suspended")
        with connect(port) as connection:
            for number in random.sample(sorted(ids), min(resumed, len(ids))):
                resume(connection, number, ids[number])
        if process.poll() is not None or group.oom_kills():
            raise Failed(f"the server ended, {group.oom_kills()} OOM kills")
        return {
            "suspended": waiting, "resumed": resumed, "limit_mib": limit // MIB, "pss_mib": round(pss_mib, 1),
            "pss_kib_each": round((pss_mib - before_mib) * KIB / len(ids), 3),
            "group_mib": round(usage / MIB, 1), "group_kib_each": round((usage - usage_before) / KIB / len(ids), 3),
            "charged_kib_each": round((charged - charged_before) / KIB / len(ids), 3), "per_second": round(len(ids) / seconds),
        }


def size(text):
    match = re.fullmatch(r"(\d+)(Mi|Gi)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text}: a size is a number with Mi or Gi")
    return int(match[1]) << {"Mi": 20, "Gi": 30}[match[2]]


def main():
    parser = argparse.ArgumentParser(description="Suspended executions in a memory group.")
    parser.add_argument("--nexus", default=str(ROOT / "build/nexus"))
    parser.add_argument("--count", type=int, default=250_000)
    parser.add_argument("--limit", type=size, default=1 << 30, help="of the memory group (1Gi)")
    parser.add_argument("--resume", type=int, default=1000, help="how many of them are resumed, at random")
    parser.add_argument("--max-kib", type=float, default=3.0, help="judged growth of PSS by execution")
    parser.add_argument("--json", help="the figures")
    options = parser.parse_args()
    try:
        figures = measure(str(Path(options.nexus).resolve()), options.count, options.limit, options.resume)
    except Unavailable as reason:
        print(f"density: skipped: {reason}")
        sys.exit(77)
    except Failed as failure:
        print(f"density: {failure}")
        sys.exit(1)
    for name, value in figures.items():
        print(f"{name:18} {value:>12,}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(figures["pss_kib_each"] > options.max_kib)


if __name__ == "__main__":
    main()
