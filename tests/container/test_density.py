# SPDX-License-Identifier: Apache-2.0
"""Executions that wait are cheap, by the kernel's count. Suspended ones: a tenth of bench/density.py, in a tenth of its memory. All of it:
NEXUS_TEST_DENSITY=full (half a minute or more), or bench/density.py itself.
"""
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import density  # noqa: E402
import sleepers  # noqa: E402

NEXUS = os.environ.get("NEXUS", str(ROOT / "build" / "nexus"))
SANITIZED = b"__asan_init" in pathlib.Path(NEXUS).read_bytes()
pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer's memory is not the server's")

COUNT, LIMIT = (250_000, 1 << 30) if os.environ.get("NEXUS_TEST_DENSITY") == "full" else (25_000, 104 << 20)


def test_suspended_executions_take_three_kib_each_and_are_resumed_rightly():
    try:
        figures = density.measure(NEXUS, COUNT, LIMIT, 1000)
    except density.Unavailable as reason:
        pytest.skip(str(reason))
    assert figures["pss_kib_each"] <= 3, figures
    assert figures["group_kib_each"] <= 3, figures


def test_a_thousand_handlers_sleep_and_nobody_is_refused():
    try:
        figures = sleepers.measure(NEXUS, 1000, 512 << 20, 3)
    except density.Unavailable as reason:
        pytest.skip(str(reason))
    assert set(figures["answers"]) == {"200"} and figures["answers"]["200"] >= 1000, figures
    assert figures["cart_failures"] == figures["oom_kills"] == 0, figures
    assert sum(figures["threads"].values()) < 20, figures
    assert figures["group_kib_each"] <= 32, figures
