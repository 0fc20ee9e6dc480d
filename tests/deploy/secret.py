# SPDX-License-Identifier: Apache-2.0
"""Values of the Secret, made by the script that operators use."""
import json
import re
import subprocess

from conftest import KUBERNETES

SCRIPT = KUBERNETES / "new-secret.sh"


def make(*arguments):
    """The patch, and the token."""
    done = subprocess.run(["sh", SCRIPT, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout), re.search(r": ([0-9a-f]{64})$", done.stderr)[1]


def values():
    patch, token = make()
    return patch[1]["value"], token
