# SPDX-License-Identifier: Apache-2.0
"""The commands that readers are told to type: each `sh` block that begins with curl, in the order of its document."""
import os
import re
import shutil
import subprocess

import pytest

from conftest import EXAMPLES, ROOT, SLOWNESS


def blocks(path):
    """(command, the text around it): a status of 400 and more is right when the text says so."""
    parts = re.split(r"^```sh\n(.*?)^```$", path.read_text(), flags=re.M | re.S)
    return [(parts[i], parts[i - 1] + parts[i + 1]) for i in range(1, len(parts), 2) if parts[i].startswith("curl ")]


@pytest.mark.parametrize("name", ["README.md", "docs/api.md", "docs/suspend.md"])
def test_commands(start, name):
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"there is no {name}")
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    commands = blocks(path)
    if not commands:
        pytest.skip(f"{name} has no such commands")
    server = start({"HANDLERS_DIR": EXAMPLES})
    suspension = "none"  # $ID: readers are told to remember the last one
    for command, around in commands:
        text = re.sub(r"(127\.0\.0\.1|localhost):\d+", f"127.0.0.1:{server.port}", command)
        text = re.sub(r"^curl", "curl -w '\\\\n%{http_code}\\\\n'", text, flags=re.M)
        run = subprocess.run(["bash", "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=30 * SLOWNESS,
                             env={"PATH": os.environ["PATH"], "ID": suspension})
        assert run.returncode == 0, f"{command}\n{run.stderr}"
        suspension = (re.findall(r'"suspensionId":"([^"]+)"', run.stdout) or [suspension])[-1]
        statuses = re.findall(r"^(\d{3})$", run.stdout, re.M)
        assert statuses, run.stdout
        for status in statuses:
            assert int(status) < 400 or status in around, f"{command}\n{run.stdout}"
