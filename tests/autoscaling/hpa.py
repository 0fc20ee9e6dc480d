# SPDX-License-Identifier: Apache-2.0
"""The HorizontalPodAutoscaler's algorithm, driven by a given clock: no cluster, no sleeping. Standard library only.

After "Horizontal Pod Autoscaling" in the Kubernetes documentation (Algorithm details, Scaling policies, Stabilization window), and where that
page leaves a question, after kube-controller-manager's pkg/controller/podautoscaler: replica_calculator.go (the wish of a metric),
metrics/utilization.go (whole percents) and horizontal.go (stabilisation, policies). Only what a Resource metric with a target utilisation
needs. All of its state is in one Autoscaler; one thread.
"""
import dataclasses
import math

SYNC_PERIOD_S = 15  # --horizontal-pod-autoscaler-sync-period
TOLERANCE = 0.1  # --horizontal-pod-autoscaler-tolerance


def utilisation(readings, request):
    """Percent of what these pods request, in whole percents rounded down: 88.9 % is 88."""
    return sum(readings) * 100 // (request * len(readings))


def _is_tolerated(ratio):
    """As it has been since 1.33. Before, it was abs(1 - ratio) <= 0.1, which differs at exactly 1.1, by the rounding of 0.1."""
    return 1 - TOLERANCE <= ratio <= 1 + TOLERANCE


def wish(readings, request, target_percent):
    """How many pods one metric wants: `readings` has one for each pod, None for a pod that has none yet. None without any."""
    pods, known = len(readings), [reading for reading in readings if reading is not None]
    if not known:
        return None
    ratio = utilisation(known, request) / target_percent
    if len(known) == pods:
        return pods if _is_tolerated(ratio) else math.ceil(ratio * pods)
    # What is not known must not carry the decision: all of its request when pods would go, nothing when pods would come.
    assumed = request * max(100, target_percent) // 100 if ratio < 1 else 0
    assumed_ratio = utilisation(known + [assumed] * (pods - len(known)), request) / target_percent
    if _is_tolerated(assumed_ratio) or (ratio < 1) != (assumed_ratio < 1):
        return pods
    return math.ceil(assumed_ratio * pods)


@dataclasses.dataclass(frozen=True)
class Policy:
    """`value` pods, or percent of them, within `period_s`."""
    type: str
    value: int
    period_s: int

    def target(self, pods, direction):
        """The count that `pods` may become, up (1) or down (-1)."""
        if self.type == "Pods":
            return pods + direction * self.value
        changed = pods * (1 + direction * self.value / 100)
        return math.ceil(changed) if direction > 0 else int(changed)


@dataclasses.dataclass(frozen=True)
class Rules:
    """behavior.scaleUp or behavior.scaleDown."""
    window_s: int
    policies: tuple
    select: str = "Max"


DEFAULT_UP = Rules(0, (Policy("Pods", 4, 15), Policy("Percent", 100, 15)))
DEFAULT_DOWN = Rules(300, (Policy("Percent", 100, 15),))


@dataclasses.dataclass(frozen=True)
class Metric:
    """A Resource metric: averageUtilization, and what a pod requests, in the unit of the readings."""
    target_percent: int
    request: int


class Autoscaler:
    def __init__(self, pods_min, pods_max, metrics, up=DEFAULT_UP, down=DEFAULT_DOWN):
        """`metrics`: name → Metric."""
        self.pods_min, self.pods_max, self.metrics, self.up, self.down = pods_min, pods_max, metrics, up, down
        self._wishes = []  # (time, unstabilised wish)
        self._changes = []  # (time, pods added; negative: removed)

    def sync(self, now_s, pods, readings):
        """(how many pods there should be from now on, what the metrics wish for). `readings`: name → one for each pod."""
        if not self.pods_min <= pods <= self.pods_max:
            desired = wished = min(max(pods, self.pods_min), self.pods_max)
        else:
            self._wishes = self._wishes or [(now_s, pods)]
            wished = self._largest_wish(pods, readings)
            desired = pods if wished is None else self._limited(now_s, pods, self._stabilised(now_s, pods, wished))
        if desired != pods:
            self._changes.append((now_s, desired - pods))
        return desired, wished

    def _largest_wish(self, pods, readings):
        """None when a metric is missing and the others do not want more: half the truth takes no pod away."""
        wishes = [wish(readings[name], metric.request, metric.target_percent) for name, metric in self.metrics.items()]
        known = [wished for wished in wishes if wished is not None]
        if not known or (len(known) < len(wishes) and max(known) < pods):
            return None
        return max(known)

    def _stabilised(self, now_s, pods, wished):
        """Not above the least wish of scaleUp's window, not below the greatest of scaleDown's."""
        self._wishes.append((now_s, wished))
        least = min([wished] + [past for at, past in self._wishes if at > now_s - self.up.window_s])
        greatest = max([wished] + [past for at, past in self._wishes if at > now_s - self.down.window_s])
        return min(max(pods, least), greatest)

    def _limited(self, now_s, pods, desired):
        if desired > pods:
            return min(desired, self.pods_max, max(pods, self._limit(now_s, pods, self.up, 1)))
        if desired < pods:
            return max(desired, self.pods_min, min(pods, self._limit(now_s, pods, self.down, -1)))
        return desired

    def _limit(self, now_s, pods, rules, direction):
        """The furthest that the policies allow now. Each counts from what there was when its period began."""
        if rules.select == "Disabled":
            return pods
        limits = [policy.target(pods - sum(change for at, change in self._changes if at > now_s - policy.period_s), direction)
                  for policy in rules.policies]
        return max(limits) if (rules.select == "Max") == (direction > 0) else min(limits)
