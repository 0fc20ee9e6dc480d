# SPDX-License-Identifier: Apache-2.0
"""What stands in for the cluster: pods, each a `nexus serve` in a memory group of its own with the manifests' limit, settings and cache
volume; a service that spreads requests over those that are ready; and clients.

Threads: the test's own scales and samples; a pod is started and ended on threads of its own; clients are threads. Fleet's lock guards which
pods there are and how many requests each has.
"""
import collections
import concurrent.futures
import contextlib
import random
import tempfile
import threading
from pathlib import Path

import manifests
from siege import CART, CART_ANSWER, GOOD_TIMEOUT_S, MIB, Target, ask_again, parse
import attacks

# Where things are in a pod's file system and network; here they are elsewhere, and callers need no token.
PLACES = {"CACHE_DIR", "HANDLERS_DIR", "AUTH_TOKENS_FILE", "ADMIN_PORT"}


def pod_options(nexus):
    _, limit, cache_size = manifests.container()
    chosen = [f"--set={name}={value}" for name, value in manifests.settings().items() if name not in PLACES]
    return parse(["--nexus", nexus, "--limit", str(limit), "--cache-size", str(cache_size), *chosen])


class Pod:
    def __init__(self, name, options):
        self.name, self.requests, self.started = name, 0, None
        self.directory = tempfile.TemporaryDirectory(prefix="nexus-pod-")
        self.target = Target(options, self.directory.name)

    def start(self, workers):
        self.started = workers.submit(self.target.__enter__)

    @property
    def ready(self):
        """Raises what the start raised."""
        return self.started.done() and bool(self.started.result())

    def working_set(self):
        """As the kubelet has it: usage less what the kernel could drop at once. Socket memory is not in it with cgroup v1."""
        return self.target.group.usage() - self.target.group.inactive_file() if self.ready else None

    def threads(self):
        return len(list(Path(f"/proc/{self.target.pid}/task").iterdir()))

    def end(self):
        """(exit status, OOM kills)."""
        ended = self.target.stop(), self.target.group.oom_kills()
        self.discard()
        return ended

    def discard(self):
        self.target.__exit__()
        self.directory.cleanup()


class Fleet:
    def __init__(self, nexus):
        self.options, self.pods, self.made, self.turn = pod_options(nexus), [], 0, 0
        self.changed = threading.Condition()
        self.workers = concurrent.futures.ThreadPoolExecutor(max_workers=16)
        self.ending = []

    def scale(self, count):
        """Returns at once. Of pods that are all ready the ReplicaSet takes away the youngest."""
        while len(self.pods) < count:
            self.made += 1
            pod = Pod(f"pod-{self.made}", self.options)
            pod.start(self.workers)
            with self.changed:
                self.pods.append(pod)
        while len(self.pods) > count:
            with self.changed:
                pod = self.pods.pop()
            self.ending.append(self.workers.submit(self._end, pod))

    def wait_ready(self):
        for pod in self.pods:
            pod.started.result()

    def wait_ended(self):
        """What each pod that was taken away said at its end."""
        return [ended.result() for ended in self.ending]

    def _end(self, pod):
        """What the manifest's preStop is for: no request is sent to it any more when it begins to drain."""
        pod.started.result()
        with self.changed:
            self.changed.wait_for(lambda: not pod.requests, timeout=GOOD_TIMEOUT_S)
        return pod.end()

    @contextlib.contextmanager
    def route(self):
        """The pod that the next request goes to, for as long as the request takes: one after the other."""
        with self.changed:
            ready = [pod for pod in self.pods if pod.ready]
            self.turn += 1
            pod = ready[self.turn % len(ready)]
            pod.requests += 1
        try:
            yield pod
        finally:
            with self.changed:
                pod.requests -= 1
                self.changed.notify_all()

    def close(self):
        self.workers.shutdown()
        for pod in self.pods:
            pod.discard()


# ---- Clients ------------------------------------------------------------------------------------------------------------

HELD_MIB, HELD_MS = (8, 16, 24), (100, 200, 300)


class Client(threading.Thread):
    """One request after the other until it is stopped. `choose` gives a request and what must be in its answer."""

    def __init__(self, fleet, choose, think_s):
        super().__init__(daemon=True)
        self.fleet, self.choose, self.think_s = fleet, choose, think_s
        self.stopped, self.outcomes = threading.Event(), collections.Counter()
        self.connections, self.buffer = {}, bytearray(65536)

    def run(self):
        while not self.stopped.is_set():
            self.outcomes[self._exchange(*self.choose())] += 1
            self.stopped.wait(self.think_s)
        for connection in self.connections.values():
            connection.close()

    def _exchange(self, message, wanted):
        """As the Ingress does: what one pod refuses, with 503, is offered to another one."""
        for _ in range(2):
            try:
                with self.fleet.route() as pod:
                    status, body = self._ask(pod, message)
            except OSError as error:
                return repr(error)
            if status != 503:
                break
        return "right" if status == 200 and wanted in body else attacks.outcome(status, body)

    def _ask(self, pod, message):
        port = pod.target.port
        connection, (status, body, closes) = ask_again(self.connections.pop(port, None), port, message, self.buffer)
        if closes:
            connection.close()
        else:
            self.connections[port] = connection
        return status, body


class Load:
    """`count` clients, until it is stopped."""

    def __init__(self, fleet, count, choose, think_s=0):
        self.clients = [Client(fleet, choose(random.Random(seed)), think_s) for seed in range(count)]
        for client in self.clients:
            client.start()

    def stop(self):
        """Outcome → how often."""
        for client in self.clients:
            client.stopped.set()
        for client in self.clients:
            client.join()
        return sum((client.outcomes for client in self.clients), collections.Counter())


def holding(chance):
    """Handlers that fill so much memory and have it for so long. They compute meanwhile: one that only waits is suspended, and takes
    kilobytes."""
    def choose():
        return attacks.execute(f"const held = new Uint8Array({chance.choice(HELD_MIB)} << 20); for (let i = 0; i < held.length; i += 4096) held[i] = 1; "
                               f"const end = Date.now() + {chance.choice(HELD_MS)}; while (Date.now() < end); return held.length"), b'"status":"success"'
    return choose


def unseen(chance):
    """Code that no pod has seen: each leaves a compiled handler and a file of the compile cache behind."""
    def choose():
        number = chance.randrange(10**9)
        return attacks.execute(f"return {number}"), b'"returnValue":%d' % number
    return choose


def registered(_):
    return lambda: (CART, CART_ANSWER)


def clients_that_hold(wanted_bytes):
    """How many clients of holding() have so much at once."""
    return wanted_bytes * len(HELD_MIB) // (sum(HELD_MIB) * MIB)
