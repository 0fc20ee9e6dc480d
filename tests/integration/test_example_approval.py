# SPDX-License-Identifier: Apache-2.0
"""examples/approval/README.md, typed block by block: `nexus serve` again means that the running one is killed first."""
import json
import os
import re
import shutil
import subprocess

import pytest

from conftest import ROOT, SLOWNESS

README = ROOT / "examples" / "approval" / "README.md"
BLOCK = re.compile(r"^```(sh|json)\n(.*?)^```$", re.M | re.S)
SETTINGS = ("SUSPEND_STORE", "SUSPEND_KEY", "SUSPEND_TTL_MS")


def bash(text, **variables):
    run = subprocess.run(["bash", "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=30 * SLOWNESS,
                         env={"PATH": os.environ["PATH"], **variables})
    assert run.returncode == 0, f"{text}\n{run.stderr}"
    return run.stdout


def contains(shown, got):
    """What the README shows of a reply is in it; … stands for anything."""
    if shown == "…":
        return True
    if isinstance(shown, dict):
        return isinstance(got, dict) and all(key in got and contains(value, got[key]) for key, value in shown.items())
    if isinstance(shown, list):
        return isinstance(got, list) and len(shown) == len(got) and all(map(contains, shown, got))
    return shown == got


class Reader:
    """Who follows the README: has a server, the id from `Location`, and the last reply."""

    def __init__(self, start, directory):
        self.start, self.directory = start, directory
        self.server = self.reply = None
        self.settings, self.id, self.servers = {}, "", 0

    def export(self, block):
        text = block.replace("/tmp/approval", str(self.directory)) + "\nenv"
        values = dict(line.split("=", 1) for line in bash(text).splitlines() if "=" in line)
        self.settings = {"HANDLERS_DIR": ROOT / values["HANDLERS_DIR"], **{name: values[name] for name in SETTINGS}}

    def serve(self):
        if self.server:
            self.server.process.kill()
            self.server.wait_end()
        self.server = self.start(self.settings)
        self.servers += 1

    def ask(self, block):
        out = bash(block.replace("127.0.0.1:3000", f"127.0.0.1:{self.server.port}"), ID=self.id)
        head, _, body = out.rpartition("\n\n")
        location = re.search(r"^Location: /v1/resume/(\w+)", head, re.M)
        if location:
            assert head.startswith("HTTP/1.1 202 ")
            self.id = location[1]
        self.reply = json.loads(body)

    def type(self, block):
        if block.startswith("export "):
            self.export(block)
        elif block.startswith("build/nexus serve"):
            self.serve()
        else:
            self.ask(block)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_readme(start, tmp_path):
    reader = Reader(start, tmp_path / "store")
    for kind, block in BLOCK.findall(README.read_text()):
        if kind == "sh":
            reader.type(block)
        else:
            assert contains(json.loads(block), reader.reply), (block, reader.reply)
    assert reader.servers == 3 and reader.reply["code"] == "GONE"


@pytest.mark.parametrize("amount, asked, answers, approved", [
    (50, 0, [], True), (500, 1, [True], True), (500, 1, [False], False), (500, 1, ["yes"], False), (5000, 1, [False], False),
    (5000, 2, [True, False], False),
])
def test_decisions(start, amount, asked, answers, approved):
    server = start({"HANDLERS_DIR": README.parent})
    result = server.run("purchase", {"item": "chair", "amount": amount, "requester": "kim"}).json()
    for answer in answers:
        name = result["suspension"]["suspensionId"]
        result = server.request("POST", f"/v1/resume/{name}", {"success": True, "value": {"approved": answer}}).json()
    result = result.get("returnValue", result)
    assert result["approved"] is approved and len(result["decisions"]) == asked
