# SPDX-License-Identifier: Apache-2.0
"""/health and /metrics: their form, and that they say what was done."""
import copy
import shutil
import socket
import subprocess
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import SLOWNESS, Background, wait_until

LAYERS = {"process", "instances", "handlers", "suspended", "cache", "http", "kernel"}


def samples(server):
    """{(name, labels): value}"""
    out = {}
    for family in text_string_to_metric_families(server.get("/metrics").body.decode()):
        assert family.documentation and family.type in ("counter", "gauge", "histogram"), family
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in out, key
            out[key] = sample.value
    return out


def get(found, name, **labels):
    return found.get((name, tuple(sorted(labels.items()))), 0)


def test_health_fields(server):
    reply = server.get("/health")
    health = reply.json()
    assert (reply.status, reply.type, reply.headers["Cache-Control"]) == (200, "application/json", "no-store")
    assert set(health) == {"status", "version", "uptimeSeconds", "reasons", "instances", "memory", "executions", "cache"}
    assert health["status"] == "healthy" and health["reasons"] == [] and health["version"] and health["uptimeSeconds"] >= 0
    assert health["instances"] == {"max": 8, "active": 0, "available": 8, "suspended": 0}
    memory = health["memory"]
    assert set(memory) == {"totalMemoryBytes", "limitBytes", "budgetBytes", "peakBytes", "accountedBytes", "unaccountedBytes",
                           "governor", "workingSetBytes", "pressure", "layers", "layerPeaks"}
    assert memory["governor"] == "normal" and memory["unaccountedBytes"] == 0
    assert all(memory["layerPeaks"][layer] >= memory["layers"][layer] for layer in LAYERS)
    assert memory["limitBytes"] == 1 << 30 and memory["budgetBytes"] // 100 == (1 << 30) * 90 // 10000
    assert set(memory["layers"]) == LAYERS
    assert memory["layers"]["instances"] == memory["totalMemoryBytes"] <= memory["peakBytes"]
    assert memory["accountedBytes"] >= max(memory["layers"].values())
    assert memory["layers"]["process"] > 1 << 20 and memory["layers"]["kernel"] > 0 and memory["layers"]["http"] > 64 << 10
    assert memory["pressure"] is None or 0 <= memory["pressure"] <= 1


def test_health_while_something_runs(server):
    with Background(lambda: server.post({"args": 700 * SLOWNESS,
        "code": "const a = new Uint8Array(8 << 20).fill(1); const e = Date.now() + $args; while (Date.now() < e);"})):
        wait_until(lambda: server.health()["instances"]["active"] == 1, what="an active instance")
        wait_until(lambda: server.health()["memory"]["totalMemoryBytes"] > 8 << 20, what="the memory of the instance")
        health = server.health()
        assert health["instances"]["active"] == 1 and health["instances"]["available"] == 7
        found = samples(server)
        assert get(found, "nexus_instances", state="active") == 1 and get(found, "nexus_instances", state="available") == 7
    assert server.health()["memory"]["peakBytes"] > 8 << 20


def test_health_counts_executions(server):
    before = server.health()
    server.value("return 'counted'")
    server.value("return 'counted'")
    server.fails("EXECUTION_ERROR", "throw 1")
    after = server.health()
    assert after["executions"]["total"] - before["executions"]["total"] == 3
    assert after["executions"]["errors"] - before["executions"]["errors"] == 1
    assert after["cache"]["hits"] - before["cache"]["hits"] == 1 and after["cache"]["misses"] - before["cache"]["misses"] == 2
    assert after["cache"]["hitRate"] == pytest.approx(after["cache"]["hits"] / (after["cache"]["hits"] + after["cache"]["misses"]), abs=1e-3)
    assert after["uptimeSeconds"] >= before["uptimeSeconds"]


def test_probes(server):
    for path in ("/livez", "/readyz"):
        reply = server.get(path)
        assert (reply.status, reply.body, reply.headers["Cache-Control"]) == (200, b"ok\n", "no-store")


def test_metrics_form(server):
    reply = server.get("/metrics")
    assert reply.type == "text/plain; version=0.0.4; charset=utf-8"
    text = reply.body.decode()
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families)) >= 30
    assert families == [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    found = samples(server)
    for histogram in ("nexus_handler_execution_duration_seconds", "nexus_queue_wait_duration_seconds", "nexus_resume_duration_seconds"):
        buckets = [value for (name, labels), value in found.items() if name == histogram + "_bucket"]
        assert buckets == sorted(buckets) and buckets[-1] == get(found, histogram + "_count")


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_finds_nothing(server):
    server.value("return 1")
    run = subprocess.run(["promtool", "check", "metrics"], input=server.get("/metrics").body, capture_output=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


def test_counters_say_what_was_done(server):
    server.install("metered", "if ($args) throw 1; return 2")
    before = samples(server)
    for _ in range(3):
        server.value(handler="metered")
    server.run("metered")
    server.execute(handler="metered", args=1)
    server.execute("for (;;);", timeoutMs=30)
    server.execute("const a = []; for (;;) a.push(new Uint8Array(1e6))")
    server.execute("for (;;) $log(1)")
    server.execute("$emit('x')")
    server.execute("return (")
    server.execute("export default 1")
    server.get("/nowhere")
    server.post("{")
    after = samples(server)

    def grew(name, **labels):
        return get(after, name, **labels) - get(before, name, **labels)

    executions = "nexus_handler_executions_total"
    assert grew(executions, handler="metered", status="success") == 4
    assert grew(executions, handler="metered", status="error") == 1
    for status in ("timeout", "memory_limit", "resource_limit", "permission_denied", "compilation_error", "invalid_handler"):
        assert grew(executions, handler="inline", status=status) == 1, status
    assert grew("nexus_handler_execution_duration_seconds_count") == 11
    assert grew("nexus_http_requests_total", route="/v1/execute", code="200") == 10
    assert grew("nexus_http_requests_total", route="/v1/execute", code="400") == 1
    assert grew("nexus_http_requests_total", route="/run/{name}", code="200") == 1
    assert grew("nexus_http_requests_total", route="other", code="404") == 1
    assert grew("nexus_http_requests_total", route="/metrics", code="200") == 1
    assert all(value >= before.get(key, 0) for key, value in after.items() if key[0].endswith(("_total", "_count", "_bucket")))


def test_gauges(server):
    found = samples(server)
    health = server.health()
    assert get(found, "nexus_instances_max") == 8
    assert get(found, "nexus_memory_limit_bytes") == health["memory"]["limitBytes"]
    assert get(found, "nexus_memory_budget_bytes") == health["memory"]["budgetBytes"]
    assert {labels[0][1] for name, labels in found if name == "nexus_memory_used_bytes"} == LAYERS
    assert get(found, "nexus_health_status", status="healthy") == 1
    assert get(found, "nexus_health_status", status="degraded") == get(found, "nexus_health_status", status="unhealthy") == 0
    assert any(name == "nexus_build_info" and value == 1 for (name, _), value in found.items())
    assert get(found, "process_open_fds") > 5 and get(found, "process_resident_memory_bytes") > 1 << 20
    assert get(found, "process_start_time_seconds") > 1.7e9


def test_labels_are_bounded(start):
    server = start()
    for i in range(120):
        server.install(f"h{i}", "return 1")
        server.value(handler=f"h{i}")
    handlers = {dict(labels)["handler"] for name, labels in samples(server) if name == "nexus_handler_executions_total"}
    assert len(handlers) <= 102 and "other" in handlers
    assert get(samples(server), "nexus_handler_executions_total", handler="other", status="success") == 20


def test_admin_port(start):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start({"ADMIN_PORT": port})
    admin = copy.copy(server)  # the same process, asked at its other port
    admin.port, admin._local, admin._connections = port, threading.local(), []
    for path in ("/health", "/livez", "/readyz", "/metrics"):
        assert admin.get(path).status == 200 and server.get(path).status == 200
    admin.request("POST", "/v1/execute", {"code": "return 1"}).problem(404, "NOT_FOUND")
    admin.get("/v1/handlers").problem(404, "NOT_FOUND")
    admin.run("x").problem(404, "NOT_FOUND")
    assert server.value("return 1") == 1
    admin.disconnect()
