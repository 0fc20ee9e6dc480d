# SPDX-License-Identifier: Apache-2.0
"""The autoscaler of deploy/k8s adds pods under load and takes them away afterwards, down to the least: shown with real pods.

What is real: each pod is a `nexus serve` in a memory group of its own, with the limit, the settings and the cache volume of the manifests;
the load is HTTP, over those that are ready; each sample is the kernel's count, as the kubelet takes it for the autoscaler; the pods that the
autoscaler wants are started, and those that it does not want are drained. What is not: the autoscaler is hpa.py, and its clock runs FASTER
times as fast as the processes do, so that its five minutes of quiet are 20 s.

Only its clock does. Memory comes back in its own time: IDLE_TRIM_MS and all else are what the manifests say. So memory seems to come back
so many times later to this autoscaler than it does to a real one, and pods seem to start so many times later: what is shown here is the
harder case. What it does not show: what hours of load do to memory; and that a real autoscaler's samples are up to a minute old.

Requests for a small registered handler go on to the very end: a pod at rest here is one that is still asked for something.
"""
import collections
import json
import os
import pathlib
import subprocess
import time

import pytest

import fleet
import hpa
import manifests
from memory_group import Group, Unavailable

NEXUS = os.environ.get("NEXUS", str(manifests.ROOT / "build" / "nexus"))
SANITIZED = b"__asan_init" in pathlib.Path(NEXUS).read_bytes()
pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer's memory is not the server's")

MIB = 1 << 20
FASTER = 15
SYNC_S = hpa.SYNC_PERIOD_S / FASTER
BEFORE_SYNCS = 3
LOAD_SYNCS = 24
PODS_OF_LOAD = 6  # what the load holds is the target of so many
UNSEEN_CLIENTS, UNSEEN_THINK_S = 4, 0.005
SMALL_CLIENTS, SMALL_THINK_S = 2, 0.05
REST_SYNCS = 12  # it stays at the least for so long
MOST_SYNCS = 160
REFUSED = ("503 OVERLOADED pool", "503 OVERLOADED container")

Sample = collections.namedtuple("Sample", "real_s hpa_s phase working_sets wished desired")


def average(working_sets):
    known = [value for value in working_sets.values() if value is not None]
    return sum(known) / len(known)


class Play:
    """The whole of it, once, in three phases: before, load, after. What was seen is in `samples`."""

    def __init__(self):
        self.scaler, self.fleet, self.samples = manifests.autoscaler(), fleet.Fleet(NEXUS), []
        self.held = self.unseen = self.small = self.ended = self.threads = self.load_ended_s = None

    def run(self):
        try:
            self.fleet.scale(self.scaler.pods_min)
            self.fleet.wait_ready()
            self._play()
            self.threads = [pod.threads() for pod in self.fleet.pods]
            self.fleet.scale(0)
            self.ended = self.fleet.wait_ended()
        finally:
            self.fleet.close()

    def _play(self):
        self.began = time.monotonic()
        small = fleet.Load(self.fleet, SMALL_CLIENTS, fleet.registered, SMALL_THINK_S)
        try:
            for _ in range(BEFORE_SYNCS):
                self._sync("before")
            self._load()
            while len(self.samples) < MOST_SYNCS and not self.is_at_rest():
                self._sync("after")
        finally:
            self.small = small.stop()

    def _load(self):
        metric = self.scaler.metrics["memory"]
        wanted_bytes = PODS_OF_LOAD * metric.request * metric.target_percent // 100
        holding = fleet.Load(self.fleet, fleet.clients_that_hold(wanted_bytes), fleet.holding)
        unseen = fleet.Load(self.fleet, UNSEEN_CLIENTS, fleet.unseen, UNSEEN_THINK_S)
        try:
            for _ in range(LOAD_SYNCS):
                self._sync("load")
        finally:
            self.held, self.unseen = holding.stop(), unseen.stop()
        self.load_ended_s = time.monotonic() - self.began

    def phase(self, name):
        return [sample for sample in self.samples if sample.phase == name]

    def is_at_rest(self):
        last = self.phase("after")[-REST_SYNCS:]
        return len(last) == REST_SYNCS and all(len(sample.working_sets) == sample.desired == self.scaler.pods_min for sample in last)

    def _sync(self, phase):
        """One turn of the autoscaler, a period after the one before or, on a machine that is busy, later."""
        last = self.samples[-1].real_s if self.samples else 0
        time.sleep(max(0, self.began + last + SYNC_S - time.monotonic()))
        now_s, hpa_s = time.monotonic() - self.began, len(self.samples) * hpa.SYNC_PERIOD_S
        working_sets = {pod.name: pod.working_set() for pod in self.fleet.pods}
        desired, wished = self.scaler.sync(hpa_s, len(working_sets), {"memory": list(working_sets.values())})
        self.fleet.scale(desired)
        self.samples.append(Sample(now_s, hpa_s, phase, working_sets, wished, desired))


def print_table(play):
    print(f"\n{'real s':>7} {'HPA s':>6} {'phase':>6} {'pods':>5} {'average MiB':>12} {'largest':>8} {'wish':>5} {'then':>5}")
    for sample in play.samples:
        known = [value for value in sample.working_sets.values() if value is not None]
        print(f"{sample.real_s:7.1f} {sample.hpa_s:6} {sample.phase:>6} {len(sample.working_sets):5} {average(sample.working_sets) / MIB:12.1f} "
              f"{max(known) / MIB:8.1f} {sample.wished:5} {sample.desired:5}")
    print(f"requests that held memory: {dict(play.held)}; with new code: {dict(play.unseen)}; registered: {dict(play.small)}; threads of each pod at the end: {play.threads}")


@pytest.fixture(scope="module")
def play():
    try:
        Group.make(f"nexus-autoscaling-{os.getpid()}", 32 * MIB).remove()
    except Unavailable as reason:
        pytest.skip(str(reason))
    made = Play()
    made.run()
    print_table(made)
    return made


@pytest.fixture
def plan():
    """What nexus plan says of these pods."""
    metric = manifests.autoscaler().metrics["memory"]
    settings = {name: value for name, value in manifests.settings().items() if name not in fleet.PLACES}
    command = [NEXUS, "plan", "--json", "--limit", str(manifests.container()[1]), "--request", str(metric.request), "--hpa", str(metric.target_percent)]
    return json.loads(subprocess.run(command, env=settings, capture_output=True, check=True).stdout)


def scale_in_bytes(plan, pods):
    return next(step["atMostBytes"] for step in plan["autoscaler"]["scaleIn"] if step["pods"] == pods)


def test_under_load_pods_are_added_and_help(play, plan):
    assert {sample.desired for sample in play.phase("before")} == {play.scaler.pods_min}
    load = play.phase("load")
    assert load[-1].desired > play.scaler.pods_min
    before_help = max(average(sample.working_sets) for sample in load if len(sample.working_sets) == play.scaler.pods_min)
    assert before_help > plan["autoscaler"]["addsPodAboveBytes"]
    assert sum(average(sample.working_sets) for sample in load[-5:]) / 5 < before_help


def test_memory_comes_back_to_what_the_plan_says(play, plan):
    """Within a minute, each pod that is left is below what taking the last pod needs, and about where the plan has it: its figure for the
    process is an estimate."""
    minute = [sample for sample in play.phase("after") if sample.real_s < play.load_ended_s + 60]
    at_rest = max(minute[-1].working_sets.values())
    assert at_rest <= plan["budget"]["idleBytes"] + 8 * MIB
    assert at_rest <= scale_in_bytes(plan, play.scaler.pods_min + 1)


def test_afterwards_pods_are_taken_away_to_the_least_and_it_stays_so(play):
    counts = [sample.desired for sample in play.phase("after")]
    assert counts == sorted(counts, reverse=True), "a pod was added without load"
    assert play.is_at_rest(), f"{counts[-1]} pods after {len(play.samples)} syncs"


def test_nobody_was_killed_or_sent_away_wrongly(play):
    """While more than all pods can hold is asked of them, some is refused, or takes too long on a machine that is busy."""
    assert set(play.ended) == {(0, 0)}, f"(exit status, OOM kills): {play.ended}"
    for outcomes in (play.held, play.unseen):
        assert set(outcomes) <= {"right", *REFUSED, "200 TIMEOUT"} and outcomes["right"] > 0
    assert set(play.small) <= {"right", *REFUSED} and play.small["right"] > 0.99 * play.small.total()


def test_the_yardstick_sees_memory_that_is_never_given_back(play):
    """The same samples, but what a pod has had once it keeps, as a heap does that is never trimmed. Pods that were not there in the record, or
    not any more, are as small as the smallest at the end, in favour of scaling in."""
    scaler, peaks, pods, counts = manifests.autoscaler(), {}, manifests.autoscaler().pods_min, []
    smallest = min(play.samples[-1].working_sets.values())
    for sample in play.samples:
        for name, value in sample.working_sets.items():
            peaks[name] = max(peaks.get(name, 0), value or 0)
        held = (list(peaks.values()) + [smallest] * pods)[:pods]
        pods, _ = scaler.sync(sample.hpa_s, pods, {"memory": held})
        counts.append(pods)
    assert counts == sorted(counts) and counts[-1] >= max(sample.desired for sample in play.samples), counts
