# SPDX-License-Identifier: Apache-2.0
"""nexus plan --manifest: a manifest without contradictions, each contradiction as one edit of it, and files that mean harm.

tests/unit/test_manifest_*.c have the details of each finding, of quantities and of the environment."""
import itertools
import json
import os
import pathlib
import random
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies

from conftest import NEXUS, SLOWNESS, environment, nexus

CLEAN, CONTRADICTS, USAGE = 0, 1, 2
MIB = 1 << 20
MANIFESTS = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "manifests"
GOOD = (MANIFESTS / "good.yaml").read_text()


def run(text, *arguments, status=None, settings=None):
    if isinstance(text, str):
        text = text.encode()
    done = subprocess.run([NEXUS, "plan", "--manifest", "-", *arguments], input=text, env=environment(settings), capture_output=True,
                          timeout=60 * SLOWNESS)
    if status is not None:
        assert done.returncode == status, done.stdout.decode() + done.stderr.decode()
    return done


def plan(text, *arguments, status=CLEAN, settings=None):
    done = run(text, "--json", *arguments, status=status, settings=settings)
    assert done.stderr == b""
    return json.loads(done.stdout)


def edit(*changes):
    """The good manifest with texts replaced, each of which stands in it."""
    text = GOOD
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def names(made):
    return [finding["finding"] for finding in made["findings"]]


def finding(made, name):
    return next(finding for finding in made["findings"] if finding["finding"] == name)


# ---- Without contradictions ---------------------------------------------------------------------------------------------------------

def test_the_good_one():
    made = plan(GOOD)
    assert (made["verdict"], made["fits"], made["findings"]) == ("fits", True, [])
    assert {key: made["manifest"][key] for key in ("namespace", "deployment", "container")} == {
        "namespace": "nexus", "deployment": "nexus", "container": "nexus"}
    objects = {(o["kind"], o["name"]): o for o in made["manifest"]["objects"]}
    assert objects["HorizontalPodAutoscaler", "nexus"]["use"] == "memory 80 %, cpu 70 %, 2 to 10 pods"
    assert objects["Secret", "nexus"]["line"] == 0
    lines = GOOD.splitlines()
    for key, found in objects.items():
        if found["line"]:
            assert lines[found["line"] - 1].startswith("apiVersion:") and key[0] in lines[found["line"]], found
    assert made["container"] == {"limit": "limited", "limitBytes": 1024 * MIB, "requestBytes": 256 * MIB, "alertBytes": 1024 * MIB * 70 // 100,
                                 "qosClass": "Burstable", "qosBasis": "pod"}
    assert made["autoscaler"]["podsMin"] == 2 and made["autoscaler"]["podsMax"] == 10 and made["autoscaler"]["percent"] == 80


def test_it_is_the_plan_of_the_same_numbers():
    """What the manifest says is what flags would say; nothing of this machine is in either."""
    made = plan(GOOD)
    run_of_flags = nexus("plan", "--json", "--limit=1Gi", "--request=256Mi", "--hpa=80", "--min-pods=2", "--cores=1")
    by_flags = json.loads(run_of_flags.stdout)
    for part in ("instance", "instances", "autoscaler"):
        assert made[part] == by_flags[part]
    assert made["budget"]["leftBytes"] == by_flags["budget"]["leftBytes"]


def test_as_text():
    out = run(GOOD, status=CLEAN).stdout.decode()
    assert out.startswith("manifest: standard input\n")
    assert "  line 30    Deployment nexus/nexus: container nexus\n" in out and "  not there  Secret nexus/nexus: env\n" in out
    assert "\nverdict: fits\n" in out and "autoscaler: 80 % of the request of 256.0 MiB, 2 to 10 pods" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_file_and_a_pipe(tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text(GOOD)
    by_file = nexus("plan", "--json", "--manifest", str(path))
    assert by_file.returncode == CLEAN and json.loads(by_file.stdout)["manifest"]["file"] == str(path)
    reader, writer = os.pipe()
    os.write(writer, GOOD.encode())  # fits into a pipe
    os.close(writer)
    by_pipe = nexus("plan", f"--manifest=/dev/fd/{reader}", pass_fds=[reader])
    os.close(reader)
    assert by_pipe.returncode == CLEAN


def test_as_a_list():
    documents = [part for part in GOOD.split("---\n")]
    items = "".join("- " + "  ".join(line + "\n" for line in part.strip().splitlines() if not line.startswith("#")) for part in documents)
    made = plan("apiVersion: v1\nkind: List\nitems:\n" + items)
    assert (made["verdict"], names(made)) == ("fits", [])


def test_nothing_of_this_process_is_in_it():
    made = plan(GOOD, settings={"MEMORY_LIMIT_MB": 64, "PORT": "nonsense", "CONTAINER_MEMORY_LIMIT": "64Mi"})
    assert made["instance"]["memoryBytes"] == 32 * MIB and made["findings"] == []


def test_flags_win():
    made = plan(GOOD, "--limit=2Gi", "--request=512Mi", "--hpa=60", "--min-pods=3", "--max-pods=12", "--cores=3", "--instance=16Mi")
    assert made["container"]["limitBytes"] == 2048 * MIB and made["container"]["requestBytes"] == 512 * MIB
    assert (made["autoscaler"]["percent"], made["autoscaler"]["podsMin"], made["autoscaler"]["podsMax"]) == (60, 3, 12)
    assert made["instance"]["memoryBytes"] == 16 * MIB and made["instances"]["max"] == 12
    assert plan(edit(("MEMORY_LIMIT_MB: \"32\"", "MEMORY_LIMIT_MB: \"900\"")), "--memory-limit-mb=32")["fits"]


def test_arguments_of_the_container():
    made = plan(edit(("image: nexus:0.1.0", "image: nexus:0.1.0\n          args: [serve, --memory-limit-mb=16, --max-instances, \"3\"]")))
    assert (made["instance"]["memoryBytes"], made["instances"]["max"]) == (16 * MIB, 3)


# ---- Contradictions: one edit each ------------------------------------------------------------------------------------------------------

VPA = """
---
apiVersion: autoscaling.k8s.io/v1
kind: VerticalPodAutoscaler
metadata: {name: nexus, namespace: nexus}
spec: {targetRef: {apiVersion: apps/v1, kind: Deployment, name: nexus}}
"""

CONTRADICTIONS = {
    # finding: ([(old, new)…], words of message or advice)
    "settings refused": ([('MEMORY_LIMIT_MB: "32"', 'MEMORY_LIMIT_MB: "2"')], 'MEMORY_LIMIT_MB="2": expected a whole number from 4 to 1024'),
    "budget above limit": ([('PORT: "3000"', 'PORT: "3000"\n  CONTAINER_MEMORY_LIMIT: 2Gi')], "2048.0 MiB and the container has 1024.0"),
    "cannot fit": ([("memory: 1Gi", "memory: 96Mi"), ("memory: 256Mi", "memory: 64Mi"), ('MEMORY_LIMIT_MB: "32"', 'MEMORY_LIMIT_MB: "64"')],
                   "serve refuses to start"),
    "request above limit": ([("memory: 256Mi", "memory: 2Gi")], "2048.0 MiB"),
    "no limit": ([("              memory: 1Gi\n", "")], "limits.memory"),
    "never scales in": ([("CACHE_DIR:", 'CACHE_MAX_MB: "512"\n  CACHE_DIR:'), ("sizeLimit: 128Mi", "sizeLimit: 512Mi")], "idle pod"),
    "never scales out": ([("memory: 256Mi", "memory: 1Gi"), ("averageUtilization: 80", "averageUtilization: 95")], "does not reach"),
    "minReplicas above maxReplicas": ([("minReplicas: 2", "minReplicas: 11")], "minReplicas is 11 and maxReplicas 10"),
    "autoscaler without memory request": ([("              memory: 256Mi\n", ""), ("              memory: 1Gi\n", "")], "requests.memory"),
    "autoscaler without cpu request": ([("              cpu: 500m\n", ""), ("              cpu: 1000m\n", "")], "requests.cpu"),
    "pinned at maximum": ([("cpu: 500m", "cpu: 250m")], "requests.cpu=318m"),
    "cache above its volume": ([("sizeLimit: 128Mi", "sizeLimit: 32Mi")], "CACHE_MAX_MB=32 or sizeLimit=64Mi"),
    "cache not writable": ([("mountPath: /tmp/nexus-cache", "mountPath: /cache")], "read-only"),
    "memory volume without size": ([("            sizeLimit: 128Mi\n", "")], "whole memory limit"),
    "memory volume above limit": ([("sizeLimit: 128Mi", "sizeLimit: 2Gi")], "2048.0 MiB"),
    "memory volumes too large": ([("sizeLimit: 128Mi", "sizeLimit: 1000Mi")], "sizeLimit=879Mi"),
    "grace shorter than drain": ([("terminationGracePeriodSeconds: 40", "terminationGracePeriodSeconds: 29")], "terminationGracePeriodSeconds=30"),
    "vpa and hpa on memory": ([("---\napiVersion: policy/v1", VPA + "---\napiVersion: policy/v1")], "requests.memory"),
    "vpa and hpa on cpu": ([("---\napiVersion: policy/v1", VPA + "---\napiVersion: policy/v1")], "requests.cpu"),
    "replicas beside autoscaler": ([("spec:\n  selector:", "spec:\n  replicas: 3\n  selector:")], "replicas: 3"),
    "autoscaler without target": ([("    name: nexus\n  minReplicas", "    name: nexus-runtime\n  minReplicas")], "nexus/nexus-runtime"),
    "two autoscalers": ([("---\napiVersion: autoscaling", "---\n" + GOOD.split("---\n")[-2] + "---\napiVersion: autoscaling")], "2 autoscalers"),
    "never evictable": ([("maxUnavailable: 1", "minAvailable: 2")], "cannot be drained"),
    "liveness depends on load": ([("path: /livez", "path: /health")], "/livez"),
    "nobody listens": ([('ADMIN_PORT: "3001"', 'ADMIN_PORT: "3002"')], "livenessProbe wants port 3001"),
    "reference not filled in": ([('ADMIN_PORT: "3001"', 'ADMIN_PORT: "3001"\n  OTHER: $(PORT)')], "OTHER has $(PORT)"),
    "not in this file": ([("configMapRef:\n                name: nexus", "configMapRef:\n                name: settings")], "ConfigMap settings"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradiction(name):
    changes, words = CONTRADICTIONS[name]
    made = plan(edit(*changes), status=CONTRADICTS)
    assert name in names(made), made["findings"]
    found = [f for f in made["findings"] if f["finding"] == name]
    assert any(words in f["message"] or words in f["advice"] for f in found), found
    assert found[0]["severity"] in ("error", "warning")
    ranks = [("error", "warning", "note").index(f["severity"]) for f in made["findings"]]
    assert ranks == sorted(ranks) and made["verdict"] == names(made)[0]
    text = run(edit(*changes), status=CONTRADICTS).stdout.decode()
    assert f"{found[0]['severity']}: {name}: " in " ".join(text.split()) and max(map(len, text.splitlines())) <= 80


def test_all_contradictions_are_documented():
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "memory.md").read_text()
    header = (pathlib.Path(__file__).resolve().parents[2] / "src" / "manifest" / "contradictions.h").read_text()
    listed = {line.split('"')[1] for line in header.splitlines() if line.startswith("  X(")}
    assert len(listed) > 20
    for name in listed | set(CONTRADICTIONS):
        assert f"| {name} |" in page, name


@pytest.mark.parametrize("name, changes", [
    ("over-committed", [('MEMORY_LIMIT_MB: "32"', 'MEMORY_LIMIT_MB: "32"\n  MAX_INSTANCES: "40"')]),
    ("suspensions stay in their pod", [("SUSPEND_STORE: sealed", "SUSPEND_STORE: memory")]),
    ("sidecars count", [("        - name: nexus\n          image", "        - {name: log, resources: {requests: {memory: 64Mi, cpu: 50m}}}\n"
                                                                   "        - name: nexus\n          image")]),
    ("no cpu limit", [("              cpu: 1000m\n", "")]),
])
def test_notes_are_no_contradictions(name, changes):
    made = plan(edit(*changes))
    assert names(made) == [name] and made["findings"][0]["severity"] == "note"
    assert made["verdict"] == (name if name == "over-committed" else "fits")


def test_advice_holds():
    """What a finding says to change makes it go away."""
    grown = finding(plan(edit(("cpu: 500m", "cpu: 100m")), status=CONTRADICTS), "pinned at maximum")
    request = next(c["value"] for c in grown["changes"] if c["variable"] == "requests.cpu")
    assert names(plan(edit(("cpu: 500m", f"cpu: {request}m")))) == []
    assert names(plan(edit(("cpu: 500m", f"cpu: {request - 1}m")), status=CONTRADICTS)) == ["pinned at maximum"]
    late = finding(plan(edit(("Seconds: 40", "Seconds: 3"), ('["sleep", "5"]', '["sleep", "1"]')), status=CONTRADICTS), "grace shorter than drain")
    for change in late["changes"]:
        if change["variable"] == "SHUTDOWN_GRACE_MS":
            fixed = edit(("Seconds: 40", "Seconds: 3"), ('["sleep", "5"]', '["sleep", "1"]'), ('MS: "25000"', f'MS: "{change["value"]}"'))
        else:
            fixed = edit(("Seconds: 40", f"Seconds: {change['value']}"), ('["sleep", "5"]', '["sleep", "1"]'))
        assert names(plan(fixed)) == []


def test_refused_settings_are_those_of_config():
    """Every line that nexus config has for the same environment is a finding of its own."""
    wrong = {"PORT": "x", "MEMORY_LIMIT_MB": "9999", "QUEUE_MAX": "-1", "NET_ALLOW": "//"}
    text = edit(('  PORT: "3000"\n', ""), ('  MEMORY_LIMIT_MB: "32"\n', "".join(f'  {name}: "{value}"\n' for name, value in wrong.items())))
    made = plan(text, status=CONTRADICTS)
    key = "0" * 64
    config = nexus("config", settings={**wrong, "ADMIN_PORT": "3001", "SUSPEND_STORE": "sealed", "SUSPEND_KEY": key})
    assert config.returncode == USAGE
    said = [f["message"] for f in made["findings"] if f["finding"] == "settings refused"]
    assert sorted(said) == sorted(config.stderr.splitlines()) and len(said) == len(wrong)
    assert made["fits"] is None and "budget" not in made


def test_a_limit_that_only_nexus_knows():
    made = plan(edit(("              memory: 1Gi\n", ""), ('PORT: "3000"', 'PORT: "3000"\n  CONTAINER_MEMORY_LIMIT: 1Gi')), status=CONTRADICTS)
    assert names(made) == ["no limit"] and "keeps to CONTAINER_MEMORY_LIMIT (1024.0 MiB)" in made["findings"][0]["message"]
    assert made["container"]["limit"] == "unlimited" and made["budget"]["limitBytes"] == 1024 * MIB


def test_two_deployments_of_one_name_in_two_namespaces():
    other = "---\n" + GOOD.split("---\n")[3].replace("namespace: nexus", "namespace: staging").replace("- name: nexus", "- name: web").replace("image: nexus", "image: web")
    made = plan(GOOD + other)
    assert made["manifest"]["namespace"] == "nexus" and names(made) == []
    done = run(GOOD + other.replace("- name: web", "- name: nexus"), status=USAGE)
    assert b"nexus/nexus" in done.stderr and b"staging/nexus" in done.stderr


# ---- What is no manifest ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, message", [
    ("", "no Deployment that runs nexus"), ("hello: world\n", "expected an object of Kubernetes"), ("a: [1\n", "standard input:2:1: "),
    (b"\x7fELF\x02\x01\x01\x00", "not YAML"), (b"\xff\xfe\x00", "not YAML"), ("[" * 1000000, "nested too deeply"),
    ("a: &a [x]\n" + "b: [*a, *a]\n" * 3, "the same key a second time"), ("- &a x\n" + "- *a\n" * 5000, "too many aliases"),
    ("#" * (17 << 20), "more than 16 MiB"), (GOOD.replace("memory: 1Gi", "memory: 1GB"), 'standard input:92:23: "memory": expected a quantity of bytes'),
    (GOOD.replace('PORT: "3000"', "PORT: 3000"), 'standard input:13:9: "PORT": expected a string'),
    (GOOD[:GOOD.index("maxReplicas")], "maxReplicas"), (GOOD[:GOOD.index('"5"]')], "standard input:"),
], ids=itertools.count())
def test_no_manifest(text, message):
    done = run(text, status=USAGE)
    assert message in done.stderr.decode() and done.stdout == b""


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        done = nexus("plan", "--manifest", str(path))
        assert done.returncode == USAGE and str(path)[:40] in done.stderr
    assert "the value is missing" in nexus("plan", "--manifest").stderr


@pytest.mark.parametrize("flags, message", [
    (["--unknown=1"], "unknown flag"), (["--limit=x"], "--limit"), (["--port=x"], "--port"), (["--min-pods=5", "--max-pods=4"], "--max-pods")])
def test_wrong_flags_are_not_the_manifests_fault(flags, message):
    done = run(GOOD, *flags, status=USAGE)
    assert message in done.stderr.decode() and "usage: nexus plan" in done.stderr.decode()


def test_names_do_not_reach_the_terminal_as_commands():
    text = edit(("            - name: admin", '            - name: "\\e[31madmin\\x9b"'), ('ADMIN_PORT: "3001"', 'ADMIN_PORT: "3002"'))
    for arguments in ((), ("--json",)):
        out = run(text, *arguments, status=CONTRADICTS).stdout
        assert b"\x1b" not in out and b"\xc2\x9b" not in out


def test_output_that_is_full():
    with open("/dev/full", "w") as full:
        done = subprocess.run([NEXUS, "plan", "--manifest", str(MANIFESTS / "good.yaml")], env=environment(), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and b"nexus plan: cannot write: No space left" in done.stderr  # and not as if it contradicted itself


PIECES = [line + "\n" for line in GOOD.splitlines()] + ["&a ", "*a", "{", "[", "- ", "\t", '"', "'", "|", ">", "!!x ", "? ", "%TAG ! x\n", "<<: *a\n", "\0",
                                                       "\xff", "-1", "1e99", "999999999999999999999", "null", "$(", "$(PORT)", "\n---\n"]


@hypothesis_settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(strategies.integers(0, 2 ** 32), strategies.integers(1, 6))
def test_never_a_crash(seed, count):
    """Whatever happens to the bytes of a manifest: a clean end, and JSON on standard output or one line of error."""
    chance = random.Random(seed)
    data = bytearray(GOOD.encode())
    for _ in range(count):
        at = chance.randrange(len(data) + 1)
        until = min(len(data), at + chance.choice((0, 1, 1, 5, 40, 400)))
        data[at:until] = chance.choice((chance.choice(PIECES).encode("latin-1"), bytes([chance.randrange(256)]), b"", bytes(data[at:until]) * 2))
    done = run(bytes(data), "--json")
    assert done.returncode in (CLEAN, CONTRADICTS, USAGE), (done.returncode, done.stderr, bytes(data))
    if done.returncode == USAGE:
        assert done.stdout == b"" and done.stderr.startswith(b"nexus plan: ") and done.stderr.count(b"\n") == 1, done.stderr
    else:
        assert json.loads(done.stdout)["verdict"] and done.stderr == b""
