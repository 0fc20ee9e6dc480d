# SPDX-License-Identifier: Apache-2.0
"""docs/operations.md, read as its readers do: every command in it, in its order, in a copy of the checkout. The cluster is the pod
of the manifests that the reader applies (./kubectl says how); nexus, curl, openssl and the rest are the real ones. What is
shown below a command must be in its output, line by line; "…" stands for lines that are left out."""
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from conftest import NEXUS, RENDER, ROOT, Manifest
from pod import Pod, change

GUIDE = ROOT / "docs/operations.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`((?:kubectl|curl|nexus) [^`…]+)`")


def steps():
    """(command, what is shown below it), of code blocks and of lines of tables."""
    found, text = [], GUIDE.read_text()
    for block in BLOCK.finditer(text):
        if block[1] == "sh":
            found.append([block.start(), block[2], ""])
        elif block[1] in ("", "json"):
            found[-1][2] = block[2]
    outside = BLOCK.sub(lambda block: " " * len(block[0]), text)
    found += [[inline.start(), inline[1], ""] for inline in INLINE.finditer(outside)]
    return [tuple(step[1:]) for step in sorted(found)]


class Cluster:
    """What the reader has at the end of each command."""

    def __init__(self, directory):
        self.directory = directory
        self.checkout = directory / "checkout"
        for name in ("deploy", "examples"):
            shutil.copytree(ROOT / name, self.checkout / name)
        programs = directory / "bin"
        programs.mkdir()
        (programs / "kubectl").symlink_to(ROOT / "tests/deploy/kubectl")
        (programs / "nexus").symlink_to(NEXUS)
        self.state = directory / "cluster"
        self.state.mkdir()
        python = pathlib.Path(sys.executable).parent  # has what ./kubectl imports
        self.env = {"PATH": f"{programs}:{python}:{os.environ['PATH']}", "CLUSTER": str(self.state), "RENDER": RENDER, "NEXUS": NEXUS, "HOME": str(directory), "POD": "nexus-5d9c-x7"}
        self.pod, self.values = None, {}

    def secret(self):
        objects = json.loads((self.state / "objects.json").read_text()) if (self.state / "objects.json").exists() else []
        data, = [o.get("data", {}) for o in objects if o["kind"] == "Secret"] or [{}]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def catch_up(self):
        """What kubelet and scheduler would do."""
        values = self.secret()
        if values and (not self.pod or (self.state / "restart").exists()):
            self.end()
            (self.state / "restart").unlink(missing_ok=True)
            shutil.rmtree(self.state / "pod", ignore_errors=True)
            (self.state / "pod").mkdir()
            self.pod = Pod(Manifest(self.checkout / (self.state / "applied").read_text()), self.state / "pod", values)
            (self.state / "pod.json").write_text(json.dumps(self.pod.env))
            self.pod.wait(lambda: self.pod.probe("readinessProbe"))
        elif self.pod and values["auth-tokens"] != self.values["auth-tokens"]:
            change(self.pod.auth, {"auth-tokens": values["auth-tokens"]})
        self.values = values

    def run(self, command):
        if self.pod:
            for name, port in (("3000", "http"), ("3001", "admin")):
                command = command.replace(f"127.0.0.1:{name}", f"127.0.0.1:{self.pod.ports[port]}")
        if command.startswith("nexus top"):
            command += "" if "--once" in command else " --once"
        command = re.sub(r"^curl ", "curl --fail-with-body ", command, flags=re.M)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=self.checkout, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        token = re.search(r"^token of .*: ([0-9a-f]{64})$", done.stderr, re.M)
        if token:
            self.env["TOKEN"] = token[1]
        return done.stdout

    def end(self):
        if self.pod:
            self.pod.end()
            self.pod = None


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.end()


def assert_shown(shown, output):
    """Each line, in order; between two of them only where "…" stands."""
    at, lines, gap = 0, [line.rstrip() for line in output.splitlines()], True
    for line in (line.rstrip() for line in shown.splitlines()):
        if line == "…":
            gap = True
            continue
        assert line in lines[at:], f"not shown by the command any more: {line}\n{output}"
        found = lines.index(line, at)
        assert gap or found == at, f"lines before {line!r} are left out without a sign\n{output}"
        at, gap = found + 1, False


def test_every_command(cluster):
    commands = steps()
    assert len(commands) > 40
    for command, shown in commands:
        output = cluster.run(command)
        assert_shown(shown, output)
        cluster.catch_up()


def test_the_secret_is_filled_once(cluster):
    fill = next(command for command, _ in steps() if "new-secret.sh" in command)
    cluster.run("kubectl apply -k deploy/k8s/overlays/production")
    assert cluster.secret() == {}
    cluster.run(fill)
    values = cluster.secret()
    assert set(values) == {"suspend-key", "redis-password", "auth-tokens"}
    with pytest.raises(AssertionError, match="The request is invalid"):
        cluster.run(fill)
    cluster.run("kubectl apply -k deploy/k8s/overlays/redis")
    assert cluster.secret() == values


def test_what_is_shown_is_compared():
    assert_shown("b\n…\nd\n", "a\nb\nc\nd\n")
    for wrong in ("e\n", "b\nd\n", "d\nb\n"):
        with pytest.raises(AssertionError):
            assert_shown(wrong, "a\nb\nc\nd\n")


def test_links_lead_somewhere():
    text = GUIDE.read_text()
    anchors = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.M)}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        if path:
            assert (GUIDE.parent / path).exists(), link
        else:
            assert anchor in anchors, link


def test_every_reason_of_health_is_explained():
    reasons = re.findall(r'complain\(health, \w+, "([^"]+)"\)', (ROOT / "src/http/route_status.c").read_text())
    assert len(reasons) > 5
    for reason in reasons:
        assert f"| `{reason}`" in GUIDE.read_text(), reason
