# SPDX-License-Identifier: Apache-2.0
"""Executions that several servers hand to each other through one store, while servers may be killed.

Each execution makes CALLS calls, one after the other; each is answered at a server chosen at random. What is checked:

- An answer counts once: a request whose reply came is never followed by one that takes the same answer again, and the final
  result holds every answer once, in order.
- An execution ends once: every server shows the result that its last reply told, and refuses further answers with 410.
- Nothing that was acknowledged is lost, whoever was killed.

A request whose connection broke may have counted or not; the store says which: GET shows the open call, or the result. A
server that was killed after it ran the guest and before it committed leaves the execution as it was, so its handler's steps
are run again elsewhere: effects at least once, results exactly once.
"""
import http.client
import random

from conftest import wait_until
from store_support import RIGHTS, answer, look_up

CALLS = 4
HANDLER = """
const got = [];
for (let i = 0; i < $args.calls; i++) got.push(await $ext.pay.charge({order: $args.n, step: i}));
return {order: $args.n, got};
"""
LOST = (OSError, http.client.HTTPException)


class Execution:
    """One execution, and what its caller knows of it."""

    def __init__(self, fleet, n):
        self.fleet, self.n = fleet, n
        self.name = self.result = None
        self.step = 0           # calls known to be answered
        self.is_unsure = False  # an answer was sent, and no reply came
        self.doubts = 0         # answers of which the store had to tell that they counted

    def begin(self):
        while self.name is None:
            reply = self.fleet.ask(lambda server: server.post(
                {"code": HANDLER, "args": {"n": self.n, "calls": CALLS}, **RIGHTS}))
            if reply is None or reply.status == 503:
                continue  # if it was begun nobody knows its name: it expires
            self.name = reply.json()["suspension"]["suspensionId"]

    def value(self, step):
        return f"{self.n}/{step}"

    def is_over(self):
        return self.result is not None

    def take(self, result):
        """What a reply says of it: as sure as it gets."""
        self.is_unsure = False
        if result["status"] == "success":
            assert self.step == CALLS - 1, (self.n, self.step, result)
            assert result["returnValue"] == {"order": self.n, "got": [self.value(i) for i in range(CALLS)]}, result
            self.result = result
            return
        call, = result["suspension"]["calls"]
        assert call["args"] == [{"order": self.n, "step": call["callId"] - 1}], call
        assert call["callId"] == self.step + 2, (self.n, self.step, result)
        self.step += 1

    def answer_next(self):
        reply = self.fleet.ask(lambda server: answer(
            server, self.name, {"callId": self.step + 1, "success": True, "value": self.value(self.step)}))
        if reply is None:
            self.is_unsure = True
        elif reply.status == 200:
            self.take(reply.json())
        elif reply.status in (409, 410):
            assert self.is_unsure, f"answered before: {self.n} step {self.step}: {reply}"
            self.doubts += 1
            self.find_out()
        else:
            assert reply.status == 503, reply

    def find_out(self):
        """The lost answer was taken; what has it led to?"""
        reply = self.fleet.ask(lambda server: look_up(server, self.name))
        if reply is not None:
            assert reply.status == 200, reply
            self.take(reply.json())

    def check_end(self):
        for server in self.fleet.servers:
            assert look_up(server, self.name).json() == self.result
            answer(server, self.name, {"success": True}).problem(410, "GONE")


class Fleet:
    """Servers over one store. `start` makes one more."""

    def __init__(self, start, count=2):
        self.start = start
        self.servers = [start() for _ in range(count)]
        self.kills = self.lost = 0

    def ask(self, request):
        """The reply of some server, or None when it did not come."""
        try:
            return request(random.choice(self.servers))
        except LOST:
            self.lost += 1
            return None

    def kill_one(self):
        """kill -9 of a server chosen at random, and another one in its place."""
        i = random.randrange(len(self.servers))
        self.servers[i].process.kill()
        self.servers[i].process.wait()
        self.servers[i] = self.start()
        self.kills += 1

    def run(self, numbers):
        """Takes these executions, a few at a time, to their end."""
        for n in numbers:
            execution = Execution(self, n)
            execution.begin()
            # What another one's lease still covers is worth waiting for.
            wait_until(lambda: execution.answer_next() or execution.is_over(), 60, "the end of an execution")
            yield execution
