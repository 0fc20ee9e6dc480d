# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus watches a real nexus under load with deploy/prometheus: targets are found and labelled, alerts fire and
resolve, and every query of the dashboard has an answer.

What is not as in a cluster: the rules' durations (`for`, windows, offsets) are a sixtieth, so minutes are seconds; targets
come from a file with the labels that Kubernetes would give (Debian's Prometheus is built without Kubernetes), and go through
the relabelling of prometheus.yaml; cAdvisor and kube-state-metrics are played by a server of the test. nexus is in a memory
group of its own where the machine allows it. Environment: NEXUS, NEXUS_TEST_SLOWNESS as for tests/integration.
"""
import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "integration"), str(ROOT / "tests" / "container")]
import monitoring  # noqa: E402
from conftest import Server, wait_until  # noqa: E402
from memory_group import Group, Unavailable  # noqa: E402
from redis_server import PROGRAM as REDIS, Redis, free_port  # noqa: E402

NAMESPACE, POD = "shop", "nexus-7d9f-x2x4z"
MIB = 1 << 20
LIMIT = 128 * MIB
SCRAPE = "500ms"
HANDLERS = {
    "good": "return $args",
    "fails": "throw new Error('no')",
    "endless": "for (;;);",
    "slow": "const end = Date.now() + 60; while (Date.now() < end);",
    "waits": "return await $ext.pay.charge($args)",
}
GRANTS = {"endless": {"timeoutMs": 20}, "waits": {"capabilities": ["ext:pay"], "extensions": {"pay": ["charge"]}}}
UNDER_LOAD = {"NexusErrors", "NexusTimeouts", "NexusRefusals", "NexusAutoscalerAtMaximum"}

pytestmark = [pytest.mark.skipif(not shutil.which(program or "redis-server"), reason=f"{program or 'redis-server'} is not installed")
              for program in ("prometheus", REDIS)]


# ---- The rules, shortened -----------------------------------------------------------------------------------------------


def shorten(duration):
    """A sixtieth: 5m → 5s."""
    number, unit = re.fullmatch(r"(\d+)([mh])", duration).groups()
    return f"{int(number) * {'m': 1, 'h': 60}[unit]}s"


def shortened_rules():
    rules = yaml.safe_load(monitoring.RULES.read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        rule["expr"] = re.sub(r"(?<=\[)\w+(?=\])|(?<=offset )\w+", lambda found: shorten(found[0]), rule["expr"])
        if "for" in rule:
            rule["for"] = shorten(rule["for"])
    return rules


# ---- What is watched ----------------------------------------------------------------------------------------------------


class Cluster:
    """What cAdvisor and kube-state-metrics would say."""

    def __init__(self, cgroup_bytes):
        self.replicas = 10
        cluster = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = cluster.text(cgroup_bytes()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # Prometheus ends first
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def text(self, used_bytes):
        container = f'namespace="{NAMESPACE}",pod="{POD}",container="nexus"'
        hpa = f'namespace="{NAMESPACE}",horizontalpodautoscaler="nexus"'
        return "".join(f"{line}\n" for line in (
            f"container_memory_working_set_bytes{{{container}}} {used_bytes}",
            f"container_spec_memory_limit_bytes{{{container}}} {LIMIT}",
            f'kube_pod_container_resource_requests{{{container},resource="memory",unit="byte"}} {LIMIT // 4}',
            f'kube_pod_container_status_restarts_total{{{container},uid="1"}} 0',
            f'kube_deployment_spec_replicas{{namespace="{NAMESPACE}",deployment="nexus"}} 1',
            f"kube_horizontalpodautoscaler_status_current_replicas{{{hpa}}} {self.replicas}",
            f"kube_horizontalpodautoscaler_spec_max_replicas{{{hpa}}} 10",
            f"kube_horizontalpodautoscaler_spec_min_replicas{{{hpa}}} 2",
        ))

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def kubernetes_targets(admin_port):
    """As the discovery of pods lists them: one for each port, ended pods and others included."""
    def target(**changed):
        labels = {"namespace": NAMESPACE, "pod_name": POD, "pod_container_name": "nexus", "pod_phase": "Running",
                  "pod_container_port_number": admin_port, "pod_label_app_kubernetes_io_name": "nexus",
                  "pod_annotation_prometheus_io_scrape": "true", "pod_annotation_prometheus_io_port": admin_port,
                  "pod_annotation_prometheus_io_path": "/metrics", **changed}
        return {"targets": [f"127.0.0.1:{admin_port}"],
                "labels": {f"__meta_kubernetes_{name}": str(value) for name, value in labels.items() if value}}

    return [target(), target(pod_container_port_number=3000), target(pod_name="evicted", pod_phase="Failed"),
            target(pod_name="redis-0", pod_label_app_kubernetes_io_name="redis"),
            target(pod_name="quiet", pod_annotation_prometheus_io_scrape=None)]


# ---- The watcher --------------------------------------------------------------------------------------------------------


class Prometheus:
    def __init__(self, directory, config):
        directory.mkdir()
        (directory / "rules.yaml").write_text(yaml.safe_dump(shortened_rules()))
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
        check = subprocess.run(["promtool", "check", "config", "prometheus.yaml"], cwd=directory, capture_output=True, text=True)
        assert check.returncode == 0, check.stdout + check.stderr
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = open(directory / "log", "wb")
        self._process = subprocess.Popen(
            ["prometheus", "--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--query.lookback-delta=5s",
             f"--web.listen-address={self.url[7:]}"], cwd=directory, stdout=self._log, stderr=self._log)
        try:
            wait_until(self._is_ready, 30, "Prometheus")
        except BaseException:
            self.stop()
            raise

    def _is_ready(self):
        assert self._process.poll() is None, pathlib.Path(self._log.name).read_text()[-2000:]
        with contextlib.suppress(OSError):
            return self._get("/-/ready") is not None
        return False

    def _get(self, path):
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.url + path, timeout=30) as reply:
            return reply.read()

    def api(self, path, **parameters):
        answer = json.loads(self._get(f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        assert answer["status"] == "success" and not answer.get("warnings"), answer
        return answer["data"]

    def query(self, expr):
        return self.api("query", query=expr)["result"]

    def firing(self):
        """alert → its annotations"""
        return {one["labels"]["alertname"]: one["annotations"] for one in self.api("alerts")["alerts"] if one["state"] == "firing"}

    def stop(self):
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


def configuration(directory, admin_port, cluster):
    """deploy/prometheus/prometheus.yaml with targets of this machine."""
    targets = directory / "targets.json"
    targets.write_text(json.dumps(kubernetes_targets(admin_port)))
    config = yaml.safe_load((monitoring.PROMETHEUS / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE}
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert jobs["nexus"].pop("kubernetes_sd_configs") == [{"role": "pod"}]
    jobs["nexus"]["file_sd_configs"] = [{"files": [str(targets)]}]
    jobs["kube-state-metrics"]["static_configs"] = [{"targets": [f"127.0.0.1:{cluster.port}"]}]
    config["scrape_configs"] = [jobs["nexus"], jobs["kube-state-metrics"]]
    return config


# ---- Load ---------------------------------------------------------------------------------------------------------------


class Load:
    """Executions of every outcome, more than there is room for, until it is left."""

    def __init__(self, server):
        self._server, self._ends, self._failures = server, threading.Event(), []
        work = [lambda: server.run("good", {"n": 1}), lambda: server.run("fails"), lambda: server.run("endless"), self._wait]
        work += [lambda: server.post({"code": "return 1"})]
        work += [lambda: server.run("slow")] * 5
        self._threads = [threading.Thread(target=self._repeat, args=(each,)) for each in work]

    def _wait(self):
        """Suspended, and one in two resumed. Refused while there is no room or no store."""
        for _ in range(2):
            reply = self._server.post({"handler": "waits"})
            assert reply.status in (200, 503), reply
        if reply.status == 200:
            name = reply.json()["suspension"]["suspensionId"]
            reply = self._server.request("POST", f"/v1/resume/{name}", {"success": True, "value": 1})
            assert reply.status in (200, 503), reply

    def _repeat(self, work):
        try:
            while not self._ends.wait(0.03):
                work()
        except BaseException as failure:  # noqa: BLE001: the test must see it
            self._failures.append(failure)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, value, trace):
        self._ends.set()
        for thread in self._threads:
            thread.join()
        if self._failures and kind is None:
            raise self._failures[0]


# ---- The test -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def group():
    """The command to start nexus with, and what its memory group has in use."""
    try:
        group = Group.make(f"nexus-prometheus-{os.getpid()}", LIMIT)
    except Unavailable as reason:
        print(f"nexus is not in a memory group: {reason}")
        yield [], lambda: LIMIT // 8, {"CONTAINER_MEMORY_LIMIT": LIMIT}
        return
    yield group.command([]), lambda: group.usage() - group.inactive_file(), {"CONTAINER_MEMORY_LIMIT": None}
    group.remove()


@pytest.fixture
def watched(tmp_path, group):
    """(server, redis, cluster, prometheus)"""
    prefix, used_bytes, settings = group
    with contextlib.ExitStack() as ends:
        redis = Redis(tmp_path / "redis")
        ends.callback(redis.kill)
        cluster = Cluster(used_bytes)
        ends.callback(cluster.stop)
        admin_port = free_port()
        server = Server(tmp_path / "server", {
            **settings, "ADMIN_PORT": admin_port, "MAX_INSTANCES": 2, "QUEUE_MAX": 1, "QUEUE_TIMEOUT_MS": 200, "IDLE_TRIM_MS": 1000,
            "SUSPEND_STORE": redis.store, "SUSPEND_KEY": "a1" * 32}, prefix=prefix)
        ends.callback(lambda: server.process.poll() is None and server.stop())
        for name, source in HANDLERS.items():
            server.install(name, source, GRANTS.get(name))
        prometheus = Prometheus(tmp_path / "prometheus", configuration(tmp_path, admin_port, cluster))
        ends.callback(prometheus.stop)
        yield server, redis, cluster, prometheus


def wait_for_alerts(prometheus, names):
    """Fire, with texts that say numbers and names."""
    began = time.monotonic()
    wait_until(lambda: names <= set(prometheus.firing()), 60, f"{names}")
    print(f"{', '.join(sorted(names))}: after {time.monotonic() - began:.1f} s")
    for name, notes in prometheus.firing().items():
        assert not re.search(r"<error|<no value>|\{\{|NaN|%!", str(notes)), notes
        print(f"  {name}: {notes['summary']}")


def check_targets(prometheus):
    targets = [target["labels"] for target in prometheus.api("targets", state="active")["activeTargets"] if target["scrapePool"] == "nexus"]
    assert len(targets) == 1, targets
    assert {key: value for key, value in targets[0].items() if key != "instance"} == {
        "job": "nexus", "namespace": NAMESPACE, "pod": POD, "container": "nexus"}


def check_rules(prometheus):
    for rule in (rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]):
        assert rule["health"] == "ok" and not rule.get("lastError"), rule
    for name in monitoring.recorded():
        assert prometheus.query(name), name


def check_dashboard(prometheus, server):
    """Every query has an answer, and each a number, but for what this kernel does not tell."""
    offered = server.get("/metrics").body.decode()
    untold = {name for name in ("nexus_memory_pressure_ratio", "nexus_memory_working_set_bytes") if name not in offered}
    queries = monitoring.dashboard_queries(NAMESPACE, POD, "30s")
    assert len(queries) > 50
    empty = {}
    for title, expr in queries.items():
        if not any(sample["value"][1] != "NaN" for sample in prometheus.query(expr)):
            empty[title] = expr
    skipped = {title for title, expr in empty.items() if monitoring.names_in(expr) & untold}
    print(f"{len(queries)} queries of the dashboard; not told by this kernel: {sorted(skipped) or 'none'}")
    assert not {title: expr for title, expr in empty.items() if title not in skipped}


def test_alerts_fire_and_resolve_and_the_dashboard_is_full(watched):
    server, redis, cluster, prometheus = watched
    wait_until(lambda: prometheus.query('up{job="nexus"} == 1'), 20, "the first scrape")
    check_targets(prometheus)
    assert not prometheus.firing().keys() & UNDER_LOAD
    with Load(server):
        wait_for_alerts(prometheus, UNDER_LOAD)
        check_rules(prometheus)
        check_dashboard(prometheus, server)
        redis.kill()
        wait_for_alerts(prometheus, {"NexusSuspensionStoreFailing"})
    redis.start()
    cluster.replicas = 2
    wait_until(lambda: not prometheus.firing(), 60, "the end of all alerts")
    query = subprocess.run(["promtool", "query", "instant", prometheus.url, 'up{job="nexus"}'], capture_output=True, text=True)
    assert query.returncode == 0 and f'pod="{POD}"' in query.stdout, query
    server.stop()
    wait_for_alerts(prometheus, {"NexusAbsent"})
