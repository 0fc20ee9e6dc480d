#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Executions handed back and forth between two servers while one of them is killed (kill -9) again and again.

  usage: bench/handover.py [--executions N] [--kills N] [--store file|redis] [--clients N]

What is checked for each execution is written in tests/integration/handover.py. NEXUS is the binary (build/nexus); of the
test requirements it needs pytest.
"""
import argparse
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "integration"))
import handover  # noqa: E402
import redis_server  # noqa: E402
from conftest import Background, Server, in_threads, wait_until  # noqa: E402
from store_support import KEY  # noqa: E402


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--store", choices=["file", "redis"], default="file")
    parser.add_argument("--clients", type=int, default=8)
    return parser.parse_args()


def run(options, fleet):
    """All executions, with the kills spread evenly over them."""
    finished = []
    share = options.executions // options.clients

    def client(i):
        for execution in fleet.run(range(i * share, (i + 1) * share)):
            finished.append(execution)

    with Background(lambda: in_threads(options.clients, client)) as clients:
        for kill in range(1, options.kills + 1):
            due = kill * share * options.clients // (options.kills + 1)
            wait_until(lambda: len(finished) >= due or clients.done(), 600, "executions")
            fleet.kill_one()
    return finished


def main():
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        redis = redis_server.Redis(folder / "redis") if options.store == "redis" else None
        # Short limits make short leases: what a killed server held in Redis waits for the lease's end.
        settings = {"SUSPEND_STORE": redis.store if redis else f"file:{folder / 'store'}", "SUSPEND_KEY": KEY,
                    "QUEUE_TIMEOUT_MS": 1000, "TIMEOUT_MS": 1000}
        started = iter(range(1_000_000))
        fleet = handover.Fleet(lambda: Server(folder / f"server{next(started)}", settings))
        begin = time.monotonic()
        try:
            finished = run(options, fleet)
            seconds = time.monotonic() - begin
            for execution in finished:
                execution.check_end()
        finally:
            for server in fleet.servers:
                server.stop()
            if redis:
                redis.kill()
        print(f"{len(finished)} executions of {handover.CALLS} calls over {options.store}, {fleet.kills} kills, {seconds:.0f} s: "
              f"{fleet.lost} replies lost, {sum(e.doubts for e in finished)} answers that had counted without their reply; "
              "each answer counted once, each result is the same at both servers")


if __name__ == "__main__":
    main()
