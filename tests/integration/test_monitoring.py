# SPDX-License-Identifier: Apache-2.0
"""deploy/prometheus and deploy/grafana: complete, consistent with the code, and right by promtool. tests/prometheus runs them."""
import collections
import json
import re
import shutil
import subprocess

import pytest
import yaml

import monitoring
from monitoring import PROMETHEUS, ROOT

OPERATIONS = ROOT / "docs" / "operations.md"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def promtool(*arguments):
    run = subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=PROMETHEUS)
    assert run.returncode == 0, run.stdout + run.stderr


# ---- Rules --------------------------------------------------------------------------------------------------------------


@needs_promtool
def test_promtool_accepts_the_rules():
    promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")


@needs_promtool
def test_the_rules_pass_their_tests():
    promtool("test", "rules", "rules_test.yaml")


@pytest.mark.parametrize("name, rule", monitoring.alerts().items())
def test_an_alert_says_what_to_do(name, rule):
    notes = rule["annotations"]
    assert re.fullmatch("Nexus[A-Z][A-Za-z]+", name)
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert notes["summary"] and len(notes["summary"]) < 120
    for part in ("Look first: ", "Usual causes: ", "Fix: "):
        assert part in notes["description"], part
    assert notes["runbook_url"] == f"docs/operations.md#{name.lower()}"


def anchors(page):
    """Of headings, as Git hosts make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.skipif(not OPERATIONS.exists(), reason="docs/operations.md is not written yet")
def test_every_alert_has_a_section_in_the_guide():
    missing = {name for name in monitoring.alerts() if name.lower() not in anchors(OPERATIONS)}
    assert not missing


def firing(test):
    """alert → [(time, label sets that must fire)], in the order of time."""
    out = collections.defaultdict(list)
    for case in test.get("promql_expr_test", []):
        named = re.match(r'ALERTS\{alertname=~?"([\w|]+)", alertstate="firing"\}$', case["expr"])
        if named:
            minutes = sum(int(n) * {"h": 60, "m": 1}[unit] for n, unit in re.findall(r"(\d+)([hm])", case["eval_time"]))
            labels = {sample["labels"] for sample in case.get("exp_samples", [])}
            for alert in named[1].split("|"):
                out[alert].append((minutes, labels))
    return {alert: sorted(cases, key=lambda case: case[0]) for alert, cases in out.items()}


def has_whole_life(cases):
    """Some label set does not fire, then does, then does no more."""
    sets = [labels for _, labels in cases]
    return any(label not in sets[0] and any(label not in later for later in sets[i:])
               for i, labels in enumerate(sets) for label in labels)


def test_every_alert_is_tested_from_silence_to_silence():
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]
    tested = {alert for test in tests for alert, cases in firing(test).items() if has_whole_life(cases)}
    assert tested == set(monitoring.alerts())


def test_every_recorded_series_is_tested():
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]
    read = {name for test in tests for case in test.get("promql_expr_test", []) if case.get("exp_samples")
            for name in monitoring.names_in(case["expr"])}
    assert monitoring.recorded() <= read


# ---- Names --------------------------------------------------------------------------------------------------------------


def test_names_are_found_in_promql():
    expr = 'sum by (pod) (rate(a_total{b="c d"}[5m] offset 1h)) / on (x) group_left () r:s:t > 0.5e3 and max(up) or vector(1)'
    assert monitoring.names_in(expr) == {"a_total", "r:s:t", "up"}


def test_rules_and_dashboard_read_metrics_that_exist():
    known = monitoring.metrics_of_nexus() | monitoring.recorded() | monitoring.OUTSIDE
    exprs = [rule["expr"] for rule in monitoring.rules()] + list(monitoring.dashboard_queries("n", "p", "1m").values())
    read = set().union(*map(monitoring.names_in, exprs))
    assert not read - known
    assert not monitoring.OUTSIDE - read, "no longer used"


# ---- What is made from them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program, made", [("deploy/prometheus/generate", "deploy/k8s/components/monitoring/prometheusrule.yaml"),
                                           ("deploy/grafana/generate", "deploy/grafana/nexus.json")])
def test_made_files_are_up_to_date(program, made):
    text = subprocess.run([ROOT / program], capture_output=True, text=True, check=True).stdout
    assert (ROOT / made).read_text() == text, f"{made} is not what {program} makes: make docs"


def test_the_operators_rules_are_the_same():
    made = yaml.safe_load((ROOT / "deploy/k8s/components/monitoring/prometheusrule.yaml").read_text())
    assert made["kind"] == "PrometheusRule" and made["spec"] == yaml.safe_load(monitoring.RULES.read_text())


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_the_component_can_be_added_to_an_overlay(tmp_path):
    component = tmp_path / "monitoring"
    shutil.copytree(ROOT / "deploy/k8s/components/monitoring", component)
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay" / "kustomization.yaml").write_text("namespace: elsewhere\ncomponents: [../monitoring]\n")
    run = subprocess.run(["kubectl", "kustomize", tmp_path / "overlay"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    objects = {one["kind"]: one["metadata"]["namespace"] for one in yaml.safe_load_all(run.stdout)}
    assert objects == {"PodMonitor": "elsewhere", "PrometheusRule": "elsewhere"}


# ---- Dashboard ----------------------------------------------------------------------------------------------------------


def test_dashboard_as_a_whole():
    board = monitoring.dashboard()
    assert board["schemaVersion"] == 39 and board["title"] == "nexus"
    assert board["panels"][0]["title"] == "Is it well?"
    assert [each["name"] for each in board["templating"]["list"]] == ["datasource", "namespace", "pod"]
    ids = [each["id"] for each in board["panels"]]
    assert len(ids) == len(set(ids))
    text = json.dumps(board)
    assert set(re.findall(r'"uid": "([^"]*)"', text)) == {"nexus", "${datasource}"}, "data sources are chosen, not named"


@pytest.mark.parametrize("panel", monitoring.panels(), ids=lambda panel: panel["title"])
def test_a_panel_can_be_read(panel):
    assert panel["fieldConfig"]["defaults"]["unit"] and len(panel["description"]) > 40
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert len(set(legends)) == len(legends)
    shown = {o["matcher"]["options"] for o in panel["fieldConfig"]["overrides"] if len(o["properties"]) > 1}
    assert shown <= set(legends), "lines that no query draws"


def test_panels_do_not_cover_each_other():
    taken = collections.Counter((x, y) for panel in monitoring.dashboard()["panels"] for place in [panel["gridPos"]]
                                for x in range(place["x"], place["x"] + place["w"])
                                for y in range(place["y"], place["y"] + place["h"]))
    assert max(taken.values()) == 1 and max(x for x, _ in taken) < 24
