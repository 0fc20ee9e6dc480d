# SPDX-License-Identifier: Apache-2.0
"""Does the server answer what docs/openapi.yaml says, and nothing else?

schemathesis makes requests from the document, valid ones and invalid ones, and checks every answer against it: status,
content type, headers, body. Afterwards the server must be healthy, end with status 0, and its log must be free of
crashes. Environment: NEXUS is the binary (build/nexus); NEXUS_API_SECONDS bounds the time for requests.
"""
import hashlib
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import time

import hypothesis
import pytest
import requests
import schemathesis
import yaml
from schemathesis.checks import CHECKS, load_all_checks

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEXUS = os.environ.get("NEXUS", str(ROOT / "build" / "nexus"))
SECONDS = float(os.environ.get("NEXUS_API_SECONDS", "30"))
CRASH = re.compile(r"sanitizer|runtime error:|assert|fatal|stack smashing|core dumped", re.I)
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)

load_all_checks()
ALWAYS = ["status_code_conformance", "content_type_conformance", "response_headers_conformance",
          "response_schema_conformance", "not_a_server_error"]
# Per operation: checks that hold besides, and checks that do not because the document says otherwise.
MORE = {
    "POST /v1/execute": ["negative_data_rejection", "positive_data_acceptance"],
    "PUT /v1/handlers/{name}/grants": ["negative_data_rejection", "positive_data_acceptance"],
    "GET /v1/handlers": ["positive_data_acceptance"],
    "GET /health": ["positive_data_acceptance"],
    "GET /livez": ["positive_data_acceptance"],
    "GET /readyz": ["positive_data_acceptance"],
    "GET /metrics": ["positive_data_acceptance"],
}
LESS = {"POST /run/{name}": ["not_a_server_error"]}  # 500, 504 and 507 are what became of the handler

schemathesis.serializer.alias("text/javascript", "text/plain")


def document():
    """Without `security`: schemathesis would show random tokens, and mostly none at all; show_token() does better."""
    read = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
    for operations in read["paths"].values():
        for operation in operations.values():
            if isinstance(operation, dict):  # others are the path's parameters
                del operation["security"]
    return read


SCHEMA = schemathesis.openapi.from_dict(document())
# What removes handlers comes last.
OPERATIONS = sorted((result.ok() for result in SCHEMA.get_all_operations()), key=lambda it: it.method == "delete")
# Where no path parameter and no body is, nothing can be got wrong.
PAIRS = [(operation, mode) for mode in MODES for operation in OPERATIONS
         if mode is MODES[0] or operation.path_parameters or operation.body]
# Names that exist, so that not every random name is answered with 404.
NAMES = itertools.cycle(["cart", "rate-rule", "template", "made-here", None])
# Access tokens: most requests show one that may do everything; 401 and 403 must be as the document says, too.
TOKENS = {"may-all": "execute,handlers,resume,read", "may-read": "read", "may-resume": "resume"}
SHOWN = itertools.cycle(["Bearer may-all"] * 9 + ["Bearer may-read", "Bearer unknown", None, "Bearer may-resume", "Basic eDp5"])
WAITS = {"code": "return [await $ext.x.y(1), await $ext.x.y(2)]", "capabilities": ["ext:x"], "extensions": {"x": ["y"]}}


def suspend(url, session):
    """The id of an execution that waits."""
    return session.post(f"{url}/v1/execute", json=WAITS, headers={"Authorization": "Bearer may-all"}, timeout=20).json()["suspension"]["suspensionId"]


def show_token(case):
    shown = next(SHOWN)
    if shown:
        case.headers = {**(case.headers or {}), "Authorization": shown}


def aim(case, url, session):
    """Most requests are for what exists."""
    if "name" in (case.path_parameters or {}):
        case.path_parameters["name"] = next(NAMES) or case.path_parameters["name"]
    if "suspensionId" in (case.path_parameters or {}):
        case.path_parameters["suspensionId"] = suspend(url, session)
    if isinstance(case.body, dict) and "suspensionId" in case.body:
        case.body["suspensionId"] = suspend(url, session)


class TimeIsUp(Exception):
    """Ends the generation of requests."""


def checks_of(operation):
    wanted = [name for name in ALWAYS + MORE.get(operation.label, []) if name not in LESS.get(operation.label, [])]
    found = {check.__name__: check for check in CHECKS.get_all()}
    return [found[name] for name in wanted]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A server with copies of the example handlers."""
    work = tmp_path_factory.mktemp("api")
    shutil.copytree(ROOT / "examples" / "handlers", work / "handlers")
    tokens = work / "auth-tokens"
    tokens.write_text("".join(f"acme {scopes} sha256:{hashlib.sha256(token.encode()).hexdigest()}\n"
                              for token, scopes in TOKENS.items()))
    settings = {"HOST": "127.0.0.1", "PORT": "0", "CACHE_DIR": str(work / "cache"), "CONTAINER_MEMORY_LIMIT": "1Gi",
                "AUTH_TOKENS_FILE": str(tokens), "HANDLERS_DIR": str(work / "handlers"), "TIMEOUT_MS": "500", "LOG_LEVEL": "info"}
    kept = {name: value for name, value in os.environ.items() if name == "PATH" or name.endswith("SAN_OPTIONS")}
    log = work / "log"
    with open(log, "wb") as out:
        server = subprocess.Popen([NEXUS, "serve"], env={**kept, **settings}, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not (port := re.search(rb"listening.* port=(\d+)", log.read_bytes())):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        base = f"http://127.0.0.1:{int(port[1])}"
        yield base
        assert requests.get(f"{base}/health", timeout=10).status_code == 200
        server.terminate()
        assert server.wait(30) == 0
        lines = log.read_text(errors="replace").splitlines()
        assert not [line for line in lines if CRASH.search(line) and "executionId" not in line]
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("operation,mode", PAIRS, ids=[f"{it.label} {mode.name.lower()}" for it, mode in PAIRS])
def test_operation(url, operation, mode):
    checks = checks_of(operation)
    seen, failures, deadline = {}, [], None
    with requests.Session() as session:

        @hypothesis.settings(max_examples=500, deadline=None, database=None, derandomize=True,
                             phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate], report_multiple_bugs=False,
                             suppress_health_check=list(hypothesis.HealthCheck))
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def run(case):
            nonlocal deadline
            if failures:
                raise failures[0]  # hypothesis runs what failed once more
            if deadline is None:  # now: preparing the first request may take seconds
                deadline = time.monotonic() + SECONDS / len(PAIRS)
            if time.monotonic() > deadline:
                raise TimeIsUp
            if mode is MODES[0]:
                aim(case, url, session)
            show_token(case)
            response = case.call(base_url=url, session=session, timeout=20)
            seen[response.status_code] = seen.get(response.status_code, 0) + 1
            try:
                case.validate_response(response, checks=checks)
            except BaseException as failure:
                failures.append(failure)
                raise

        try:
            run()
        except TimeIsUp:
            pass
    assert seen
    print(f"{operation.label}, {mode.name.lower()}: " + ", ".join(f"{n} x {code}" for code, n in sorted(seen.items())))
