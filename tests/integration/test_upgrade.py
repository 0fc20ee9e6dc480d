# SPDX-License-Identifier: Apache-2.0
"""Two releases with different guests on one store, as docs/suspend.md has it under Upgrades.

The other release is this binary with another digit in the hash of its guest, which the guest id is made of."""
import re
import shutil

import pytest

import conftest
from conftest import nexus
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
