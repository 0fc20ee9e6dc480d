# SPDX-License-Identifier: Apache-2.0
"""Executions that are suspended: what the tests of them share."""
import http.client

import pytest

from conftest import SLOWNESS, Server, wait_until

ALL = ["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*"]
EXTENSIONS = {"x": ["*"], "y": ["*"]}
# Results of finished executions are kept for so long: no test must outlast it.
TTL_MS = int(10000 * SLOWNESS)
UNKNOWN_ID = "0123456789abcdef" * 2
ABSENT = object()


def success(value=ABSENT, call=None):
    return {**({} if call is None else {"callId": call}), "success": True, **({} if value is ABSENT else {"value": value})}


def failure(error=ABSENT, call=None):
    return {**({} if call is None else {"callId": call}), "success": False, **({} if error is ABSENT else {"error": error})}


def resume(server, suspension, body):
    return server.request("POST", f"/v1/resume/{suspension}", body)


class Story:
    """One execution over all its suspensions: the last result, and the effects of all parts in order."""

    def __init__(self, server, code=None, **fields):
        self.server = server
        self.effects = {"stateMutations": [], "events": [], "viewCommands": [], "logs": []}
        self.parts = 0
        self.id = None
        self._take(server.execute(code, **{"capabilities": ALL, "extensions": EXTENSIONS, **fields}))

    def _take(self, result):
        self.result = result
        self.parts += 1
        for name, items in self.effects.items():
            items.extend(result[name])
        if self.is_suspended:
            assert self.id in (None, result["suspension"]["suspensionId"]), "the id changed"
            self.id = result["suspension"]["suspensionId"]

    @property
    def is_suspended(self):
        return self.result["status"] == "suspended"

    @property
    def value(self):
        assert self.result["status"] == "success", str(self.result)[:2000]
        return self.result.get("returnValue")

    def error(self, code):
        assert self.result["status"] == "error", str(self.result)[:2000]
        assert self.result["error"]["code"] == code, str(self.result)[:2000]
        return self.result["error"]

    @property
    def calls(self):
        return self.result["suspension"]["calls"]

    def call(self, method):
        """The id of the open call of that method."""
        found = [call["callId"] for call in self.calls if call["method"] == method]
        assert len(found) == 1, (method, str(self.calls)[:2000])
        return found[0]

    def post(self, body):
        return resume(self.server, self.id, body)

    def go_on(self, body):
        reply = self.post(body)
        assert reply.status == 200, reply
        self._take(reply.json())
        return self

    def answer(self, value=ABSENT, method=None):
        return self.go_on(success(value, method and self.call(method)))

    def reject(self, error=ABSENT, method=None):
        return self.go_on(failure(error, method and self.call(method)))

    def answer_all(self, value_of):
        return self.go_on({"results": [success(value_of(call), call["callId"]) for call in self.calls]})

    def look(self):
        return self.server.get(f"/v1/resume/{self.id}")

    def wait_final(self):
        """The result that it comes to by itself."""
        final = wait_until(lambda: (found := self.look().json())["status"] != "suspended" and found, what="the final result")
        self._take(final)
        return self

    def cancel(self):
        reply = self.server.delete(f"/v1/resume/{self.id}")
        assert reply.status == 204, reply


def is_at_rest(server):
    """Nothing runs or waits; results of finished executions may be kept."""
    instances = server.health()["instances"]
    return instances["active"] == instances["suspended"] == 0


@pytest.fixture
def suspending(module_server):
    """The module's server; after the test nothing is suspended, and no descriptor more open than before."""
    module_server.disconnect()
    wait_until(lambda: "socket:" in module_server.fds().values(), what="the listener")
    before = module_server.fds()
    yield module_server
    assert module_server.process.poll() is None, module_server.log()[-3000:]
    module_server.close_opened()
    wait_until(lambda: is_at_rest(module_server), 15, "an idle server")
    module_server.disconnect()
    wait_until(lambda: len(module_server.fds()) <= len(before), 15, "the close of descriptors")
    module_server.check_log()


@pytest.fixture(scope="module")
def module_server(request, tmp_path_factory, departing):
    """When its kept results have expired, its ledger must be where it was."""
    server = Server(tmp_path_factory.mktemp(request.module.__name__), request.module.SETTINGS)
    departing.append(server)
    return server


def request_in_background(server, path, body, results):
    """Sends a request on a connection of its own and appends its status to `results`."""
    connection = server.connect()
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        results.append((response.status, response.read()))
    except (OSError, http.client.HTTPException) as failure_of_connection:
        results.append((0, repr(failure_of_connection)))
    finally:
        connection.close()
