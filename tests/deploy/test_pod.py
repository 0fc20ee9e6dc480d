# SPDX-License-Identifier: Apache-2.0
"""The pod of each overlay gets the environment and the files that the manifest gives it, with the values that new-secret.sh
makes, and is probed and called as a cluster would."""
import json

import pytest

import secret
from pod import Pod, change


class Deployed(Pod):
    def __init__(self, manifest, directory):
        values, self.token = secret.values()
        super().__init__(manifest, directory, values)

    def authorized(self):
        return {} if self.env["AUTH_TOKENS_FILE"] == "none" else {"Authorization": f"Bearer {self.token}"}


@pytest.fixture
def pod(manifest, tmp_path):
    pod = Deployed(manifest, tmp_path)
    yield pod
    pod.end()


def test_probes_turn_green_and_the_first_handler_answers(pod):
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        pod.wait(lambda probe=probe: pod.probe(probe))
    assert pod.call("admin", "GET", "/metrics")[0] == 200
    status, body = pod.call("http", "POST", "/run/hello", '{"name": "pod"}', **pod.authorized())
    assert (status, json.loads(body)) == (200, {"hello": "pod"})
    if pod.authorized():
        assert pod.call("http", "POST", "/run/hello", "{}")[0] == 401
        assert pod.call("http", "GET", "/metrics")[0] == 401


def test_a_changed_handler_needs_no_rollout(pod):
    pod.wait(lambda: pod.probe("readinessProbe"))
    change(pod.handlers, {"hello.js": "export default () => 'changed'"})
    pod.wait(lambda: pod.call("http", "POST", "/run/hello", **pod.authorized()) == (200, b'"changed"'))
