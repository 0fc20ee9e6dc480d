# SPDX-License-Identifier: Apache-2.0
"""CACHE_DIR: what was compiled once need not be compiled again, and nothing that lies there can do harm."""
import os

import pytest

from conftest import wait_until

CODE = "const t = Array.from({length: 100}, (_, i) => i); export default (a) => t[a] + 1"


def files(cache):
    return sorted(path for path in cache.iterdir() if path.is_file())


def size(cache):
    """Bytes of all files; some may be deleted meanwhile."""
    total = 0
    for path in cache.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            pass
    return total


def compile_all(server, count=20):
    for i in range(count):
        assert server.value(f"return {i} + 1") == i + 1


def test_restart_with_the_same_cache(start, tmp_path):
    cache = tmp_path / "cache"
    first = start({"CACHE_DIR": cache}, handlers={"h.js": CODE})
    assert first.execute("return 'inline'")["metrics"]["cacheHit"] is False
    assert first.value(handler="h", args=4) == 5
    wait_until(lambda: len(files(cache)) == 2, what="the files")
    first.stop()
    second = start({"CACHE_DIR": cache}, handlers={"h.js": CODE})
    result = second.execute("return 'inline'")
    assert (result["returnValue"], result["metrics"]["cacheHit"], result["metrics"]["compilationTimeUs"]) == ("inline", True, 0)
    assert second.value(handler="h", args=4) == 5
    assert second.execute("return 'other'")["metrics"]["cacheHit"] is False


def test_two_servers_share_a_directory(start, tmp_path):
    servers = [start({"CACHE_DIR": tmp_path / "cache"}) for _ in range(2)]
    for server in servers:
        compile_all(server)
    for server in servers:
        compile_all(server)


def overwrite(path, data):
    path.write_bytes(data)


DAMAGE = {
    "empty": lambda path, data: overwrite(path, b""),
    "half": lambda path, data: overwrite(path, data[:len(data) // 2]),
    "one byte short": lambda path, data: overwrite(path, data[:-1]),
    "one byte long": lambda path, data: overwrite(path, data + b"x"),
    "header flipped": lambda path, data: overwrite(path, bytes([data[0] ^ 1]) + data[1:]),
    "middle flipped": lambda path, data: overwrite(path, data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 0x80]) + data[len(data) // 2 + 1:]),
    "end flipped": lambda path, data: overwrite(path, data[:-1] + bytes([data[-1] ^ 1])),
    "zeros": lambda path, data: overwrite(path, bytes(len(data))),
    "noise": lambda path, data: overwrite(path, bytes(i * 7 % 256 for i in range(len(data)))),
    "text": lambda path, data: overwrite(path, b"not an image\n"),
    "huge": lambda path, data: os.truncate(path, 1 << 32),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_replaced(start, tmp_path, name):
    cache = tmp_path / "cache"
    first = start({"CACHE_DIR": cache})
    compile_all(first, 4)
    first.stop()
    for path in files(cache):
        DAMAGE[name](path, path.read_bytes())
    second = start({"CACHE_DIR": cache})
    compile_all(second, 4)
    second.stop()
    third = start({"CACHE_DIR": cache})
    hits = [third.execute(f"return {i} + 1")["metrics"]["cacheHit"] for i in range(4)]
    assert hits == [True] * 4


def test_files_under_each_others_names(start, tmp_path):
    cache = tmp_path / "cache"
    first = start({"CACHE_DIR": cache})
    compile_all(first, 2)
    first.stop()
    one, two = files(cache)
    os.rename(one, cache / "swap")
    os.rename(two, one)
    os.rename(cache / "swap", two)
    compile_all(start({"CACHE_DIR": cache}), 2)


def test_foreign_files(start, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "notes.txt").write_text("mine")
    (cache / "folder").mkdir()
    os.symlink("/etc/passwd", cache / "link")
    os.mkfifo(cache / "pipe")
    server = start({"CACHE_DIR": cache})
    compile_all(server)
    assert (cache / "notes.txt").read_text() == "mine"


def test_links_in_the_place_of_files_are_not_followed(start, tmp_path):
    cache, victim = tmp_path / "cache", tmp_path / "victim"
    victim.write_text("precious")
    first = start({"CACHE_DIR": cache})
    compile_all(first, 3)
    first.stop()
    for path in files(cache):
        path.unlink()
        os.symlink(victim, path)
    compile_all(start({"CACHE_DIR": cache}), 3)
    assert victim.read_text() == "precious"


def test_size_is_bounded(start, tmp_path):
    cache = tmp_path / "cache"
    server = start({"CACHE_DIR": cache, "CACHE_MAX_MB": 1})
    for i in range(60):
        assert server.value(f"const t = Array.from({{length: 3000}}, (_, i) => 'entry ' + i + {i}); export default () => t.length") == 3000
        assert size(cache) <= 1 << 20
    wait_until(lambda: files(cache), what="a file")
    assert server.health()["memory"]["layers"]["cache"] <= 1 << 20


def test_smaller_bound_after_a_restart(start, tmp_path):
    cache = tmp_path / "cache"
    first = start({"CACHE_DIR": cache, "CACHE_MAX_MB": 64})
    for i in range(40):
        first.value(f"const t = Array.from({{length: 3000}}, (_, i) => 'entry ' + i + {i}); export default () => t.length")
    first.stop()
    assert size(cache) > 1 << 20
    start({"CACHE_DIR": cache, "CACHE_MAX_MB": 1})
    assert size(cache) <= 1 << 20


def test_emptied_while_running(start, tmp_path):
    cache = tmp_path / "cache"
    server = start({"CACHE_DIR": cache})
    compile_all(server, 5)
    for path in files(cache):
        path.unlink(missing_ok=True)  # one of them may be a file that is just being published
    compile_all(server, 10)
    os.rename(cache, tmp_path / "moved")
    assert server.value("return 'after'") == "after"


@pytest.mark.parametrize("place", ["a file", "below a file", "/proc/nexus-cache"])
def test_directory_that_cannot_be_used_only_costs(start, tmp_path, place):
    (tmp_path / "file").write_text("x")
    where = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "cache"}.get(place, place)
    server = start({"CACHE_DIR": where})
    compile_all(server)
    assert server.health()["status"] == "healthy"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to directories of mode 0500")
def test_read_only_directory_only_costs(start, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o500)
    compile_all(start({"CACHE_DIR": cache}))
