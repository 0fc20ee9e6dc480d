# SPDX-License-Identifier: Apache-2.0
"""nexus plan: text, JSON, exit statuses, flags, environment. The arithmetic itself is in tests/unit/test_plan.c."""
import json
import re

import pytest

from conftest import nexus

USAGE = 2
MIB = 1 << 20
EXAMPLE = ("--limit", "1Gi", "--request", "256Mi", "--instance", "32Mi", "--cores", "2", "--hpa", "80")


def plan(*arguments, settings=None, status=0):
    run = nexus("plan", "--json", *arguments, settings=settings)
    assert (run.returncode, run.stderr) == (status, ""), run.stderr
    return json.loads(run.stdout)


def findings(made):
    return {finding["finding"]: finding for finding in made["findings"]}


def changes(made, finding):
    return {change["variable"]: change["value"] for change in findings(made)[finding]["changes"]}


def text(*arguments, settings=None, status=0):
    run = nexus("plan", *arguments, settings=settings)
    assert (run.returncode, run.stderr) == (status, ""), run.stderr
    return run.stdout


# ---- What it says ---------------------------------------------------------------------------------------------------------------

def test_the_reference_deployment():
    made = plan(*EXAMPLE)
    assert (made["verdict"], made["fits"], made["findings"]) == ("fits", True, [])
    assert made["container"] == {"limit": "limited", "limitBytes": 1 << 30, "requestBytes": 256 * MIB, "alertBytes": (1 << 30) * 70 // 100,
                                 "qosClass": "Burstable", "qosBasis": "memory"}
    budget = made["budget"]
    assert budget["limitBytes"] == budget["reserveBytes"] + budget["budgetBytes"] == 1 << 30
    assert budget["budgetBytes"] == budget["processBytes"] + budget["cacheBytes"] + budget["leftBytes"]
    assert (budget["processBytes"], budget["cacheBytes"]) == (8 * MIB, 64 * MIB)
    instance = made["instance"]
    assert instance["totalBytes"] == instance["memoryBytes"] + instance["nativeStackBytes"] + instance["pageTablesBytes"]
    assert instance["memoryBytes"] == 32 * MIB
    assert made["instances"]["max"] == 8 and made["instances"]["fit"] == budget["leftBytes"] // instance["totalBytes"] == 24
    scaling = made["autoscaler"]
    assert scaling["targetBytes"] == 256 * MIB * 80 // 100
    assert scaling["addsPodAboveBytes"] == 256 * MIB * 88 // 100
    assert scaling["scaleIn"][0] == {"pods": 2, "toPods": 1, "atMostBytes": 256 * MIB * 40 // 100}
    assert [step["pods"] for step in scaling["scaleIn"]] == list(range(2, 11))
    assert scaling["idlePods"] == 1


def test_the_reference_deployment_as_text():
    out = text(*EXAMPLE)
    assert out.startswith("verdict: fits\n")
    for line in (r"limit +1024\.0", r"reserve +102\.4", r"process +8\.0", r"cache +64\.0", r"one instance +34\.1", r"24 fit fully grown",
                 r"over-commit begins at 25", r"target +204\.8", r"adds a pod above +225\.3", r"2 to 1 pods at +102\.4", r"alert above +716\.8",
                 r"QoS Burstable, by memory alone", r"89\.1 above", r"184\.0 below"):
        assert re.search(line, out), f"{line}\n{out}"


@pytest.mark.parametrize("arguments", [
    EXAMPLE, (), ("--limit", "48Mi"), (*EXAMPLE, "--max-instances=4096", "--cache=128Mi"), ("--limit=1024Ti", "--request=512Ti"),
    ("--limit=1Gi", "--hpa=90"), ("--limit=1Gi", "--request=2Gi"), ("--limit", "1Gi", "--container-memory-limit", "500Mi", "--request", "1Mi"),
])
def test_one_screen(arguments):
    lines = nexus("plan", *arguments).stdout.splitlines()
    assert 15 < len(lines) < 45 and max(map(len, lines)) <= 80, "\n".join(lines)


def test_over_commit_is_safe():
    made = plan(*EXAMPLE, "--max-instances", "40")
    assert (made["verdict"], made["fits"], made["instances"]["overCommitted"]) == ("over-committed", True, True)
    advice = changes(made, "over-committed")
    assert advice["MAX_INSTANCES"] == 24
    assert plan(*EXAMPLE, "--max-instances=40", f"--memory-limit-mb={advice['MEMORY_LIMIT_MB']}")["verdict"] == "fits"
    assert plan(*EXAMPLE, "--max-instances=40", f"--limit={advice['limits.memory']}")["verdict"] == "fits"
    assert text(*EXAMPLE, "--max-instances=40").startswith("verdict: over-committed (safe)\n")


def test_a_large_cache_never_scales_in():
    made = plan(*EXAMPLE, "--cache", "128Mi")
    assert made["verdict"] == "never scales in" and made["autoscaler"]["idlePods"] == 2
    assert changes(made, "never scales in") == {"CACHE_MAX_MB": 94, "requests.memory": 340 * MIB}
    assert plan(*EXAMPLE, "--cache=94Mi")["verdict"] == "fits"
    assert plan(*EXAMPLE, "--cache=128Mi", "--request=340Mi")["verdict"] == "fits"
    assert plan(*EXAMPLE, "--cache=128Mi", "--min-pods=2")["verdict"] == "fits"
    assert "CACHE_MAX_MB=94 or requests.memory=340Mi" in text(*EXAMPLE, "--cache=128Mi")


def test_what_cannot_fit():
    made = plan("--limit=48Mi", status=1)
    assert (made["verdict"], made["fits"], made["instances"]["fit"]) == ("cannot fit", False, 0)
    assert made["budget"]["neededBytes"] > 48 * MIB
    advice = changes(made, "cannot fit")
    assert advice == {"MEMORY_LIMIT_MB": 23, "CACHE_MAX_MB": 1, "limits.memory": 63 * MIB}
    assert plan("--limit=48Mi", "--instance=23Mi")["fits"]
    assert plan("--limit=48Mi", "--cache=1Mi")["fits"]
    assert plan("--limit=63Mi")["fits"]
    assert text("--limit=48Mi", status=1).startswith("verdict: cannot fit\n")


def test_it_agrees_with_serve():
    for limit in ("48Mi", "62Mi", "64Mi", "1Gi"):
        settings = {"CONTAINER_MEMORY_LIMIT": limit}
        config = nexus("config", "--json", settings=settings)
        run = nexus("plan", "--json", settings=settings)
        assert (run.returncode == 0) == (config.returncode == 0)
        if config.returncode:
            for change in changes(json.loads(run.stdout), "cannot fit").values():
                assert str(change if change < MIB else change // MIB) in config.stderr
            continue
        values = {row["name"]: row["value"] for row in json.loads(config.stdout)["settings"]}
        assert values["MAX_INSTANCES"] == json.loads(run.stdout)["instances"]["max"]
        assert values["CACHE_MAX_MB"] * MIB == json.loads(run.stdout)["budget"]["cacheBytes"]


def test_guaranteed():
    for arguments in (("--request=1Gi",), ()):
        made = plan("--limit=1Gi", *arguments)
        assert made["container"]["qosClass"] == "Guaranteed"
    assert "evicted last" in text("--limit=1Gi")


def test_request_above_the_limit():
    assert plan("--limit=512Mi", "--request=1Gi", status=1)["verdict"] == "request above limit"


# ---- Where the numbers come from --------------------------------------------------------------------------------------------------

def test_this_container():
    made = plan()
    assert made["budget"]["limitBytes"] > 0 and made["autoscaler"] is None and made["container"]["qosClass"] is None
    if made["container"]["limit"] != "limited":
        assert "no limit" in findings(made) and made["container"]["alertBytes"] is None
        assert "no memory limit" in text() or "cannot be read" in text()


def test_environment_and_flags_of_serve():
    made = plan("--limit=1Gi", settings={"MEMORY_LIMIT_MB": 16, "MAX_INSTANCES": 3, "MEMORY_RESERVE_PERCENT": 20, "STACK_SIZE_KB": 64})
    assert (made["instance"]["memoryBytes"], made["instances"]["max"]) == (16 * MIB, 3)
    assert made["instance"]["nativeStackBytes"] == 192 << 10
    assert made["budget"]["reserveBytes"] == (1 << 30) * 20 // 100
    made = plan("--limit=1Gi", "--max-instances", "5", "--instance=8Mi", settings={"MEMORY_LIMIT_MB": 16, "MAX_INSTANCES": 3})
    assert (made["instance"]["memoryBytes"], made["instances"]["max"]) == (8 * MIB, 5)
    # The last one of a name counts, whichever name it is.
    assert plan("--limit=1Gi", "--instance=8Mi", "--memory-limit-mb=9")["instance"]["memoryBytes"] == 9 * MIB
    assert plan("--limit=1Gi", "--memory-limit-mb=9", "--instance=8Mi")["instance"]["memoryBytes"] == 8 * MIB


def test_cores_and_percentages():
    assert plan("--limit=4Gi", "--cores=1")["instances"]["max"] == 4
    assert plan("--limit=4Gi", "--cores", "16")["instances"]["max"] == 64
    made = plan("--limit=1G", "--request=100M", "--hpa=75", "--alert=50", "--min-pods=2", "--max-pods=4")
    assert made["container"]["alertBytes"] == 500_000_000
    assert made["autoscaler"]["targetBytes"] == 75_000_000
    assert [step["toPods"] for step in made["autoscaler"]["scaleIn"]] == [2, 3]


def test_a_limit_of_its_own():
    """CONTAINER_MEMORY_LIMIT binds nexus; alert and QoS follow what Kubernetes knows."""
    made = plan("--limit=1Gi", "--request=256Mi", settings={"CONTAINER_MEMORY_LIMIT": "512Mi"})
    assert made["budget"]["limitBytes"] == 512 * MIB
    assert made["container"]["limitBytes"] == 1 << 30 and made["container"]["alertBytes"] == (1 << 30) * 70 // 100
    run = nexus("plan", "--limit=256Mi", settings={"CONTAINER_MEMORY_LIMIT": "512Mi"})
    assert run.returncode == USAGE and "CONTAINER_MEMORY_LIMIT" in run.stderr


# ---- What is wrong ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, message", [
    (("--limit=1GB",), '--limit="1GB": expected bytes'), (("--limit=auto",), "--limit"), (("--limit=",), "--limit"), (("--limit",), "missing"),
    (("--request", "-1"), "--request"), (("--limit=" + "9" * 100,), "--limit"), (("--instance=1500k",), "multiple of 1Mi"),
    (("--instance=2Gi",), "from 4 to 1024"), (("--cache=1000",), "--cache"), (("--cores=0",), "from 1 to 65536"), (("--cores=x",), "--cores"),
    (("--hpa=0",), "from 1 to 1000"), (("--hpa=80%",), "--hpa"), (("--alert=101",), "from 1 to 100"), (("--min-pods=5", "--max-pods=4"), "--max-pods"),
    (("--unknown=1",), "unknown flag"), (("--max-instances=0",), "from 1 to 4096"), (("extra",), "unexpected"), (("--json=1",), "unknown flag"),
    (("--limit\nx=1",), "unknown flag"), (("--timeout-ms",), "missing"),
])
def test_wrong_flags(arguments, message):
    run = nexus("plan", *arguments)
    assert (run.returncode, run.stdout) == (USAGE, "")
    assert message in run.stderr and "usage: nexus plan" in run.stderr


def test_all_problems_at_once():
    run = nexus("plan", "--limit=x", "--cores=x", "--queue-max=x", settings={"PORT": "x"})
    assert run.returncode == USAGE
    for name in ("--limit", "--cores", "--queue-max", "PORT"):
        assert name in run.stderr


def test_usage_names_it():
    assert "plan" in nexus("help").stdout
