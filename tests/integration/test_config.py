# SPDX-License-Identifier: Apache-2.0
"""Settings and the commands beside serve: what they print and their exit statuses."""
import json
import os
import pathlib
import re
import socket

import pytest

from conftest import nexus, wait_until

USAGE = 2
KEY = "ab" * 32


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- config ---------------------------------------------------------------------------------------------------------------

def test_config_text():
    run = nexus("config", settings={"TIMEOUT_MS": 1234})
    assert run.returncode == 0 and run.stderr == ""
    lines = {line.split()[0]: line for line in run.stdout.splitlines() if line.strip()}
    assert "1234" in lines["TIMEOUT_MS"] and "environment" in lines["TIMEOUT_MS"]
    assert "3000" in lines["PORT"] and "default" in lines["PORT"]
    assert "(" in lines["MAX_INSTANCES"]


def test_config_json():
    run = nexus("config", "--json", "--max-instances=3", settings={"PORT": 8080, "CONTAINER_MEMORY_LIMIT": "512Mi"})
    assert run.returncode == 0
    text = json.dumps(json.loads(run.stdout))
    assert "8080" in text and "MAX_INSTANCES" in text and str(512 << 20) in text


def test_every_setting_is_printed():
    from_json = json.loads(nexus("config", "--json").stdout)
    text = nexus("config").stdout
    names = [name for name in ("PORT", "HOST", "ADMIN_PORT", "MEMORY_LIMIT_MB", "STACK_SIZE_KB", "MAX_INSTANCES", "TIMEOUT_MS", "CACHE_DIR", "CACHE_MAX_MB",
                               "HANDLERS_DIR", "CONTAINER_MEMORY_LIMIT", "MEMORY_RESERVE_PERCENT", "QUEUE_MAX", "QUEUE_TIMEOUT_MS", "IDLE_TRIM_MS",
                               "MAX_CONNECTIONS", "MAX_HOST_CALLS", "MAX_STATE_MUTATIONS", "MAX_EVENTS", "MAX_BODY_KB", "MAX_RESULT_KB",
                               "SHUTDOWN_GRACE_MS", "LOG_LEVEL", "LOG_FORMAT")]
    for name in names:
        assert name in text and name in json.dumps(from_json)


def test_secrets_are_not_printed():
    for arguments in ((), ("--json",)):
        run = nexus("config", *arguments, settings={"SUSPEND_KEY": KEY})
        assert run.returncode == 0 and KEY not in run.stdout and "set" in run.stdout


# ---- What is wrong stops the start ------------------------------------------------------------------------------------------

WRONG = [
    ("PORT", "70000", "from 0 to 65535"), ("PORT", "-1", "from 0 to 65535"), ("PORT", "http", "from 0 to 65535"), ("PORT", "", "from 0 to 65535"),
    ("PORT", " 80", "from 0 to 65535"), ("PORT", "80x", "from 0 to 65535"), ("PORT", "0x50", "from 0 to 65535"), ("HOST", "localhost", "IPv4 or IPv6"),
    ("HOST", "1.2.3", "IPv4 or IPv6"), ("MEMORY_LIMIT_MB", "3", "from 4 to 1024"), ("MEMORY_LIMIT_MB", "1025", "from 4 to 1024"),
    ("MEMORY_LIMIT_MB", "32.5", "from 4 to 1024"), ("STACK_SIZE_KB", "63", "from 64 to 1024"), ("MAX_INSTANCES", "0", "from 1 to 4096"),
    ("MAX_INSTANCES", "many", "auto"), ("TIMEOUT_MS", "0", "from 1 to 600000"), ("TIMEOUT_MS", "99999999999999999999", "from 1 to 600000"),
    ("CONTAINER_MEMORY_LIMIT", "1GB", "Gi"), ("CONTAINER_MEMORY_LIMIT", "-5", "Gi"), ("MEMORY_RESERVE_PERCENT", "51", "from 0 to 50"),
    ("CACHE_DIR", "", "path"), ("QUEUE_MAX", "100001", "from 0 to 100000"), ("LOG_LEVEL", "verbose", "debug"), ("LOG_FORMAT", "xml", "json"),
    ("LOG_LEVEL", "INFO", "debug"), ("SUSPEND_STORE", "disk", "memory"), ("SUSPEND_KEY", "abc", "64"), ("ADMIN_PORT", "0", "from 1 to 65535"),
    ("SHUTDOWN_GRACE_MS", "3600001", "from 0 to 3600000"), ("CACHE_MAX_MB", "0", "from 1"), ("NET_ALLOW", "https://api.example", "host"), ("NET_ALLOW", "api.example:0", "1 to 65535"),
    ("NET_ALLOW", "10.0.0.1/8", "prefix"), ("NET_ALLOW", "two words", "host"), ("NET_ALLOW", "*.*", "host"),
]


@pytest.mark.parametrize("name, value, allowed", WRONG)
@pytest.mark.parametrize("command", ["serve", "config"])
def test_wrong_variable(command, name, value, allowed):
    run = nexus(command, settings={name: value})
    assert (run.returncode, run.stdout) == (USAGE, "")
    assert name in run.stderr and allowed in run.stderr and "\n" == run.stderr[-1]
    if name != "SUSPEND_KEY":
        assert f'"{value}"' in run.stderr
    else:
        assert value not in run.stderr


def test_all_problems_at_once():
    run = nexus("serve", "--queue-max=x", "--nonsense=1",
                settings={"PORT": "x", "TIMEOUT_MS": "y", "LOG_LEVEL": "z", "NET_ALLOW": "a,,b"})
    assert run.returncode == USAGE
    for text in ("PORT", "TIMEOUT_MS", "LOG_LEVEL", "--queue-max", "--nonsense", "NET_ALLOW"):
        assert text in run.stderr
    assert len(run.stderr.splitlines()) == 6


@pytest.mark.parametrize("store", ["file:DIR", "redis://127.0.0.1:6379/0", "sealed"])
def test_stores_that_need_a_key(store):
    run = nexus("serve", settings={"SUSPEND_STORE": store})
    assert run.returncode == USAGE and "SUSPEND_KEY: expected 64" in run.stderr


@pytest.mark.parametrize("parent", ["/proc", "file"])
def test_store_that_cannot_be_written(tmp_path, parent):
    """Also where root may write everywhere else."""
    (tmp_path / "file").write_text("")
    place = f"file:{tmp_path / parent}/store"
    run = nexus("serve", settings={"PORT": 0, "CACHE_DIR": tmp_path / "cache", "SUSPEND_STORE": place, "SUSPEND_KEY": KEY})
    assert (run.returncode, run.stdout) == (USAGE, "")
    assert f"SUSPEND_STORE={place}: " in run.stderr and "directory" in run.stderr


@pytest.mark.parametrize("flag, text", [
    ("--port=x", "--port"), ("--port", "missing"), ("--unknown=1", "unknown flag"), ("extra", "unexpected"), ("-p", "unexpected"), ("--", "unexpected"),
    ("--PORT=1", "unknown flag"), ("--port=", "--port"),
])
def test_wrong_flag(flag, text):
    run = nexus("serve", flag)
    assert run.returncode == USAGE and text in run.stderr


def test_flags_win_over_variables():
    run = nexus("config", "--timeout-ms", "777", settings={"TIMEOUT_MS": 1, "PORT": 1})
    assert "777" in run.stdout and "flag" in run.stdout


def test_flags_of_serve(start):
    server = start({"TIMEOUT_MS": 60000}, args=["--timeout-ms=90", "--max-instances", "3"])
    assert "90 ms" in server.fails("TIMEOUT", "for (;;);")["message"]
    assert server.health()["instances"]["max"] == 3


@pytest.mark.parametrize("settings, names", [
    ({"CONTAINER_MEMORY_LIMIT": "16Mi"}, ["MEMORY_LIMIT_MB=32", "raise CONTAINER_MEMORY_LIMIT to 63Mi"]),
    ({"CONTAINER_MEMORY_LIMIT": "48Mi"}, ["lower MEMORY_LIMIT_MB to 23", "CACHE_MAX_MB to 1", "CONTAINER_MEMORY_LIMIT to 63Mi"]),
    ({"CONTAINER_MEMORY_LIMIT": "64Mi", "MEMORY_LIMIT_MB": 64}, ["lower MEMORY_LIMIT_MB to 33"]),
])
def test_what_cannot_fit_stops_the_start(settings, names):
    run = nexus("serve", settings={"PORT": 0, **settings})
    assert run.returncode == USAGE
    assert all(name in run.stderr for name in names), run.stderr


def test_the_smallest_container(start):
    server = start({"CONTAINER_MEMORY_LIMIT": "64Mi", "MAX_INSTANCES": None})
    assert server.value("return 1 + 1") == 2
    assert server.health()["instances"]["max"] == 1


def test_port_that_is_taken(start):
    server = start()
    run = nexus("serve", settings={"PORT": server.port, "HOST": "127.0.0.1", "CACHE_DIR": "cache"})
    assert run.returncode == 1 and str(server.port) in run.stderr


def test_variables_of_kubernetes_are_no_problem():
    assert nexus("config", settings={"NEXUS_RUNTIME_SERVICE_HOST": "10.0.0.1", "NEXUS_PORT": "tcp://10.0.0.1:80", "KUBERNETES_PORT": "x"}).returncode == 0


def test_limits_of_results(start):
    server = start({"MAX_HOST_CALLS": 10, "MAX_STATE_MUTATIONS": 3, "MAX_EVENTS": 2, "MAX_RESULT_KB": 4, "MAX_BODY_KB": 8})
    every = ["state:write:*", "events:emit:*"]
    assert server.value("for (let i = 0; i < 10; i++) $log(i); return 1") == 1
    assert "limit is 10" in server.fails("RESOURCE_LIMIT", "for (let i = 0; i < 11; i++) $log(i)")["message"]
    assert "limit is 3" in server.fails("RESOURCE_LIMIT", "for (let i = 0; i < 4; i++) $state.x = i", capabilities=every)["message"]
    assert "limit is 2" in server.fails("RESOURCE_LIMIT", "for (let i = 0; i < 3; i++) $emit('e')", capabilities=every)["message"]
    assert server.value("return 'x'.repeat(4000)") == "x" * 4000
    assert "4096" in server.fails("RESOURCE_LIMIT", "return 'x'.repeat(4096)")["message"]
    server.post({"code": "return 1", "args": "x" * 9000}).problem(413, "PAYLOAD_TOO_LARGE")


def test_small_stack(start):
    server = start({"STACK_SIZE_KB": 64})
    depth = "let n = 0; const f = () => { n++; f() }; try { f() } catch (e) { return [e.name, n] }"
    name, shallow = server.value(depth)
    assert name == "RangeError"
    assert start({"STACK_SIZE_KB": 1024}).value(depth)[1] > 4 * shallow > 0


def test_json_log(start):
    server = start({"LOG_FORMAT": "json"}, wait=False)
    wait_until(lambda: '"listening"' in server.log(), what="the first line")
    server.port = int(next(line for line in map(json.loads, server.log().splitlines()) if line["message"] == "listening")["port"])
    result = server.post({"code": "$log('from \"inside\"')"}, {"X-Request-Id": "r1"}).json()
    server.stop()
    lines = [json.loads(line) for line in server.log().splitlines()]
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    executed = next(line for line in lines if line["message"] == "execution")
    assert (executed["executionId"], executed["status"], executed["requestId"]) == (result["executionId"], "success", "r1")
    assert any(line.get("text") == 'from "inside"' for line in lines)


def test_the_line_of_an_execution(start):
    server = start({"LOG_LEVEL": "info"})
    server.install("named", "return 1")
    assert server.run("named").json() == server.value("return 1") == 1
    wait_until(lambda: "handler=named status=success" in server.log() and "handler=inline status=success" in server.log())


def test_quiet_log(start):
    server = start({"LOG_LEVEL": "error"}, wait=False)
    # No line names the port: the kernel does.
    def sockets():
        lines = pathlib.Path(f"/proc/{server.pid}/net/tcp").read_text().splitlines()[1:]
        return {line.split()[9]: line.split() for line in lines}

    def listening():
        for fd in os.listdir(f"/proc/{server.pid}/fd"):
            try:
                found = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{server.pid}/fd/{fd}"))
            except OSError:
                continue
            if found and sockets().get(found[1], [""] * 4)[3] == "0A":
                return int(sockets()[found[1]][1].split(":")[1], 16)

    server.port = wait_until(listening, what="the listener")
    server.value("$log('x'); return 1")
    server.stop()
    assert server.log() == ""


# ---- Other commands -----------------------------------------------------------------------------------------------------------

def test_usage():
    for arguments, status in [((), USAGE), (("help",), 0), (("--help",), 0), (("nonsense",), USAGE)]:
        run = nexus(*arguments)
        assert run.returncode == status
        assert "usage: nexus COMMAND" in (run.stdout if status == 0 else run.stderr)


def test_version():
    for argument in ("version", "--version"):
        run = nexus(argument)
        assert run.returncode == 0 and run.stdout.startswith("nexus ") and "guest " in run.stdout
    assert nexus("version").stdout == nexus("version").stdout


def test_doctor():
    run = nexus("doctor", settings={"CONTAINER_MEMORY_LIMIT": "1Gi"})
    assert run.returncode == 0
    for text in ("kernel", "reset method", "memory limit", "kernel memory", "memory events", "instances", "warning"):
        assert text in run.stdout
    assert "(tmpfs)" not in nexus("doctor", settings={"CACHE_DIR": "/proc"}).stdout
    if any(line.split()[1:3] == ["/dev/shm", "tmpfs"] for line in open("/proc/mounts")):
        shown = nexus("doctor", settings={"CACHE_DIR": "/dev/shm"}).stdout
        assert re.search(r"cache's file system .*(\(tmpfs\)|in memory)", shown)


def doctor(**settings):
    run = nexus("doctor", settings={"CONTAINER_MEMORY_LIMIT": "1Gi", **settings})
    assert run.returncode == 0 and run.stderr == ""
    return {line[8:30].strip(): line for line in run.stdout.splitlines()}


def test_doctor_looks_at_the_store(start, tmp_path):
    assert re.search("ok .* memory, [0-9]+ MiB at most", doctor()["suspension store"])
    assert "ok " in doctor(SUSPEND_STORE="sealed", SUSPEND_KEY=KEY)["suspension store"]
    settings = {"SUSPEND_STORE": f"file:{tmp_path / 'store'}", "SUSPEND_KEY": KEY}
    assert "made at the start" in doctor(**settings)["suspension store"]
    assert not (tmp_path / "store").exists()
    start(settings).stop()
    assert "ok " in doctor(**settings)["suspension store"]
    items = tmp_path / "store" / "v1" / "items"
    items.rmdir()
    items.write_text("in the way")
    assert "WARN" in doctor(**settings)["suspension store"]
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        line = doctor(SUSPEND_STORE=f"redis://:secret@127.0.0.1:{port}/0", SUSPEND_KEY=KEY)["suspension store"]
    assert "WARN" in line and f"127.0.0.1:{port}" in line and "secret" not in line


def test_doctor_looks_at_the_network():
    assert "NET_ALLOW is not set" in doctor()["network of handlers"]
    line = doctor(NET_ALLOW="api.example:8443")["network of handlers"]
    assert "api.example:8443" in line or "libcurl" in line


@pytest.mark.parametrize("source, arguments, status, expected", [
    ("return $args.a + 1", ["--args", '{"a": 1}'], 0, 2),
    ("export default ({a}) => a", ["--args", '{"a": [1]}'], 0, [1]),
    ("return $state.k", ["--state", '{"k": 5}', "--cap", "state:read:k"], 0, 5),
    ("return $scope.s", ["--scope", '{"s": "t"}'], 0, "t"),
    ("$emit('e', 1); return 3", ["--cap", "events:emit:*", "--cap", "state:read:*"], 0, 3),
    ("throw new Error('no')", [], 1, "EXECUTION_ERROR"),
    ("$emit('e')", [], 1, "PERMISSION_DENIED"),
    ("return (", [], 1, "COMPILATION_ERROR"),
])
def test_run(tmp_path, source, arguments, status, expected):
    (tmp_path / "h.js").write_text(source)
    run = nexus("run", str(tmp_path / "h.js"), *arguments)
    assert run.returncode == status, run.stderr
    result = json.loads(run.stdout)
    assert (result["returnValue"] if status == 0 else result["error"]["code"]) == expected
    assert len(result["executionId"]) == 32


def test_run_under_limits(tmp_path):
    (tmp_path / "h.js").write_text("for (;;);")
    run = nexus("run", "h.js", settings={"TIMEOUT_MS": 80}, cwd=tmp_path)
    assert run.returncode == 1 and json.loads(run.stdout)["error"]["code"] == "TIMEOUT"


@pytest.mark.parametrize("arguments, status, text", [
    ([], USAGE, "usage"), (["a.js", "b.js"], USAGE, "usage"), (["a.js", "--args"], USAGE, "usage"), (["a.js", "--nope", "1"], USAGE, "usage"),
    (["missing.js"], 1, "missing.js"), (["h.js", "--args", "{"], 1, "--args"), (["h.js", "--state", "[1"], 1, "--state"),
    (["h.js", "--cap", "nope"], 1, "capabilities[0]"), (["."], 1, ""),
])
def test_wrong_run(tmp_path, arguments, status, text):
    (tmp_path / "h.js").write_text("return 1")
    run = nexus("run", *arguments, cwd=tmp_path)
    assert run.returncode == status and run.stdout == "" and text in run.stderr


def test_health(start):
    server = start()
    run = nexus("health", settings={"PORT": server.port})
    assert run.returncode == 0 and json.loads(run.stdout)["status"] == "healthy"
    assert nexus("health", f"--port={server.port}").returncode == 0
    assert nexus("health", settings={"PORT": free_port()}).returncode == 1
    assert nexus("health", settings={"PORT": "x"}).returncode == USAGE


def test_health_of_something_that_does_not_answer():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        run = nexus("health", settings={"PORT": silent.getsockname()[1]})
    assert run.returncode == 1 and "no answer" in run.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "127.0.0.1"])
def test_health_finds_the_host(start, host):
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError:
        pytest.skip(f"this machine has no {host}")
    server = start({"HOST": host}, wait=False)
    wait_until(server.find_port, what="the start")
    assert nexus("health", settings={"HOST": host, "PORT": server.port}).returncode == 0


@pytest.mark.parametrize("source, capabilities, status, value", [
    ("await $ext.time.sleep(20); return 'slept'", [], "success", "slept"),
    ("return await $ext.crm.find(7)", ["ext:crm"], "suspended", None),
    ("return await $ext.crm.find(7)", ["ext:*"], "error", None),
    ("try { await fetch('http://127.0.0.1:1/') } catch (e) { return e.message }", ["ext:net"], "success",
     "fetch failed: net.fetch: requests are off: NET_ALLOW is not set"),
])
def test_run_waits(tmp_path, source, capabilities, status, value):
    """A sleep is waited for; what only a caller can answer is shown."""
    (tmp_path / "h.js").write_text(source)
    run = nexus("run", "h.js", *[word for token in capabilities for word in ("--cap", token)], cwd=tmp_path)
    result = json.loads(run.stdout)
    assert (result["status"], result.get("returnValue"), run.returncode) == (status, value, status == "error"), run
    if status == "suspended":
        assert result["suspension"]["calls"] == [{"callId": 1, "extensionName": "crm", "method": "find", "args": [7]}]
