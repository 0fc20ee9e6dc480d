# SPDX-License-Identifier: Apache-2.0
"""Handlers and sources in a store that others can read and write: nothing can be read, and nothing forged is used."""
import pytest

from store_forgery import FileEntries, RedisEntries
from store_support import (KEY, ORDER, OTHER_KEY, RIGHTS, answer, finish_order, resume, settings_of,  # noqa: F401
                           shared_store, suspend)

GRANTS = {"capabilities": ["ext:unmistakable"], "extensions": {"unmistakable": []}}
REFUSED = "a handler of the store is not used"


@pytest.fixture
def entries(shared_store, request):
    is_file = shared_store["SUSPEND_STORE"].startswith("file:")
    return FileEntries(shared_store) if is_file else RedisEntries(request.getfixturevalue("redis"))


def names(server):
    return sorted(handler["name"] for handler in server.get("/v1/handlers").json()["handlers"])


def test_nothing_readable(start, shared_store, entries):
    server = start(shared_store)
    server.install("h", "return 'unmistakable text'", GRANTS)
    suspend(server, "return 'unmistakable ' + await $ext.pay.charge(1)")
    source_hash, = (handler["hash"] for handler in server.get("/v1/handlers").json()["handlers"])
    everything = entries.everything()
    assert len(entries.read("sources")) == 2
    for text in b"unmistakable", b"return", b"capabilities", source_hash.encode(), bytes.fromhex(source_hash):
        assert text not in everything, text


def flip(sealed, place):
    flipped = bytearray(sealed)
    flipped[place] ^= 1
    return bytes(flipped)


@pytest.mark.parametrize("forge", [
    pytest.param(lambda own, other: other, id="exchanged"),
    pytest.param(lambda own, other: flip(own, -1), id="tag"),
    pytest.param(lambda own, other: flip(own, 40), id="nonce"),
    pytest.param(lambda own, other: flip(own, 3), id="key"),
    pytest.param(lambda own, other: own[:20], id="cut"),
    pytest.param(lambda own, other: b"", id="empty"),
    pytest.param(lambda own, other: b'{"capabilities":["*"]}', id="plain"),
])
def test_forged_handlers_are_as_if_not_there(start, shared_store, entries, forge):
    first = start(shared_store, name="first")
    first.install("own", "return 'own'")
    first.install("other", "return 'other'", GRANTS)
    first.install("good", "return 'good'")
    sealed = entries.read("handlers")
    entries.write("handlers", "own", forge(sealed["own"], sealed["other"]))
    second = start(shared_store, name="second")
    second.run("own").problem(404, "HANDLER_NOT_FOUND")
    assert names(second) == ["good", "other"] and second.run("other").json() == "other"
    for text in "again", "and again":  # a change of another one has all of them looked at
        first.install("good", f"return '{text}'")
        assert second.run("good").json() == text
    for server in first, second:
        server.run("own").problem(404, "HANDLER_NOT_FOUND")
        assert server.log().count(REFUSED) == 1 and "handler=own" in server.log()
    assert second.put("own", "return 'healed'").status == 201
    assert first.run("own").json() == second.run("own").json() == "healed"


def test_forged_sources_are_not_used(start, shared_store, entries, tmp_path):
    server = start(shared_store)
    server.install("h", "return 'h'")
    server.install("g", "return 'g'")
    server.stop()
    one, two = (entries.read("sources")[name] for name in sorted(entries.read("sources")))
    for name, forged in zip(sorted(entries.read("sources")), (two, one)):
        entries.write("sources", name, forged)
    server = start({**shared_store, "CACHE_DIR": tmp_path / "empty"})
    for _ in range(2):
        detail = server.run("h").problem(404, "HANDLER_NOT_FOUND")["detail"]
        assert "PUT it again" in detail
    server.get("/v1/handlers/h").problem(404, "HANDLER_NOT_FOUND")
    assert server.log().count("a source of the store is not used") == 1
    assert server.put("h", "return 'h'").status == 200
    server.stop()
    server = start({**shared_store, "CACHE_DIR": tmp_path / "emptier"})
    assert server.run("h").json() == "h"


def test_another_key(start, shared_store):
    ours = start(shared_store, name="ours")
    ours.install("h", "return 1")
    theirs = start({**shared_store, "SUSPEND_KEY": OTHER_KEY}, name="theirs")
    theirs.run("h").problem(404, "HANDLER_NOT_FOUND")
    assert REFUSED in theirs.log() and "SUSPEND_KEY_PREVIOUS" in theirs.log()
    assert ours.run("h").json() == 1


def test_keys_are_changed(start, shared_store, tmp_path):
    """As docs/suspend.md has it, over two replicas."""
    old = start({**shared_store, "SUSPEND_KEY": KEY, "SUSPEND_KEY_PREVIOUS": OTHER_KEY}, name="old")
    old.install("before", "return 'before'", GRANTS)
    order = suspend(old, ORDER, args={"n": 1})["suspensionId"]
    both = {**shared_store, "SUSPEND_KEY": OTHER_KEY, "SUSPEND_KEY_PREVIOUS": KEY}
    new = start({**both, "CACHE_DIR": tmp_path / "new"}, name="new")
    old.install("meanwhile", "return 'meanwhile'")
    new.install("after", "return 'after'")
    for server in old, new:
        for name in "before", "meanwhile", "after":
            assert server.run(name).json() == name
    assert new.request("PUT", "/v1/handlers/meanwhile/grants", GRANTS).status == 201
    assert old.request("PUT", "/v1/handlers/after/grants", GRANTS).status == 201
    assert resume(new, order, {"id": 10})["status"] == "suspended"
    old.stop()
    assert names(start({**both, "CACHE_DIR": tmp_path / "last"}, name="last")) == ["after", "before", "meanwhile"]
    new.stop()
    only = start({**shared_store, "SUSPEND_KEY": OTHER_KEY, "CACHE_DIR": tmp_path / "only"}, name="only")
    for name in "before", "meanwhile", "after":
        assert only.run(name).json() == name
        assert only.get(f"/v1/handlers/{name}/grants").json() == GRANTS
    assert resume(only, order, "ok")["returnValue"] == {"seen": [1, 10], "refunded": "ok"}
    assert "could not be sealed" not in only.log() and REFUSED not in only.log()
