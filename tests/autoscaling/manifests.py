# SPDX-License-Identifier: Apache-2.0
"""What the test needs of deploy/k8s/base, so that a change of the manifests changes the test. The base alone: its files are read as they
are, and no overlay changes what is about memory.
"""
import sys
from pathlib import Path

import yaml

import hpa

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/container"))
from siege import size  # noqa: E402

BASE = ROOT / "deploy/k8s/base"


def _load(name):
    return yaml.safe_load((BASE / name).read_text())


def container():
    """(memory request, memory limit, size of the cache volume), in bytes."""
    pod = _load("deployment.yaml")["spec"]["template"]["spec"]
    resources, = (each["resources"] for each in pod["containers"])
    cache, = (volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "cache")
    return size(resources["requests"]["memory"]), size(resources["limits"]["memory"]), size(cache["sizeLimit"])


def settings():
    """The environment that the ConfigMap is made of."""
    lines = (BASE / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _rules(behavior, default):
    policies = tuple(hpa.Policy(policy["type"], policy["value"], policy["periodSeconds"]) for policy in behavior.get("policies", ()))
    return hpa.Rules(behavior.get("stabilizationWindowSeconds", default.window_s), policies or default.policies, behavior.get("selectPolicy", "Max"))


def autoscaler():
    """The HPA of the base, on memory."""
    spec = _load("hpa.yaml")["spec"]
    resource, = (metric["resource"] for metric in spec["metrics"])
    assert resource["name"] == "memory"
    metric = hpa.Metric(resource["target"]["averageUtilization"], container()[0])
    behavior = spec.get("behavior", {})
    return hpa.Autoscaler(spec["minReplicas"], spec["maxReplicas"], {"memory": metric},
                          _rules(behavior.get("scaleUp", {}), hpa.DEFAULT_UP), _rules(behavior.get("scaleDown", {}), hpa.DEFAULT_DOWN))
