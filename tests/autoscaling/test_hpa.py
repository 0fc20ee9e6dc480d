# SPDX-License-Identifier: Apache-2.0
"""The algorithm in hpa.py, against cases worked out by hand, and `nexus plan` against the algorithm."""
import json
import os
import subprocess

import pytest

import hpa
import manifests

NEXUS = os.environ.get("NEXUS", str(manifests.ROOT / "build" / "nexus"))
MIB = 1 << 20


# ---- The wish of one metric ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("readings, target, wished", [
    ([200], 100, 2),  # the documentation's: twice the target, twice the pods
    ([50, 50], 100, 1),  # and half of it, half of them
    ([88, 88], 80, 2),  # 1.1: within the tolerance
    ([89, 88], 80, 2),  # 88.5 % is 88 %
    ([89, 89], 80, 3),  # 1.1125: ceil(2.225)
    ([72] * 10, 80, 10),  # 0.9: within
    ([71] * 10, 80, 9),  # 0.8875: ceil(8.875)
    ([71, 71], 80, 2),  # ceil(1.775)
    ([40, 41], 80, 1),  # 40.5 % is 40 %, and ceil(2 x 0.5)
    ([41, 41], 80, 2),  # ceil(1.025)
    ([0, 0, 0], 80, 0),
    ([300, 0, 0], 80, 4),  # the average counts: 100 %, ceil(3 x 1.25)
])
def test_a_wish(readings, target, wished):
    assert hpa.wish(readings, 100, target) == wished


@pytest.mark.parametrize("readings, target, wished", [
    ([100, 100, None], 80, 3),  # 1.25 wants more; with 0 for the third 66 % wants fewer: none of both
    ([160, 160, 160, None], 80, 6),  # 120 %: ceil(4 x 1.5)
    ([10, 10, None], 80, 2),  # with 100 for the third 40 %: ceil(3 x 0.5)
    ([70, None], 80, 2),  # 0.875 wants fewer; with 100 for the second 85 % wants more
    ([15, None, None], 150, 3),  # with 150 for each of both 105 %: ceil(3 x 0.7)
    ([80, None], 80, 2),
    ([None, None], 80, None),
])
def test_pods_without_metrics_never_carry_the_decision(readings, target, wished):
    assert hpa.wish(readings, 100, target) == wished


# ---- From wishes to pods ------------------------------------------------------------------------------------------------

def run(scaler, pods, percents, every_s=15):
    """The counts after each sync, when all pods are at these percents of their request, the target being 100."""
    counts = []
    for i, percent in enumerate(percents):
        pods, _ = scaler.sync(i * every_s, pods, {"memory": [percent] * pods})
        counts.append(pods)
    return counts


def scaler(pods_min=1, pods_max=100, up=hpa.Rules(0, (hpa.Policy("Percent", 900, 15),)), down=hpa.Rules(0, (hpa.Policy("Percent", 100, 15),))):
    return hpa.Autoscaler(pods_min, pods_max, {"memory": hpa.Metric(100, 100)}, up, down)


def rules(*policies, window_s=0, select="Max"):
    return hpa.Rules(window_s, tuple(hpa.Policy(*policy) for policy in policies), select)


def test_the_least_and_the_most():
    assert run(scaler(2, 5), 3, [300, 100, 0]) == [5, 5, 2]
    assert run(scaler(2, 5), 1, [0]) == [2] and run(scaler(2, 5), 9, [900]) == [5]


def test_as_long_as_the_longest_wish_of_the_window():
    # Three wishes of 1 after one of 6: it takes 45 s until that is 45 s old.
    assert run(scaler(down=rules(("Percent", 100, 15), window_s=45)), 3, [200, 10, 10, 10, 10]) == [6, 6, 6, 1, 1]
    # Within 30 s, two syncs: a wish of 6 alone is none, a second one is granted; the first one of 18 waits as well.
    assert run(scaler(up=rules(("Percent", 900, 15), window_s=30)), 2, [100, 300, 100, 300, 300, 300, 300]) == [2, 2, 2, 2, 6, 6, 18]


def test_a_new_autoscaler_begins_with_what_there_is():
    assert run(scaler(down=rules(("Percent", 100, 15), window_s=60)), 7, [1] * 5) == [7, 7, 7, 7, 1]


def test_policies_for_more_pods():
    # 2 more in 30 s, or twice as many: 2 → 4, and nothing more for 30 s; 4 → 8; 8 → 16.
    assert run(scaler(up=rules(("Percent", 100, 30), ("Pods", 2, 30))), 2, [900] * 5) == [4, 4, 8, 8, 16]
    assert run(scaler(up=rules(("Percent", 100, 30), ("Pods", 2, 30), select="Min")), 4, [900] * 3) == [6, 6, 8]
    assert run(scaler(up=rules(("Percent", 50, 15))), 3, [900] * 2) == [5, 8]  # 4.5 and 7.5, rounded up
    assert run(scaler(up=rules(("Pods", 4, 15), select="Disabled")), 3, [900]) == [3]
    assert run(hpa.Autoscaler(1, 100, {"memory": hpa.Metric(100, 100)}), 1, [900] * 4) == [5, 10, 20, 40]  # the defaults: 4, or twice


def test_policies_for_fewer_pods():
    # The documentation's: 4 pods or 10 % in a minute, whichever is more; 80, then 7.2 of 72 are 8, from 40 on it is 4.
    down = rules(("Pods", 4, 60), ("Percent", 10, 60))
    assert run(scaler(down=down), 80, [1] * 2, every_s=60) == [72, 64]
    assert run(scaler(down=down), 40, [1] * 2, every_s=60) == [36, 32]
    assert run(scaler(down=down), 80, [1] * 5) == [72, 72, 72, 72, 64]
    assert run(scaler(down=rules(("Pods", 4, 60), ("Percent", 10, 60), select="Min")), 20, [1]) == [18]
    assert run(scaler(down=rules(("Pods", 4, 60), select="Disabled")), 20, [1]) == [20]


def test_the_largest_wish_of_several_metrics():
    both = hpa.Autoscaler(1, 10, {"memory": hpa.Metric(80, 100), "cpu": hpa.Metric(70, 500)}, down=rules(("Percent", 100, 15)))
    assert both.sync(0, 2, {"memory": [40, 40], "cpu": [700, 700]}) == (4, 4)
    assert both.sync(15, 4, {"memory": [160] * 4, "cpu": [None] * 4}) == (8, 8)  # more pods on what is known
    assert both.sync(30, 8, {"memory": [1] * 8, "cpu": [None] * 8}) == (8, None)  # not fewer
    assert both.sync(45, 8, {"memory": [1] * 8, "cpu": [1] * 8}) == (1, 1)


def test_the_manifests_behaviour():
    """From deploy/k8s: 2 to 10 within two minutes; five minutes of quiet, and then one pod a minute."""
    made = manifests.autoscaler()
    request = made.metrics["memory"].request
    pods, counts = made.pods_min, []
    for i in range(80):
        percent = 400 if i < 8 else 10
        pods, _ = made.sync(i * 15, pods, {"memory": [request * percent // 100] * pods})
        counts.append(pods)
    assert counts[7] == made.pods_max and counts == counts[:8] + sorted(counts[8:], reverse=True)
    first_fewer = counts.index(made.pods_max - 1)
    assert (first_fewer - 7) * 15 == 300 and counts[first_fewer + 4] == made.pods_max - 2
    assert counts[-1] == made.pods_min


# ---- nexus plan ---------------------------------------------------------------------------------------------------------

def last_that_holds(condition, low, high):
    """The largest number that it holds for; it holds up to there and not beyond."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if condition(middle) else (low, middle)
    return low


@pytest.mark.parametrize("request_mib, percent", [(256, 80), (256, 75), (340, 80), (64, 50), (1000, 95), (333, 73), (7, 100), (512, 33)])
def test_plan_prints_the_algorithms_thresholds(request_mib, percent):
    """To the percent of the request, because the algorithm counts in whole ones and rounds down: where the plan says that a pod goes, it goes;
    up to where it says that none comes, none comes; and a percent further both happen."""
    command = [NEXUS, "plan", "--json", "--limit", "4Gi", "--request", f"{request_mib}Mi", "--hpa", str(percent), "--max-pods", "10"]
    plan = json.loads(subprocess.run(command, env={}, capture_output=True, check=True).stdout)["autoscaler"]
    request = request_mib * MIB

    def wish(pods, average):
        return hpa.wish([average] * pods, request, percent)

    assert {step["pods"] for step in plan["scaleIn"]} == set(range(2, 11))
    for step in plan["scaleIn"]:
        pods = step["pods"]
        goes = last_that_holds(lambda average, pods=pods: wish(pods, average) < pods, 0, 3 * request)
        assert 0 <= goes - step["atMostBytes"] <= request // 100 + 1, (pods, goes)
        stays = last_that_holds(lambda average, pods=pods: wish(pods, average) <= pods, 0, 3 * request)
        assert 0 <= stays - plan["addsPodAboveBytes"] <= request // 100 + 1, (pods, stays)
