# SPDX-License-Identifier: Apache-2.0
"""Every case of examples/handlers/examples.json, against a server that loaded the handlers and grants from files."""
import json

import pytest

from conftest import EXAMPLES

SETTINGS = {"HANDLERS_DIR": EXAMPLES}
CASES = json.loads((EXAMPLES / "examples.json").read_text())


def test_every_handler_has_cases():
    assert {case["handler"] for case in CASES} == {path.stem for path in EXAMPLES.glob("*.js")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['handler']}: {case['name']}")
def test_example(server, case):
    # Without capabilities in the case the grants of the handler decide, as without them in a request.
    request = {key: case[key] for key in ("handler", "args", "state", "scope", "capabilities") if key in case}
    result = server.post(request).json()
    expected = case["expect"]
    if "error" in expected:
        assert result["status"] == "error"
        assert {key: result["error"][key] for key in expected["error"]} == expected["error"]
    else:
        assert result["status"] == "success", result["error"]
    for key in expected.keys() - {"error"}:
        assert result[key] == expected[key]


@pytest.mark.parametrize("case", [case for case in CASES if "returnValue" in case["expect"] and
                                  not case.keys() & {"state", "scope", "capabilities"}],
                         ids=lambda case: f"{case['handler']}: {case['name']}")
def test_example_as_webhook(server, case):
    reply = server.run(case["handler"], json.dumps(case["args"]))
    assert (reply.status, reply.json()) == (200, case["expect"]["returnValue"])
