# SPDX-License-Identifier: Apache-2.0
"""What the tests of deploy/prometheus and deploy/grafana share: rules, queries of the dashboard, and the names in PromQL."""
import json
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "nexus.json"

# Metrics of others that rules and dashboard use.
OUTSIDE = {
    # Prometheus
    "up", "ALERTS",
    # cAdvisor, by way of the kubelet
    "container_memory_working_set_bytes", "container_spec_memory_limit_bytes",
    # kube-state-metrics 2
    "kube_deployment_spec_replicas", "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_horizontalpodautoscaler_spec_min_replicas", "kube_horizontalpodautoscaler_status_current_replicas",
    "kube_pod_container_resource_limits", "kube_pod_container_resource_requests", "kube_pod_container_status_last_terminated_reason",
    "kube_pod_container_status_restarts_total",
}
NOT_NAMES = {"and", "or", "unless", "offset", "bool"}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded():
    return {rule["record"] for rule in rules() if "record" in rule}


def metrics_of_nexus():
    """As metrics_list.h has them; a histogram is three."""
    text = (ROOT / "src" / "metrics" / "metrics_list.h").read_text()
    families = dict(re.findall(r'X\(\w+, "(\w+)", "(counter|gauge|histogram)"', text))
    assert len(families) > 30
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + suffix for name, kind in families.items() for suffix in suffixes.get(kind, ("",))}


def names_in(expr):
    """Metrics that a PromQL expression reads."""
    for noise in (r'"[^"]*"', r"\{[^{}]*\}", r"\[[^\]]*\]", r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)"):
        expr = re.sub(noise, " ", expr)
    expr = re.sub(r"\boffset\s+\w+", " ", expr)
    return set(re.findall(r"(?<![\w:.])[A-Za-z_:][\w:]*(?![\w:])(?!\s*\()", expr)) - NOT_NAMES


def dashboard():
    return json.loads(DASHBOARD.read_text())


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard_queries(namespace, pod, interval):
    """{panel and legend: PromQL}, with the variables replaced; of the variables themselves, too."""
    values = {"$__rate_interval": interval, "$namespace": namespace, "$pod": pod}
    found = {f"{panel['title']}: {target['legendFormat'] or target['refId']}": target["expr"]
             for panel in panels() for target in panel["targets"]}
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            what, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            found[f"variable {variable['name']}"] = f"count by ({label}) ({what})"
    for name, expr in found.items():
        for variable, value in values.items():
            expr = expr.replace(variable, value)
        assert "$" not in expr, expr
        found[name] = expr
    return found
