# SPDX-License-Identifier: Apache-2.0
"""What must hold in every overlay of deploy/k8s: what refers to something finds it, numbers agree with each other, and pods ask
for nothing that they do not need. (That the API knows every field is checked when they are rendered.)"""
import hashlib
import json
import os
import re
import subprocess

import pytest
import yaml

import secret
from conftest import KUBERNETES, NEXUS, OVERLAYS, RENDER, ROOT, Manifest, quantity, render

MIB = 1 << 20


# ---- What the renderer refuses -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("change, complaint", [
    (("preStop:", "preSTOP:"), "preSTOP"),
    (("memory: 1Gi", "memory: 1GiB"), "quantities"),
    (("periodSeconds: 10", "periodSeconds: soon"), "periodSeconds"),
    (("apps/v1", "apps/v2"), "no kind"),
])
def test_a_wrong_object_is_refused(tmp_path, change, complaint):
    deployment = (KUBERNETES / "base/deployment.yaml").read_text()
    assert change[0] in deployment
    (tmp_path / "deployment.yaml").write_text(deployment.replace(*change))
    (tmp_path / "kustomization.yaml").write_text("resources: [deployment.yaml]")
    done = subprocess.run([RENDER, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and complaint in done.stderr


# ---- References ------------------------------------------------------------------------------------------------------------

def test_every_kind_of_object_is_there(scaled):
    kinds = {o["kind"] for o in scaled.objects}
    assert kinds >= {"Namespace", "ConfigMap", "Secret", "ServiceAccount", "Deployment", "Service", "Ingress",
                     "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"}


def test_everything_is_in_the_namespace(manifest):
    name = manifest.only("Namespace")["metadata"]["name"]
    for o in manifest.objects:
        assert o["kind"] == "Namespace" or o["metadata"]["namespace"] == name, o["metadata"]
    names = [(o["kind"], o["metadata"]["name"]) for o in manifest.objects]
    assert len(set(names)) == len(names)


def labels_of_pods(manifest):
    return [w["spec"]["template"]["metadata"]["labels"] for w in manifest.workloads()]


def selects(selector, labels):
    return selector.items() <= labels.items()


def test_selectors_select(manifest):
    selectors = [w["spec"]["selector"]["matchLabels"] for w in manifest.workloads()]
    selectors += [s["spec"]["selector"] for s in manifest.all("Service")]
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        selectors += [o["spec"]["selector"]["matchLabels"] for o in manifest.all(kind)]
    selectors += [p["spec"]["podSelector"]["matchLabels"] for p in manifest.all("NetworkPolicy")]
    selectors += [c["labelSelector"]["matchLabels"] for c in manifest.pod()["topologySpreadConstraints"]]
    assert len(selectors) >= 4
    for selector in selectors:
        assert sum(selects(selector, labels) for labels in labels_of_pods(manifest)) == 1, selector


def test_ports_have_names_that_exist(manifest):
    for workload in manifest.workloads():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            ports = {p["name"]: p["containerPort"] for p in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = container[probe]
                where = probe.get("httpGet") or probe.get("tcpSocket")
                assert where is None or where["port"] in ports
    for service in manifest.all("Service"):
        container, = [w["spec"]["template"]["spec"]["containers"][0] for w in manifest.workloads()
                      if selects(service["spec"]["selector"], w["spec"]["template"]["metadata"]["labels"])]
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= {p["name"] for p in container["ports"]}
    for ingress in manifest.all("Ingress"):
        for path in ingress["spec"]["rules"][0]["http"]["paths"]:
            backend = path["backend"]["service"]
            assert backend["port"]["name"] in {p["name"] for p in manifest.get("Service", backend["name"])["spec"]["ports"]}


def test_volumes_are_mounted_and_exist(manifest):
    kept = {o["metadata"]["name"]: o for o in manifest.all("ConfigMap") + manifest.all("Secret")}
    pod = manifest.pod()
    assert {m["name"] for m in manifest.container()["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    for volume in pod["volumes"]:
        name = volume.get("configMap", {}).get("name") or volume.get("secret", {}).get("secretName")
        assert name is None or name in kept, volume
    assert pod["serviceAccountName"] == manifest.only("ServiceAccount")["metadata"]["name"]


def test_ports_of_the_container_are_those_of_its_settings(manifest):
    env = manifest.environment(secret.values()[0])
    ports = {p["name"]: p["containerPort"] for p in manifest.container()["ports"]}
    assert ports == {"http": int(env.get("PORT", 3000)), "admin": int(env["ADMIN_PORT"])}
    annotations = manifest.get("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == str(ports["admin"])
    assert annotations["prometheus.io/path"] == "/metrics"


def test_the_autoscaler_scales_the_deployment(scaled):
    target = scaled.only("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    deployment = scaled.get("Deployment")
    assert (target["apiVersion"], target["kind"], target["name"]) == (deployment["apiVersion"], "Deployment", "nexus")
    assert "replicas" not in deployment["spec"]


def test_values_are_written_as_the_server_stores_them(manifest):
    """Others are "configured" by each `kubectl apply`, and a conflict for `--server-side` after an apply without it."""
    assert manifest.get("Deployment")["spec"]["strategy"]["type"] == "RollingUpdate"
    for workload in manifest.workloads():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            assert container.get("env") != []
    for policy in manifest.all("NetworkPolicy"):
        for rule in policy["spec"]["ingress"] + policy["spec"].get("egress", []):
            assert all(port["protocol"] in ("TCP", "UDP") for port in rule["ports"])


# ---- Numbers ---------------------------------------------------------------------------------------------------------------

def test_resources(scaled):
    resources = scaled.container()["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == ("256Mi", "1Gi")
    assert quantity(resources["limits"]["cpu"]) == 1
    hpa = scaled.only("HorizontalPodAutoscaler")["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (2, 10)
    targets = {m["resource"]["name"]: m["resource"]["target"]["averageUtilization"] for m in hpa["metrics"]}
    assert targets == {"memory": 80, "cpu": 70}
    assert resources["requests"]["cpu"] == "500m"


def test_resources_of_the_base():
    base = Manifest(KUBERNETES / "base")
    assert base.container()["resources"] == {"requests": {"memory": "256Mi", "cpu": "250m"}, "limits": {"memory": "1Gi", "cpu": "1000m"}}
    metric, = base.only("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["resource"] == {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}}


def test_a_drain_fits_into_the_grace(manifest):
    drain_ms = int(manifest.environment(secret.values()[0])["SHUTDOWN_GRACE_MS"])
    pre_stop = manifest.container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert manifest.pod()["terminationGracePeriodSeconds"] > pre_stop + drain_ms / 1000


def test_the_cache_fits_into_its_volume_and_that_into_the_budget(manifest):
    env = manifest.environment(secret.values()[0])
    volume = manifest.volume(env["CACHE_DIR"])["emptyDir"]
    assert volume["medium"] == "Memory"
    assert int(env["CACHE_MAX_MB"]) * MIB <= quantity(volume["sizeLimit"])
    limit = quantity(manifest.container()["resources"]["limits"]["memory"])
    assert quantity(volume["sizeLimit"]) + int(env["MEMORY_LIMIT_MB"]) * MIB + 10 * MIB < limit * 0.9
    if manifest is not render("dev"):
        assert volume["sizeLimit"] == "128Mi"


def test_memory_per_instance_is_in_the_config_map(scaled):
    settings, = [o["data"] for o in scaled.all("ConfigMap") if "MEMORY_LIMIT_MB" in o["data"]]
    assert settings["MEMORY_LIMIT_MB"] == "32"
    assert {"configMapRef"} == {next(iter(s)) for s in scaled.container()["envFrom"]}


def test_handlers_are_a_volume_that_changes_reach(manifest):
    env = manifest.environment(secret.values()[0])
    volume = manifest.volume(env["HANDLERS_DIR"])
    assert volume["configMap"]["name"] == "nexus-handlers"  # without a hash
    assert not any("subPath" in m for m in manifest.container()["volumeMounts"])  # which would never change
    assert manifest.get("ConfigMap", "nexus-handlers")["data"]


# ---- The program's own judgement -------------------------------------------------------------------------------------------

def test_the_settings_are_what_nexus_takes(manifest):
    env = manifest.environment(secret.values()[0])
    done = subprocess.run([NEXUS, "config", "--json"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    known = {s["name"] for s in json.loads(done.stdout)["settings"] if s["source"] == "environment"}
    assert env.keys() - known <= {"REDIS_ADDRESS", "REDIS_PASSWORD"}


def plan(text):
    return subprocess.run([NEXUS, "plan", "--manifest", "-"], input=text, env={}, capture_output=True, text=True, check=False)


def test_the_plan_finds_nothing_to_change(manifest):
    done = plan(manifest.text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nverdict: fits\n" in done.stdout, done.stdout


@pytest.mark.parametrize("change, finding", [
    (("cpu: 500m", "cpu: 250m"), "maximum"),
    (("terminationGracePeriodSeconds: 40", "terminationGracePeriodSeconds: 20"), "grace"),
    (("sizeLimit: 128Mi", "sizeLimit: 32Mi"), "volume"),
    (('MEMORY_LIMIT_MB: "32"', 'MEMORY_LIMIT_MB: "3"'), "MEMORY_LIMIT_MB"),
])
def test_the_plan_sees_a_contradiction(change, finding):
    text = render("production").text
    assert change[0] in text
    done = plan(text.replace(*change))
    assert done.returncode == 1 and finding in done.stdout + done.stderr, done.stdout + done.stderr


# ---- Security --------------------------------------------------------------------------------------------------------------

def test_pods_are_restricted(manifest):
    """The Pod Security Standard "restricted", and what else nexus does not need."""
    assert manifest.only("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    allowed = {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}
    for workload in manifest.workloads():
        pod = workload["spec"]["template"]["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & pod.keys()
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0 and context["runAsGroup"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in pod.get("volumes", []):
            assert (volume.keys() - {"name"}) <= allowed
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]} and "privileged" not in context
            assert not any("hostPort" in port for port in container["ports"])
            assert container["resources"]["limits"]["memory"]
    assert manifest.only("ServiceAccount")["automountServiceAccountToken"] is False


def test_no_value_of_a_secret_is_in_the_repository(manifest):
    for o in manifest.all("Secret"):
        assert not {"data", "stringData"} & o.keys()
    for path in KUBERNETES.rglob("*"):
        assert not (path.is_file() and re.search(r"[0-9a-f]{64}", path.read_text())), path


def test_probes_and_metrics_stay_inside(scaled):
    container = scaled.container()
    expected = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    for probe, path in expected.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}
    assert [p["name"] for p in scaled.get("Service")["spec"]["ports"]] == ["http"]
    paths = [p for rule in scaled.only("Ingress")["spec"]["rules"] for p in rule["http"]["paths"]]
    assert {(p["path"], p["pathType"]) for p in paths} == {("/v1", "Prefix"), ("/run", "Prefix")}
    assert scaled.only("Ingress")["spec"]["ingressClassName"] == "nginx"


def test_who_may_reach_what(scaled):
    policy = scaled.get("NetworkPolicy")["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    ingress = {(rule["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
               for rule in policy["ingress"] for port in rule["ports"]}
    assert ingress == {("ingress-nginx", "http"), ("monitoring", "admin")}
    assert all(len(rule["from"]) == 1 for rule in policy["ingress"])
    egress = sorted((port["port"], port["protocol"]) for rule in policy["egress"] for port in rule["ports"])
    redis = [(6379, "TCP")] if scaled.all("StatefulSet") else []
    assert egress == [(53, "TCP"), (53, "UDP"), *redis]


def test_outbound_calls_are_a_component(tmp_path):
    kubernetes = os.path.relpath(KUBERNETES, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({
        "namespace": "nexus", "resources": [f"{kubernetes}/overlays/production"], "components": [f"{kubernetes}/components/outbound"],
        "configMapGenerator": [{"name": "nexus", "behavior": "merge", "literals": ["NET_ALLOW=api.example.com,*.example.org"]}]}))
    manifest = Manifest(tmp_path)
    env = manifest.environment(secret.values()[0])
    assert env["NET_ALLOW"] == "api.example.com,*.example.org" and env["MEMORY_LIMIT_MB"] == "32"
    rule = manifest.get("NetworkPolicy")["spec"]["egress"][-1]
    assert {port["port"] for port in rule["ports"]} == {80, 443}
    assert "169.254.0.0/16" in rule["to"][0]["ipBlock"]["except"]
    done = subprocess.run([NEXUS, "config"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_redis_that_is_there_already_is_a_component(tmp_path):
    kubernetes = os.path.relpath(KUBERNETES, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({
        "namespace": "nexus", "resources": [f"{kubernetes}/overlays/production"], "components": [f"{kubernetes}/components/redis"],
        "configMapGenerator": [{"name": "nexus", "behavior": "merge", "literals": ["REDIS_ADDRESS=redis.data.svc:6379"]}]}))
    manifest = Manifest(tmp_path)
    assert not manifest.all("StatefulSet")
    assert manifest.environment(secret.values()[0] | {"redis-password": "secret"})["SUSPEND_STORE"] == "redis://:secret@redis.data.svc:6379/0"


# ---- The Secret ------------------------------------------------------------------------------------------------------------

def test_new_values_each_time():
    (test, add), token = secret.make("acme", "execute,resume")
    assert test == {"op": "test", "path": "/data", "value": None}  # what is there is never replaced
    assert (add["op"], add["path"]) == ("add", "/stringData")
    value = add["value"]
    assert set(value) == {"suspend-key", "redis-password", "auth-tokens"}
    assert re.fullmatch("[0-9a-f]{64}", value["suspend-key"]) and re.fullmatch("[0-9a-f]{64}", value["redis-password"])
    assert value["auth-tokens"] == f"acme execute,resume sha256:{hashlib.sha256(token.encode()).hexdigest()}\n"
    (_, again), another = secret.make()
    assert not set(again["value"].values()) & set(value.values()) and another != token


def test_the_password_of_a_redis_that_is_there_already(monkeypatch):
    monkeypatch.setenv("REDIS_PASSWORD", "known%40")
    assert secret.values()[0]["redis-password"] == "known%40"
    monkeypatch.setenv("REDIS_PASSWORD", 'a"b')
    with pytest.raises(subprocess.CalledProcessError):
        secret.make()


# ---- Versions --------------------------------------------------------------------------------------------------------------

def test_the_image_is_of_this_version(manifest):
    version = re.search(r"version: '([^']+)'", (ROOT / "meson.build").read_text())[1]
    assert manifest.container()["image"] == f"nexus:{version}"


def test_every_overlay_is_checked():
    assert set(OVERLAYS) >= {"dev", "production", "redis"}
