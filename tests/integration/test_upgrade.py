# SPDX-License-Identifier: Apache-2.0
"""Two releases with different guests on one store, as docs/suspend.md has it under Upgrades.

The other release is this binary with another digit in the hash of its guest, which the guest id is made of."""
import re
import shutil
import signal

import pytest

import conftest
from conftest import nexus, wait_until
from store_support import shared_store  # noqa: F401: a fixture
from suspend_support import ALL, EXTENSIONS, resume, success

HASH = re.compile(rb"(?<=\0)[0-9a-f]{64}(?=\0)")
KEY = "ab" * 32


def guest_id():
    return re.search(r"^guest ([0-9a-f]{64})$", nexus("version").stdout, re.M)[1]


@pytest.fixture
def other_release(tmp_path, monkeypatch):
    """From here on servers are of the other release; undo() goes back."""
    program = tmp_path / "nexus"
    shutil.copy(conftest.NEXUS, program)
    program.write_bytes(HASH.sub(lambda found: found[0][:-1] + (b"1" if found[0].endswith(b"0") else b"0"), program.read_bytes()))
    monkeypatch.setattr(conftest, "NEXUS", str(program))
    return monkeypatch


def test_each_release_resumes_its_own(start, tmp_path, other_release):
    settings = {"SUSPEND_STORE": f"file:{tmp_path / 'store'}", "SUSPEND_KEY": KEY}
    waits = {"code": "return await $ext.x.ask()", "capabilities": ALL, "extensions": EXTENSIONS}
    old_guest, old = guest_id(), start(settings)
    suspended = [old.execute(**waits)["suspension"]["suspensionId"] for _ in range(2)]
    other_release.undo()
    new_guest, new = guest_id(), start(settings)
    assert old_guest != new_guest

    detail = resume(new, suspended[0], success(1)).problem(409, "CONFLICT")["detail"]
    assert old_guest in detail and new_guest in detail
    assert 'nexus_resumes_total{outcome="conflict"} 1\n' in new.get("/metrics").body.decode()
    looked_up = new.get(f"/v1/resume/{suspended[0]}").json()
    assert looked_up["status"] == "suspended" and looked_up["suspension"]["method"] == "ask"
    assert resume(old, suspended[0], success("at home")).json()["returnValue"] == "at home"
    assert new.get(f"/v1/resume/{suspended[0]}").json()["returnValue"] == "at home"

    assert new.delete(f"/v1/resume/{suspended[1]}").status == 204
    resume(old, suspended[1], success(1)).problem(410, "GONE")


TIMER = {"code": "return await Promise.race([$ext.x.ask(), $ext.time.sleep(2000).then(() => 'woken')])", "capabilities": ALL,
         "extensions": EXTENSIONS}


def metric(server, name):
    return int(re.search(rf"^{re.escape(name)} (\d+)$", server.get("/metrics").body.decode(), re.M)[1])


def begin_and_kill(server, count):
    """Executions that a timer wakes, of a server that is not there when it does."""
    names = [server.execute(**TIMER)["suspension"]["suspensionId"] for _ in range(count)]
    server.signal(signal.SIGKILL)
    server.wait_end()
    return names


def test_those_of_another_guest_are_counted_and_left_alone(start, shared_store, other_release):
    settings = {**shared_store, "TIMEOUT_MS": 1000, "QUEUE_TIMEOUT_MS": 1000}
    foreign = begin_and_kill(start(settings, name="old"), 3)
    other_release.undo()
    own = begin_and_kill(start(settings, name="killed"), 2)
    assert len({name[:4] for name in foreign}) == len({name[:4] for name in own}) == 1
    assert foreign[0][:4] != own[0][:4]
    doctor = nexus("doctor", settings=settings).stdout
    assert re.search("WARN +suspended executions +5 wait, 3 of them for another guest", doctor), doctor

    server = start(settings, name="new")
    wait_until(lambda: metric(server, "nexus_suspended_foreign_executions") == 3)
    for name in own:
        wait_until(lambda: server.get(f"/v1/resume/{name}").json()["status"] == "success", 20, "the timer")
    assert metric(server, 'nexus_resumes_total{outcome="conflict"}') == 0
    wait_until(lambda: metric(server, "nexus_suspended_executions") == 3)
    assert server.delete(f"/v1/resume/{foreign[0]}").status == 204
    wait_until(lambda: metric(server, "nexus_suspended_foreign_executions") == 2)
    assert [server.get(f"/v1/resume/{name}").json()["status"] for name in foreign[1:]] == ["suspended"] * 2
