#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Figures of this machine: nexus beside a plain Node server, and other ways to keep an execution, interleaved, in one run.

    python3 bench/run.py --nexus build/nexus --build build [--json build/bench.json] [--seconds 5] [--rounds 3]

Prints a table with the targets beside and writes the same as JSON. What is missing (wrk, node) is skipped with a line
that says so. README.md in this directory says how each figure is taken and how to read it. Standard library only.
"""
import argparse
import contextlib
import datetime
import json
import os
import platform
import random
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CART = ROOT / "examples/handlers/cart.js"
CART_ARGS = (ROOT / "examples/cart.json").read_bytes()
CART_ANSWER = {"total": 207.9, "count": 5}
CONNECTIONS = 32
SPINNERS = 8
# Busy for 200 ms by the clock, which nexus and Node both let handlers read.
SPIN = "const until = Date.now() + 200;\nlet turns = 0;\nwhile (Date.now() < until) turns++;\nreturn turns;\n"
# More permits than spinners: with fewer, others live on permits that spinners lend (README.md, "while 8 handlers spin").
SPIN_INSTANCES = "40"
COLD_STARTS = 20
IDLE_CONNECTIONS = 1000
# Others that can keep an execution: (name, as peers_suspend.mjs knows it; how many are kept at once).
SUSPENDED_PEERS = (("node:vm", 500), ("isolated-vm", 100), ("isolated-vm-context", 500), ("quickjs-wasi", 200))
PEER_PACKAGES = ("isolated-vm@5.0.4", "quickjs-wasi@3.6.2")
SUSPENDED, SUSPENDED_LIMIT = 50_000, 1 << 30
TRIM_MS = 1000

LUA = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local file = io.open("%s")
wrk.body = file:read("*a")
file:close()
function done(summary, latency)
  local errors = summary.errors
  local form = 'JSON {"requests": %%d, "rps": %%f, "p50_ms": %%f, "p99_ms": %%f, "bad": %%d, "socket_errors": %%d}\\n'
  io.write(string.format(form, summary.requests, summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


def progress(text=""):
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def load_average():
    return round(os.getloadavg()[0], 2)


def median(values):
    return statistics.median(values) if values else None


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


# --- servers ---------------------------------------------------------------------------------------------------------

def free_port():
    """Below the ephemeral range: a client that polls an ephemeral port may connect to itself."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def request_bytes(method, path, body=b""):
    return (f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def receive(connection):
    """One response with a Content-Length: (status, body)."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("closed within a response")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1]), body


def connect(port, timeout=15):
    connection = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def spawn(command, env, output, stdout=None):
    """posix_spawn: unlike fork, it costs the same however large this process is. `stdout`: a descriptor, else `output`."""
    actions = [(os.POSIX_SPAWN_OPEN, fd, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for fd in (1, 2)]
    if stdout is not None:
        actions[0] = (os.POSIX_SPAWN_DUP2, stdout, 1)
    return os.posix_spawn(command[0], command, env, file_actions=actions)


def wait_for_line(fd, word, deadline_s=10):
    """Until a server has said so on its standard output."""
    said = b""
    while word not in said:
        piece = os.read(fd, 4096) if select.select([fd], [], [], deadline_s)[0] else b""
        if not piece:
            raise SystemExit(f"bench: a server ended, or hangs, without saying {word.decode()!r}: {said.decode(errors='replace')}")
        said += piece


def wait_for_answer(port, request, deadline_s=10):
    """Tries to connect every 100 microseconds or so, then waits for the answer."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        connection = socket.socket()
        try:
            connection.connect(("127.0.0.1", port))
        except OSError:
            connection.close()
            time.sleep(50e-6)  # and 50 of timer slack
            continue
        with connection:
            connection.settimeout(deadline_s)
            connection.sendall(request)
            return receive(connection)
    raise TimeoutError(f"nothing answers on port {port}")


def cpu_us(pid):
    """CPU time of a process so far, user and system, all threads; not of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


class Server:
    def __init__(self, command, env, port, log):
        self.pid, self.port, self.log = spawn(command, env, log), port, log
        try:
            status, body = wait_for_answer(port, request_bytes("POST", "/run/cart", CART_ARGS))
        except OSError as error:
            self.stop()
            raise SystemExit(f"bench: {command[0]}: {error}\n{Path(log).read_text()[-2000:]}") from error
        if status != 200 or json.loads(body) != CART_ANSWER:
            self.stop()
            raise SystemExit(f"bench: {command[0]} answers {status} {body!r}, not {CART_ANSWER}")

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Bench:
    def __init__(self, options, work):
        self.options, self.work = options, Path(work)
        self.wrk, self.node = shutil.which("wrk"), shutil.which("node")
        self.handlers, self.cart_only = self.work / "handlers", self.work / "cart-only"
        for directory in (self.handlers, self.cart_only):
            directory.mkdir()
            shutil.copy(CART, directory)
        (self.handlers / "spin.js").write_text(SPIN)
        self.args_file = self.work / "cart.json"
        self.args_file.write_bytes(CART_ARGS)
        self.lua = self.work / "cart.lua"
        self.lua.write_text(LUA % self.args_file)
        self.log = str(self.work / "server.log")
        self.rounds, self.loads, self.skipped = {}, [], []
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.packages = Path(os.environ.get("NEXUS_BUILD_CACHE") or Path(cache) / "nexus-build") / "peers"

    def nexus_command(self, port, directory=None, cache=None, **settings):
        env = {
            "HOST": "127.0.0.1", "PORT": str(port), "LOG_LEVEL": "warn",
            "HANDLERS_DIR": str(directory or self.handlers), "CACHE_DIR": str(cache or self.work / "cache"), **settings,
        }
        return [self.options.nexus, "serve"], env

    def node_command(self, port, processes=1):
        command = [self.node, str(ROOT / "bench/node_cart.mjs"), str(port), str(self.handlers), str(processes)]
        return command, {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}

    @contextlib.contextmanager
    def nexus(self, **settings):
        port = free_port()
        server = Server(*self.nexus_command(port, **settings), port, self.log)
        try:
            yield server
        finally:
            server.stop()

    @contextlib.contextmanager
    def plain_node(self, processes=1):
        if not self.node:
            yield None
            return
        port = free_port()
        server = Server(*self.node_command(port, processes), port, self.log)
        try:
            yield server
        finally:
            server.stop()

    def keep(self, name, figures):
        self.rounds.setdefault(name, []).append(figures)

    def figure(self, name, key):
        """The median over the rounds; None when it was not measured."""
        return median([figures[key] for figures in self.rounds.get(name, []) if figures.get(key) is not None])

    # --- one measurement each -------------------------------------------------------------------------------------

    def exec_bench(self, method, rounds):
        command = [str(Path(self.options.build) / "exec_bench"), "--handler", str(CART), "--args", str(self.args_file),
                   "--method", method, "--rounds", str(rounds)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def load(self, server, seconds=None):
        self.loads.append(load_average())
        command = [self.wrk, "-t2", f"-c{CONNECTIONS}", f"-d{seconds or self.options.seconds}", "-s", str(self.lua),
                   f"http://127.0.0.1:{server.port}/run/cart"]
        cpu_before = cpu_us(server.pid)
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures = json.loads(next(line for line in output.splitlines() if line.startswith("JSON "))[5:])
        figures["cpu_us"] = (cpu_us(server.pid) - cpu_before) / max(1, figures["requests"])
        return figures

    def load_with_spinners(self, server):
        """wrk as in `load`, while eight clients keep handlers spinning and a prober asks for /health."""
        stop = threading.Event()
        health_ms, spun = [], []

        def spin():
            with contextlib.suppress(OSError), connect(server.port) as connection:
                while not stop.is_set():
                    connection.sendall(request_bytes("POST", "/run/spin"))
                    spun.append(receive(connection)[0])

        def probe():
            with contextlib.suppress(OSError), connect(server.port) as connection:
                while not stop.is_set():
                    began = time.perf_counter_ns()
                    connection.sendall(request_bytes("GET", "/health"))
                    receive(connection)
                    health_ms.append((time.perf_counter_ns() - began) / 1e6)
                    time.sleep(0.005)

        threads = [threading.Thread(target=spin) for _ in range(SPINNERS)] + [threading.Thread(target=probe)]
        # Load first, then the slow clients: a server must not stall connections that are being served.
        outcome = {}
        loader = threading.Thread(target=lambda: outcome.update(self.load(server)))
        loader.start()
        time.sleep(0.3)
        for thread in threads:
            thread.start()
        loader.join()
        stop.set()
        for thread in threads:
            thread.join()
        return {**outcome, "health_p50_ms": median(health_ms), "health_p99_ms": percentile(health_ms, 0.99),
                "health_probes": len(health_ms), "spins": len(spun), "bad_spins": sum(s != 200 for s in spun)}

    def cold_start_ms(self, command, env, port):
        """Who tries to connect again and again takes the processor from the one that starts: a line says when to."""
        request = request_bytes("POST", "/run/cart", CART_ARGS)
        ours, theirs = os.pipe()
        connection = socket.socket()
        began = time.perf_counter_ns()
        pid = spawn(command, env, self.log, theirs)
        os.close(theirs)
        try:
            wait_for_line(ours, b"listening")
            connection.connect(("127.0.0.1", port))
            connection.sendall(request)
            status, body = receive(connection)
            elapsed = (time.perf_counter_ns() - began) / 1e6
            if status != 200 or json.loads(body) != CART_ANSWER:
                raise SystemExit(f"bench: {command[0]}: the first answer is {status} {body!r}")
            return elapsed
        finally:
            connection.close()
            os.close(ours)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    @staticmethod
    def pss_mib(pid):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
        raise SystemExit(f"bench: no Pss of process {pid}")

    def memory(self, server, settle_s):
        time.sleep(1)
        figures = {"start_mib": self.pss_mib(server.pid), "load_mib": None}
        if self.wrk:
            stop = threading.Event()
            seen = []

            def watch():
                while not stop.wait(0.25):
                    seen.append(self.pss_mib(server.pid))

            watcher = threading.Thread(target=watch)
            watcher.start()
            self.load(server, 3)
            stop.set()
            watcher.join()
            figures["load_mib"] = max(seen)
        time.sleep(settle_s)
        figures["after_mib"] = before = self.pss_mib(server.pid)
        with contextlib.ExitStack() as stack:
            for _ in range(IDLE_CONNECTIONS):
                connection = stack.enter_context(connect(server.port))
                connection.sendall(request_bytes("GET", "/health"))
                receive(connection)
            time.sleep(0.5)
            figures["connection_kib"] = (self.pss_mib(server.pid) - before) * 1024 / IDLE_CONNECTIONS
        return figures

    def suspend_bench(self):
        command = [str(Path(self.options.build) / "suspend_bench"), "--rounds", "10000"]
        got = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        flat = {key: value["p50"] for key, value in got.items() if isinstance(value, dict)}
        return {**flat, "patch_bytes": got["patch_bytes"], "item_bytes": got["item_bytes"]}

    def suspended_peer(self, peer, count):
        command = [self.node, "--expose-gc", "--no-node-snapshot", str(ROOT / "bench/peers_suspend.mjs"), peer, str(count), str(self.packages)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no reason"])[-1])
        return json.loads(done.stdout)

    def install_peers(self):
        """Into the build cache, once: compiling isolated-vm takes minutes."""
        if all((self.packages / "node_modules" / name.split("@")[0]).is_dir() for name in PEER_PACKAGES):
            return
        progress("installing " + " and ".join(PEER_PACKAGES))
        self.packages.mkdir(parents=True, exist_ok=True)
        (self.packages / "package.json").write_text('{"private": true}\n')
        for package in PEER_PACKAGES:
            command = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(self.packages), package]
            with contextlib.suppress(OSError):
                subprocess.run(command, capture_output=True, check=False)

    # --- the parts of the run ----------------------------------------------------------------------------------------

    def measure_in_process(self):
        for i in range(self.options.rounds):
            for method, rounds in (("scan+faults", 20000), ("scan", 20000), ("remap", 2000)):
                progress(f"in process, {method}, round {i + 1}")
                self.loads.append(load_average())
                try:
                    got = self.exec_bench(method, rounds)
                except subprocess.CalledProcessError as error:
                    self.skipped.append(f"in process with {method}: {error.stderr.strip()}")
                    return
                flat = {f"{form}_{part}_{key}": got[form][f"{part}_us"][key] for form in ("pool", "bare")
                        for part in ("whole", "guest", "reset") for key in ("p50", "p99", "mean")}
                flat.update({key: got[key]["p50"] for key in ("compile_us", "instance_create_us", "instance_show_us",
                                                              "first_execution_us")})
                flat.update({"sandbox_init_us": got["sandbox_init_us"], "first_compile_us": got["first_compile_us"],
                             "pool_cpu_mean": got["pool"]["cpu_mean_us"], "dirty_pages": got["pool"]["dirty_pages"], "image_pages": got["image_pages"]})
                self.keep(f"exec {got['method']}", flat)

    def measure_http(self):
        with self.nexus() as nexus, self.plain_node() as node, self.plain_node(os.cpu_count()) as cluster:
            for i in range(self.options.rounds):
                for name, server in (("http nexus", nexus), ("http node", node), ("http node cluster", cluster)):
                    if not server:
                        continue
                    progress(f"{name}, round {i + 1}")
                    self.keep(name, self.load(server))
        with self.nexus(LOG_LEVEL="info") as nexus:
            progress("http nexus, default log level")
            self.keep("http nexus info", self.load(nexus))

    def measure_spinning(self):
        with self.nexus(MAX_INSTANCES=SPIN_INSTANCES) as nexus, self.plain_node() as node:
            for i in range(self.options.rounds):
                for name, server in (("spin nexus", nexus), ("spin node", node)):
                    if not server:
                        continue
                    progress(f"{name}, round {i + 1}")
                    self.keep(name, self.load_with_spinners(server))
        with self.nexus() as nexus:
            for i in range(self.options.rounds):
                progress(f"spin nexus, MAX_INSTANCES auto, round {i + 1}")
                self.keep("spin nexus auto", self.load_with_spinners(nexus))

    def measure_cold_start(self):
        for i in range(COLD_STARTS + 1):
            progress(f"cold start {i}")
            self.loads.append(load_average())
            port = free_port()
            command, env = self.nexus_command(port, directory=self.cart_only, cache=self.work / "cache-warm", LOG_LEVEL="info")
            warm = self.cold_start_ms(command, env, port)
            shutil.rmtree(self.work / "cache-cold", ignore_errors=True)
            command, env = self.nexus_command(port, directory=self.cart_only, cache=self.work / "cache-cold", LOG_LEVEL="info")
            cold = self.cold_start_ms(command, env, port)
            if i == 0:
                continue  # it fills the warm cache, and the page cache with the program
            self.keep("start nexus warm", {"ms": warm})
            self.keep("start nexus cold", {"ms": cold})
            if self.node and i % 4 == 0:
                self.keep("start node", {"ms": self.cold_start_ms(*self.node_command(port), port)})

    def measure_memory(self):
        with self.nexus(directory=self.cart_only, IDLE_TRIM_MS=str(TRIM_MS)) as nexus:
            progress("memory, nexus")
            self.keep("memory nexus", self.memory(nexus, TRIM_MS / 1000 + 2.5))
        with self.plain_node() as node:
            if node:
                progress("memory, node")
                self.keep("memory node", self.memory(node, 1))

    def measure_suspended(self):
        for i in range(self.options.rounds):
            progress(f"suspending, round {i + 1}")
            self.keep("suspend nexus", self.suspend_bench())
            for peer, count in SUSPENDED_PEERS if self.node else ():
                progress(f"suspending, {peer}, round {i + 1}")
                try:
                    self.keep(f"suspend {peer}", self.suspended_peer(peer, count))
                except RuntimeError as reason:
                    self.skipped.append(f"suspending in {peer}: {reason}")
        import density  # which has its servers from here
        progress("suspended executions in a memory group")
        try:
            self.keep("density", density.measure(self.options.nexus, SUSPENDED, SUSPENDED_LIMIT, 1000))
        except (density.Failed, density.Unavailable) as reason:
            self.skipped.append(f"suspended executions in a memory group: {reason}")

    def run(self):
        for tool, path in (("wrk", self.wrk), ("node", self.node)):
            if not path:
                self.skipped.append(f"{tool} is not installed (Debian: apt-get install {'nodejs' if tool == 'node' else tool}): "
                                    f"its figures are left out")
        self.measure_in_process()
        if self.wrk:
            self.measure_http()
            self.measure_spinning()
        self.measure_cold_start()
        self.measure_memory()
        if self.node:
            self.install_peers()
        self.measure_suspended()
        progress()


# --- the report ------------------------------------------------------------------------------------------------------

def rows(bench):
    """(what, nexus, Node, unit, relation to the target, target)"""
    f = bench.figure
    auto = next((name for name in bench.rounds if name.startswith("exec scan")), "exec remap")
    fast, scan, remap = (f(f"exec {m}", "pool_whole_p50") for m in ("scan+faults", "scan", "remap"))
    return [
        (f"clean execution in process, p50 ({auto[5:]})", f(auto, "pool_whole_p50"), None, "µs", "≤", 8),
        ("  p99", f(auto, "pool_whole_p99"), None, "µs", None, None),
        ("  of it the guest, p50", f(auto, "pool_guest_p50"), None, "µs", None, None),
        ("  of it reset and release, p50", f(auto, "pool_reset_p50"), None, "µs", None, None),
        ("  CPU time per execution, mean", f(auto, "pool_cpu_mean"), None, "µs", None, None),
        ("  without pool and result (invoke + reset), p50", f(auto, "bare_whole_p50"), None, "µs", None, None),
        ("  private pages put back", f(auto, "dirty_pages"), None, "", None, None),
        ("the same, scan at every reset, p50", scan, None, "µs", None, None) if fast else None,
        ("the same, remap (no PAGEMAP_SCAN), p50", remap, None, "µs", None, None),
        ("compile a handler, p50", f(auto, "compile_us"), None, "µs", None, None),
        ("new instance + show, p50", plus(f(auto, "instance_create_us"), f(auto, "instance_show_us")), None, "µs", None, None),
        ("first execution on a new instance, p50", f(auto, "first_execution_us"), None, "µs", None, None),
        ("HTTP, 32 connections: requests/s", f("http nexus", "rps"), f("http node", "rps"), "/s", "≥", f("http node", "rps")),
        ("  p99", f("http nexus", "p99_ms"), f("http node", "p99_ms"), "ms", "≤", 2),
        ("  CPU time per request", f("http nexus", "cpu_us"), f("http node", "cpu_us"), "µs", None, None),
        ("  beside Node on every core (cluster)", f("http nexus", "rps"), f("http node cluster", "rps"), "/s", None, None),
        ("  with the default log level: requests/s", f("http nexus info", "rps"), None, "/s", None, None),
        (f"while 8 handlers spin (MAX_INSTANCES={SPIN_INSTANCES}): requests/s", f("spin nexus", "rps"), f("spin node", "rps"), "/s", None, None),
        ("  others' p99", f("spin nexus", "p99_ms"), f("spin node", "p99_ms"), "ms", "≤", 10),
        ("  /health p99", f("spin nexus", "health_p99_ms"), f("spin node", "health_p99_ms"), "ms", "≤", 5),
        ("the same, MAX_INSTANCES auto: requests/s", f("spin nexus auto", "rps"), None, "/s", None, None),
        ("  others' p99", f("spin nexus auto", "p99_ms"), None, "ms", "≤", 10),
        ("  /health p99", f("spin nexus auto", "health_p99_ms"), None, "ms", "≤", 5),
        ("cold start, exec to first answer, cache warm", f("start nexus warm", "ms"), f("start node", "ms"), "ms", "≤", 5),
        ("  cache empty", f("start nexus cold", "ms"), None, "ms", "≤", 5),
        ("memory (PSS) after the start", f("memory nexus", "start_mib"), f("memory node", "start_mib"), "MiB", "≤", 8),
        ("  under load", f("memory nexus", "load_mib"), f("memory node", "load_mib"), "MiB", None, None),
        ("  idle again, after load and trim", f("memory nexus", "after_mib"), f("memory node", "after_mib"), "MiB", "≤", 8),
        ("  per idle keep-alive connection (user space)", f("memory nexus", "connection_kib"), f("memory node", "connection_kib"), "KiB", None, None),
    ]


def plus(a, b):
    return None if a is None or b is None else a + b


def verdict(value, relation, target):
    if value is None or relation is None or target is None:
        return None
    return value <= target if relation == "≤" else value >= target


def show(value):
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.2f}" if abs(value) < 100 else f"{value:.1f}"


def suspended_rows(bench):
    """(what, nexus, each of SUSPENDED_PEERS, unit, relation to the target, target)"""
    def row(what, nexus, key, unit, target):
        return (what, nexus, *(bench.figure(f"suspend {peer}", key) for peer, _ in SUSPENDED_PEERS), unit, "≤", target)
    return [
        row("memory of a suspended execution", bench.figure("density", "pss_kib_each"), "kib_each", "KiB", 3),
        row("from a request to its suspension, p50", bench.figure("suspend nexus", "suspend_us"), "suspend_us", "µs", 60),
        row("from the answer to the result, p50", bench.figure("suspend nexus", "resume_us"), "resume_us", "µs", 50),
    ]


def print_suspended(lines):
    print(f"\n{'suspending a small async handler':40}  {'nexus':>9}  " + "  ".join(f"{peer:>19}" for peer, _ in SUSPENDED_PEERS))
    for what, nexus, *peers, unit, relation, target in lines:
        mark = {True: "met", False: "MISSED", None: ""}[verdict(nexus, relation, target)]
        print(f"{what:40}  {show(nexus):>9}  " + "  ".join(f"{show(peer):>19}" for peer in peers) +
              f"  {unit:<4} {relation} {show(target)} {mark}".rstrip())


def print_table(lines):
    width = max(len(line[0]) for line in lines)
    print(f"{'':{width}}  {'nexus':>9}  {'Node':>9}  {'':<4} target")
    for what, nexus, node, unit, relation, target in lines:
        met = verdict(nexus, relation, target)
        goal = "" if relation is None or target is None else f"{relation} {show(target)}"
        mark = {True: "met", False: "MISSED", None: ""}[met]
        print(f"{what:{width}}  {show(nexus):>9}  {show(node):>9}  {unit:<4} {goal:<9} {mark}".rstrip())


def machine():
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    return {"cpu": cpu, "cpus": os.cpu_count(), "kernel": platform.release(),
            "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20}


def versions(bench):
    def first_line(command):
        return (subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines() or [""])[0]
    return {"nexus": first_line([bench.options.nexus, "version"]), "node": first_line([bench.node, "--version"]) if bench.node else None}


def steal_share(before, after):
    """What the hypervisor took, of all CPU time meanwhile: noise that nobody here can turn off."""
    delta = [b - a for a, b in zip(before, after)]
    return round(delta[7] / max(1, sum(delta[:8])), 4)


def cpu_times():
    return [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]


def main():
    parser = argparse.ArgumentParser(description="Figures of this machine, beside a plain Node server.")
    parser.add_argument("--nexus", default="build/nexus")
    parser.add_argument("--build", default="build")
    parser.add_argument("--json", help="default: bench.json in the build directory")
    parser.add_argument("--seconds", type=int, default=5, help="length of one HTTP round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each; the median counts")
    options = parser.parse_args()
    options.nexus = str(Path(options.nexus).resolve())
    began, cpu_before = time.monotonic(), cpu_times()
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as work:
        bench = Bench(options, work)
        try:
            bench.run()
        finally:
            progress()
        lines = [row for row in rows(bench) if row and (row[1] is not None or row[2] is not None)]
        suspended = suspended_rows(bench)
        report = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": "python3 " + " ".join(sys.argv), "machine": machine(), "versions": versions(bench),
            "load_average": {"lowest": min(bench.loads, default=None), "highest": max(bench.loads, default=None)},
            "steal_share": steal_share(cpu_before, cpu_times()), "seconds": round(time.monotonic() - began),
            "skipped": bench.skipped,
            "figures": [{"name": n.strip(), "nexus": a, "node": b, "unit": u, "relation": r, "target": t,
                         "met": verdict(a, r, t)} for n, a, b, u, r, t in lines],
            "suspended": [{"name": what, "nexus": nexus, **dict(zip((peer for peer, _ in SUSPENDED_PEERS), peers)), "unit": unit, "target": target}
                          for what, nexus, *peers, unit, _, target in suspended],
            "rounds": bench.rounds,
        }
    host = report["machine"]
    print(f"{host['cpus']} × {host['cpu']}, {host['memory_mib']} MiB, Linux {host['kernel']}; {report['versions']['nexus']}, "
          f"Node {report['versions']['node'] or 'missing'}")
    print(f"medians of {options.rounds} rounds of {options.seconds} s, interleaved; nexus with LOG_LEVEL=warn; "
          f"load average {report['load_average']['lowest']}–{report['load_average']['highest']}, "
          f"stolen by the hypervisor {report['steal_share']:.1%}\n")
    print_table(lines)
    print_suspended(suspended)
    for line in dict.fromkeys(bench.skipped):
        print(f"skipped: {line}")
    bad = {name: sum(r.get("bad", 0) + r.get("socket_errors", 0) for r in taken) for name, taken in bench.rounds.items()}
    for name, count in bad.items():
        if count:
            print(f"warning: {name}: {count} answers were errors")
    path = Path(options.json or Path(options.build) / "bench.json")
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    print(f"\nas JSON: {path} ({report['seconds']} s)")


if __name__ == "__main__":
    main()
