#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The siege: nexus in a memory group of its own, under attack, while good requests must be answered.

    python3 tests/container/siege.py --limit 256Mi --seconds 60 [--clients 8] [--attack NAME …] [--each] [--runs N] [--json FILE]
        [--lower 512Mi:200Mi] [--fill-cache] [--podman] [--store file] [--set NAME=VALUE …]

One line a run; the exit status is 0 when all that is judged holds, 1 when something does not, 77 when this machine does not
allow it (memory groups need root, or a delegated controller). Standard library only. Four processes besides the server share the machine
with it: attackers, good clients, the sampler, and this one, which waits.
"""
import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import attacks  # noqa: E402
from memory_group import Group, Unavailable, host_socket_bytes  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
CART = attacks.request("POST", "/run/cart", (ROOT / "examples/cart.json").read_bytes())
CART_ANSWER = b'{"total":207.9,"count":5}'
GOOD_CONNECTIONS = 4
THINK_S = 0.010
GOOD_TIMEOUT_S = 30
RENEW_AFTER = 500  # requests on one connection, as a load balancer would
PROBE_EVERY_S = 0.1
SAMPLE_EVERY_S = 0.02
# Suspended executions that nobody resumes are gone before memory must be back at the floor.
SUSPENDED_FOR_MS = "10000"
FLOOR_SLACK = 4 * MIB
FLOOR_SECONDS = 60
CRASH = re.compile(rb"sanitizer|runtime error:|assert|fatal|stack smashing|core dumped|corrupted|double free|crash", re.I)
FORK = multiprocessing.get_context("fork")


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def size(text):
    """256Mi → bytes."""
    match = re.fullmatch(r"(\d+)(Ki|Mi|Gi|)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text}: a size is a number with Ki, Mi or Gi")
    return int(match[1]) << {"": 0, "Ki": 10, "Mi": 20, "Gi": 30}[match[2]]


def lowering(text):
    above, _, below = text.partition(":")
    return size(above), size(below)


def free_port():
    """Below the ephemeral range: a client that polls an ephemeral port may connect to itself."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


# ---- Processes beside the server ----------------------------------------------------------------------------------------

class Beside:
    """work(stop, *args) in a process of its own, until finish(), which gives what it returned."""

    def __init__(self, work, *args):
        self.stop = FORK.Event()
        self.receiver, sender = FORK.Pipe(False)
        self.process = FORK.Process(target=self._main, args=(work, sender, args), daemon=True)
        self.process.start()
        sender.close()

    def _main(self, work, sender, args):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sender.send(work(self.stop, *args))

    def finish(self):
        self.stop.set()
        try:
            return self.receiver.recv() if self.receiver.poll(60) else None
        except EOFError:
            return None
        finally:
            self.end()

    def end(self):
        self.process.join(2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def ask(connection, message, buffer):
    connection.sendall(message)
    return attacks.receive(connection, buffer)


def ask_again(connection, port, message, buffer):
    """A server may close a connection between two requests, and the next one then meets the end of it. Clients send that
    request once more on a new connection (RFC 9112, 9.3.1), and so does this one: the connection, and the answer."""
    if connection is not None:
        try:
            return connection, ask(connection, message, buffer)
        except ConnectionError:
            connection.close()
    connection = attacks.connect(port, GOOD_TIMEOUT_S)
    return connection, ask(connection, message, buffer)


def good_client(stop, port, latencies, failures):
    """Closed loop with a little thought; every answer is checked to the byte."""
    buffer, connection, count = bytearray(65536), None, 0
    while not stop.is_set():
        began = time.perf_counter()
        try:
            connection, (status, body, closes) = ask_again(connection, port, CART, buffer)
            if (status, body) != (200, CART_ANSWER):
                failures[attacks.outcome(status, body)] += 1
            else:
                latencies.append((time.perf_counter() - began) * 1000)
        except OSError as error:
            failures[f"{type(error).__name__}: {error}"] += 1
            connection, closes = None, True
        count += 1
        if connection and (closes or count % RENEW_AFTER == 0):
            connection.close()
            connection = None
        time.sleep(THINK_S)


def prober(stop, port, latencies, failures):
    """/livez as the kubelet asks: a new connection each time."""
    buffer = bytearray(4096)
    message = attacks.request("GET", "/livez")
    while not stop.is_set():
        began = time.perf_counter()
        try:
            with attacks.connect(port, GOOD_TIMEOUT_S) as connection:
                status, body, _ = ask(connection, message, buffer)
            if status != 200:
                failures[attacks.outcome(status, body)] += 1
        except OSError as error:
            failures[f"{type(error).__name__}: {error}"] += 1
        latencies.append((time.perf_counter() - began) * 1000)
        time.sleep(max(0, PROBE_EVERY_S - (time.perf_counter() - began)))


def good_side(stop, port):
    """Good clients and the prober. They are to measure the server, not the scheduler's view of this harness, so they go first
    where that is allowed; they need a few percent of a processor."""
    with contextlib.suppress(OSError):
        os.nice(-10)
    good, good_failures, probes, probe_failures = [], collections.Counter(), [], collections.Counter()
    threads = [threading.Thread(target=good_client, args=(stop, port, good, good_failures)) for _ in range(GOOD_CONNECTIONS)]
    threads.append(threading.Thread(target=prober, args=(stop, port, probes, probe_failures)))
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "answered": len(good), "per_s": round(len(good) / (time.monotonic() - began)), "failed": dict(good_failures),
        "p50_ms": percentile(good, 0.5), "p99_ms": percentile(good, 0.99), "max_ms": max(good, default=None),
        "probes": len(probes), "probes_failed": dict(probe_failures),
        "livez_p99_ms": percentile(probes, 0.99), "livez_max_ms": max(probes, default=None),
    }


def sampler(stop, group):
    """Peaks of what the kernel counts against the limit, and a series of one sample in ten."""
    with contextlib.suppress(OSError):
        os.nice(-5)
    peaks, series, taken, began = {}, [], 0, time.monotonic()
    host_before = host_socket_bytes()
    while not stop.wait(SAMPLE_EVERY_S):
        usage, sockets = group.usage(), group.sockets()
        working_set = usage - group.inactive_file()
        now = {"over": working_set + sockets - group.current_limit(), "usage": usage, "sockets": sockets, "total": usage + sockets, "working_set": working_set,
               "shmem": group.shmem(), "host_sockets": host_socket_bytes() - host_before, "under_oom": group.under_oom(), "oom_kills": group.oom_kills()}
        for name, value in now.items():
            peaks[name] = max(peaks.get(name, value), value)
        if taken % 10 == 0:
            series.append([round(time.monotonic() - began, 2), usage, sockets, now["shmem"], group.oom_kills()])
        taken += 1
    return {"peaks": peaks, "samples": taken, "series": series}


def assault_side(stop, port, names, clients, seed):
    return attacks.assault(port, names, clients, stop, seed)


def fill(directory, piece=MIB):
    """Writes files into the directory until it is full; what is left to be removed."""
    name = Path(directory) / f"somebody-else-{os.getpid()}"
    with open(name, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(b"\xa5" * piece)


# ---- The server ---------------------------------------------------------------------------------------------------------

def pss(pid):
    try:
        match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
        return int(match[1]) * 1024 if match else 0
    except OSError:
        return 0


class Target:
    """`nexus serve` in a memory group, with the examples as its handlers and CACHE_DIR on a tmpfs of its own."""

    def __init__(self, options, work):
        self.options, self.work, self.port, self.notes = options, Path(work), free_port(), []
        self.cleanup = contextlib.ExitStack()
        self.process = self.group = self.pid = None
        self.log_path = self.work / "log"
        self.cache = self.work / "cache"
        self.handlers = self.work / "handlers"

    def __enter__(self):
        try:
            self.prepare()
            self.launch()
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.cleanup.close()

    def prepare(self):
        shutil.copytree(ROOT / "examples/handlers", self.handlers)
        self.cache.mkdir()
        # cat, so that no page of a log file is charged to the group, and no thread of this process is needed
        self.log_reader, self.log_writer = os.pipe()
        log = open(self.log_path, "wb")
        self.cat = subprocess.Popen(["cat"], stdin=self.log_reader, stdout=log)
        log.close()
        os.close(self.log_reader)
        self.cleanup.callback(self.end_process, self.cat)

    def settings(self):
        chosen = dict(pair.split("=", 1) for pair in self.options.set)
        stores = {"memory": {}, "file": {"SUSPEND_STORE": f"file:{self.work}/suspended", "SUSPEND_KEY": "5a" * 32}}
        return {"HOST": "127.0.0.1", "PORT": str(self.port), "CACHE_DIR": str(self.cache), "HANDLERS_DIR": str(self.handlers),
                "SUSPEND_TTL_MS": SUSPENDED_FOR_MS, **stores[self.options.store], **chosen}

    def mount_cache(self, limit):
        bytes_ = self.options.cache_size or limit // 4
        command = ["mount", "-t", "tmpfs", "-o", f"size={bytes_},mode=0755", "nexus-siege", str(self.cache)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.notes.append(f"CACHE_DIR is on disk, not on a tmpfs: {done.stderr.strip()}")
            return
        self.cleanup.callback(subprocess.run, ["umount", "-l", str(self.cache)], check=False)

    def launch(self):
        self.group = Group.make(f"nexus-siege-{os.getpid()}-{self.port}", self.options.limit)
        self.cleanup.callback(self.group.remove)
        self.mount_cache(self.options.limit)
        self.process = subprocess.Popen(self.group.command([self.options.nexus, "serve"]), env={"PATH": os.environ.get("PATH", ""), **self.settings()},
                                        stdin=subprocess.DEVNULL, stdout=self.log_writer, stderr=self.log_writer, start_new_session=True)
        os.close(self.log_writer)
        self.pid = self.process.pid
        self.cleanup.callback(self.end_process, self.process)

    @staticmethod
    def end_process(process):
        if process.poll() is None:
            process.kill()
        process.wait()

    def wait_ready(self):
        deadline, buffer = time.monotonic() + 30, bytearray(65536)
        while time.monotonic() < deadline and self.alive():
            with contextlib.suppress(OSError), attacks.connect(self.port, 5) as connection:
                if ask(connection, attacks.request("GET", "/readyz"), buffer)[0] == 200:
                    return
            time.sleep(0.02)
        time.sleep(0.2)
        raise SystemExit(f"siege: the server does not become ready\n{self.log()[-3000:].decode(errors='replace')}")

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        """SIGTERM; its exit status, None if it does not end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        try:
            return self.process.wait(45)
        except subprocess.TimeoutExpired:
            return None

    def log(self):
        return self.log_path.read_bytes() if self.log_path.exists() else b""

    def fill_cache(self):
        """Somebody else in the same container fills the tmpfs."""
        script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import siege; siege.fill(sys.argv[1])"
        subprocess.run(self.group.command([sys.executable, "-c", script, str(self.cache)]), check=False)

    def unfill_cache(self):
        for file in self.cache.glob("somebody-else-*"):
            file.unlink()

    def oom_kills(self):
        return self.group.oom_kills()

    def cache_bytes(self):
        return sum(file.stat().st_blocks * 512 for file in self.cache.rglob("*") if file.is_file())


# ---- One run ------------------------------------------------------------------------------------------------------------

class Run:
    def __init__(self, options, target, names, seed):
        self.options, self.target, self.names, self.seed = options, target, names, seed
        self.clients = max([options.clients, *(attacks.SCENARIO_CLIENTS.get(name, 0) for name in names)])
        self.result = {"attack": names, "limit": options.limit, "seconds": options.seconds, "clients": self.clients,
                       "podman": options.podman, "store": options.store, "lower": options.lower, "fill_cache": options.fill_cache, "settings": options.set, "died_after_s": None}

    def baseline(self):
        group = self.target.group
        time.sleep(self.options.settle)
        self.floor = {"usage": group.usage(), "pss": pss(self.target.pid)}
        self.result["floor"] = self.floor
        good = Beside(good_side, self.target.port)
        time.sleep(self.options.baseline)
        self.result["alone"] = good.finish()

    def attack(self):
        beside = {"samples": Beside(sampler, self.target.group), "good": Beside(good_side, self.target.port)}
        try:
            if self.options.lower:
                self.attack_and_lower()
            else:
                self.assault(self.options.seconds)
            self.result.update({name: beside.pop(name).finish() for name in ("good", "samples")})
        finally:
            for process in beside.values():
                process.stop.set()
                process.end()
        group = self.target.group
        self.result["kernel_peak"], self.result["limit_hits"] = group.peak(), group.limit_hits()

    def assault(self, seconds, each_turn=lambda: None):
        """Attackers for that time, less if the server dies."""
        attackers = Beside(assault_side, self.target.port, self.names, self.clients, self.seed)
        try:
            self.watch(seconds, each_turn)
        finally:
            tally = self.result.setdefault("attacks", {})
            for name, counts in (attackers.finish() or {}).items():
                tally[name] = dict(collections.Counter(tally.get(name, {})) + collections.Counter(counts))

    def attack_and_lower(self):
        """v1 refuses a limit below the usage, without a trace that the server could see. So it is tried while the attack goes on, then
        without attackers while good requests go on, and then the attack is resumed."""
        began = taken = None

        def lower():
            nonlocal began, taken
            began = began or time.monotonic()
            if taken is None and self.target.group.try_limit(self.options.lower[1]):
                taken = round(time.monotonic() - began, 2)

        quarter = self.options.seconds / 4
        self.assault(quarter)
        self.assault(quarter, lower)
        while taken is None and self.target.alive() and time.monotonic() - began < quarter + FLOOR_SECONDS:
            lower()
            time.sleep(0.1)
        self.result["lowered_after_s"] = taken
        if taken is not None:
            self.assault(2 * quarter)

    def watch(self, seconds, each_turn):
        """Waits while an attack goes on; notes when the server died."""
        began, asked, filled = time.monotonic(), 0, not self.options.fill_cache
        while (elapsed := time.monotonic() - began) < seconds and self.result["died_after_s"] is None:
            if not self.target.alive():
                self.result["died_after_s"] = round(elapsed, 1)
                return
            if elapsed - asked > 1:
                asked = elapsed
                self.ask_ledger()
            if not filled and elapsed > seconds / 4:
                filled = True
                self.target.fill_cache()
            each_turn()
            time.sleep(0.1)

    def ask_ledger(self):
        """Peaks of what the server itself counts, to compare with what the kernel counts; and why it is not healthy."""
        with contextlib.suppress(OSError, ValueError, KeyError), attacks.connect(self.target.port, 2) as connection:
            health = json.loads(ask(connection, attacks.request("GET", "/health"), bytearray(65536))[1])
            peaks = self.result.setdefault("ledger_peaks", {})
            for layer, value in health["memory"]["layers"].items():
                peaks[layer] = max(peaks.get(layer, 0), value)
            reasons = self.result.setdefault("health_reasons", {})
            for reason in health["reasons"]:
                reason = re.sub(r"\d+", "N", reason)
                reasons[reason] = reasons.get(reason, 0) + 1

    def recover(self):
        """Until memory is back at the floor; seconds, or None."""
        if self.options.fill_cache:
            self.target.unfill_cache()
        group, began = self.target.group, time.monotonic()
        while self.target.alive():
            elapsed = time.monotonic() - began
            now = {"usage": group.usage(), "pss": pss(self.target.pid), "sockets": group.sockets(), "cache": self.target.cache_bytes()}
            self.result["after"] = now
            if now["usage"] <= self.floor["usage"] + FLOOR_SLACK and now["pss"] <= self.floor["pss"] + FLOOR_SLACK:
                return round(elapsed, 1)
            if elapsed > self.options.recovery:
                break
            time.sleep(0.25)
        return None

    def go(self):
        self.baseline()
        self.attack()
        self.result["floor_after_s"] = self.recover()
        alive, began = self.target.alive(), time.monotonic()
        self.result["oom_kills"] = max(self.target.oom_kills(), (self.result["samples"] or {}).get("peaks", {}).get("oom_kills", 0))
        status = self.target.stop()
        self.result["exit_status"], self.result["stopped_in_s"] = status, round(time.monotonic() - began, 1)
        self.result["same_process"] = alive
        time.sleep(0.1)
        log = self.target.log()
        self.result["log_bytes"] = len(log)
        self.result["crash_lines"] = [line.decode(errors="replace")[:400] for line in log.splitlines()
                                      if CRASH.search(line) and b"handler log" not in line][:20]
        self.result["notes"] = [*self.target.notes, f"sockets: {self.target.group.how_sockets()}"]
        self.result["failures"] = judge(self.result, self.options)
        return self.result


def judge(result, options):
    """What does not hold, as sentences; empty when the siege was stood."""
    good, samples = result.get("good") or {}, result.get("samples") or {"peaks": {}}
    peaks = samples["peaks"]
    failed, failed_probes = sum(good.get("failed", {}).values()), sum(good.get("probes_failed", {}).values())
    p99, livez = good.get("p99_ms"), good.get("livez_max_ms")
    checks = [
        (result["oom_kills"] == 0, f"{result['oom_kills']} OOM kills"),
        (result["same_process"], "the server ended" + (f" after {result['died_after_s']} s" if result["died_after_s"] else "")),
        (peaks.get("over", 0) <= 0, f"{peaks.get('over', 0) / MIB:.1f} MiB over the limit with sockets"),
        (good.get("answered"), "no good request was answered"),
        (failed == 0, f"{failed} of {failed + good.get('answered', 0)} good requests failed"),
        (p99 is not None and p99 <= options.p99_ms, f"p99 of good requests {p99 or 0:.1f} ms"),
        (failed_probes == 0, f"{failed_probes} of {good.get('probes')} probes failed"),
        (livez is not None and livez <= options.livez_ms, f"/livez took {livez or 0:.0f} ms"),
        (result["floor_after_s"] is not None, "memory did not come back to the floor"),
        (result.get("lowered_after_s", 0) is not None, "the limit could not be lowered"),
        (result["exit_status"] == 0, f"exit status {result['exit_status']}"),
        (not result["crash_lines"], "crash in the log"),
    ]
    return [text for holds, text in checks if not holds]


def one_run(options, names, seed=1):
    """Starts a server, besieges and stops it: the result as plain data. Raises Unavailable where memory groups are not allowed."""
    maker = Target
    if options.podman:
        from podman_target import PodmanTarget
        maker = PodmanTarget
    with tempfile.TemporaryDirectory(prefix="nexus-siege-") as work:
        with maker(options, work) as target:
            return Run(options, target, names, seed).go()


# ---- The command line ---------------------------------------------------------------------------------------------------

HEAD = ("attack", "limit", "kills", "usage", "+sock", "hits", "good/s", "failed", "p50", "p99", "alone", "livez", "floor s", "verdict")
WIDTHS = (18, 7, 5, 6, 6, 7, 6, 7, 6, 7, 6, 6, 7, 0)


def row(result):
    good, samples, alone = result.get("good") or {}, result.get("samples") or {"peaks": {}}, result.get("alone") or {}
    peaks = samples["peaks"]
    name = "+".join(result["attack"]) if len(result["attack"]) < 3 else "all" if len(result["attack"]) >= len(attacks.NAMES) else f"{len(result['attack'])} attacks"
    name += " file" if result["store"] == "file" else " podman" if result["podman"] else " filled" if result["fill_cache"] else ""
    limit = ":".join(str(limit // MIB) for limit in result["lower"] or [result["limit"]])

    def ms(value):
        return "–" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"
    return (name, limit, result["oom_kills"], f"{max(peaks.get('usage', 0), result['kernel_peak']) / MIB:.0f}",
            f"{max(peaks.get('total', 0), result['kernel_peak']) / MIB:.0f}", result["limit_hits"], good.get("per_s", "–"), sum(good.get("failed", {}).values()),
            ms(good.get("p50_ms")), ms(good.get("p99_ms")), ms(alone.get("p99_ms")), ms(good.get("livez_max_ms")),
            "–" if result["floor_after_s"] is None else result["floor_after_s"], "; ".join(result["failures"]) or "stood")


def print_row(cells):
    print("  ".join(f"{str(cell):<{WIDTHS[i]}}" if i in (0, len(cells) - 1) else f"{str(cell):>{WIDTHS[i]}}"
                    for i, cell in enumerate(cells)).rstrip(), flush=True)


def parse(argv=None):
    parser = argparse.ArgumentParser(description="nexus under attack in a memory group.")
    parser.add_argument("--nexus", default=os.environ.get("NEXUS", str(ROOT / "build/nexus")))
    parser.add_argument("--limit", type=size, default=256 * MIB, help="of the memory group (256Mi)")
    parser.add_argument("--seconds", type=float, default=60, help="length of the attack")
    parser.add_argument("--clients", type=int, default=8, help="hostile clients that send requests")
    parser.add_argument("--attack", action="append", choices=[*attacks.NAMES, *attacks.SCENARIOS], metavar="NAME",
                        help="only this one (repeatable): " + " ".join([*attacks.NAMES, *attacks.SCENARIOS]))
    parser.add_argument("--each", action="store_true", help="a run for each attack alone")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--lower", type=lowering, metavar="FROM:TO", help="lower the limit while attacked (512Mi:200Mi)")
    parser.add_argument("--fill-cache", action="store_true", help="fill the tmpfs of CACHE_DIR meanwhile")
    parser.add_argument("--cache-size", type=size, help="of that tmpfs; default: a quarter of the limit")
    parser.add_argument("--podman", action="store_true", help="in a container (podman, runc, buildah)")
    parser.add_argument("--store", choices=["memory", "file"], default="memory", help="of suspended executions")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of nexus (repeatable)")
    parser.add_argument("--p99-ms", type=float, default=20, help="judged p99 of good requests")
    parser.add_argument("--livez-ms", type=float, default=500, help="judged longest answer of /livez")
    parser.add_argument("--settle", type=float, default=2, help="seconds before the floor is taken")
    parser.add_argument("--baseline", type=float, default=3, help="seconds of good requests alone")
    parser.add_argument("--recovery", type=float, default=FLOOR_SECONDS, help="seconds in which memory must be back at the floor")
    parser.add_argument("--json", help="the results with all samples")
    options = parser.parse_args(argv)
    if options.lower:
        options.limit = options.lower[0]
    options.nexus = str(Path(options.nexus).resolve())
    return options


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that groups and mounts are removed
    plans = [[name] for name in options.attack or [*attacks.NAMES, *attacks.SCENARIOS]] if options.each else [options.attack or attacks.NAMES]
    results = []
    print_row(HEAD)
    for names in plans:
        for i in range(options.runs):
            try:
                results.append(one_run(options, names, seed=1 + i * 1000))
            except Unavailable as reason:
                print(f"siege: skipped: {reason}")
                sys.exit(77)
            print_row(row(results[-1]))
            if options.json:
                Path(options.json).write_text(json.dumps(results, indent=1))
    for note in dict.fromkeys(note for result in results for note in result["notes"]):
        print(f"note: {note}")
    sys.exit(1 if any(result["failures"] for result in results) else 0)


if __name__ == "__main__":
    main()
