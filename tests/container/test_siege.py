# SPDX-License-Identifier: Apache-2.0
"""Short sieges: nexus in a memory group of its own, attacked from all sides, is not OOM-killed, answers every good request, gives the
memory back and stops as it should. siege.py in this directory is the whole of it, with longer runs and judged times; times are only
printed here. Where memory groups (or podman) are not allowed, the tests are skipped and say why.
"""
import os
import pathlib
import subprocess
import sys

import pytest

import siege
from memory_group import Group, Unavailable

NEXUS = os.environ.get("NEXUS", str(siege.ROOT / "build" / "nexus"))
SLOWNESS = float(os.environ.get("NEXUS_TEST_SLOWNESS", "1"))
SANITIZED = b"__asan_init" in pathlib.Path(NEXUS).read_bytes()
pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer's memory is not the server's")

SMALL = ["--set", "MEMORY_LIMIT_MB=8"]


def besiege(*arguments):
    """A short run that must be stood, whatever its times."""
    options = siege.parse(["--nexus", NEXUS, "--seconds", "6", "--settle", "1", "--baseline", "1", "--p99-ms", "inf",
                           "--livez-ms", str(5000 * SLOWNESS), "--set", "IDLE_TRIM_MS=3000", *arguments])
    try:
        result = siege.one_run(options, options.attack or siege.attacks.NAMES)
    except Unavailable as reason:
        pytest.skip(str(reason))
    siege.print_row(siege.HEAD)
    siege.print_row(siege.row(result))
    details = {key: value for key, value in result.items() if key not in ("samples", "attack")}
    assert not result["failures"], f"{'; '.join(result['failures'])}: {details}"
    return result


@pytest.fixture
def group():
    try:
        group = Group.make(f"nexus-siege-test-{os.getpid()}", 32 << 20)
    except Unavailable as reason:
        pytest.skip(str(reason))
    yield group
    group.remove()


def test_the_yardstick_sees_an_oom_kill(group):
    hog = subprocess.run(group.command([sys.executable, "-c", "x = bytearray(64 << 20)"]), check=False)
    assert hog.returncode == -9
    assert group.oom_kills() == 1
    assert group.peak() > 30 << 20


def test_the_yardstick_sees_socket_memory(group):
    script = "import socket\na, b = socket.socket(), socket.socket()\na.bind(('127.0.0.1', 0)); a.listen(); b.connect(a.getsockname())\n" \
             "c, _ = a.accept(); c.setblocking(False)\ntry:\n while True: c.send(bytes(65536))\nexcept BlockingIOError: print(flush=True)\ninput()"
    with subprocess.Popen(group.command([sys.executable, "-c", script]), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert group.sockets() > 64 << 10 or group.version == 2
        process.communicate(b"\n")


def test_the_files_of_a_v2_group(tmp_path):
    files = {"memory.current": "1048576\n", "memory.peak": "2097152\n", "memory.max": "max\n",
             "memory.stat": "anon 4096\nfile 9000\nshmem 8192\ninactive_file 12288\n",
             "memory.events": "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    group = Group(2, tmp_path, owned=False)
    assert (group.usage(), group.peak(), group.shmem(), group.inactive_file()) == (1 << 20, 2 << 20, 8192, 12288)
    assert (group.oom_kills(), group.limit_hits(), group.sockets(), group.under_oom()) == (1, 7, 0, 0)
    assert group.try_limit(3 << 20) and group.current_limit() == 3 << 20


@pytest.mark.parametrize("arguments", [("--limit", "256Mi"), ("--limit", "128Mi"), ("--limit", "64Mi", *SMALL)], ids=lambda a: " ".join(a))
def test_all_attacks_at_once(arguments):
    besiege(*arguments)


def test_twenty_clients_with_large_bodies_and_large_results():
    besiege("--attack", "bulk")


@pytest.mark.parametrize("store", ["memory", "file"])
def test_sixteen_clients_that_fill_memory_and_wait(store):
    besiege("--attack", "hoarders", "--store", store)


@pytest.mark.parametrize("attack", ["spin", "half-bodies", "slow-readers", "connections"])
def test_what_holds_something(attack):
    besiege("--attack", attack, "--seconds", "4")


def test_the_limit_is_lowered_meanwhile():
    besiege("--lower", "512Mi:200Mi")


def test_somebody_else_fills_the_cache_directory():
    besiege("--fill-cache")


def test_in_a_container():
    besiege("--podman", "--limit", "64Mi", *SMALL)
