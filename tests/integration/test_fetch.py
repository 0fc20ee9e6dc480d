# SPDX-License-Identifier: Apache-2.0
"""fetch() of executions that wait: beside calls of the caller's, over suspensions, and when nobody wants the answer."""
import http.server
import threading

import pytest

from conftest import wait_until
from suspend_support import TTL_MS, Story, module_server, suspending  # noqa: F401


class Peer(http.server.ThreadingHTTPServer):
    """Answers GET /TEXT with TEXT; /held/TEXT when it is released."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), PeerHandler)
        self.seen, self.release = [], threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))

    def url(self, text):
        return f"http://127.0.0.1:{self.server_port}/{text}"

    def close(self):
        self.release.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class PeerHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append(self.path)
        if self.path.startswith("/held/"):
            self.server.release.wait(60)
        text = self.path.rsplit("/", 1)[-1].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


PEER = Peer()
SETTINGS = {"SUSPEND_TTL_MS": TTL_MS, "NET_ALLOW": f"127.0.0.1:{PEER.server_port}"}


@pytest.fixture(scope="module", autouse=True)
def peer():
    PEER.thread.start()  # not before: whoever only collects this module never comes to the close
    yield
    PEER.close()


@pytest.fixture(autouse=True)
def held():
    PEER.release.clear()


def test_fetch_beside_a_call_of_the_callers(suspending):
    """The request is made while the execution lies in the store, and its answer wakes it."""
    story = Story(suspending, f"const text = fetch('{PEER.url('beside')}').then((r) => r.text());"
                  "return [await $ext.x.a(), await text]")
    wait_until(lambda: "/beside" in PEER.seen, what="the request")
    story.answer(1)
    assert (story.wait_final() if story.is_suspended else story).value == [1, "beside"]


def test_call_answered_before_the_fetch(suspending):
    """The answer comes to the store, so that whoever resumed it does not hold it meanwhile."""
    story = Story(suspending, f"const text = fetch('{PEER.url('held/late')}').then((r) => r.text());"
                  "return [await $ext.x.a(), await text]")
    wait_until(lambda: "/held/late" in PEER.seen, what="the request")
    assert story.answer(1).calls == []
    PEER.release.set()
    assert story.wait_final().value == [1, "late"]


def test_answer_that_wakes(suspending):
    """It goes on by itself when the answer is there, and makes the next request, also while nobody asks."""
    story = Story(suspending, f"$ext.x.a(); const one = await (await fetch('{PEER.url('one')}')).text();"
                  f"return [one, await (await fetch('{PEER.url('two')}')).text()]")
    assert story.wait_final().value == ["one", "two"]


def test_execution_cancelled_before_the_answer(suspending):
    story = Story(suspending, f"$ext.x.a(); return await fetch('{PEER.url('held/cancelled')}')")
    wait_until(lambda: "/held/cancelled" in PEER.seen, what="the request")
    story.cancel()
    PEER.release.set()
